package ws

import "time"

// over reports whether a frame would exceed a bound; mu is held. One at a time
// that is larger than the bound alone is taken besides, or nobody could ever get
// it, such as the list of a large presence channel.
func (c *Conn) over(size int) bool {
	most := c.srv.opts.MaxQueuedBytes
	if c.bytes-c.huge+size > most && (size <= most || c.huge > 0) {
		return true
	}
	return int(c.queue.n) >= c.srv.opts.MaxQueuedFrames
}

// add puts a frame into the queue; mu is held.
func (c *Conn) add(f *Frame) {
	c.queue.push(f)
	c.count(len(f.wire))
	if len(f.wire) > c.srv.opts.MaxQueuedBytes {
		c.huge = len(f.wire)
	}
}

// push queues a frame and reports whether the link must be told; mu is held.
func (c *Conn) push(f *Frame) (wake bool) {
	c.add(f)
	if c.blocked {
		c.mark() // the socket may have been full of what TLS keeps alone
	}
	wake = !c.dirty && !c.blocked
	c.dirty = c.dirty || wake
	return wake
}

// weigh notes whether publishers have to wait for this connection: half of a
// bound is queued, and it is not because the client does not read. mu is held.
func (c *Conn) weigh() {
	o := &c.srv.opts
	crowded := (c.bytes > o.MaxQueuedBytes/2 || int(c.queue.n) > o.MaxQueuedFrames/2) && !c.blocked && c.state == stateOpen
	switch {
	case crowded == c.crowded:
		return
	case crowded:
		c.shard.crowded.Add(1)
	default:
		c.shard.crowded.Add(-1)
	}
	c.crowded = crowded
}

// refuse handles a frame that is over a bound; mu is held and released.
func (c *Conn) refuse() bool {
	if c.srv.opts.DropSlow {
		c.mu.Unlock()
		c.srv.dropped.Add(1)
		return false
	}
	wake := c.giveUp()
	c.mu.Unlock()
	if wake {
		c.link.flush(c)
	}
	return false
}

// giveUp ends a connection whose client does not read: what waits is dropped,
// and a close frame goes out if the socket still takes it. mu is held; it
// reports whether the link must be told.
func (c *Conn) giveUp() (wake bool) {
	c.srv.slow.Add(1)
	c.purge()
	return c.sayBye(ErrSlow, c.srv.opts.SlowCode, c.srv.opts.SlowReason)
}

// sayBye makes a close frame the last one and starts the time that the peer
// has; mu is held. It reports whether the link must be told.
func (c *Conn) sayBye(err error, code uint16, reason string) (wake bool) {
	c.state, c.err, c.leaving = stateClosing, err, true
	c.closeBy = c.srv.now() + int64(c.srv.opts.CloseTimeout)
	c.farewell = closeFrame(code, reason)
	c.schedule()
	c.weigh()
	wake = !c.dirty && !c.blocked
	c.dirty = c.dirty || wake
	return wake
}

// purge drops the queue, as soon as the writer is back. What is written in part
// stays, or the client would take the next frame for the rest of it. mu is held.
func (c *Conn) purge() {
	c.purging = c.writing
	if c.writing {
		return
	}
	frames, off := c.queue.n, c.off
	var front *Frame
	if off > 0 {
		front = c.queue.front()
		frames--
	}
	c.drop()
	if front != nil {
		c.add(front)
		c.off = off
	}
	if c.srv.opts.DropSlow {
		c.srv.dropped.Add(int64(frames))
	}
}

// drop empties the queue; mu is held.
func (c *Conn) drop() {
	for c.queue.n > 0 {
		c.queue.pop()
	}
	c.count(-c.bytes)
	c.off, c.markLeft, c.huge = 0, 0, 0
}

// count adds bytes to what is queued; mu is held.
func (c *Conn) count(n int) {
	c.bytes += n
	if c.blocked {
		c.shard.stuck.Add(int64(n))
	} else {
		c.shard.waiting.Add(int64(n))
	}
	c.weigh()
}

// block notes whether the socket is full; mu is held.
func (c *Conn) block(full bool) {
	if c.blocked == full {
		return
	}
	n := int64(c.bytes)
	if full {
		c.shard.waiting.Add(-n)
		c.shard.stuck.Add(n)
	} else {
		c.shard.stuck.Add(-n)
		c.shard.waiting.Add(n)
	}
	c.blocked = full
	c.weigh()
}

// mark begins to measure how long what is queued now has to wait for the
// client, unless something older is being measured; mu is held.
func (c *Conn) mark() {
	if c.markLeft == 0 && c.bytes > c.off {
		c.markLeft, c.markAt = c.bytes-c.off, c.srv.now()
		c.schedule()
	}
}

// collect returns the bytes to be written next: those of the first frame where
// they lie, or of several together in scratch. They stay in the queue until
// sent says what became of them. mu is held.
func (c *Conn) collect(scratch []byte) []byte {
	if c.farewell != nil {
		c.add(c.farewell)
		c.farewell = nil
	}
	if c.queue.n == 0 {
		return nil
	}
	if c.queue.n > 1 {
		if b := c.queue.appendTo(scratch[:0], c.off); len(b) > 0 {
			return b
		}
	}
	return c.queue.front().wire[c.off:]
}

// sent takes n written bytes off the queue; mu is held.
func (c *Conn) sent(n int) {
	c.markLeft = max(c.markLeft-n, 0)
	c.off += n
	done := 0
	for c.queue.n > 0 {
		size := len(c.queue.front().wire)
		if c.off < size {
			break
		}
		c.off -= size
		done += size
		c.queue.pop()
		if size == c.huge {
			c.huge = 0
		}
	}
	c.count(-done)
	if c.purging {
		c.purge()
	}
}

// What a writer does when nothing is left to write.
const (
	goOn      = iota
	hangUp    // the close handshake is complete
	halfClose // the peer is to see that nothing follows the close frame
)

// then says what comes after the queue has been written; mu is held.
func (c *Conn) then() int {
	switch {
	case c.state != stateClosing || c.queue.n > 0 || c.farewell != nil || c.writing:
		return goOn
	case c.told:
		return hangUp
	case c.failed:
		return halfClose
	}
	return goOn
}

// cut ends the sending; mu is held. Whoever calls it sees to the release.
func (c *Conn) cut(err error) {
	if c.state == stateCut {
		return
	}
	c.state = stateCut
	if c.err == nil {
		c.err = err
	}
	c.farewell = nil
	if !c.writing {
		c.drop()
	}
	c.weigh()
}

// due returns when tick has something to do, 0 for never; mu is held.
func (c *Conn) due() int64 {
	if c.state == stateCut {
		return 0
	}
	if c.leaving {
		return 1
	}
	at := c.wakeAt
	if c.closeBy != 0 && (at == 0 || c.closeBy < at) {
		at = c.closeBy
	}
	if by := c.markAt + int64(c.srv.opts.MaxQueueAge); c.markLeft > 0 && c.state == stateOpen && (at == 0 || by < at) {
		at = by
	}
	return at
}

// schedule puts the connection into the wheel, unless it is there already for
// an earlier moment; mu is held.
func (c *Conn) schedule() {
	at := c.due()
	if at == 0 || c.timerAt != 0 && c.timerAt <= at {
		return
	}
	c.timerAt = at
	c.shard.wheel.put(c, at)
}

// tick does what is due now. The clock calls it, without any lock.
func (c *Conn) tick(now int64) {
	c.mu.Lock()
	c.timerAt = 0
	late := c.state == stateClosing && now >= c.closeBy
	wake := c.wakeAt != 0 && now >= c.wakeAt && c.state != stateCut
	if wake {
		c.wakeAt = 0
	}
	flush := false
	if c.state == stateOpen && c.markLeft > 0 && now >= c.markAt+int64(c.srv.opts.MaxQueueAge) {
		c.markLeft = 0
		if c.srv.opts.DropSlow {
			c.purge()
			c.mark()
		} else {
			flush = c.giveUp()
		}
	}
	leave := c.leaving
	c.leaving = false
	c.schedule()
	c.mu.Unlock()
	if flush {
		c.link.flush(c)
	}
	if late || wake || leave {
		c.turn.Lock()
		defer c.turn.Unlock()
		if late {
			c.lose(errNoAnswer)
			return
		}
		if leave {
			c.leave()
		}
		if wake {
			c.wake(now)
		}
	}
}

// time returns a moment as a time.
func (s *Server) time(at int64) time.Time { return s.base.Add(time.Duration(at)) }

// now returns the moment.
func (s *Server) now() int64 { return int64(time.Since(s.base)) }
