package ws

import (
	"net"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	pollBuffer = 16 << 10 // bytes read at once; what a flooding client gets done per turn
	pollEvents = 256
	// pollEvery is after how many writes a flusher looks after its loop's
	// input, so that a broadcast does not starve pings: 0.3 ms instead of 10.
	pollEvery  = 16
	yieldEvery = 64
)

// A poller is the poll transport: a few epoll sets, each with a loop that reads
// and a flusher that writes. A silent connection costs no goroutine.
type poller struct {
	srv   *Server
	loops []*loop
	next  atomic.Uint32
	table table
}

// A loop is one epoll set. Its descriptor is watched by Go's own poller, so
// that a waiting loop is a parked goroutine and not a blocked thread.
type loop struct {
	p    *poller
	ep   int
	file *os.File
	raw  syscall.RawConn
	wake chan struct{} // tells the flusher; holds one
	quit chan struct{}

	polling sync.Mutex // guards what follows: whoever holds it reads for the loop
	events  [pollEvents]unix.EpollEvent
	buf     []byte

	mu   sync.Mutex // guards what follows; a leaf
	list []*Conn    // connections with something to write or to end
}

// A polled connection is what the poll transport knows of a Conn.
type polled struct {
	loop *loop
	fd   int
	gen  uint32 // of the descriptor's number
	rest []byte // written to the socket in part; owned by the flusher

	waiting atomic.Bool // in Await: reading is paused
	resumed atomic.Bool // Await is over and the flusher must see to it
	blocked atomic.Bool // the socket is full and EPOLLOUT is armed
	gone    bool        // the descriptor is closed; guarded by Conn.cb
}

// The table finds connections by descriptor. An entry's generation changes
// with every owner, so that a late event cannot touch the next one.
type table struct {
	mu    sync.RWMutex // guards what follows
	conns []*Conn
	gen   uint32
}

func newPoller(s *Server) (*poller, error) {
	p := &poller{srv: s}
	for range runtime.GOMAXPROCS(0) {
		l, err := newLoop(p)
		if err != nil {
			p.stop()
			return nil, err
		}
		p.loops = append(p.loops, l)
	}
	for _, l := range p.loops {
		s.work.Add(2)
		go func() { defer s.work.Done(); l.run() }()
		go func() { defer s.work.Done(); l.flushLoop() }()
	}
	return p, nil
}

func newLoop(p *poller) (*loop, error) {
	ep, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	if err := unix.SetNonblock(ep, true); err != nil {
		_ = unix.Close(ep)
		return nil, os.NewSyscallError("fcntl", err)
	}
	l := &loop{p: p, ep: ep, file: os.NewFile(uintptr(ep), "epoll"), buf: make([]byte, pollBuffer),
		wake: make(chan struct{}, 1), quit: make(chan struct{})}
	if l.raw, err = l.file.SyscallConn(); err != nil {
		_ = l.file.Close()
		return nil, err
	}
	return l, nil
}

// stop ends the loops; their connections are gone.
func (p *poller) stop() {
	for _, l := range p.loops {
		close(l.quit)
		_ = l.file.Close()
	}
}

// take moves a connection from net to a loop. It returns false when the
// connection is not a plain socket.
func (p *poller) take(c *Conn, nc net.Conn, early []byte) bool {
	sc, ok := nc.(syscall.Conn)
	if !ok {
		return false
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return false
	}
	fd := -1
	err = raw.Control(func(old uintptr) {
		// The descriptor moves to a number of its own, because net's poller
		// cannot be made to forget the old one in any other way.
		if n, e := unix.FcntlInt(old, unix.F_DUPFD_CLOEXEC, 0); e == nil {
			fd = n
		}
	})
	if err != nil || fd < 0 {
		return false
	}
	_ = nc.Close()
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(userTimeout/time.Millisecond)) // not TCP: no matter
	l := p.loops[p.next.Add(1)%uint32(len(p.loops))]
	c.polled.loop, c.polled.fd = l, fd
	c.link = l
	if !p.srv.began(c) {
		_ = unix.Close(fd)
		return true
	}
	p.table.put(c)
	c.cb.Lock()
	c.guard(func() { c.handler.Open(c) })
	if c.await == nil && len(early) > 0 {
		l.took(c, c.input(early))
	} else if len(early) > 0 {
		c.in.partial = append([]byte(nil), early...)
	}
	ev := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLRDHUP, Fd: int32(fd), Pad: int32(c.polled.gen)}
	if c.await != nil {
		ev.Events = 0 // resume arms it
	}
	if err := unix.EpollCtl(l.ep, unix.EPOLL_CTL_ADD, fd, &ev); err != nil {
		c.fail(os.NewSyscallError("epoll_ctl", err))
	}
	c.leave()
	return true
}

// userTimeout is how long the kernel tries to deliver bytes that the peer does
// not acknowledge.
const userTimeout = 30 * time.Second

// run reads for the loop whenever there is something, until it is closed.
func (l *loop) run() {
	_ = l.raw.Read(func(uintptr) bool {
		l.polling.Lock()
		defer l.polling.Unlock()
		for l.poll() { // the registration is edge-triggered: drain before parking
		}
		return false
	})
}

// poll handles the events of now and reports whether there may be more;
// polling is held.
func (l *loop) poll() bool {
	n := epollNow(l.ep, l.events[:])
	for i := range n {
		ev := &l.events[i]
		c := l.p.table.get(int(ev.Fd), uint32(ev.Pad))
		if c == nil {
			continue
		}
		if ev.Events&unix.EPOLLOUT != 0 && c.polled.blocked.Swap(false) {
			l.push(c)
		}
		if ev.Events&^unix.EPOLLOUT != 0 {
			l.read(c)
		}
	}
	return n > 0
}

// read takes one buffer from a connection.
func (l *loop) read(c *Conn) {
	for !c.cb.TryLock() {
		if c.polled.waiting.Load() {
			return // a late event: reading is paused
		}
		runtime.Gosched()
	}
	if !c.polled.gone {
		n, err := recvNow(c.polled.fd, l.buf)
		switch {
		case n > 0:
			l.took(c, c.input(l.buf[:n]))
		case err == unix.EAGAIN || err == unix.EINTR:
		case err != 0:
			c.fail(os.NewSyscallError("recv", err))
		default:
			c.fail(errHungUp)
		}
	}
	c.callWake()
	c.leave()
}

// took looks at how input ended; cb is held.
func (l *loop) took(c *Conn, err error) {
	if err != nil && err != errPaused {
		c.fail(err)
	}
}

// push puts a connection on the flusher's list.
func (l *loop) push(c *Conn) {
	l.mu.Lock()
	l.list = append(l.list, c)
	first := len(l.list) == 1
	l.mu.Unlock()
	if first {
		select {
		case l.wake <- struct{}{}:
		default:
		}
	}
}

func (l *loop) flush(c *Conn) { l.push(c) }
func (l *loop) cut(c *Conn)   { l.push(c) }

func (l *loop) pause(c *Conn) {
	c.polled.waiting.Store(true)
	if !c.polled.gone {
		l.arm(c)
	}
}

func (l *loop) resume(c *Conn) { c.polled.resumed.Store(true); l.push(c) }

// arm tells epoll what a connection waits for. Its caller keeps the descriptor
// from being closed: it is the flusher, or holds cb.
func (l *loop) arm(c *Conn) {
	c.mu.Lock() // so that the last caller's view is the one that counts
	defer c.mu.Unlock()
	ev := unix.EpollEvent{Fd: int32(c.polled.fd), Pad: int32(c.polled.gen)}
	if c.polled.waiting.Load() {
		ev.Events |= unix.EPOLLET // a hang-up is always told; once is enough
	} else {
		ev.Events |= unix.EPOLLIN | unix.EPOLLRDHUP
	}
	if c.polled.blocked.Load() {
		ev.Events |= unix.EPOLLOUT
	}
	_ = unix.EpollCtl(l.ep, unix.EPOLL_CTL_MOD, c.polled.fd, &ev) // fails only before ADD, which does the same
}

// flushLoop writes for the loop: while one round runs, later frames gather and
// leave with the next.
func (l *loop) flushLoop() {
	var round []*Conn
	scratch := make([]byte, 0, maxBatch)
	for {
		select {
		case <-l.quit:
			return
		case <-l.wake:
		}
		for {
			l.mu.Lock()
			round, l.list = l.list, round[:0]
			l.mu.Unlock()
			if len(round) == 0 {
				break
			}
			for i, c := range round {
				l.serve(c, scratch)
				round[i] = nil
				if i%pollEvery == pollEvery-1 && l.polling.TryLock() {
					l.poll()
					l.polling.Unlock()
				}
				if i%yieldEvery == yieldEvery-1 {
					runtime.Gosched()
				}
			}
			if cap(round) > 64<<10 {
				round = nil
			}
		}
	}
}

// serve does what a connection on the list needs.
func (l *loop) serve(c *Conn, scratch []byte) {
	if !c.polled.blocked.Load() {
		l.write(c, scratch)
	}
	if c.polled.resumed.Swap(false) {
		l.restart(c)
	}
	c.mu.Lock()
	over := c.state == stateCut
	c.mu.Unlock()
	if over {
		l.close(c)
	}
}

// write sends what is queued, as far as the socket takes it.
func (l *loop) write(c *Conn, scratch []byte) {
	p := &c.polled
	for {
		c.mu.Lock()
		if c.state == stateCut {
			c.mu.Unlock()
			return
		}
		var batch []byte
		switch {
		case len(p.rest) > 0:
			batch = p.rest
		case len(c.queue) == 0:
			switch c.flushed() {
			case hangUp:
				c.state = stateCut
			case halfClose:
				_ = unix.Shutdown(p.fd, unix.SHUT_WR)
			}
			c.mu.Unlock()
			return
		case len(c.queue) == 1:
			batch = c.queue[0].wire
			c.queue[0], c.queue = nil, nil
		default:
			batch = c.take(scratch)
		}
		c.mu.Unlock()
		n, err := sendNow(p.fd, batch)
		if err != 0 && err != unix.EAGAIN && err != unix.EINTR {
			c.fail(os.NewSyscallError("send", err))
			return
		}
		c.written(n)
		l.keep(c, batch, n)
		if n < len(batch) && err != unix.EINTR {
			l.block(c)
			return
		}
	}
}

// keep holds on to what the socket did not take. A shared frame is not held:
// its bytes would count for nobody.
func (l *loop) keep(c *Conn, batch []byte, n int) {
	p := &c.polled
	switch {
	case n == len(batch):
		p.rest = nil
	case len(p.rest) > 0:
		p.rest = p.rest[n:]
	default:
		p.rest = append([]byte(nil), batch[n:]...)
	}
}

// block waits for room in the socket, as long as a queue may take.
func (l *loop) block(c *Conn) {
	c.polled.blocked.Store(true)
	c.mu.Lock()
	c.stalled = true
	c.mu.Unlock()
	l.arm(c)
	c.srv.wheel.schedule(c)
}

// restart goes on reading after Await.
func (l *loop) restart(c *Conn) {
	c.cb.Lock()
	c.polled.waiting.Store(false)
	if !c.polled.gone {
		l.took(c, c.input(nil))
		if c.await == nil {
			l.arm(c)
		}
	}
	c.callWake()
	c.leave()
}

// close gives the descriptor back and ends the connection. A callback that
// waits is waited for, in a later round.
func (l *loop) close(c *Conn) {
	if !c.cb.TryLock() {
		if !c.polled.waiting.Load() {
			runtime.Gosched()
			l.push(c)
		}
		return // resume will bring it back here
	}
	defer c.cb.Unlock()
	if c.polled.gone {
		return
	}
	c.polled.gone = true
	l.p.table.remove(c)
	_ = unix.Close(c.polled.fd)
	c.polled.rest = nil
	c.end()
}

func (t *table) put(c *Conn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.gen++
	c.polled.gen = t.gen
	for len(t.conns) <= c.polled.fd {
		t.conns = append(t.conns, nil)
	}
	t.conns[c.polled.fd] = c
}

func (t *table) get(fd int, gen uint32) *Conn {
	t.mu.RLock()
	defer t.mu.RUnlock()
	if fd >= len(t.conns) || t.conns[fd] == nil || t.conns[fd].polled.gen != gen {
		return nil
	}
	return t.conns[fd]
}

func (t *table) remove(c *Conn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.conns[c.polled.fd] == c {
		t.conns[c.polled.fd] = nil
	}
}
