package ws

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

const (
	wheelSlots = 512
	wheelTick  = 50 * time.Millisecond
)

// A timer is a connection's place in the wheel.
type timer struct {
	prev, next *Conn
	slot       int // index + 1; 0: not in the wheel
	at         int64
}

// A wheel wakes connections. It is coarse: up to two ticks late, never early.
// What lies further ahead than one turn is looked at once a turn. Its lock is
// taken before Conn.mu, never after it.
type wheel struct {
	clock atomic.Int64 // Unix nanoseconds, of the last tick

	mu    sync.Mutex // guards what follows, and Conn.timer
	slots [wheelSlots]*Conn
	last  int64 // tick that was processed last
}

func newWheel() *wheel {
	w := &wheel{}
	now := time.Now().UnixNano()
	w.clock.Store(now)
	w.last = now / int64(wheelTick)
	return w
}

// now returns the coarse time in Unix nanoseconds.
func (w *wheel) now() int64 { return w.clock.Load() }

// run turns the wheel until ctx is done.
func (w *wheel) run(ctx context.Context) {
	tick := time.NewTicker(wheelTick)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			w.advance(now.UnixNano())
		}
	}
}

// advance wakes all connections that are due by now.
func (w *wheel) advance(now int64) {
	w.clock.Store(now)
	var due []*Conn
	w.mu.Lock()
	end := now / int64(wheelTick)
	first := max(w.last+1, end-wheelSlots+1)
	for t := first; t <= end; t++ {
		for c := w.slots[t%wheelSlots]; c != nil; {
			next := c.timer.next
			if c.timer.at <= now {
				w.unlink(c)
				due = append(due, c)
			}
			c = next
		}
	}
	w.last = end
	w.mu.Unlock()
	for _, c := range due {
		c.tick(now)
	}
}

// schedule puts a connection where it is due next.
func (w *wheel) schedule(c *Conn) {
	w.mu.Lock()
	defer w.mu.Unlock()
	at := c.due()
	if c.timer.slot != 0 && at == c.timer.at {
		return
	}
	w.unlink(c)
	if at == 0 {
		return
	}
	c.timer.at = at
	// The slot after the moment, so that it has passed when the slot comes up.
	i := max(at/int64(wheelTick)+1, w.last+1) % wheelSlots
	c.timer.slot = int(i) + 1
	c.timer.next = w.slots[i]
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
