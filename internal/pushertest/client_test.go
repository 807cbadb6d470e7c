package pushertest

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/gobwas/ws"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const established = `{"event":"pusher:connection_established","data":"{\"socket_id\":\"1.2\",\"activity_timeout\":120}"}`

// A peer is the server's end of a connection, played by a test.
type peer struct {
	t    *testing.T
	conn net.Conn
	r    *bufio.Reader
	req  *http.Request
}

func (p *peer) send(f ws.Frame) {
	if err := ws.WriteFrame(p.conn, f); err != nil {
		p.t.Errorf("peer: %v", err)
	}
}

func (p *peer) text(s string) { p.send(ws.NewTextFrame([]byte(s))) }

// read returns the next frame of the client, unmasked.
func (p *peer) read() ws.Frame {
	f, err := readFrame(p.r)
	if err != nil {
		p.t.Errorf("peer: %v", err)
		return f
	}
	if !f.Header.Masked {
		p.t.Error("peer: the client sent an unmasked frame")
	}
	return ws.UnmaskFrameInPlace(f)
}

// serve plays one connection and returns the address.
func serve(t *testing.T, play func(p *peer)) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var done sync.WaitGroup
	done.Go(func() {
		conn, err := ln.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		p := &peer{t: t, conn: conn, r: bufio.NewReader(conn)}
		if p.req, err = http.ReadRequest(p.r); err != nil {
			t.Errorf("peer: %v", err)
			return
		}
		if _, err := (ws.Upgrader{}).Upgrade(struct {
			io.Reader
			io.Writer
		}{strings.NewReader(dump(p.req)), conn}); err != nil {
			t.Errorf("peer: %v", err)
			return
		}
		play(p)
	})
	t.Cleanup(func() {
		ln.Close()
		done.Wait()
	})
	return ln.Addr().String()
}

// dump writes a request as it came, for the upgrader.
func dump(r *http.Request) string {
	var b strings.Builder
	b.WriteString("GET " + r.RequestURI + " HTTP/1.1\r\nHost: " + r.Host + "\r\n")
	_ = r.Header.Write(&b)
	return b.String() + "\r\n"
}

// A recorder is a test that is expected to fail.
type recorder struct {
	testing.TB
	failed   bool
	cleanups []func()
}

func (r *recorder) Cleanup(f func()) { r.cleanups = append(r.cleanups, f) }

// end does what the end of the test does.
func (r *recorder) end() {
	for _, f := range r.cleanups {
		f()
	}
}

func (r *recorder) Error(...any) { r.failed = true }

func (r *recorder) Helper()               {}
func (r *recorder) Failed() bool          { return r.failed }
func (r *recorder) Errorf(string, ...any) { r.failed = true }
func (r *recorder) FailNow()              { r.failed = true; runtime.Goexit() }
func (r *recorder) Fatal(...any)          { r.FailNow() }
func (r *recorder) Fatalf(string, ...any) { r.FailNow() }

// fails runs check with a client whose failures are expected.
func fails(t *testing.T, c *Client, what string, check func()) {
	t.Helper()
	rec := &recorder{TB: t}
	c.t = rec
	var done sync.WaitGroup
	done.Go(check)
	done.Wait()
	if c.t = t; !rec.failed {
		t.Errorf("%s: did not fail", what)
	}
}

func TestClientTakesFramesInOrderAndNamesWhatIsWrong(t *testing.T) {
	addr := serve(t, func(p *peer) {
		if got, want := p.req.RequestURI, "/app/app-key?"+defaultQuery; got != want {
			t.Errorf("got %s, want %s", got, want)
		}
		p.text(established)
		p.text(`{"event":"a","channel":"x","data":"1"}`)
		p.text(`{"event":"b","channel":"x","data":"2"}`)
		p.text(`{"event":"pusher:error","data":{"code":4009,"message":"no"}}`)
		p.send(ws.NewCloseFrame(ws.NewCloseFrameBody(4009, "no")))
		p.read()
	})
	c := Dial(t, addr, appB)
	if c.SocketID != "1.2" || c.ActivityTimeout.Seconds() != 120 {
		t.Errorf("got %q and %v", c.SocketID, c.ActivityTimeout)
	}
	if got := c.Await("b", "x").Text(t); got != "2" {
		t.Errorf("got %q, want 2", got)
	}
	fails(t, c, "close before the frames are taken", func() { c.ExpectClose(4009) })
	fails(t, c, "wrong channel", func() { c.Expect("a", "y") })
	c.ExpectFail(4009)
	fails(t, c, "wrong code", func() { c.ExpectClose(4001) })
	fails(t, c, "nothing to take", func() { c.Next() })
	c.ExpectEnd()
}

func TestQuietFindsWhatComesBeforeThePong(t *testing.T) {
	addr := serve(t, func(p *peer) {
		p.text(established)
		p.read()
		p.text(`{"event":"pusher:pong","data":"{}"}`)
		p.read()
		p.text(`{"event":"late","channel":"x","data":"1"}`)
		p.text(`{"event":"pusher:pong","data":"{}"}`)
		_, _ = p.r.ReadByte()
	})
	c := Dial(t, addr, appB)
	c.Quiet()
	fails(t, c, "a late frame", c.Quiet)
}

func TestControlFramesAreVisibleAndPingsAnswered(t *testing.T) {
	for _, mute := range []bool{false, true} {
		addr := serve(t, func(p *peer) {
			p.text(established)
			p.send(ws.NewPingFrame([]byte("abc")))
			want := ws.OpPong
			if mute {
				want = ws.OpPing
			}
			if f := p.read(); f.Header.OpCode != want {
				t.Errorf("mute %v: got opcode %d, want %d", mute, f.Header.OpCode, want)
			}
			p.send(ws.NewPongFrame([]byte("xyz")))
			_, _ = p.r.ReadByte()
		})
		c := Dial(t, addr, appB, Options{Mute: mute})
		if got := c.ExpectControlPing(); got != "abc" {
			t.Errorf("got %q, want abc", got)
		}
		if mute {
			c.Ping("xyz")
		}
		if got := c.ExpectControlPong(); got != "xyz" {
			t.Errorf("got %q, want xyz", got)
		}
	}
}

func TestUnreadFramesAreKeptForLater(t *testing.T) {
	resume := make(chan struct{})
	addr := serve(t, func(p *peer) {
		p.text(established)
		p.text(`{"event":"before","channel":"x","data":"1"}`)
		<-resume
		half := ws.MustCompileFrame(ws.NewTextFrame([]byte(`{"event":"after","channel":"x","data":"2"}`)))
		_, _ = p.conn.Write(half[:10])
		_, _ = p.conn.Write(half[10:])
		_, _ = p.r.ReadByte()
	})
	c := Dial(t, addr, appB)
	c.Expect("before", "x")
	c.StopReading()
	close(resume)
	if n := c.Pending(); n != 0 {
		t.Errorf("%d frames were read", n)
	}
	c.ResumeReading()
	c.Expect("after", "x")
}

func TestFramesNoServerMaySendAreFound(t *testing.T) {
	masked := ws.MaskFrame(ws.NewTextFrame([]byte(`{"event":"a","data":"1"}`)))
	reserved := ws.NewTextFrame([]byte(`{"event":"a","data":"1"}`))
	reserved.Header.Rsv = ws.Rsv(true, false, false)
	for name, f := range map[string]ws.Frame{
		"masked":     masked,
		"reserved":   reserved,
		"binary":     ws.NewBinaryFrame([]byte("x")),
		"not JSON":   ws.NewTextFrame([]byte("x")),
		"no event":   ws.NewTextFrame([]byte(`{"data":"1"}`)),
		"null event": ws.NewTextFrame([]byte(`{"event":null}`)),

		"no data":            ws.NewTextFrame([]byte(`{"event":"a"}`)),
		"data as an object":  ws.NewTextFrame([]byte(`{"event":"a","data":{}}`)),
		"error as a string":  ws.NewTextFrame([]byte(`{"event":"pusher:error","data":"{\"code\":4001,\"message\":\"x\"}"}`)),
		"error without code": ws.NewTextFrame([]byte(`{"event":"pusher:error","data":{"code":null,"message":"x"}}`)),

		"close with 4300":         ws.NewCloseFrame(ws.NewCloseFrameBody(4300, "")),
		"close without its error": ws.NewCloseFrame(ws.NewCloseFrameBody(4009, "")),
	} {
		t.Run(name, func(t *testing.T) {
			addr := serve(t, func(p *peer) {
				p.text(established)
				p.send(f)
				_, _ = p.r.ReadByte()
			})
			rec := &recorder{TB: t}
			c, _ := DialRaw(rec, addr, appB)
			c.Established()
			fails(t, c, "the frame", func() { c.Expect("a", ""); c.Quiet() })
			if rec.end(); !rec.failed {
				t.Error("the end of the test does not tell of the frame")
			}
		})
	}
}

func TestCutIsSeenAsAResetAndCloseAsAHandshake(t *testing.T) {
	ended := make(chan error, 1)
	addr := serve(t, func(p *peer) {
		p.text(established)
		_, err := p.r.ReadByte()
		ended <- err
	})
	Dial(t, addr, appB).Cut()
	if err := <-ended; err == nil || errors.Is(err, io.EOF) {
		t.Errorf("got %v, want a reset", err)
	}

	addr = serve(t, func(p *peer) {
		p.text(established)
		f := p.read()
		if code, _ := ws.ParseCloseFrameData(f.Payload); f.Header.OpCode != ws.OpClose || code != 1000 {
			t.Errorf("got opcode %d with code %d, want close 1000", f.Header.OpCode, code)
		}
		p.send(ws.NewCloseFrame(f.Payload))
	})
	Dial(t, addr, appB).Close(1000)
}

func TestFragmentsAreOneMessageInSeveralFrames(t *testing.T) {
	addr := serve(t, func(p *peer) {
		p.text(established)
		for i, want := range []ws.Header{{OpCode: ws.OpText}, {OpCode: ws.OpContinuation}, {OpCode: ws.OpContinuation, Fin: true}} {
			if h := p.read().Header; h.OpCode != want.OpCode || h.Fin != want.Fin {
				t.Errorf("frame %d: got opcode %d, fin %v, want %d, %v", i, h.OpCode, h.Fin, want.OpCode, want.Fin)
			}
		}
	})
	c := Dial(t, addr, appB)
	c.WriteFragments(`{"event":`, `"pusher:`, `ping"}`)
	c.ExpectEnd()
}

func TestReasonIsCutBetweenCharacters(t *testing.T) {
	if got, want := cutReason(strings.Repeat("a", 122)+"é"), strings.Repeat("a", 122); got != want {
		t.Errorf("got %q", got)
	}
}
