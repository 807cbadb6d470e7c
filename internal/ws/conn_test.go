package ws

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func TestUpgradeRequestsAreChecked(t *testing.T) {
	const good = "GET /x HTTP/1.1\r\nHost: x\r\nUpgrade: WebSocket\r\nConnection: keep-alive, Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: chat\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n"
	cases := []struct {
		name, request string
		status        int
	}{
		{"good", good, 101},
		{"no version", strings.Replace(good, "Sec-WebSocket-Version: 13\r\n", "", 1), 426},
		{"version 8", strings.Replace(good, "Version: 13", "Version: 8", 1), 426},
		{"no key", strings.Replace(good, "Sec-WebSocket-Key", "X", 1), 400},
		{"short key", strings.Replace(good, "dGhlIHNhbXBsZSBub25jZQ==", "dGhl", 1), 400},
		{"no connection header", strings.Replace(good, "Connection: keep-alive, Upgrade\r\n", "", 1), 400},
		{"POST", strings.Replace(good, "GET", "POST", 1), 400},
		{"HTTP/1.0", strings.Replace(good, "HTTP/1.1", "HTTP/1.0", 1), 400},
		{"refused", strings.Replace(good, "/x", "/refuse", 1), 503},
		{"not an upgrade", "GET /plain HTTP/1.1\r\nHost: x\r\n\r\n", 200},
		{"large header", "GET /x HTTP/1.1\r\nX: " + long(20000) + "\r\n\r\n", 431},
	}
	onBoth(t, func(t *testing.T, opts Options) {
		_, addr := start(t, opts, func(r *http.Request) (Handler, *Refusal) {
			if r.URL.Path == "/refuse" {
				return nil, &Refusal{Status: 503, Header: http.Header{"Retry-After": {"1"}}, Body: "later"}
			}
			return &echo{}, nil
		})
		for _, c := range cases {
			t.Run(c.name, func(t *testing.T) {
				p := dialRaw(t, addr)
				p.request(c.request)
				resp := p.response()
				if resp.StatusCode != c.status {
					t.Fatalf("status %s, want %d", resp.Status, c.status)
				}
				for _, name := range []string{"Sec-Websocket-Protocol", "Sec-Websocket-Extensions"} {
					if v := resp.Header.Get(name); v != "" {
						t.Errorf("%s: %s was agreed on", name, v)
					}
				}
				if c.status == 426 && resp.Header.Get("Sec-Websocket-Version") != "13" {
					t.Error("426 does not say which version is needed")
				}
			})
		}
	})
}

func TestLaterUpgradeOnAKeptAliveConnectionWorks(t *testing.T) {
	onBoth(t, func(t *testing.T, opts Options) {
		_, addr := start(t, opts, handled(&echo{}))
		p := dialRaw(t, addr)
		p.request("POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi")
		resp := p.response()
		body := make([]byte, 9)
		if _, err := resp.Body.Read(body); err != nil && body[0] == 0 {
			t.Fatal(err)
		}
		if got := string(bytes.TrimRight(body, "\x00")); got != "api /a hi" {
			t.Fatalf("answer %q", got)
		}
		p.request("GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
		if resp := p.response(); resp.StatusCode != 101 {
			t.Fatal(resp.Status)
		}
		p.send(text("still here"))
		p.expect(opText, "still here")
	})
}

func TestFramesBehindTheRequestAreNotLost(t *testing.T) {
	onBoth(t, func(t *testing.T, opts Options) {
		_, addr := start(t, opts, handled(&echo{open: func(c *Conn) { c.Send(TextFrame([]byte("first"))) }}))
		p := dialRaw(t, addr)
		p.request("GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n" + string(text("early")))
		p.response()
		p.expect(opText, "first")
		p.expect(opText, "early")
	})
}

func TestCloseSendsWhatIsQueuedFirst(t *testing.T) {
	onAll(t, func(t *testing.T, opts Options) {
		h := &echo{closed: make(chan error, 1), on: func(c *Conn, _ []byte) {
			for i := range 100 {
				c.Send(TextFrame(fmt.Append(nil, i)))
			}
			c.Close(4200, strings.Repeat("é", 100))
			if c.Send(TextFrame([]byte("late"))) {
				t.Error("a frame was accepted after Close")
			}
		}}
		_, addr := start(t, opts, handled(h))
		p := connect(t, addr)
		p.send(text("go"))
		for i := range 100 {
			p.expect(opText, fmt.Sprint(i))
		}
		if reason := p.expectClose(4200); reason != strings.Repeat("é", 61) {
			t.Errorf("reason %q (%d bytes)", reason, len(reason))
		}
		p.gone()
		if err := waitClosed(t, h.closed); !errors.Is(err, ErrClosed) {
			t.Errorf("err = %v", err)
		}
	})
}

func TestNothingComesBetweenTheLastFrameAndTheClose(t *testing.T) {
	onAll(t, func(t *testing.T, opts Options) {
		opts.MaxQueuedBytes, opts.MaxQueuedFrames = 1<<30, 1<<30
		conns := make(chan *Conn, 1)
		_, addr := start(t, opts, handled(&echo{open: func(c *Conn) { conns <- c }}))
		for range 50 {
			p := connect(t, addr)
			c := <-conns
			var wg sync.WaitGroup
			for range 2 {
				wg.Go(func() {
					for c.Send(TextFrame([]byte("news"))) {
					}
				})
			}
			var closes atomic.Int32
			for i := range 2 {
				wg.Go(func() {
					if c.CloseAfter(TextFrame(fmt.Append(nil, 4001+i)), uint16(4001+i), "") {
						closes.Add(1)
					}
				})
			}
			last := ""
			for {
				f, err := p.next()
				if err != nil {
					t.Fatal(err)
				}
				if f.opcode == opClose {
					if code := fmt.Sprint(binary.BigEndian.Uint16([]byte(f.payload))); code != last {
						t.Fatalf("close %s after %q", code, last)
					}
					break
				}
				last = f.payload
			}
			p.send(raw(finBit|opClose, nil))
			wg.Wait()
			if n := closes.Load(); n != 1 {
				t.Fatalf("%d closes took place", n)
			}
		}
	})
}

func TestPeerThatDoesNotAnswerACloseIsCut(t *testing.T) {
	onAll(t, func(t *testing.T, opts Options) {
		opts.CloseTimeout = 100 * time.Millisecond
		h := &echo{closed: make(chan error, 1), on: func(c *Conn, _ []byte) { c.Close(1000, "") }}
		_, addr := start(t, opts, handled(h))
		p := connect(t, addr)
		p.send(text("go"))
		p.expect(opClose, "\x03\xe8")
		p.gone()
		waitClosed(t, h.closed)
	})
}

func TestAbruptEndIsNoticed(t *testing.T) {
	onAll(t, func(t *testing.T, opts Options) {
		h := &echo{closed: make(chan error, 1)}
		_, addr := start(t, opts, handled(h))
		p := connect(t, addr)
		p.send(text("half a frame")[:5])
		_ = tcp(p.Conn).SetLinger(0)
		_ = p.Close()
		waitClosed(t, h.closed)
	})
}

func TestAwaitKeepsTheOrderAndStopsReading(t *testing.T) {
	onAll(t, func(t *testing.T, opts Options) {
		var busy atomic.Bool
		release := make(chan struct{})
		h := &echo{on: func(c *Conn, payload []byte) {
			if busy.Load() && string(payload) != "other" {
				t.Error("a callback ran while another one waited")
			}
			answer := TextFrame(payload)
			if string(payload) == "slow" {
				c.Await(func() {
					busy.Store(true)
					<-release
					busy.Store(false)
					c.Send(answer)
				})
				return
			}
			c.Send(answer)
		}}
		_, addr := start(t, opts, handled(h))
		p := connect(t, addr)
		p.send(text("slow"), text("a"), text("b"))
		q := connect(t, addr) // others are not held up
		q.send(text("other"))
		q.expect(opText, "other")
		p.send(text("c"))
		close(release)
		for _, want := range []string{"slow", "a", "b", "c"} {
			p.expect(opText, want)
		}
	})
}

func TestConnectionLostDuringAwaitIsClosedAfterIt(t *testing.T) {
	onAll(t, func(t *testing.T, opts Options) {
		began, release := make(chan struct{}), make(chan struct{})
		var done atomic.Bool
		h := &echo{closed: make(chan error, 1), on: func(c *Conn, _ []byte) {
			c.Await(func() {
				close(began)
				<-release
				done.Store(true)
			})
		}}
		_, addr := start(t, opts, handled(h))
		p := connect(t, addr)
		p.send(text("x"))
		<-began
		_ = p.Close()
		close(release)
		waitClosed(t, h.closed)
		if !done.Load() {
			t.Error("Closed was called before Await's function had returned")
		}
	})
}

func TestPanicCostsOneConnection(t *testing.T) {
	onAll(t, func(t *testing.T, opts Options) {
		h := &echo{on: func(c *Conn, payload []byte) {
			if string(payload) == "boom" {
				panic("boom")
			}
			c.Send(TextFrame(payload))
		}}
		_, addr := start(t, opts, handled(h))
		p, q := connect(t, addr), connect(t, addr)
		p.send(text("boom"))
		p.expectClose(1011)
		q.send(text("fine"))
		q.expect(opText, "fine")
	})
}

func TestWakeComesNotEarlyAndOnce(t *testing.T) {
	onAll(t, func(t *testing.T, opts Options) {
		const after = 120 * time.Millisecond
		began := make(chan time.Time, 1)
		woken := make(chan time.Time, 10)
		h := &echo{
			open: func(c *Conn) { now := time.Now(); c.WakeAt(now.Add(after)); began <- now },
			wake: func(_ *Conn, _ time.Time) { woken <- time.Now() },
		}
		_, addr := start(t, opts, handled(h))
		p := connect(t, addr)
		if d := (<-woken).Sub(<-began); d < after {
			t.Errorf("woken after %v, want at least %v", d, after)
		}
		p.send(raw(finBit|opPing, nil))
		p.expect(opPong, "")
		if len(woken) != 0 {
			t.Error("woken again")
		}
	})
}

func TestManySendersKeepTheirOrder(t *testing.T) {
	onAll(t, func(t *testing.T, opts Options) {
		conns := make(chan *Conn, 1)
		_, addr := start(t, opts, handled(&echo{open: func(c *Conn) { conns <- c }}))
		p := connect(t, addr)
		c := <-conns
		const senders, each = 4, 500
		var wg sync.WaitGroup
		for s := range senders {
			wg.Go(func() {
				for i := range each {
					if !c.Send(TextFrame(fmt.Appendf(nil, "%d %d", s, i))) {
						t.Error("not sent")
					}
				}
			})
		}
		last := [senders]int{}
		for range senders * each {
			f, err := p.next()
			if err != nil {
				t.Fatal(err)
			}
			var s, i int
			if _, err := fmt.Sscan(f.payload, &s, &i); err != nil {
				t.Fatal(err)
			}
			if i != last[s] {
				t.Fatalf("sender %d: message %d after %d", s, i, last[s]-1)
			}
			last[s]++
		}
		wg.Wait()
	})
}

func TestUnixSocketIsServed(t *testing.T) {
	onBoth(t, func(t *testing.T, opts Options) {
		path := t.TempDir() + "/s"
		ln, err := net.Listen("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		serveOn(t, NewServer(handled(&echo{}), opts), ln)
		c, err := Dial(context.Background(), "ws://localhost/", DialOptions{Network: "unix", Address: path})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if err := c.Write([]byte("hi")); err != nil {
			t.Fatal(err)
		}
		if got, err := c.Read(); err != nil || string(got) != "hi" {
			t.Fatalf("%q, %v", got, err)
		}
	})
}
