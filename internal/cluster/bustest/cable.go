package bustest

import (
	"context"
	"errors"
	"sync"

	"sockudo/internal/cluster"
)

// ErrCut is what a bus returns whose cable is cut.
var ErrCut = errors.New("bustest: the cable is cut")

// A Cable is the way of one node to a broker, and can be cut: then nothing
// passes in either direction until it is mended.
type Cable struct {
	bus cluster.Bus

	mu  sync.Mutex // guards what follows
	cut bool
	on  cluster.Events // nil: nobody runs the bus
}

// NewCable returns a bus over another one.
func NewCable(bus cluster.Bus) *Cable { return &Cable{bus: bus} }

// Cut cuts the cable.
func (c *Cable) Cut() { c.set(true) }

// Mend mends it.
func (c *Cable) Mend() { c.set(false) }

func (c *Cable) set(cut bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cut == cut {
		return
	}
	c.cut = cut
	switch {
	case c.on == nil:
	case cut:
		c.on.Lost()
	default:
		c.on.Restored()
	}
}

func (c *Cable) broken() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cut {
		return ErrCut
	}
	return nil
}

// Publish fails while the cable is cut.
func (c *Cable) Publish(ctx context.Context, topic string, msg []byte) error {
	if err := c.broken(); err != nil {
		return err
	}
	return c.bus.Publish(ctx, topic, msg)
}

// Subscribe remembers the topic also while the cable is cut.
func (c *Cable) Subscribe(ctx context.Context, topic string) error {
	return errors.Join(c.bus.Subscribe(ctx, topic), c.broken())
}

// Unsubscribe forgets the topic.
func (c *Cable) Unsubscribe(ctx context.Context, topic string) error {
	return c.bus.Unsubscribe(ctx, topic)
}

// Run delivers what comes while the cable is whole.
func (c *Cable) Run(ctx context.Context, on cluster.Events) error {
	c.mu.Lock()
	c.on = on
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.on = nil
	}()
	return c.bus.Run(ctx, passing{c, on})
}

// passing are events that come through a cable.
type passing struct {
	c  *Cable
	on cluster.Events
}

func (p passing) Message(topic string, msg []byte) {
	if p.c.broken() == nil {
		p.on.Message(topic, msg)
	}
}

func (p passing) Lost() { p.on.Lost() }

func (p passing) Restored() {
	if p.c.broken() == nil {
		p.on.Restored()
	}
}
