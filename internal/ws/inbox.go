package ws

import (
	"errors"
	"fmt"
	"runtime/debug"
)

// open begins the connection; turn is held. answer is what the client gets to
// its upgrade request, early what it sent behind it. The answer leaves together
// with what Open sends, when the caller has told the link.
func (c *Conn) open(answer *Frame, early []byte) {
	c.lastRead.Store(c.srv.now())
	c.mu.Lock()
	c.push(answer)
	c.mu.Unlock()
	c.call(func() { c.handler.Open(c) })
	if c.srv.isClosed() { // Shutdown may have looked before there was anything to see
		c.Close(goingAway, shuttingDown)
	}
	if len(early) > 0 {
		c.input(early)
	}
}

// call runs a callback; turn is held. What the callback wants to wait for is
// begun.
func (c *Conn) call(f func()) {
	if !c.guard(f) {
		c.await = nil
	}
	if c.await == nil {
		return
	}
	c.waiting = true
	wait := c.await
	c.await = nil
	c.srv.work.Go(func() { c.wait(wait) })
}

// wait runs what a callback waits for and goes on with the connection.
func (c *Conn) wait(f func()) {
	for ; f != nil; f = c.await {
		c.await = nil
		if !c.guard(f) {
			c.await = nil
		}
	}
	c.turn.Lock()
	defer c.turn.Unlock()
	c.waiting = false
	if c.released {
		c.end()
		return
	}
	if c.leaveDue {
		c.leaveDue = false
		c.leave()
	}
	if c.wakeDue {
		c.wakeDue = false
		c.wake(c.srv.now())
	}
	if !c.waiting {
		c.link.resume(c)
	}
}

// guard calls f; a panic in it costs this connection and no more. It reports
// whether f returned.
func (c *Conn) guard(f func()) (ok bool) {
	defer func() {
		if p := recover(); p != nil {
			c.srv.opts.Log.Error("connection handler panicked", "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
			c.Close(1011, "Internal error")
		}
	}()
	f()
	return true
}

// wake calls Wake, or sees to it that it is called when an Await is over; turn
// is held.
func (c *Conn) wake(now int64) {
	switch {
	case c.waiting:
		c.wakeDue = true
	case !c.released:
		c.call(func() { c.handler.Wake(c, c.srv.time(now)) })
	}
}

// leave calls Leave, or sees to it that it is called when an Await is over; turn
// is held.
func (c *Conn) leave() {
	h, ok := c.handler.(Leaver)
	switch {
	case !ok || c.released || c.ended:
	case c.waiting:
		c.leaveDue = true
	default:
		c.call(func() { h.Leave(c) })
	}
}

// input handles bytes of the peer, which it may change; turn is held. frames
// is how many frames they held.
func (c *Conn) input(b []byte) (frames int) {
	r := rules{limit: c.limit, masked: true}
	for !c.deaf && !c.released {
		if c.waiting {
			c.held = append(c.held, b...)
			return frames
		}
		opcode, payload, rest, err := c.in.next(b, r)
		if err != nil {
			c.violated(err)
			return frames
		}
		if opcode == 0 {
			return frames
		}
		frames++
		b = rest
		c.receive(opcode, payload)
	}
	return frames
}

// inputHeld handles what was kept back while a callback waited, like input; turn
// is held.
func (c *Conn) inputHeld() (frames int) {
	for len(c.held) > 0 && !c.waiting {
		b := c.held
		c.held = nil
		frames += c.input(b)
	}
	return frames
}

// receive handles one message or control frame; turn is held. A pong needs
// nothing: that it came is all it says.
func (c *Conn) receive(opcode byte, payload []byte) {
	switch opcode {
	case opText:
		if !c.closing() {
			c.call(func() { c.handler.Message(c, payload) })
		}
	case opPing:
		c.Send(newFrame(opPong, payload))
	case opClose:
		code, reason, err := parseClose(payload)
		if err != nil {
			c.violated(err)
			return
		}
		c.answer(code, reason)
	}
}

func (c *Conn) closing() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.state != stateOpen
}

// violated tells a peer that broke the protocol. What it goes on sending is
// read and thrown away until it hangs up or its time is over: closing with
// bytes unread would reset the connection and take the close frame with it.
// turn is held.
func (c *Conn) violated(err error) {
	c.deaf = true
	c.in, c.held = decoder{}, nil
	v := &protocolError{}
	errors.As(err, &v)
	c.mu.Lock()
	if c.state != stateOpen {
		c.mu.Unlock()
		c.lose(err)
		return
	}
	c.failed = true
	wake := c.sayBye(err, v.code, v.reason)
	c.mu.Unlock()
	if wake {
		c.link.flush(c)
	}
}

// answer handles the peer's close frame, its last one; turn is held.
func (c *Conn) answer(code uint16, reason string) {
	c.deaf = true
	c.in, c.held = decoder{}, nil
	c.mu.Lock()
	c.told = true
	over := c.then() == hangUp
	c.mu.Unlock()
	if over {
		c.lose(nil)
		return
	}
	c.shut(&CloseError{code, reason}, nil, code, "")
}

// lose ends a connection at once; turn is held.
func (c *Conn) lose(err error) {
	c.mu.Lock()
	c.cut(err)
	c.mu.Unlock()
	c.link.release(c)
}

// end tells the handler that the connection is over, unless it still waits for
// something; turn is held and the descriptor is closed.
func (c *Conn) end() {
	if c.waiting || c.ended {
		return
	}
	c.ended = true
	c.in, c.held = decoder{}, nil
	c.mu.Lock()
	err := c.err
	c.drop()
	c.mu.Unlock()
	c.shard.wheel.remove(c)
	c.call(func() { c.handler.Closed(c, err) })
	c.srv.left(c)
}
