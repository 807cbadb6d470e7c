package ws

import (
	"os"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"sockudo/internal/epoll"
)

const (
	loopEvents = 256
	loopBuffer = 64 << 10

	// readBytes is how much is read from a connection in one turn, unless more
	// of a frame is known to be missing.
	readBytes = 2 << 10

	// yieldAfter is how long a loop that always finds something goes on before
	// it lets the flusher run, whom its answers wait for.
	yieldAfter = 50 * time.Microsecond
)

// A loop is one epoll set with its connections.
type loop struct {
	// Fixed at creation.
	p    *poller
	set  *epoll.Set
	home home          // of its connections
	wake chan struct{} // tells the flusher; holds one
	quit chan struct{} // tells the flusher to end
	done chan struct{} // closed when it has

	shard

	turn   sync.Mutex // the turn of all connections of the loop; guards what follows
	events [loopEvents]unix.EpollEvent
	floods []*Conn
	pace   *time.Timer // runs readFloods as long as there are any
	buf    []byte      // for input, and for what a connection is told at once

	mu     sync.Mutex // guards what follows; a leaf
	dirty  []*Conn    // connections with something to write
	asleep bool       // the flusher waits for wake
}

func newLoop(p *poller) (*loop, error) {
	set, err := epoll.Open()
	if err != nil {
		return nil, err
	}
	l := &loop{p: p, set: set, buf: make([]byte, loopBuffer),
		wake: make(chan struct{}, 1), quit: make(chan struct{}), done: make(chan struct{})}
	l.home = home{srv: p.srv, link: l, shard: &l.shard, turn: &l.turn}
	return l, nil
}

// stop ends the loop. The flusher, which polls too, is gone before the set is.
func (l *loop) stop() {
	close(l.quit)
	<-l.done
	l.set.Close() // ends run
}

// run reads for the loop whenever there is something, until it is stopped.
func (l *loop) run() {
	l.set.Run(func() {
		yielded := l.p.srv.now()
		for {
			l.turn.Lock()
			n, now := l.poll()
			l.turn.Unlock()
			if n == 0 {
				return
			}
			if now-yielded > int64(yieldAfter) {
				yielded = now
				runtime.Gosched()
			}
		}
	})
}

// poll handles the events of now and returns how many there were; turn is held.
func (l *loop) poll() (n int, now int64) {
	n = l.set.Events(l.events[:])
	if n == 0 {
		return 0, 0
	}
	now = l.p.srv.now()
	for i := range n {
		ev := &l.events[i]
		c := l.p.table.get(ev.Fd, uint32(ev.Pad))
		if c == nil {
			continue
		}
		if ev.Events&unix.EPOLLOUT != 0 {
			l.unblock(c)
		}
		if ev.Events&^unix.EPOLLOUT != 0 {
			l.read(c, now)
		}
	}
	return n, now
}

// read takes one piece from a connection; turn is held.
func (l *loop) read(c *Conn, now int64) {
	switch {
	case c.waiting:
		l.mute(c, true)
	case c.flooding: // its time comes
	case c.meter.spend(l.take(c, now), now) && !c.released:
		l.flood(c)
	}
}

// take reads once and returns how many frames there were; turn is held.
func (l *loop) take(c *Conn, now int64) (frames int) {
	if c.secure != nil {
		c.secure.pipe.refill()
		return l.readSecure(c, now)
	}
	n, err := epoll.Recv(int(c.fd), l.buf[:max(readBytes, min(c.in.need(), len(l.buf)))])
	switch {
	case n > 0:
		c.lastRead.Store(now)
		held := c.hold()
		frames = c.input(l.buf[:n])
		l.reply(c, held)
	case err == unix.EAGAIN || err == unix.EINTR:
		c.flooding = false
	case err != 0:
		c.lose(os.NewSyscallError("recv", err))
	default:
		c.lose(errHungUp)
	}
	return frames
}

// hold keeps what a connection is told from the flusher until reply, and reports
// whether it could: the flusher may know of the connection already.
func (c *Conn) hold() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	mine := !c.dirty
	c.dirty = true
	return mine
}

// reply writes what a connection was told in its turn at once. It does not wait
// behind what a broadcast has for all the others, and answers of one read leave
// together. turn is held, and l.buf is not in use.
func (l *loop) reply(c *Conn, held bool) {
	if c.released {
		return
	}
	c.mu.Lock()
	if held {
		c.dirty = false
	}
	idle := !c.dirty && c.queue.n == 0 && c.farewell == nil && c.secure == nil
	c.mu.Unlock()
	if !idle && l.write(c, l.buf[:0]) {
		l.release(c)
	}
}

// readSecure takes what TLS has, and one piece of the socket if the pipe has
// been refilled; turn is held.
func (l *loop) readSecure(c *Conn, now int64) (frames int) {
	held := c.hold()
	defer func() { l.reply(c, held) }()
	for !c.waiting && !c.released {
		n, pause, err := c.secure.read(l.buf)
		if n > 0 {
			c.lastRead.Store(now)
			frames += max(c.input(l.buf[:n]), 1) // a record has its price too
		}
		switch {
		case err != nil:
			c.lose(err)
			return frames
		case pause:
			c.flooding = c.flooding && frames > 0
			return frames
		}
	}
	return frames
}

// mute stops or restarts asking for input; turn is held.
func (l *loop) mute(c *Conn, off bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.muted != off {
		c.muted = off
		l.arm(c)
	}
}

// resume goes on after an Await; turn is held.
func (l *loop) resume(c *Conn) {
	held := c.hold()
	frames := c.inputHeld()
	l.reply(c, held)
	now := l.p.srv.now()
	if c.secure != nil && !c.released {
		frames += l.readSecure(c, now)
	}
	over := c.meter.spend(frames, now)
	switch {
	case c.waiting || c.released || c.flooding:
	case over:
		l.flood(c)
	default:
		l.mute(c, false)
	}
}

// interest is what a connection wants to hear of; mu is held, or nobody else
// knows the connection yet.
func (c *Conn) interest() unix.EpollEvent {
	ev := unix.EpollEvent{Fd: c.fd, Pad: int32(c.gen)}
	if c.muted {
		ev.Events = unix.EPOLLET // a hang-up is told all the same; once is enough
	} else {
		ev.Events = unix.EPOLLIN
	}
	if c.blocked {
		ev.Events |= unix.EPOLLOUT
	}
	return ev
}

// arm tells epoll what a connection wants to hear of. mu is held, so that the
// last change is the one that counts, and the descriptor is open.
func (l *loop) arm(c *Conn) {
	l.set.Change(int(c.fd), c.interest())
}

// release gives the descriptor back, unless the flusher is at it, who will come
// back to it; turn is held.
func (l *loop) release(c *Conn) {
	c.mu.Lock()
	writing := c.writing
	c.mu.Unlock()
	if writing {
		return
	}
	if !c.released {
		c.released = true
		l.p.table.remove(c)
		epoll.Close(int(c.fd))
	}
	c.end()
}
