package ws

import (
	"bufio"
	"context"
	"errors"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// A pipeListener makes connections without sockets, whose time is the bubble's.
type pipeListener struct {
	conns chan net.Conn
	done  chan struct{}
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case nc := <-l.conns:
		return nc, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error {
	select {
	case <-l.done:
	default:
		close(l.done)
	}
	return nil
}

func (l *pipeListener) Addr() net.Addr { return &net.UnixAddr{Name: "pipe", Net: "pipe"} }

// inBubble runs a test against a server whose connections are pipes. What is
// written to a pipe waits until it is read: there is no kernel buffer. h.closed
// is made here, because channels belong to bubbles.
func inBubble(t *testing.T, opts Options, h *echo, test func(t *testing.T, s *Server, dial func() net.Conn)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		opts.ForceStream = true
		h.closed = make(chan error, 10)
		s := NewServer(handled(h), opts)
		ln := &pipeListener{conns: make(chan net.Conn), done: make(chan struct{})}
		api := &http.Server{}
		served := make(chan error)
		go func() { served <- s.Serve(ln, api) }()
		test(t, s, func() net.Conn {
			client, server := net.Pipe()
			ln.conns <- server
			return client
		})
		if err := s.Shutdown(t.Context()); err != nil {
			t.Errorf("shutdown: %v", err)
		}
		if err := <-served; !errors.Is(err, net.ErrClosed) {
			t.Errorf("Serve returned %v", err)
		}
	})
}

const upgradeRequest = "GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"

func upgraded(t *testing.T, nc net.Conn) *peer {
	t.Helper()
	p := &peer{Conn: nc, t: t, br: bufio.NewReader(nc)}
	p.request(upgradeRequest)
	if resp := p.response(); resp.StatusCode != 101 {
		t.Fatal(resp.Status)
	}
	return p
}

func TestWakeComesAtTheMomentOrALittleLater(t *testing.T) {
	for _, after := range []time.Duration{time.Millisecond, time.Second, 120 * time.Second, time.Hour} {
		var asked, woken time.Time
		times := 0
		h := &echo{
			open: func(c *Conn) { asked = time.Now().Add(after); c.WakeAt(asked) },
			wake: func(_ *Conn, now time.Time) { woken = now; times++ },
		}
		inBubble(t, Options{}, h, func(t *testing.T, _ *Server, dial func() net.Conn) {
			p := upgraded(t, dial())
			time.Sleep(after + time.Hour)
			synctest.Wait()
			if late := woken.Sub(asked); times != 1 || late < 0 || late > 250*time.Millisecond {
				t.Errorf("asked for %v: woken %d times, %v late, want once and at most 250ms late", after, times, late)
			}
			_ = p.Close()
		})
	}
}

func TestWakeWishesReplaceEachOther(t *testing.T) {
	var conn *Conn
	var woken []time.Time
	h := &echo{
		open: func(c *Conn) { conn = c },
		wake: func(_ *Conn, now time.Time) { woken = append(woken, now) },
	}
	inBubble(t, Options{}, h, func(t *testing.T, _ *Server, dial func() net.Conn) {
		p := upgraded(t, dial())
		synctest.Wait()
		start := time.Now()
		conn.WakeAt(start.Add(time.Minute))
		conn.WakeAt(start.Add(10 * time.Second)) // earlier
		time.Sleep(20 * time.Second)
		conn.WakeAt(start.Add(30 * time.Second))
		conn.WakeAt(start.Add(2 * time.Minute)) // later
		time.Sleep(5 * time.Minute)
		conn.WakeAt(time.Now().Add(time.Second))
		conn.WakeAt(time.Time{}) // none
		time.Sleep(time.Minute)
		synctest.Wait()
		if len(woken) != 2 {
			t.Fatalf("woken at %v, want twice", woken)
		}
		for i, want := range []time.Duration{10 * time.Second, 2 * time.Minute} {
			if late := woken[i].Sub(start) - want; late < 0 || late > 250*time.Millisecond {
				t.Errorf("wake %d is %v late", i, late)
			}
		}
		_ = p.Close()
	})
}

func TestWakeThatComesDuringAnAwaitIsCalledAfterIt(t *testing.T) {
	var order []string
	h := &echo{
		on: func(c *Conn, _ []byte) {
			c.WakeAt(time.Now().Add(time.Second))
			c.Await(func() {
				time.Sleep(10 * time.Second)
				order = append(order, "awaited")
			})
		},
		wake: func(*Conn, time.Time) { order = append(order, "woken") },
	}
	inBubble(t, Options{}, h, func(t *testing.T, _ *Server, dial func() net.Conn) {
		p := upgraded(t, dial())
		p.send(text("x"))
		time.Sleep(time.Minute)
		synctest.Wait()
		if len(order) != 2 || order[0] != "awaited" || order[1] != "woken" {
			t.Errorf("order %v", order)
		}
		_ = p.Close()
	})
}

func TestLastReadIsNotBeforeTheWakeThatCameFirst(t *testing.T) {
	var wake time.Time
	var conn *Conn
	h := &echo{
		open: func(c *Conn) { conn = c; c.WakeAt(time.Now().Add(time.Second)) },
		wake: func(c *Conn, now time.Time) { wake = now; c.Ping(nil) },
	}
	inBubble(t, Options{}, h, func(t *testing.T, _ *Server, dial func() net.Conn) {
		p := upgraded(t, dial())
		p.expect(opPing, "")
		time.Sleep(time.Nanosecond)
		p.send(raw(finBit|opPong, nil))
		synctest.Wait()
		if !conn.LastRead().After(wake) {
			t.Errorf("the pong was read at %v, the ping sent at %v", conn.LastRead(), wake)
		}
		_ = p.Close()
	})
}

func TestUnansweredCloseIsCutAfterTheTimeout(t *testing.T) {
	var closed time.Time
	var began time.Time
	h := &echo{
		on: func(c *Conn, _ []byte) { began = time.Now(); c.Close(1000, "") },
	}
	inBubble(t, Options{CloseTimeout: 5 * time.Second}, h, func(t *testing.T, _ *Server, dial func() net.Conn) {
		p := upgraded(t, dial())
		p.send(text("x"))
		p.expect(opClose, "\x03\xe8")
		if err := <-h.closed; !errors.Is(err, ErrClosed) {
			t.Errorf("err = %v", err)
		}
		closed = time.Now()
		if d := closed.Sub(began); d < 5*time.Second || d > 5*time.Second+250*time.Millisecond {
			t.Errorf("cut after %v", d)
		}
		_ = p.Close()
	})
}

func TestClientThatStopsReadingIsClosedWhenTheQueueIsTooOld(t *testing.T) {
	var conn *Conn
	var left atomic.Int32
	h := &echo{open: func(c *Conn) { conn = c }, leave: func() { left.Add(1) }}
	inBubble(t, Options{}, h, func(t *testing.T, s *Server, dial func() net.Conn) {
		p := upgraded(t, dial())
		synctest.Wait()
		start := time.Now()
		conn.Send(TextFrame([]byte("never read")))
		time.Sleep(9 * time.Second)
		if left.Load() != 0 {
			t.Error("given up before its time")
		}
		time.Sleep(1500 * time.Millisecond)
		if left.Load() != 1 || conn.Send(TextFrame(nil)) {
			t.Errorf("after 10.5 s: Leave called %d times", left.Load())
		}
		if err := <-h.closed; !errors.Is(err, ErrSlow) {
			t.Errorf("err = %v", err)
		}
		if d := time.Since(start); d > 16*time.Second {
			t.Errorf("closed after %v", d)
		}
		if st := s.Stats(); st.Slow != 1 || st.StuckBytes != 0 || st.WaitingBytes != 0 || left.Load() != 1 {
			t.Errorf("stats %+v, Leave called %d times", st, left.Load())
		}
		_ = p.Close()
	})
}

func TestClientThatLagsButReadsStays(t *testing.T) {
	var conn *Conn
	h := &echo{open: func(c *Conn) { conn = c }}
	inBubble(t, Options{}, h, func(t *testing.T, s *Server, dial func() net.Conn) {
		p := upgraded(t, dial())
		synctest.Wait()
		conn.Send(TextFrame([]byte("first")))
		for range 100 { // never empty, but nothing waits for 10 s
			conn.Send(TextFrame([]byte("next")))
			time.Sleep(3 * time.Second)
			if _, err := p.next(); err != nil {
				t.Fatal(err)
			}
		}
		if st := s.Stats(); st.Slow != 0 || st.Connections != 1 {
			t.Errorf("stats %+v", st)
		}
		_ = p.Close()
	})
}

func TestDropPolicyKeepsTheConnectionAndTheBound(t *testing.T) {
	var conn *Conn
	h := &echo{open: func(c *Conn) { conn = c }}
	opts := Options{DropSlow: true, MaxQueuedBytes: 1000, CloseTimeout: time.Second}
	inBubble(t, opts, h, func(t *testing.T, s *Server, dial func() net.Conn) {
		p := upgraded(t, dial())
		synctest.Wait()
		f := TextFrame([]byte(long(98))) // 100 bytes on the wire
		sent := 0
		for range 25 {
			if conn.Send(f) {
				sent++
			}
		}
		if sent != 10 || conn.QueuedBytes() != 1000 {
			t.Errorf("%d frames and %d bytes queued, want 10 and 1000", sent, conn.QueuedBytes())
		}
		time.Sleep(time.Minute) // too old: what is not being written is dropped as well
		if n := conn.QueuedBytes(); n > 1000 {
			t.Errorf("%d bytes queued", n)
		}
		p.expect(opText, long(98)) // the rest of what was being written is intact
		conn.Send(TextFrame([]byte("later")))
		for f, err := p.next(); f.payload != "later"; f, err = p.next() {
			if err != nil || f.payload != long(98) {
				t.Fatalf("%+v, %v", f, err)
			}
		}
		if st := s.Stats(); st.Connections != 1 || st.Dropped < 15 || st.Slow != 0 {
			t.Errorf("stats %+v", st)
		}
		_ = p.Close()
	})
}

func TestSlowHandshakeIsCut(t *testing.T) {
	inBubble(t, Options{HandshakeTimeout: 10 * time.Second}, &echo{}, func(t *testing.T, s *Server, dial func() net.Conn) {
		start := time.Now()
		nc := dial()
		for i := range upgradeRequest {
			if _, err := nc.Write([]byte{upgradeRequest[i]}); err != nil {
				break
			}
			time.Sleep(time.Second)
		}
		if d := time.Since(start); d < 10*time.Second || d > 12*time.Second {
			t.Errorf("cut after %v", d)
		}
		silent := dial()
		start = time.Now()
		if _, err := silent.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("err = %v", err)
		}
		if d := time.Since(start); d != 10*time.Second {
			t.Errorf("a silent connection was cut after %v", d)
		}
		if st := s.Stats(); st.Handshakes != 0 {
			t.Errorf("stats %+v", st)
		}
	})
}

func TestOldestHandshakeGivesWay(t *testing.T) {
	inBubble(t, Options{MaxHandshakes: 3}, &echo{}, func(t *testing.T, s *Server, dial func() net.Conn) {
		var all []net.Conn
		for range 3 {
			nc := dial()
			synctest.Wait()
			all = append(all, nc)
		}
		p := upgraded(t, dial()) // an honest client is served all the same
		if _, err := all[0].Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("the oldest handshake: %v", err)
		}
		if st := s.Stats(); st.Handshakes != 2 || st.Crowded != 1 || st.Connections != 1 {
			t.Errorf("stats %+v", st)
		}
		for _, nc := range all {
			_ = nc.Close()
		}
		_ = p.Close()
	})
}

func TestShutdownEndsWithItsContext(t *testing.T) {
	h := &echo{}
	inBubble(t, Options{CloseTimeout: time.Hour}, h, func(t *testing.T, s *Server, dial func() net.Conn) {
		p := upgraded(t, dial())
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		start := time.Now()
		if err := s.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("err = %v", err)
		}
		if d := time.Since(start); d > 5*time.Second {
			t.Errorf("Shutdown took %v", d)
		}
		<-h.closed
		_ = p.Close()
	})
}

// A server that is stopped before it serves leaves nothing open: a Unix socket
// would stay behind as a file.
func TestServeAfterShutdownClosesTheListener(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s.sock")
	ln, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	s := NewServer(handled(&echo{}), Options{})
	if err := s.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := s.Serve(ln, &http.Server{}); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Serve: %v, want net.ErrClosed", err)
	}
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the socket was left behind: %v", err)
	}
}
