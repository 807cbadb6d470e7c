package pushertest

import (
	"bufio"
	"crypto/rand"
	"crypto/sha1"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/gobwas/ws"
)

// Wait is how long every Expect waits when Options say nothing else: long, as a
// busy machine is no failure.
const Wait = 15 * time.Second

// Options are how a client connects. The zero value connects as pusher-js does.
type Options struct {
	Path    string        // default /app/KEY
	Query   string        // without question mark; default the one of pusher-js; "-": none
	Header  http.Header   // further headers of the upgrade; Host, Upgrade and the like can be replaced
	TLS     *tls.Config   // nil: plain
	Mute    bool          // leaves control pings unanswered
	Timeout time.Duration // of every wait; default Wait
	Early   string        // text frame sent together with the upgrade request, before anything is read
}

// defaultQuery is what pusher-js 8 sends.
const defaultQuery = "protocol=7&client=js&version=8.4.0&flash=false"

// A wire is one TCP connection after the upgrade and the goroutine that reads
// it: every frame goes into the inbox, pings and closes are answered.
type wire struct {
	conn net.Conn
	gate *gate
	mute bool
	done chan struct{} // closed when the reader has ended

	writing sync.Mutex // one frame at a time

	mu      sync.Mutex // guards what follows
	changed chan struct{}
	texts   []Frame
	pings   [][]byte
	pongs   [][]byte
	closed  *closing // the close frame, once it came
	err     error    // why reading ended
	broken  error    // what came that no server may send
	refused int      // the code of the last text frame, if that was pusher:error
}

// A closing is a close frame of the server. Code is 1005 when it had none.
type closing struct {
	code   int
	reason string
	at     time.Time
}

// handshake sends the upgrade request on conn and reads the answer.
func handshake(conn net.Conn, host string, opts Options) (*bufio.Reader, *http.Response, error) {
	var nonce [16]byte
	_, _ = rand.Read(nonce[:])
	key := base64.StdEncoding.EncodeToString(nonce[:])
	header := http.Header{
		"Host":                  {host},
		"Upgrade":               {"websocket"},
		"Connection":            {"Upgrade"},
		"Sec-Websocket-Version": {"13"},
		"Sec-Websocket-Key":     {key},
	}
	for name, values := range opts.Header {
		if header[http.CanonicalHeaderKey(name)] = values; len(values) == 0 {
			delete(header, http.CanonicalHeaderKey(name))
		}
	}
	target := opts.Path
	if opts.Query != "-" {
		target += "?" + opts.Query
	}
	var request strings.Builder
	fmt.Fprintf(&request, "GET %s HTTP/1.1\r\n", target)
	if err := header.Write(&request); err != nil {
		return nil, nil, err
	}
	request.WriteString("\r\n")
	if opts.Early != "" {
		request.Write(ws.MustCompileFrame(ws.MaskFrame(ws.NewTextFrame([]byte(opts.Early)))))
	}
	if _, err := io.WriteString(conn, request.String()); err != nil {
		return nil, nil, fmt.Errorf("upgrade: %w", err)
	}
	r := bufio.NewReader(conn)
	resp, err := http.ReadResponse(r, &http.Request{Method: http.MethodGet})
	if err != nil {
		return nil, nil, fmt.Errorf("upgrade: %w", err)
	}
	if resp.StatusCode != http.StatusSwitchingProtocols {
		return r, resp, nil
	}
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	want := base64.StdEncoding.EncodeToString(sum[:])
	if got := resp.Header.Get("Sec-Websocket-Accept"); got != want && header.Get("Sec-Websocket-Key") == key {
		return nil, nil, fmt.Errorf("upgrade: Sec-WebSocket-Accept = %q, want %q", got, want)
	}
	return r, resp, nil
}

// newWire starts to read. What r has buffered belongs to the connection.
func newWire(conn net.Conn, r *bufio.Reader, mute bool) *wire {
	w := &wire{conn: conn, mute: mute, done: make(chan struct{}), changed: make(chan struct{})}
	w.gate = &gate{conn: conn, open: make(chan struct{})}
	close(w.gate.open)
	ahead, _ := r.Peek(r.Buffered())
	go w.read(io.MultiReader(strings.NewReader(string(ahead)), w.gate))
	return w
}

// read works until the connection ends.
func (w *wire) read(r io.Reader) {
	defer close(w.done)
	var message []byte
	for {
		frame, err := readFrame(r)
		if err != nil {
			w.update(func() { w.err = err })
			return
		}
		if err := w.check(frame); err != nil {
			w.update(func() { w.err, w.broken = err, err })
			return
		}
		switch frame.Header.OpCode {
		case ws.OpPing:
			w.update(func() { w.pings = append(w.pings, frame.Payload) })
			if !w.mute {
				_ = w.write(ws.NewPongFrame(frame.Payload))
			}
		case ws.OpPong:
			w.update(func() { w.pongs = append(w.pongs, frame.Payload) })
		case ws.OpClose:
			code, reason := ws.ParseCloseFrameData(frame.Payload)
			w.update(func() {
				w.closed = &closing{int(code), reason, time.Now()}
				w.broken = w.checkClose(int(code))
			})
			_ = w.write(ws.NewCloseFrame(frame.Payload)) // the echo ends the handshake; the server ends the connection
		default:
			if message = append(message, frame.Payload...); !frame.Header.Fin {
				continue
			}
			f, err := parseFrame(message, time.Now())
			message = nil
			w.update(func() {
				w.texts, w.refused = append(w.texts, f), f.errorCode()
				if err != nil {
					w.err, w.broken = err, err
				}
			})
		}
	}
}

// maxFrame is far above what a server sends in a test.
const maxFrame = 64 << 20

// readFrame reads one frame, still masked if it was.
func readFrame(r io.Reader) (ws.Frame, error) {
	h, err := ws.ReadHeader(r)
	if err != nil {
		return ws.Frame{}, err
	}
	if h.Length > maxFrame {
		return ws.Frame{}, fmt.Errorf("frame of %d bytes", h.Length)
	}
	f := ws.Frame{Header: h, Payload: make([]byte, h.Length)}
	_, err = io.ReadFull(r, f.Payload)
	return f, err
}

// check finds frames that no server may send.
func (w *wire) check(f ws.Frame) error {
	switch {
	case f.Header.Masked:
		return errors.New("the server sent a masked frame")
	case f.Header.Rsv != 0:
		return errors.New("the server sent a frame with a reserved bit")
	case f.Header.OpCode == ws.OpBinary:
		return errors.New("the server sent a binary frame")
	case w.closing() != nil:
		return errors.New("the server sent a frame after its close frame")
	}
	return nil
}

// checkClose finds closes that no server may send: with a code of 4300 or above,
// which clients take for the end, and with a code of the protocol that no
// pusher:error announced (items 52 and 53). Only a client that is too slow may
// be closed without one.
func (w *wire) checkClose(code int) error {
	switch {
	case code >= 4300:
		return fmt.Errorf("the server closed with %d", code)
	case code >= 4000 && code != 4100 && w.refused != code:
		return fmt.Errorf("the server closed with %d after pusher:error %d", code, w.refused)
	}
	return nil
}

// violation returns what came that no server may send.
func (w *wire) violation() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.broken
}

func (w *wire) closing() *closing {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.closed
}

// update changes the inbox and wakes whoever waits for it.
func (w *wire) update(change func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	change()
	close(w.changed)
	w.changed = make(chan struct{})
}

// wait returns true as soon as met does, which runs with the inbox locked, and
// false when it did not in time or cannot any more.
func (w *wire) wait(timeout time.Duration, met func() bool) bool {
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	for {
		w.mu.Lock()
		ok, over, changed := met(), w.err != nil, w.changed
		w.mu.Unlock()
		if ok || over {
			return ok
		}
		select {
		case <-changed:
		case <-timer.C:
			return false
		}
	}
}

// write sends a frame, masked as a client has to.
func (w *wire) write(f ws.Frame) error {
	return w.writeBytes(ws.MustCompileFrame(ws.MaskFrame(f)))
}

func (w *wire) writeBytes(b []byte) error {
	w.writing.Lock()
	defer w.writing.Unlock()
	if err := w.conn.SetWriteDeadline(time.Now().Add(2 * Wait)); err != nil {
		return err
	}
	_, err := w.conn.Write(b)
	return err
}

// A gate is a connection that can be kept from being read, as if its owner had
// stopped working, without losing its place within a frame.
type gate struct {
	conn net.Conn

	mu   sync.Mutex
	open chan struct{} // closed while reading is allowed
}

func (g *gate) Read(p []byte) (int, error) {
	for {
		g.mu.Lock()
		open := g.open
		g.mu.Unlock()
		<-open
		n, err := g.conn.Read(p)
		if n == 0 && errors.Is(err, os.ErrDeadlineExceeded) {
			continue // shut in the middle of a read
		}
		return n, err
	}
}

func (g *gate) shut() {
	g.mu.Lock()
	defer g.mu.Unlock()
	select {
	case <-g.open:
		g.open = make(chan struct{})
		_ = g.conn.SetReadDeadline(time.Unix(1, 0))
	default:
	}
}

func (g *gate) unlock() {
	g.mu.Lock()
	defer g.mu.Unlock()
	select {
	case <-g.open:
	default:
		_ = g.conn.SetReadDeadline(time.Time{})
		close(g.open)
	}
}
