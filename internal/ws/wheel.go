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
	slot int32 // index + 1; 0: not in the wheel
	at   int32 // index in the slot
}

// A wheel holds connections until a moment comes. It is coarse: what it gives
// out is up to two ticks late and never early. What lies further ahead than one
// turn of the wheel comes out too soon; its owner looks and puts it back.
// Moments are nanoseconds since the server was made. Its slots are lists of
// pointers and not linked through the connections: the garbage collector reads
// a list from one end to the other, and would chase links through all memory.
type wheel struct {
	mu    sync.Mutex // guards what follows, and Conn.timer; a leaf
	slots [wheelSlots][]*Conn
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
	c.timer = timer{slot: int32(i) + 1, at: int32(len(w.slots[i]))}
	w.slots[i] = append(w.slots[i], c)
}

func (w *wheel) remove(c *Conn) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.unlink(c)
}

func (w *wheel) unlink(c *Conn) {
	if c.timer.slot == 0 {
		return
	}
	slot := &w.slots[c.timer.slot-1]
	end := len(*slot) - 1
	last := (*slot)[end]
	(*slot)[c.timer.at], last.timer.at = last, c.timer.at
	(*slot)[end] = nil
	*slot = (*slot)[:end]
	if end == 0 {
		*slot = nil
	}
	c.timer = timer{}
}

// advance appends to due what the wheel holds for the time up to now.
func (w *wheel) advance(now int64, due []*Conn) []*Conn {
	w.mu.Lock()
	defer w.mu.Unlock()
	end := now / int64(wheelTick)
	for t := max(w.last+1, end-wheelSlots+1); t <= end; t++ {
		for _, c := range w.slots[t%wheelSlots] {
			c.timer = timer{}
			due = append(due, c)
		}
		w.slots[t%wheelSlots] = nil
	}
	w.last = max(w.last, end)
	return due
}
