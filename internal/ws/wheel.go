package ws

import (
	"sync"
	"time"
)

const (
	wheelSlots = 512
	wheelTick  = 100 * time.Millisecond
)

// A timer is a connection's place in a wheel.
type timer struct {
	prev, next *Conn
	slot       int32 // index + 1; 0: not in the wheel
}

// A wheel holds connections until a moment comes. It is coarse: what it gives
// out is up to two ticks late and never early. What lies further ahead than one
// turn of the wheel comes out too soon; its owner looks and puts it back.
// Moments are nanoseconds since the server was made.
type wheel struct {
	mu    sync.Mutex // guards what follows, and Conn.timer; a leaf
	slots [wheelSlots]*Conn
	last  int64 // tick that was processed last
}

// put moves a connection to the slot of a moment.
func (w *wheel) put(c *Conn, at int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.unlink(c)
	// The tick that begins at the moment or after it. What lies beyond one
	// turn waits in the slot that comes up last.
	tick := (at + int64(wheelTick) - 1) / int64(wheelTick)
	tick = min(max(tick, w.last+1), w.last+wheelSlots)
	i := tick % wheelSlots
	c.timer = timer{next: w.slots[i], slot: int32(i) + 1}
	if c.timer.next != nil {
		c.timer.next.timer.prev = c
	}
	w.slots[i] = c
}

func (w *wheel) remove(c *Conn) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.unlink(c)
}

func (w *wheel) unlink(c *Conn) {
	t := &c.timer
	if t.slot == 0 {
		return
	}
	if t.prev != nil {
		t.prev.timer.next = t.next
	} else {
		w.slots[t.slot-1] = t.next
	}
	if t.next != nil {
		t.next.timer.prev = t.prev
	}
	*t = timer{}
}

// advance appends to due what the wheel holds for the time up to now.
func (w *wheel) advance(now int64, due []*Conn) []*Conn {
	w.mu.Lock()
	defer w.mu.Unlock()
	end := now / int64(wheelTick)
	for t := max(w.last+1, end-wheelSlots+1); t <= end; t++ {
		for c := w.slots[t%wheelSlots]; c != nil; {
			next := c.timer.next
			c.timer = timer{}
			due = append(due, c)
			c = next
		}
		w.slots[t%wheelSlots] = nil
	}
	w.last = max(w.last, end)
	return due
}
