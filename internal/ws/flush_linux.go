package ws

import (
	"os"
	"runtime"
	"time"

	"golang.org/x/sys/unix"

	"sockudo/internal/epoll"
)

const (
	// pollEvery is after how many writes a flusher looks after its loop's
	// input: a ping during heavy broadcasting is answered in 0.3 ms, not 10.
	pollEvery = 16
	// yieldEvery is after how many writes it lets other goroutines run.
	yieldEvery = 64
	// breathEvery is how often it lets them run who wait for I/O.
	breathEvery = time.Millisecond
	// maxBatch bounds the bytes that are copied together to be sent at once.
	maxBatch = 64 << 10
)

// flush puts a connection on the list of those with something to write.
func (l *loop) flush(c *Conn) {
	l.mu.Lock()
	l.dirty = append(l.dirty, c)
	wake := l.asleep
	l.asleep = false
	l.mu.Unlock()
	if wake {
		l.wake <- struct{}{} // has room: the flusher sleeps at most once
	}
}

// flushAll writes for the loop until it is stopped. While one round runs, later
// frames gather and leave with the next: the batches grow with the load, and
// without load nothing is delayed.
func (l *loop) flushAll() {
	defer close(l.done)
	var round []*Conn
	scratch := make([]byte, 0, maxBatch)
	breath := l.p.srv.now()
	for {
		l.mu.Lock()
		round, l.dirty = l.dirty, round[:0]
		l.asleep = len(round) == 0
		l.mu.Unlock()
		if len(round) == 0 {
			select {
			case <-l.wake:
			case <-l.quit:
				return
			}
			continue
		}
		for i, c := range round {
			if l.write(c, scratch) {
				l.turn.Lock()
				l.release(c)
				l.turn.Unlock()
			}
			round[i] = nil
			if i%pollEvery == pollEvery-1 && l.turn.TryLock() {
				l.poll()
				l.turn.Unlock()
			}
			if i%yieldEvery != yieldEvery-1 {
				continue
			}
			if now := l.p.srv.now(); now-breath > int64(breathEvery) {
				l.set.Breathe()
				breath = l.p.srv.now()
			} else {
				runtime.Gosched()
			}
		}
		l.p.srv.relief.ring()
	}
}

// write sends once what is queued, as far as the socket takes it. Of two writers
// the first does it all. It reports whether the connection is over and the caller
// has to release it.
func (l *loop) write(c *Conn, scratch []byte) (over bool) {
	c.mu.Lock()
	c.dirty = false
	if c.state == stateCut || c.blocked || c.writing {
		c.mu.Unlock()
		return false
	}
	if c.secure != nil {
		scratch = scratch[:0:recordBytes]
	}
	b := c.collect(scratch)
	if len(b) == 0 && c.secure == nil {
		c.mu.Unlock()
		return false
	}
	c.writing = true
	c.mu.Unlock()
	n, full, err := c.put(b)
	c.mu.Lock()
	c.writing = false
	c.sent(n)
	if err != nil {
		c.cut(err)
	}
	if !full {
		l.last(c)
	}
	if c.state == stateCut {
		c.drop()
		c.mu.Unlock()
		return true
	}
	if full {
		c.block(true)
		c.mark()
		l.arm(c)
	}
	again := !c.blocked && !c.dirty && (c.queue.n > 0 || c.farewell != nil)
	c.dirty = c.dirty || again
	c.mu.Unlock()
	if again {
		l.flush(c)
	}
	return false
}

// put writes what the socket takes of b and reports whether it is full.
func (c *Conn) put(b []byte) (n int, full bool, err error) {
	if c.secure != nil {
		return c.secure.write(b)
	}
	n, errno := epoll.Send(int(c.fd), b)
	switch errno {
	case 0, unix.EAGAIN:
		return n, n < len(b), nil
	case unix.EINTR:
		return 0, false, nil
	}
	return 0, false, os.NewSyscallError("send", errno)
}

// last does what comes when nothing is left to write; mu is held.
func (l *loop) last(c *Conn) {
	then := c.then()
	if then != goOn && c.secure != nil {
		_ = c.secure.tls.CloseWrite() // the peer may be gone
	}
	switch then {
	case hangUp:
		c.cut(nil)
	case halfClose:
		epoll.Shutdown(int(c.fd))
	}
}

// unblock goes on writing to a socket that has room again; turn is held.
func (l *loop) unblock(c *Conn) {
	c.mu.Lock()
	if !c.blocked {
		c.mu.Unlock()
		return
	}
	c.block(false)
	l.arm(c)
	wake := !c.dirty
	c.dirty = true
	c.mu.Unlock()
	if wake {
		l.flush(c)
	}
}
