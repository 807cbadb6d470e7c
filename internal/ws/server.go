package ws

import (
	"context"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// What connections are told that are open when the server shuts down.
const (
	goingAway    = 1001
	shuttingDown = "Server shutting down"
)

// ErrCrowded says that more is published than can be written.
var ErrCrowded = errors.New("websocket: more is waiting to be written than the server can hold")

// A Server takes WebSocket connections off listeners.
type Server struct {
	// Fixed at creation.
	accept Accept
	opts   Options
	base   time.Time // of all moments

	nowhere home       // of connections that never are on a transport
	turn    sync.Mutex // theirs

	streams  shard    // of all stream connections
	streamed sync.Map // *Conn → nothing, of the stream transport
	slow     atomic.Int64
	dropped  atomic.Int64
	turned   atomic.Int64   // away at a bound
	full     atomic.Bool    // there are descriptors for the API only
	relief   bell           // rung when a shard may have room again
	queue    chan struct{}  // held by the publisher whose turn it is to wait for room
	queued   atomic.Int64   // publishers that wait for room
	work     sync.WaitGroup // all goroutines
	shards   atomic.Pointer[[]*shard]

	mu      sync.Mutex // guards what follows; a leaf
	started bool
	closed  bool
	stop    context.CancelFunc // ends the clock
	poll    *poller            // nil: stream transport only; never changes after start
	open    int                // connections
	empty   chan struct{}      // closed when the server is, and open is 0
	half    halfOpen
	inner   []*handover
}

// NewServer returns a server that asks accept about every upgrade request.
func NewServer(accept Accept, opts Options) *Server {
	opts.setDefaults()
	s := &Server{accept: accept, opts: opts, base: time.Now(), empty: make(chan struct{}), queue: make(chan struct{}, 1)}
	s.nowhere = home{srv: s, shard: &s.streams, turn: &s.turn}
	return s
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
	shards := []*shard{&s.streams}
	if !s.opts.ForceStream {
		p, err := newPoller(s)
		if err != nil {
			return err
		}
		if p != nil {
			s.poll = p
			shards = append(shards, p.shards()...)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	s.started, s.stop = true, cancel
	s.shards.Store(&shards)
	s.work.Go(func() { s.clock(ctx, shards) })
	return nil
}

// clock wakes connections until ctx is done.
func (s *Server) clock(ctx context.Context, shards []*shard) {
	tick := time.NewTicker(wheelTick)
	defer tick.Stop()
	var due []*Conn
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		for _, sh := range shards {
			due = sh.wheel.advance(s.now(), due[:0])
			for i, c := range due {
				c.tick(s.now())
				due[i] = nil
			}
		}
	}
}

// began registers a connection. It returns false when the server is closed; the
// connection is over then.
func (s *Server) began(c *Conn) bool {
	s.mu.Lock()
	closed := s.closed
	if !closed {
		s.open++
		c.shard.conns.Add(1)
	}
	s.mu.Unlock()
	if closed {
		s.never(c, net.ErrClosed)
	}
	return !closed
}

func (s *Server) isClosed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closed
}

// left takes a connection off, after Closed.
func (s *Server) left(c *Conn) {
	c.shard.conns.Add(-1)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open--; s.open == 0 && s.closed {
		close(s.empty)
	}
}

// Shutdown takes no further connection and closes those that are left with
// 1001, or without a word when ctx ends. It waits until every goroutine of the
// server has ended; a handler that waits for ever can be given up by ending ctx.
// Serve returns, with its listener closed.
func (s *Server) Shutdown(ctx context.Context) error {
	s.mu.Lock()
	if s.closed || !s.started {
		s.closed = true
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	if s.open == 0 {
		close(s.empty)
	}
	s.half.closeAll()
	inner := s.inner
	s.mu.Unlock()
	for _, h := range inner {
		_ = h.Close()
	}
	s.stopAll(func(c *Conn) { c.Close(goingAway, shuttingDown) })
	err := waitFor(ctx, s.empty)
	if err != nil {
		s.stopAll(func(c *Conn) {
			c.turn.Lock()
			defer c.turn.Unlock()
			c.lose(ErrClosed)
		})
		// A handler may still wait for something that nothing here can end.
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		_ = waitFor(grace, s.empty)
	}
	s.stop()
	if s.poll != nil {
		s.poll.stop()
	}
	done := make(chan struct{})
	go func() {
		s.work.Wait()
		close(done)
	}()
	return errors.Join(err, waitFor(ctx, done))
}

// stopAll calls f for every connection. Those that begin at the same time see
// that the server is closed: began and Conn.open look.
func (s *Server) stopAll(f func(c *Conn)) {
	if s.poll != nil {
		s.poll.each(func(c *Conn) bool { f(c); return true })
	}
	s.streamed.Range(func(c, _ any) bool { f(c.(*Conn)); return true })
}

func waitFor(ctx context.Context, done <-chan struct{}) error {
	select {
	case <-done:
		return nil
	default:
	}
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// relievedEvery is how often who waits for room looks, if nobody tells.
const relievedEvery = 50 * time.Millisecond

// batchBytes is how much may wait for each connection on average: some 64 events
// of the usual size, which are sent together for little more than the price of
// one.
const batchBytes = 16 << 10

// Full reports that publishers are ahead of what can be written: more waits in
// one shard for sockets that have room than Options.MaxWaitingBytes and 16 KiB
// for each connection, or a client that keeps up has half of its bound queued.
// Bytes of clients that do not read do not count.
func (s *Server) Full() bool {
	shards := s.shards.Load()
	if shards == nil {
		return false
	}
	for _, sh := range *shards {
		bound := max(int64(s.opts.MaxWaitingBytes), batchBytes*sh.conns.Load())
		if sh.waiting.Load() > bound || sh.crowded.Load() > 0 {
			return true
		}
	}
	return false
}

// Room waits while the server is Full, behind those who wait already. Whoever
// publishes to many calls it first, without locks. It returns ErrCrowded when
// that takes longer than most, or than ctx: then it is better to refuse.
func (s *Server) Room(ctx context.Context, most time.Duration) error {
	if s.queued.Load() == 0 && !s.Full() {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	s.queued.Add(1)
	defer s.queued.Add(-1)
	select {
	case s.queue <- struct{}{}:
		defer func() { <-s.queue }()
		return s.relieved(ctx)
	case <-ctx.Done():
		return ErrCrowded
	}
}

// Pace waits while the server is Full, at most d. It is for who has accepted
// what is to be sent, and goes before those in Room.
func (s *Server) Pace(d time.Duration) {
	if s.Full() {
		ctx, cancel := context.WithTimeout(context.Background(), d)
		defer cancel()
		_ = s.relieved(ctx)
	}
}

func (s *Server) relieved(ctx context.Context) error {
	for s.Full() {
		again := s.relief.wait()
		if !s.Full() {
			return nil
		}
		select {
		case <-again:
		case <-time.After(relievedEvery):
		case <-ctx.Done():
			return ErrCrowded
		}
	}
	return nil
}

// Stats returns the numbers of now.
func (s *Server) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := Stats{
		Connections: s.open,
		Handshakes:  s.half.count(),
		Slow:        s.slow.Load(),
		Dropped:     s.dropped.Load(),
		Crowded:     s.turned.Load(),
	}
	shards := s.shards.Load()
	if shards == nil {
		return st
	}
	for _, sh := range *shards {
		st.WaitingBytes += sh.waiting.Load()
		st.StuckBytes += sh.stuck.Load()
	}
	return st
}

// A bell tells everybody who waits for it at once.
type bell struct {
	mu   sync.Mutex
	next chan struct{} // nil: nobody waits
}

// wait returns a channel that is closed at the next ring.
func (b *bell) wait() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.next == nil {
		b.next = make(chan struct{})
	}
	return b.next
}

func (b *bell) ring() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.next != nil {
		close(b.next)
		b.next = nil
	}
}

// never ends a handler whose connection was lost before it began.
func (s *Server) never(c *Conn, err error) {
	c.mu.Lock()
	c.cut(err)
	c.mu.Unlock()
	c.released, c.ended = true, true
	c.call(func() { c.handler.Closed(c, err) })
}
