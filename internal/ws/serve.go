package ws

import (
	"bufio"
	"bytes"
	"container/list"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime/debug"
	"time"
)

var errHeader = errors.New("websocket: request header is too large")

// Serve accepts connections until the server is closed or api shuts down, and
// closes the listener then. Connections that begin with an upgrade request become
// WebSockets; all others are served by api, with the bytes that were read already,
// and those of a TLS listener too (see Quiet): its handler gives upgrades to
// ServeHTTP. The error is never nil; it is net.ErrClosed after a stop.
func (s *Server) Serve(ln net.Listener, api *http.Server) error {
	defer ln.Close()
	if err := s.start(); err != nil {
		return err
	}
	inner := newHandover(ln.Addr())
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return net.ErrClosed
	}
	s.inner = append(s.inner, inner)
	s.work.Add(1)
	defer s.work.Done()
	s.mu.Unlock()
	defer inner.Close()
	ctx, cancel := context.WithCancel(context.Background()) // of requests that Accept is asked about
	defer cancel()
	in := newEntrance(s, ln)
	defer in.close()
	s.work.Go(func() {
		_ = api.Serve(inner) // ends when inner is closed or api shuts down
		_ = ln.Close()
		in.close()
	})
	return s.acceptAll(in, reception{ctx: ctx, api: inner})
}

// An entrance accepts connections, for one goroutine.
type entrance interface {
	// next waits for a connection. The error is net.ErrClosed after close. Some
	// others pass: see lostMeanwhile and outOfDescriptors.
	next() error
	// welcome goes on with the connection, without waiting.
	welcome(s *Server, r reception)
	close()
}

// A reception is what there is for a connection that comes.
type reception struct {
	ctx  context.Context // of requests that Accept is asked about
	api  *handover
	full bool // only the API has room
}

// A netEntrance accepts with net.
type netEntrance struct {
	ln net.Listener
	nc net.Conn
}

func (e *netEntrance) close() { _ = e.ln.Close() }

func (e *netEntrance) next() (err error) {
	e.nc, err = e.ln.Accept()
	return err
}

func (e *netEntrance) welcome(s *Server, r reception) {
	nc := e.nc
	s.work.Go(func() { s.meet(nc, make([]byte, 0, 1024), r) })
}

// acceptAll welcomes all who come. Without descriptors left it spends those in
// reserve on the API, turns upgrades away, and waits.
func (s *Server) acceptAll(in entrance, r reception) error {
	spare := newReserve()
	defer spare.close()
	for {
		err := in.next()
		switch {
		case err == nil:
			r.full = !spare.refill()
			s.full.Store(r.full)
			if r.full {
				spare.spend() // net needs a second one for a moment
			} else {
				spare.calm(s.opts.Log)
			}
			in.welcome(s, r)
		case lostMeanwhile(err):
		case !outOfDescriptors(err):
			return err
		default:
			spare.alarm(s.opts.Log, err)
			if spare.spend() {
				continue
			}
			select {
			case <-time.After(50 * time.Millisecond):
			case <-r.api.done:
				return net.ErrClosed
			}
		}
	}
}

// meet reads the first request of a connection, of which buf holds what has
// been read already.
func (s *Server) meet(nc net.Conn, buf []byte, v reception) {
	if t, ok := nc.(*tls.Conn); ok {
		s.shake(t)
		v.api.give(nc)
		return
	}
	nc = quietly(nc)
	el := s.enterHalf(nc)
	_ = nc.SetReadDeadline(time.Now().Add(s.opts.HandshakeTimeout))
	head, end, err := s.readHead(nc, buf)
	s.leaveHalf(el)
	if err != nil {
		if errors.Is(err, errHeader) {
			s.refuseMidway(nc, &Refusal{Status: http.StatusRequestHeaderFieldsTooLarge, Body: "Request header is too large.\n"})
			return
		}
		_ = nc.Close()
		return
	}
	_ = nc.SetReadDeadline(time.Time{})
	if r := parseUpgrade(head[:end]); r != nil {
		s.upgrade(nc, r.WithContext(v.ctx), head[end:], v.full)
		return
	}
	v.api.give(&prefixed{Conn: nc, head: head})
}

// shake makes the TLS handshake, so that no more than MaxHandshakes are going on
// either. What is wrong with it is told by net/http, which gets to know of it too.
func (s *Server) shake(t *tls.Conn) {
	el := s.enterHalf(t.NetConn()) // closing what is above it might wait
	_ = t.SetDeadline(time.Now().Add(s.opts.HandshakeTimeout))
	_ = t.Handshake() // net/http gets the same error
	s.leaveHalf(el)
	_ = t.SetDeadline(time.Time{})
}

// readHead reads until the end of a GET request's header, or until it is clear
// that the request is for the API: end is 0 then. buf is what has been read.
func (s *Server) readHead(nc net.Conn, buf []byte) (head []byte, end int, err error) {
	for seen := 0; ; {
		if end := headEnd(buf, seen); end > 0 {
			return buf, end, nil
		}
		if get := []byte("GET "); !bytes.HasPrefix(buf, get[:min(len(buf), len(get))]) {
			return buf, 0, nil
		}
		if err != nil {
			return nil, 0, err
		}
		if len(buf) >= s.opts.MaxHeaderBytes {
			return nil, 0, errHeader
		}
		if len(buf) == cap(buf) {
			buf = append(make([]byte, 0, min(2*cap(buf), s.opts.MaxHeaderBytes)), buf...)
		}
		seen = len(buf)
		var n int
		n, err = nc.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
	}
}

// headEnd returns the length of a GET request's header, 0 if b does not hold
// all of it or it is no GET. The end is not in what was seen before.
func headEnd(b []byte, seen int) int {
	from := max(seen-3, 0)
	if i := bytes.Index(b[from:], []byte("\r\n\r\n")); i >= 0 && bytes.HasPrefix(b, []byte("GET ")) {
		return from + i + 4
	}
	return 0
}

// parseUpgrade parses a request that asks for WebSocket and returns nil for
// others.
func parseUpgrade(head []byte) *http.Request {
	if len(head) == 0 || !mentionsUpgrade(head) {
		return nil
	}
	r, err := http.ReadRequest(bufio.NewReaderSize(bytes.NewReader(head), 512))
	if err != nil || !IsUpgrade(r) {
		return nil
	}
	return r
}

// mentionsUpgrade reports whether a request may ask for another protocol, so
// that API requests are not parsed twice.
func mentionsUpgrade(head []byte) bool {
	const field = "upgrade:"
	for len(head) > 0 {
		i := bytes.IndexByte(head, '\n')
		head = head[i+1:]
		if len(head) >= len(field) && bytes.EqualFold(head[:len(field)], []byte(field)) {
			return true
		}
		if i < 0 {
			return false
		}
	}
	return false
}

// refuse answers over HTTP and hangs up.
func (s *Server) refuse(nc net.Conn, r *Refusal) {
	_ = nc.SetDeadline(time.Now().Add(time.Second))
	_, _ = nc.Write(appendRefusal(nil, r)) // the client may be gone
	_ = nc.Close()
}

// refuseMidway is refuse while the client may still be sending. What it sends
// is read for a moment, so that the answer reaches it before a reset does.
func (s *Server) refuseMidway(nc net.Conn, r *Refusal) {
	defer nc.Close()
	_ = nc.SetDeadline(time.Now().Add(time.Second))
	if _, err := nc.Write(appendRefusal(nil, r)); err == nil && closeWrite(nc) == nil {
		_, _ = io.CopyN(io.Discard, nc, 64<<10)
	}
}

// A halfOpen counts handshakes.
type halfOpen struct {
	reading  list.List // of net.Conn whose request is not complete, the oldest first
	deciding int       // requests that Accept has been asked about
}

func (h *halfOpen) count() int { return h.reading.Len() + h.deciding }

func (h *halfOpen) closeAll() {
	for el := h.reading.Front(); el != nil; el = el.Next() {
		_ = el.Value.(net.Conn).Close()
	}
}

// enterHalf counts in a connection whose request is being read. When there are
// too many, the oldest one gives way: honest clients are done within
// milliseconds.
func (s *Server) enterHalf(nc net.Conn) *list.Element {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.half.reading.Len() >= s.opts.MaxHandshakes {
		oldest := s.half.reading.Front()
		s.half.reading.Remove(oldest)
		_ = oldest.Value.(net.Conn).Close()
		s.turned.Add(1)
	}
	if s.closed {
		_ = nc.Close()
	}
	return s.half.reading.PushBack(nc)
}

func (s *Server) leaveHalf(el *list.Element) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.half.reading.Remove(el) // does nothing when it gave way
}

// enterDecision counts in a request that Accept is asked about. It returns
// false when too many are.
func (s *Server) enterDecision() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.half.deciding >= s.opts.MaxHandshakes {
		return false
	}
	s.half.deciding++
	return true
}

func (s *Server) leaveDecision() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.half.deciding--
}

var errFull = &Refusal{
	Status: http.StatusServiceUnavailable,
	Header: http.Header{"Retry-After": {"1"}},
	Body:   "The server has no room for this connection now.\n",
}

// upgrade answers an upgrade request and opens the connection; early are bytes
// that came behind the request.
func (s *Server) upgrade(nc net.Conn, r *http.Request, early []byte, full bool) {
	r.RemoteAddr = nc.RemoteAddr().String()
	h, refusal := s.decide(r, full)
	if refusal != nil {
		s.refuse(nc, refusal)
		return
	}
	s.begin(nc, h, r, early)
}

// conn makes a connection that is on no transport yet.
func (s *Server) conn(h Handler) *Conn {
	c := &Conn{home: &s.nowhere, handler: h, limit: s.opts.MaxMessageBytes}
	if l, ok := h.(Limiter); ok {
		if own := l.MaxMessageBytes(); own != 0 {
			c.limit = own
		}
	}
	return c
}

// begin opens a connection on the transport for it.
func (s *Server) begin(nc net.Conn, h Handler, r *http.Request, early []byte) {
	c := s.conn(h)
	answer := answerTo(r)
	if s.poll == nil || !s.poll.take(c, nc, answer, early) {
		s.stream(c, nc, answer, early)
	}
}

// answerTo agrees to a valid upgrade request.
func answerTo(r *http.Request) *Frame {
	return &Frame{wire: appendSwitch(make([]byte, 0, 160), r.Header.Get("Sec-Websocket-Key"))}
}

// decide asks Accept, after the request itself has been found valid.
func (s *Server) decide(r *http.Request, full bool) (Handler, *Refusal) {
	if refusal := checkUpgrade(r); refusal != nil {
		return nil, refusal
	}
	if full || !s.enterDecision() {
		s.turned.Add(1)
		return nil, errFull
	}
	defer s.leaveDecision()
	h, refusal := s.ask(r)
	if h == nil && refusal == nil {
		refusal = &Refusal{Status: http.StatusForbidden}
	}
	return h, refusal
}

// ask calls Accept; a panic in it costs this client and no more.
func (s *Server) ask(r *http.Request) (h Handler, refusal *Refusal) {
	defer func() {
		if p := recover(); p != nil {
			s.opts.Log.Error("accepting panicked", "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
			h, refusal = nil, &Refusal{Status: http.StatusInternalServerError, Body: "Internal error.\n"}
		}
	}()
	return s.accept(r)
}

// ServeHTTP upgrades a connection that net/http serves: under TLS, and where an
// upgrade is not the first request.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if s.start() != nil {
		writeRefusal(w, errFull)
		return
	}
	h, refusal := s.decide(r, s.full.Load())
	if refusal != nil {
		writeRefusal(w, refusal)
		return
	}
	nc, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		s.never(s.conn(h), err)
		writeRefusal(w, &Refusal{Status: http.StatusInternalServerError, Body: "This connection cannot be upgraded.\n"})
		return
	}
	early, _ := buffered.Reader.Peek(buffered.Reader.Buffered())
	early = bytes.Clone(early)
	if p, ok := nc.(*prefixed); ok {
		early = append(early, p.head...)
		nc = p.Conn
	}
	_ = nc.SetDeadline(time.Time{})
	s.begin(nc, h, r, early)
}
