package ws

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if childMain() {
		return
	}
	goleak.VerifyTestMain(m)
}

// transports are what every test of behaviour runs on.
var transports = []struct {
	name   string
	stream bool
}{{"poll", false}, {"stream", true}}

func onBoth(t *testing.T, test func(t *testing.T, opts Options)) {
	for _, tr := range transports {
		t.Run(tr.name, func(t *testing.T) { test(t, Options{ForceStream: tr.stream}) })
	}
}

// onAll is onBoth for tests of what comes after the upgrade, which run over TLS
// as well: start and connect see that in the name of the test.
func onAll(t *testing.T, test func(t *testing.T, opts Options)) {
	onBoth(t, test)
	for _, tr := range transports {
		t.Run("tls-"+tr.name, func(t *testing.T) { test(t, Options{ForceStream: tr.stream}) })
	}
}

func overTLS(t testing.TB) bool { return strings.Contains(t.Name(), "/tls-") }

// secureIf puts TLS on a listener if the test is to run over it.
func secureIf(t testing.TB, ln net.Listener) net.Listener {
	if !overTLS(t) {
		return ln
	}
	conf, _ := tlsConfigs(t)
	return tls.NewListener(Quiet(ln), conf)
}

// tcp returns the socket of a client.
func tcp(nc net.Conn) *net.TCPConn { return plain(nc).(*net.TCPConn) }

// echo answers every message with itself.
type echo struct {
	closed chan error
	on     func(c *Conn, payload []byte) // nil: echo
	open   func(c *Conn)
	wake   func(c *Conn, now time.Time)
	leave  func()
}

func (h *echo) Leave(*Conn) {
	if h.leave != nil {
		h.leave()
	}
}

func (h *echo) Open(c *Conn) {
	if h.open != nil {
		h.open(c)
	}
}

func (h *echo) Message(c *Conn, payload []byte) {
	if h.on != nil {
		h.on(c, payload)
		return
	}
	c.Send(TextFrame(payload))
}

func (h *echo) Wake(c *Conn, now time.Time) {
	if h.wake != nil {
		h.wake(c, now)
	}
}

func (h *echo) Closed(_ *Conn, err error) {
	if h.closed != nil {
		h.closed <- err
	}
}

// start serves on a loopback port until the test ends.
func start(t testing.TB, opts Options, accept Accept) (*Server, string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := NewServer(accept, opts)
	serveOn(t, s, secureIf(t, ln))
	return s, ln.Addr().String()
}

func serveOn(t testing.TB, s *Server, ln net.Listener) {
	t.Helper()
	api := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if IsUpgrade(r) {
			s.ServeHTTP(w, r)
			return
		}
		body, _ := io.ReadAll(r.Body)
		_, _ = w.Write(append([]byte("api "+r.URL.Path+" "), body...))
	})}
	var wg sync.WaitGroup
	wg.Go(func() { _ = s.Serve(ln, api) })
	t.Cleanup(func() {
		_ = api.Close()
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := s.Shutdown(ctx); err != nil {
			t.Errorf("shutdown: %v", err)
		}
		wg.Wait()
	})
}

func handled(h Handler) Accept {
	return func(*http.Request) (Handler, *Refusal) { return h, nil }
}

const deadline = time.Minute

// A peer is a raw client: it sends what it is told, right or wrong.
type peer struct {
	net.Conn
	t  testing.TB
	br *bufio.Reader
}

func connect(t testing.TB, addr string) *peer {
	t.Helper()
	p := dialRaw(t, addr)
	p.request("GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
	resp := p.response()
	if resp.StatusCode != 101 {
		t.Fatalf("upgrade: %s", resp.Status)
	}
	if got := resp.Header.Get("Sec-Websocket-Accept"); got != "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" {
		t.Fatalf("Sec-WebSocket-Accept = %q", got)
	}
	return p
}

func dialRaw(t testing.TB, addr string) *peer {
	t.Helper()
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	if overTLS(t) {
		nc = tls.Client(nc, &tls.Config{InsecureSkipVerify: true})
	}
	t.Cleanup(func() { _ = plain(nc).Close() })
	_ = nc.SetDeadline(time.Now().Add(deadline))
	return &peer{Conn: nc, t: t, br: bufio.NewReader(nc)}
}

func (p *peer) request(text string) {
	p.t.Helper()
	if _, err := p.Write([]byte(text)); err != nil {
		p.t.Fatal(err)
	}
}

func (p *peer) response() *http.Response {
	p.t.Helper()
	resp, err := http.ReadResponse(p.br, nil)
	if err != nil {
		p.t.Fatal(err)
	}
	return resp
}

// raw builds a masked client frame; first is the first byte.
func raw(first byte, payload []byte) []byte {
	b := appendHeader(nil, 0, len(payload))
	b[0] = first
	b[1] |= maskBit
	key := [4]byte{0x37, 0xfa, 0x21, 0x3d}
	b = append(b, key[:]...)
	n := len(b)
	b = append(b, payload...)
	mask(b[n:], key)
	return b
}

func text(s string) []byte { return raw(finBit|opText, []byte(s)) }

func (p *peer) send(frames ...[]byte) {
	p.t.Helper()
	if _, err := p.Write(bytes.Join(frames, nil)); err != nil {
		p.t.Fatal(err)
	}
}

// got is a frame of the server.
type got struct {
	opcode  byte
	payload string
}

func (p *peer) next() (got, error) {
	head := make([]byte, 10)
	if _, err := io.ReadFull(p.br, head[:2]); err != nil {
		return got{}, err
	}
	if head[0]&rsvBits != 0 || head[0]&finBit == 0 || head[1]&maskBit != 0 {
		p.t.Errorf("server frame header %x: it must be final, unmasked and without reserved bits", head[:2])
	}
	size := uint64(head[1])
	switch size {
	case 126:
		if _, err := io.ReadFull(p.br, head[2:4]); err != nil {
			return got{}, err
		}
		size = uint64(binary.BigEndian.Uint16(head[2:]))
	case 127:
		if _, err := io.ReadFull(p.br, head[2:10]); err != nil {
			return got{}, err
		}
		size = binary.BigEndian.Uint64(head[2:])
	}
	payload := make([]byte, size)
	_, err := io.ReadFull(p.br, payload)
	return got{head[0] & 0x0f, string(payload)}, err
}

func (p *peer) expect(opcode byte, payload string) {
	p.t.Helper()
	f, err := p.next()
	if err != nil {
		p.t.Fatalf("no frame: %v, want opcode %x", err, opcode)
	}
	if f.opcode != opcode || f.payload != payload {
		p.t.Fatalf("frame %x %.80q (%d bytes), want %x %.80q (%d bytes)", f.opcode, f.payload, len(f.payload), opcode, payload, len(payload))
	}
}

// expectClose reads until the close frame, answers it, and waits for the end.
func (p *peer) expectClose(code uint16) string {
	p.t.Helper()
	for {
		f, err := p.next()
		if err != nil {
			p.t.Fatalf("no close frame %d: %v", code, err)
		}
		if f.opcode != opClose {
			continue
		}
		if code == 0 {
			if f.payload != "" {
				p.t.Fatalf("close frame %q, want an empty one", f.payload)
			}
			return ""
		}
		if len(f.payload) < 2 || binary.BigEndian.Uint16([]byte(f.payload)) != code {
			p.t.Fatalf("close frame %q, want code %d", f.payload, code)
		}
		_, _ = p.Write(raw(finBit|opClose, []byte(f.payload[:2])))
		return f.payload[2:]
	}
}

// gone waits until the server has hung up.
func (p *peer) gone() {
	p.t.Helper()
	for {
		if _, err := p.next(); err != nil {
			if os.IsTimeout(err) {
				p.t.Fatal("the server did not hang up")
			}
			return
		}
	}
}

func waitClosed(t testing.TB, closed <-chan error) error {
	t.Helper()
	select {
	case err := <-closed:
		return err
	case <-time.After(deadline):
		t.Fatal("Closed was not called")
		return nil
	}
}

func long(n int) string { return strings.Repeat("x", n) }

// eventually waits for something that nothing tells of.
func eventually(t testing.TB, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(deadline); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it did not happen")
		}
	}
}

// tightBuffer is the little room that connections of startTight have in the kernel.
const tightBuffer = 8 << 10

// startTight is start with little room in the kernel, so that clients that do
// not read are noticed soon.
func startTight(t testing.TB, opts Options, accept Accept) (*Server, string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := NewServer(accept, opts)
	serveOn(t, s, secureIf(t, tighten(t, ln)))
	return s, ln.Addr().String()
}
