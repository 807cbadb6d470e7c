package ws

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// heap returns the bytes of the heap that are in use.
func heap() int64 {
	runtime.GC()
	runtime.GC() // what pools hold goes with the second one
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

func TestHalfSentFramesClaimNoMemory(t *testing.T) {
	onAll(t, func(t *testing.T, opts Options) {
		opts.MaxMessageBytes = -1
		s, addr := start(t, opts, handled(&echo{}))
		const n = 200
		var all []*peer
		for range n {
			all = append(all, connect(t, addr))
		}
		eventually(t, func() bool { return s.Stats().Connections == n })
		before := heap()
		half := append(lengthForm(127, 1<<29), []byte("a few bytes of a message that never comes")...)
		for _, p := range all {
			p.send(raw(opText, []byte("fragment")), raw(finBit|opPing, []byte("!")), raw(finBit|opContinuation, nil))
			p.expect(opPong, "!")
			p.expect(opText, "fragment")
			p.send(raw(finBit|opPing, nil), half)
			p.expect(opPong, "")
		}
		if grown := heap() - before; grown > n*2048 {
			t.Errorf("%d half-sent messages of 512 MiB hold %d bytes", n, grown)
		}
		runtime.KeepAlive(all)
	})
}

func TestStalledReadersStayWithinTheirBound(t *testing.T) {
	onAll(t, func(t *testing.T, opts Options) {
		for _, drop := range []bool{false, true} {
			t.Run(fmt.Sprintf("drop=%v", drop), func(t *testing.T) { testStalledReaders(t, opts, drop) })
		}
	})
}

func testStalledReaders(t *testing.T, opts Options, drop bool) {
	n, bound := 1000, 192<<10
	if overTLS(t) { // whose handshakes take long, and which has a record in its hands
		n, bound = 50, 512<<10
	}
	opts.MaxQueuedBytes, opts.DropSlow = bound, drop
	opts.MaxQueueAge = time.Hour
	var mu sync.Mutex
	var conns []*Conn
	s, addr := startTight(t, opts, handled(&echo{open: func(c *Conn) {
		mu.Lock()
		defer mu.Unlock()
		conns = append(conns, c)
	}}))
	var clients []*peer
	for range n {
		p := connect(t, addr)
		_ = tcp(p.Conn).SetReadBuffer(4 << 10)
		clients = append(clients, p)
	}
	eventually(t, func() bool { return s.Stats().Connections == n })
	before := heap()
	for range bound / (3 << 10) { // a third more than it holds, every frame with memory of its own
		for _, c := range conns {
			c.Send(TextFrame(make([]byte, 4<<10-4)))
			if q := c.QueuedBytes(); q > bound+200 { // and the close frame
				t.Fatalf("%d bytes are queued", q)
			}
		}
	}
	st := s.Stats()
	if queued := st.WaitingBytes + st.StuckBytes; queued > int64(n*bound*11/10) {
		t.Errorf("%d bytes are booked, want at most %d", queued, n*bound*11/10)
	}
	if grown := heap() - before; grown > int64(n*bound*11/10) {
		t.Errorf("the heap grew by %d bytes, want at most %d", grown, n*bound*11/10)
	}
	switch {
	case drop && (st.Dropped == 0 || st.Slow != 0):
		t.Errorf("drop policy: %+v", st)
	case !drop && (st.Dropped != 0 || st.Slow == 0):
		t.Errorf("close policy: %+v", st)
	}
	runtime.KeepAlive(clients)
}

// Small frames are bounded by their number: each costs more than its bytes.
func TestFramesThatWaitAreBoundedByNumber(t *testing.T) {
	onAll(t, func(t *testing.T, opts Options) {
		const most, bytes = 16, 64 << 10 // one may be the answer to the upgrade
		opts.MaxQueuedFrames, opts.MaxQueuedBytes, opts.CloseTimeout = most, 1<<40, 100*time.Millisecond
		conns := make(chan *Conn, 1)
		s, addr := startTight(t, opts, handled(&echo{open: func(c *Conn) { conns <- c }}))
		connect(t, addr)
		c := <-conns
		f := TextFrame(make([]byte, bytes))
		taken := 0
		for c.Send(f) {
			if taken++; taken > 1000 {
				t.Fatal("it takes more than the sockets can hold")
			}
		}
		if st := s.Stats(); taken < most-1 || st.Slow != 1 {
			t.Errorf("%d frames taken, stats %+v", taken, st)
		}
	})
}

// A frame that is larger than the bound alone, such as the list of a large
// presence channel, reaches a client that reads; one that does not gets no
// second one.
func TestFrameLargerThanTheBoundIsTakenOnce(t *testing.T) {
	onAll(t, func(t *testing.T, opts Options) {
		for _, drop := range []bool{false, true} {
			t.Run(fmt.Sprintf("drop=%v", drop), func(t *testing.T) {
				opts := opts
				opts.MaxQueuedBytes, opts.DropSlow, opts.CloseTimeout = 64<<10, drop, 100*time.Millisecond
				conns := make(chan *Conn, 1)
				s, addr := startTight(t, opts, handled(&echo{open: func(c *Conn) { conns <- c }}))
				p := connect(t, addr)
				c := <-conns
				huge := TextFrame([]byte(long(200 << 10)))
				for range 3 {
					for _, f := range []*Frame{TextFrame([]byte("before")), huge, TextFrame([]byte("after"))} {
						if !c.Send(f) {
							t.Fatalf("a frame of %d bytes was refused", f.Size())
						}
					}
					p.expect(opText, "before")
					p.expect(opText, string(huge.Payload()))
					p.expect(opText, "after")
					eventually(t, func() bool { return c.QueuedBytes() == 0 })
				}
				huge = TextFrame(make([]byte, 8<<20)) // more than the kernel takes
				if !c.Send(huge) || c.Send(huge) {
					t.Error("the bound is not that of one such frame")
				}
				if st := s.Stats(); drop != (st.Dropped == 1) || drop == (st.Slow == 1) {
					t.Errorf("stats %+v", st)
				}
			})
		}
	})
}

func TestSlowClientGetsWholeFramesAndThenTheReason(t *testing.T) {
	onAll(t, func(t *testing.T, opts Options) {
		opts.MaxQueuedBytes = 100 << 10
		opts.SlowReason = "too slow"
		conns := make(chan *Conn, 1)
		left := make(chan struct{}, 10)
		h := &echo{open: func(c *Conn) { conns <- c }, closed: make(chan error, 1), leave: func() { left <- struct{}{} }}
		s, addr := startTight(t, opts, handled(h))
		p := connect(t, addr)
		c := <-conns
		f := TextFrame([]byte(long(10_000)))
		for c.Send(f) {
		}
		if st := s.Stats(); st.Slow != 1 {
			t.Fatalf("stats %+v", st)
		}
		// The stream transport has a batch in its hands that it cannot take back.
		if opts.ForceStream {
			if n := c.QueuedBytes(); n > opts.MaxQueuedBytes+200 {
				t.Errorf("%d bytes stay queued", n)
			}
		} else {
			eventually(t, func() bool { return c.QueuedBytes() <= 2*f.Size() })
		}
		<-left // before the client has read anything
		for {
			f, err := p.next()
			if err != nil {
				t.Fatal(err)
			}
			if f.opcode == opClose {
				if code := binary.BigEndian.Uint16([]byte(f.payload)); code != 4100 || f.payload[2:] != "too slow" {
					t.Errorf("close %d %q", code, f.payload[2:])
				}
				break
			}
			if f.payload != long(10_000) {
				t.Fatalf("a broken frame of %d bytes: %.40q", len(f.payload), f.payload)
			}
		}
		p.send(raw(finBit|opClose, closeBody(4100, "")))
		if err := waitClosed(t, h.closed); !errors.Is(err, ErrSlow) {
			t.Errorf("err = %v", err)
		}
		if len(left) > 0 {
			t.Error("Leave was called again")
		}
	})
}

func TestPingFloodFromAClientThatDoesNotReadEnds(t *testing.T) {
	onAll(t, func(t *testing.T, opts Options) {
		opts.MaxQueuedBytes = 64 << 10
		opts.CloseTimeout = 200 * time.Millisecond
		h := &echo{closed: make(chan error, 1)}
		_, addr := startTight(t, opts, handled(h))
		p := connect(t, addr)
		flood := bytes.Repeat(raw(finBit|opPing, []byte(long(125))), 100)
		for {
			if _, err := p.Write(flood); err != nil {
				break
			}
		}
		if err := waitClosed(t, h.closed); !errors.Is(err, ErrSlow) {
			t.Errorf("err = %v", err)
		}
	})
}

func TestFloodDoesNotStopOthers(t *testing.T) {
	onAll(t, func(t *testing.T, opts Options) {
		var seen atomic.Int64
		_, addr := start(t, opts, handled(&echo{on: func(c *Conn, payload []byte) {
			if len(payload) == 0 {
				seen.Add(1)
				return
			}
			c.Send(TextFrame(payload))
		}}))
		var wg sync.WaitGroup
		var over atomic.Bool
		for range 4 {
			p := connect(t, addr)
			wg.Go(func() {
				flood := bytes.Repeat(text(""), 5000)
				for !over.Load() {
					if _, err := p.Write(flood); err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
		q := connect(t, addr)
		eventually(t, func() bool { return seen.Load() > 2000 })
		for i := range 50 {
			q.send(text(fmt.Sprint(i)))
			q.expect(opText, fmt.Sprint(i))
		}
		over.Store(true)
		wg.Wait()
	})
}

func TestUpgradesThatWaitTooManyAreTurnedAway(t *testing.T) {
	onBoth(t, func(t *testing.T, opts Options) {
		opts.MaxHandshakes = 2
		release := make(chan struct{})
		var asked atomic.Int32
		_, addr := start(t, opts, func(r *http.Request) (Handler, *Refusal) {
			asked.Add(1)
			select {
			case <-release:
			case <-r.Context().Done():
			}
			return &echo{}, nil
		})
		var waiting []*peer
		for range 2 {
			p := dialRaw(t, addr)
			p.request(upgradeRequest)
			waiting = append(waiting, p)
		}
		eventually(t, func() bool { return asked.Load() == 2 })
		p := dialRaw(t, addr)
		p.request(upgradeRequest)
		if resp := p.response(); resp.StatusCode != 503 || resp.Header.Get("Retry-After") == "" {
			t.Errorf("%s, Retry-After %q", resp.Status, resp.Header.Get("Retry-After"))
		}
		q := dialRaw(t, addr) // the API has room all the same
		q.request("GET /a HTTP/1.1\r\nHost: x\r\n\r\n")
		if resp := q.response(); resp.StatusCode != 200 {
			t.Error(resp.Status)
		}
		close(release)
		for _, p := range waiting {
			if resp := p.response(); resp.StatusCode != 101 {
				t.Error(resp.Status)
			}
		}
	})
}

// A panicker panics in one callback.
type panicker struct {
	where  string
	closed chan error
}

func (h *panicker) in(where string) {
	if h.where == where {
		panic("in " + where)
	}
}

func (h *panicker) Open(c *Conn) {
	c.WakeAt(time.Now())
	h.in("Open")
}

func (h *panicker) Message(c *Conn, _ []byte) {
	c.Await(func() { h.in("Await") })
	h.in("Message")
}

func (h *panicker) Wake(*Conn, time.Time) { h.in("Wake") }

func (h *panicker) Closed(_ *Conn, err error) {
	h.closed <- err
	h.in("Closed")
}

func TestPanicsAreLoggedAndEndOnlyTheirConnection(t *testing.T) {
	onAll(t, func(t *testing.T, opts Options) {
		for _, where := range []string{"Open", "Message", "Await", "Wake", "Closed"} {
			t.Run(where, func(t *testing.T) {
				var log syncBuffer
				opts := opts
				opts.Log = slog.New(slog.NewTextHandler(&log, nil))
				h := &panicker{where: where, closed: make(chan error, 1)}
				_, addr := start(t, opts, func(r *http.Request) (Handler, *Refusal) {
					if r.URL.Path == "/other" {
						return &echo{}, nil
					}
					return h, nil
				})
				p := connect(t, addr)
				p.send(text("x"))
				if where == "Closed" {
					p.send(raw(finBit|opClose, nil))
					p.expectClose(0)
				} else {
					p.expectClose(1011)
				}
				waitClosed(t, h.closed)
				eventually(t, func() bool {
					return strings.Contains(log.String(), "in "+where) && strings.Contains(log.String(), "hardening_test.go")
				})
				q := dialRaw(t, addr)
				q.request(strings.Replace(upgradeRequest, "/", "/other", 1))
				q.response()
				q.send(text("fine"))
				q.expect(opText, "fine")
			})
		}
	})
}

func TestPanicInAcceptCostsOneClient(t *testing.T) {
	onAll(t, func(t *testing.T, opts Options) {
		var log syncBuffer
		opts.Log = slog.New(slog.NewTextHandler(&log, nil))
		s, addr := start(t, opts, func(r *http.Request) (Handler, *Refusal) {
			if r.URL.Path == "/boom" {
				panic("in Accept")
			}
			return &echo{}, nil
		})
		p := dialRaw(t, addr)
		p.request(strings.Replace(upgradeRequest, "/", "/boom", 1))
		if resp := p.response(); resp.StatusCode != 500 {
			t.Error(resp.Status)
		}
		if text := log.String(); !strings.Contains(text, "in Accept") || !strings.Contains(text, "hardening_test.go") {
			t.Errorf("log: %s", text)
		}
		q := connect(t, addr)
		q.send(text("fine"))
		q.expect(opText, "fine")
		if st := s.Stats(); st.Handshakes != 0 {
			t.Errorf("stats %+v", st)
		}
	})
}

// What came behind a message that waited is paid for as well.
func TestFloodBehindAnAwaitIsMetered(t *testing.T) {
	onAll(t, func(t *testing.T, opts Options) {
		conns := make(chan *Conn, 1)
		_, addr := start(t, opts, handled(&echo{
			open: func(c *Conn) { conns <- c },
			on:   func(c *Conn, _ []byte) { c.Await(func() {}) },
		}))
		p := connect(t, addr)
		const pings = 60 // which one read takes
		p.send(text("wait"), bytes.Repeat(raw(finBit|opPing, nil), pings))
		for range pings {
			p.expect(opPong, "")
		}
		c := <-conns
		c.turn.Lock()
		defer c.turn.Unlock()
		if c.meter.spent < pings {
			t.Errorf("%d pings cost %d", pings, c.meter.spent)
		}
	})
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func TestPublisherWaitsForRoom(t *testing.T) {
	onAll(t, func(t *testing.T, opts Options) {
		opts.MaxWaitingBytes = 1 << 20
		conns := make(chan *Conn, 1)
		s, addr := start(t, opts, handled(&echo{open: func(c *Conn) { conns <- c }}))
		p := connect(t, addr)
		c := <-conns
		f := TextFrame([]byte(long(1000)))
		const n = 5000
		go func() {
			for range n {
				if err := s.Room(t.Context(), deadline); err != nil {
					t.Error(err)
				}
				for s.Stats().StuckBytes > 0 { // a full socket is the client's affair, not Room's
					runtime.Gosched()
				}
				if !c.Send(f) {
					t.Error("a reader that keeps up was refused a frame")
					return
				}
			}
		}()
		for range n {
			p.expect(opText, long(1000))
		}
	})
}

func TestAPIConnectionsArePassedOn(t *testing.T) {
	onBoth(t, func(t *testing.T, opts Options) {
		_, addr := start(t, opts, handled(&echo{}))
		client := &http.Client{Transport: &http.Transport{}}
		defer client.CloseIdleConnections()
		body := strings.Repeat("0123456789", 50_000)
		for range 3 { // of which the last two are not the first on their connection
			resp, err := client.Post("http://"+addr+"/big", "text/plain", strings.NewReader(body))
			if err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(resp.Body)
			_ = resp.Body.Close()
			if err != nil || string(got) != "api /big "+body {
				t.Fatalf("%d bytes, %v", len(got), err)
			}
		}
	})
}

func TestSilentAPIConnectionObeysDeadlines(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	nc, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	q := quietly(nc)
	_ = q.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
	_, err = q.Read(make([]byte, 1))
	if ne, ok := errors.AsType[net.Error](err); !ok || !ne.Timeout() {
		t.Errorf("err = %v, want a timeout", err)
	}
	_ = q.SetReadDeadline(time.Time{})
	done := make(chan error)
	go func() { _, err := q.Read(make([]byte, 1)); done <- err }()
	_ = q.Close()
	if err := <-done; !errors.Is(err, net.ErrClosed) {
		t.Errorf("err = %v, want net.ErrClosed", err)
	}
}
