package ws

import "sync"

// A detached link has no socket.
type detached struct {
	turn sync.Mutex
	sink func(f *Frame)
}

// Detached opens a connection without a socket, for simulations of more
// connections than a machine has descriptors, and for tests that need none.
// What is sent to it goes to sink, on the goroutine of the sender and with the
// locks that it holds, or nowhere if sink is nil. It ends when it is closed;
// Shutdown waits for that.
func (s *Server) Detached(h Handler, sink func(f *Frame)) *Conn {
	d := &detached{sink: sink}
	c := s.conn(h)
	c.home = &home{srv: s, link: d, shard: &s.streams, turn: &d.turn}
	err := s.start()
	d.turn.Lock()
	defer d.turn.Unlock()
	if err != nil {
		s.never(c, err)
		return c
	}
	if !s.began(c) {
		return c
	}
	c.lastRead.Store(s.now())
	c.call(func() { c.handler.Open(c) })
	return c
}

// Receive handles a message as if the client of a detached connection had sent
// it. It must not be called by the connection's sink, nor in a callback.
func (c *Conn) Receive(message []byte) {
	c.turn.Lock()
	defer c.turn.Unlock()
	if !c.released && !c.waiting {
		c.lastRead.Store(c.srv.now())
		c.receive(opText, message)
	}
}

// flush gives the queue away.
func (d *detached) flush(c *Conn) {
	c.mu.Lock()
	for c.collect(nil) != nil {
		f := c.queue.front()
		c.sent(len(f.wire))
		if d.sink != nil && f.wire[0]&0x0f != opClose {
			c.mu.Unlock() // nobody else comes here while c is dirty
			d.sink(f)
			c.mu.Lock()
		}
	}
	c.dirty = false
	over := c.state == stateClosing
	if over {
		c.cut(nil)
	}
	c.mu.Unlock()
	if over {
		c.srv.work.Go(func() { // its turn may be taken by the caller
			d.turn.Lock()
			defer d.turn.Unlock()
			d.release(c)
		})
	}
}

func (d *detached) resume(*Conn) {}

func (d *detached) release(c *Conn) {
	c.released = true
	c.end()
}
