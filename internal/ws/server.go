package ws

import (
	"bufio"
	"bytes"
	"container/list"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

var errHeader = errors.New("websocket: request header is too large")

// A Server takes WebSocket connections off listeners.
type Server struct {
	accept Accept
	opts   Options
	wheel  *wheel

	slow    atomic.Int64
	dropped atomic.Int64
	work    sync.WaitGroup // all goroutines

	mu      sync.Mutex // guards what follows
	stop    context.CancelFunc
	started bool
	closed  bool
	open    map[*Conn]struct{}
	poll    *poller   // nil: stream transport only
	half    list.List // of net.Conn whose request is not complete, the oldest first
	inner   []*handover
}

// NewServer returns a server that asks accept about every upgrade request.
func NewServer(accept Accept, opts Options) *Server {
	opts.setDefaults()
	return &Server{accept: accept, opts: opts, wheel: newWheel(), open: map[*Conn]struct{}{}}
}

// start begins the work that all connections share; once is enough.
func (s *Server) start() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return net.ErrClosed
	}
	if s.started {
		return nil
	}
	ctx, cancel := context.WithCancel(context.Background())
	if !s.opts.ForceStream {
		var err error
		if s.poll, err = newPoller(s); err != nil {
			cancel()
			return err
		}
	}
	s.started, s.stop = true, cancel
	s.work.Add(1)
	go func() {
		defer s.work.Done()
		s.wheel.run(ctx)
	}()
	return nil
}

// Serve accepts connections until the listener or the server is closed.
// Connections that begin with an upgrade request become WebSockets; all others
// are served by api, with the bytes that were read already. The error is never
// nil: net.ErrClosed or http.ErrServerClosed after a stop.
func (s *Server) Serve(ln net.Listener, api *http.Server) error {
	if err := s.start(); err != nil {
		return err
	}
	inner := newHandover(ln.Addr())
	s.mu.Lock()
	s.inner = append(s.inner, inner)
	s.mu.Unlock()
	s.work.Add(1)
	go func() {
		defer s.work.Done()
		_ = api.Serve(inner) // ends when inner is closed or the api shuts down
		_ = ln.Close()
	}()
	defer inner.Close()
	var pause time.Duration
	for {
		nc, err := ln.Accept()
		if err == nil {
			pause = 0
			s.work.Add(1)
			go func() {
				defer s.work.Done()
				s.greet(nc, inner)
			}()
			continue
		}
		if !outOfDescriptors(err) {
			return err
		}
		if pause == 0 {
			s.opts.Log.Error("out of file descriptors, new connections wait", "err", err)
		}
		pause = min(max(2*pause, 5*time.Millisecond), 500*time.Millisecond)
		time.Sleep(pause)
	}
}

// greet reads the first request of a connection.
func (s *Server) greet(nc net.Conn, api *handover) {
	el := s.enterHalf(nc)
	_ = nc.SetReadDeadline(time.Now().Add(s.opts.HandshakeTimeout))
	head, end, err := s.readHead(nc)
	s.leaveHalf(el)
	if err != nil {
		_ = nc.Close()
		return
	}
	var r *http.Request
	if end > 0 {
		r, err = http.ReadRequest(bufio.NewReaderSize(bytes.NewReader(head[:end]), 512))
		if err == nil && IsUpgrade(r) {
			_ = nc.SetReadDeadline(time.Time{})
			s.upgrade(nc, r, head[end:])
			return
		}
	}
	_ = nc.SetReadDeadline(time.Time{})
	api.give(&prefixed{Conn: nc, head: head})
}

// readHead reads until the end of a GET request's header, or until it is clear
// that the request is for the API: end is 0 then.
func (s *Server) readHead(nc net.Conn) (head []byte, end int, err error) {
	buf := make([]byte, 0, 1024)
	for {
		n, err := nc.Read(buf[len(buf):cap(buf)])
		seen := max(len(buf)-3, 0)
		buf = buf[:len(buf)+n]
		if i := bytes.Index(buf[seen:], []byte("\r\n\r\n")); i >= 0 {
			return buf, seen + i + 4, nil
		}
		if get := []byte("GET "); len(buf) >= len(get) && !bytes.HasPrefix(buf, get) {
			return buf, 0, nil
		}
		if err != nil {
			return nil, 0, err
		}
		if len(buf) >= s.opts.MaxHeaderBytes {
			_, _ = nc.Write(appendRefusal(nil, &Refusal{Status: http.StatusRequestHeaderFieldsTooLarge, Body: "Request header is too large.\n"}))
			return nil, 0, errHeader
		}
		if len(buf) == cap(buf) {
			buf = append(make([]byte, 0, min(2*cap(buf), s.opts.MaxHeaderBytes)), buf...)
		}
	}
}

// enterHalf counts a half-open connection in. When there are too many, the
// oldest one gives way: honest clients are done within milliseconds.
func (s *Server) enterHalf(nc net.Conn) *list.Element {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.half.Len() >= s.opts.MaxHandshakes {
		oldest := s.half.Front()
		s.half.Remove(oldest)
		_ = oldest.Value.(net.Conn).Close()
	}
	return s.half.PushBack(nc)
}

func (s *Server) leaveHalf(el *list.Element) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.half.Remove(el) // does nothing when it gave way
}

// upgrade answers an upgrade request and serves the connection; early are
// bytes that came behind the request.
func (s *Server) upgrade(nc net.Conn, r *http.Request, early []byte) {
	r.RemoteAddr = nc.RemoteAddr().String()
	if t, ok := nc.(tlsConn); ok {
		state := t.ConnectionState()
		r.TLS = &state
	}
	h, refusal := s.decide(r)
	if refusal != nil {
		_ = nc.SetWriteDeadline(time.Now().Add(s.opts.CloseTimeout))
		_, _ = nc.Write(appendRefusal(nil, refusal))
		_ = nc.Close()
		return
	}
	_ = nc.SetWriteDeadline(time.Now().Add(s.opts.HandshakeTimeout))
	if _, err := nc.Write(appendSwitch(make([]byte, 0, 160), r.Header.Get("Sec-Websocket-Key"))); err != nil {
		_ = nc.Close()
		s.never(h, err)
		return
	}
	_ = nc.SetWriteDeadline(time.Time{})
	c := s.newConn(h, r)
	if s.poll != nil && s.poll.take(c, nc, early) {
		return
	}
	s.serveStream(c, nc, early)
}

// decide asks accept, after the request itself has been found valid.
func (s *Server) decide(r *http.Request) (Handler, *Refusal) {
	if refusal := checkUpgrade(r); refusal != nil {
		return nil, refusal
	}
	h, refusal := s.accept(r)
	if h == nil && refusal == nil {
		refusal = &Refusal{Status: http.StatusForbidden}
	}
	return h, refusal
}

// never ends a handler whose connection was lost before it began.
func (s *Server) never(h Handler, err error) {
	c := &Conn{srv: s, handler: h}
	h.Closed(c, err)
}

func (s *Server) newConn(h Handler, r *http.Request) *Conn {
	c := &Conn{srv: s, handler: h, remote: r.RemoteAddr}
	c.lastRead.Store(time.Now().UnixNano())
	return c
}

// ServeHTTP upgrades a connection that net/http serves.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if err := s.start(); err != nil {
		writeRefusal(w, &Refusal{Status: http.StatusServiceUnavailable, Body: "The server is shutting down.\n"})
		return
	}
	h, refusal := s.decide(r)
	if refusal != nil {
		writeRefusal(w, refusal)
		return
	}
	nc, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		s.never(h, err)
		writeRefusal(w, &Refusal{Status: http.StatusInternalServerError, Body: "This connection cannot be upgraded.\n"})
		return
	}
	early, _ := buffered.Reader.Peek(buffered.Reader.Buffered())
	early = bytes.Clone(early)
	_ = nc.SetDeadline(time.Now().Add(s.opts.HandshakeTimeout))
	if _, err := nc.Write(appendSwitch(nil, r.Header.Get("Sec-Websocket-Key"))); err != nil {
		_ = nc.Close()
		s.never(h, err)
		return
	}
	_ = nc.SetDeadline(time.Time{})
	c := s.newConn(h, r)
	s.work.Add(1) // the hijacked connection outlives the request
	go func() {
		defer s.work.Done()
		s.serveStream(c, nc, early)
	}()
}

// began registers a connection; false when the server is closed.
func (s *Server) began(c *Conn) bool {
	s.mu.Lock()
	closed := s.closed
	if !closed {
		s.open[c] = struct{}{}
	}
	s.mu.Unlock()
	if closed {
		c.handler.Closed(c, net.ErrClosed)
	}
	return !closed
}

func (s *Server) ended(c *Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.open, c)
}

// Shutdown closes what is left with 1001, or without a word when ctx ends, and
// waits until every goroutine has ended. Listeners and the API are their owner's to close.
func (s *Server) Shutdown(ctx context.Context) error {
	s.mu.Lock()
	s.closed = true
	open := make([]*Conn, 0, len(s.open))
	for c := range s.open {
		open = append(open, c)
	}
	for el := s.half.Front(); el != nil; el = el.Next() {
		_ = el.Value.(net.Conn).Close()
	}
	inner := s.inner
	s.mu.Unlock()
	for _, h := range inner {
		_ = h.Close()
	}
	for _, c := range open {
		c.Close(1001, "Server shutting down")
	}
	err := s.settle(ctx)
	if err != nil {
		s.cutAll()
	}
	if s.started {
		s.stop()
	}
	if s.poll != nil {
		s.poll.stop()
	}
	done := make(chan struct{})
	go func() {
		s.work.Wait()
		close(done)
	}()
	select {
	case <-done:
		return err
	case <-ctx.Done():
		return errors.Join(err, context.Cause(ctx))
	}
}

// cutAll ends what is still open without a word.
func (s *Server) cutAll() {
	s.mu.Lock()
	open := make([]*Conn, 0, len(s.open))
	for c := range s.open {
		open = append(open, c)
	}
	s.mu.Unlock()
	for _, c := range open {
		c.fail(ErrClosed)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = s.settle(ctx) // a handler that waits may need longer; nothing can end it
}

// settle waits until no connection is left.
func (s *Server) settle(ctx context.Context) error {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		s.mu.Lock()
		left := len(s.open)
		s.mu.Unlock()
		if left == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
}

// Stats returns the numbers of now.
func (s *Server) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	return Stats{Connections: len(s.open), Slow: s.slow.Load(), Dropped: s.dropped.Load()}
}

// A handover is the listener that an API server accepts from.
type handover struct {
	addr  net.Addr
	conns chan net.Conn
	once  sync.Once
	done  chan struct{}
}

func newHandover(addr net.Addr) *handover {
	return &handover{addr: addr, conns: make(chan net.Conn), done: make(chan struct{})}
}

func (h *handover) give(nc net.Conn) {
	select {
	case h.conns <- nc:
	case <-h.done:
		_ = nc.Close()
	}
}

// Accept returns a connection whose first request is not an upgrade.
func (h *handover) Accept() (net.Conn, error) {
	select {
	case nc := <-h.conns:
		return nc, nil
	case <-h.done:
		return nil, net.ErrClosed
	}
}

// Close ends Accept.
func (h *handover) Close() error {
	h.once.Do(func() { close(h.done) })
	return nil
}

// Addr returns the address of the real listener.
func (h *handover) Addr() net.Addr { return h.addr }

// A prefixed connection gives back the bytes that were read already.
type prefixed struct {
	net.Conn
	head []byte
}

func (p *prefixed) Read(b []byte) (int, error) {
	if len(p.head) == 0 {
		return p.Conn.Read(b)
	}
	n := copy(b, p.head)
	if p.head = p.head[n:]; len(p.head) == 0 {
		p.head = nil
	}
	return n, nil
}

// ReadFrom keeps the fast path of the connection below.
func (p *prefixed) ReadFrom(r io.Reader) (int64, error) { return io.Copy(p.Conn, r) }
