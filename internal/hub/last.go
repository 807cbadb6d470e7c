package hub

import (
	"time"

	"sockudo/internal/ws"
)

// A lastEvent is what this node knows of the event that a cache channel
// replays. The event itself is in the cache; only while somebody publishes or is
// about to join the channel holds the newest one, so that a subscriber gets it
// exactly once: replayed if it joined after the event had its place, live if
// before, whatever the cache is doing.
type lastEvent struct {
	newest  *ws.Frame // ordered while the channel was pinned, until nobody pins it
	stamp   Stamp     // of newest
	stamped time.Time // when a subscriber last joined with a stamp

	// Of the events of this node.
	unsaved      *ws.Frame // the newest one, until it is in the cache
	unsavedStamp Stamp
	version      uint64        // how many there were
	saved        uint64        // the version that is in the cache
	saving       bool          // somebody is writing to the cache
	round        chan struct{} // closed when the write that goes on has ended
}

// A Stamp says which event of which node a cached event is: the number of the
// node above stampBits, and below it a count that grows with each event. Zero
// stands for an event that nobody knows the place of.
//
// An event is in a cache that nodes share before the peers have it from the
// bus. Who joins in between gets it from the cache, and must not get it, or what
// came before it, from the bus as well.
type Stamp uint64

const stampBits = 40

// NewStamp returns the stamp of the n-th event of a node; only the low bits of
// both are kept.
func NewStamp(node uint32, n uint64) Stamp {
	return Stamp(node)<<stampBits | Stamp(n)&(1<<stampBits-1)
}

// covers reports whether who was replayed the event of s has no use for that of o.
func (s Stamp) covers(o Stamp) bool {
	return s != 0 && o != 0 && s>>stampBits == o>>stampBits && o <= s
}

// stampedFor is for how long after a join events may still be on the bus that
// were in the cache before it. It bounds the time in which a broadcast looks at
// the stamps of subscribers.
const stampedFor = 10 * time.Second

// A LastEvent is an event that a cache channel replays from now on.
type LastEvent struct {
	Frame  *ws.Frame
	Except *ws.Conn
	At     time.Time // when it was published; zero: not measured
	Stamp  Stamp
}

// PublishLast is Publish for an event of this node that the channel replays
// from now on. stamp makes its stamp when it has its place; nil: it has none.
// The caller must then call Save, and pin the channel meanwhile.
func (c *Channel) PublishLast(e LastEvent, stamp func() Stamp) (version uint64, s Stamp, err error) {
	c.mu.Lock()
	if c.busy() {
		c.mu.Unlock()
		return 0, 0, ErrBusy
	}
	if stamp != nil {
		e.Stamp = stamp()
	}
	c.last.version++
	c.last.newest, c.last.stamp = e.Frame, e.Stamp
	c.last.unsaved, c.last.unsavedStamp = e.Frame, e.Stamp
	version = c.last.version
	c.order(e.Frame, e.Except, e.At)
	c.send() // unlocks
	return version, e.Stamp, nil
}

// DeliverLast is Publish for an event that a peer has saved in the cache.
// Subscribers that were replayed it, or a later one of that peer, do not get it.
func (c *Channel) DeliverLast(e LastEvent) error {
	c.mu.Lock()
	if len(c.waiting) >= maxWaiting {
		c.mu.Unlock()
		return ErrBusy
	}
	if c.pins > 0 { // somebody may have read the cache and be about to join
		c.last.newest, c.last.stamp = e.Frame, e.Stamp
	}
	c.order(e.Frame, e.Except, e.At)
	if n := len(c.waiting); n > 0 && time.Since(c.last.stamped) < stampedFor {
		c.waiting[n-1].stamp = e.Stamp
	}
	c.send() // unlocks
	return nil
}

// Newest returns the newest event of a cache channel if the cache may not have
// it, else nil: then the cache can be read. Whoever joins afterwards pins the
// channel from before this call until it has joined.
func (c *Channel) Newest() *ws.Frame {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.last.newest
}

// Save returns once version or a newer one has been given to write. One caller
// at a time writes, always the newest event of this node, so that the cache ends
// up with the last one in the channel's order; the others wait for it.
func (c *Channel) Save(version uint64, write func(f *ws.Frame, s Stamp)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.last.saved < version {
		if c.last.saving {
			round := c.last.round
			c.mu.Unlock()
			<-round
			c.mu.Lock()
			continue
		}
		c.last.saving = true
		c.last.round = make(chan struct{})
		f, s, v := c.last.unsaved, c.last.unsavedStamp, c.last.version
		c.mu.Unlock()
		write(f, s)
		c.mu.Lock()
		c.last.saving = false
		c.last.saved = v
		if c.last.version == v {
			c.last.unsaved = nil
		}
		close(c.last.round)
	}
}
