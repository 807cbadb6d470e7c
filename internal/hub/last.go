package hub

import (
	"time"

	"sockudo/internal/ws"
)

// A lastEvent is what this node knows of the event that a cache channel
// replays. The event itself is in the cache; only while it is on its way there
// the channel holds it, so that a subscriber gets it exactly once: replayed if
// it joined after the publish, live if before, whatever the cache is doing.
type lastEvent struct {
	version uint64        // events published while the channel was pinned
	unsaved *ws.Frame     // the newest one, until it is in the cache
	saved   uint64        // the version that is in the cache
	saving  bool          // somebody is writing to the cache
	round   chan struct{} // closed when the write that goes on has ended
}

// PublishLast is Publish for an event that the channel replays from now on.
// The caller must then call Save, and pin the channel meanwhile.
func (c *Channel) PublishLast(f *ws.Frame, except *ws.Conn, at time.Time) (version uint64, err error) {
	c.mu.Lock()
	if len(c.waiting) >= maxWaiting {
		c.mu.Unlock()
		return 0, ErrBusy
	}
	c.last.version++
	c.last.unsaved = f
	version = c.last.version
	c.order(f, except, at)
	c.send() // unlocks
	return version, nil
}

// LastVersion returns the number of the newest event that is replayed, and the
// event itself while it is not in the cache.
func (c *Channel) LastVersion() (version uint64, unsaved *ws.Frame) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.last.version, c.last.unsaved
}

// Save returns once version or a newer one has been given to write. One caller
// at a time writes, always the newest event, so that the cache ends up with
// the last one in the channel's order; the others wait for it.
func (c *Channel) Save(version uint64, write func(f *ws.Frame)) {
	c.mu.Lock()
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
		f, v := c.last.unsaved, c.last.version
		c.mu.Unlock()
		write(f)
		c.mu.Lock()
		c.last.saving = false
		c.last.saved = v
		if c.last.version == v {
			c.last.unsaved = nil
		}
		close(c.last.round)
	}
	gone := c.reap()
	c.mu.Unlock()
	if gone {
		c.ns.shard(c.name).forget(c)
	}
}
