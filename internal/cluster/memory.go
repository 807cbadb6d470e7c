package cluster

import (
	"context"
	"slices"
	"sync"
)

// A MemoryBus is a broker inside the process, for the nodes of one test.
type MemoryBus struct {
	mu     sync.Mutex // guards what follows and the fields of all connections
	topics map[string][]*memoryConn
}

// NewMemoryBus returns a broker without connections.
func NewMemoryBus() *MemoryBus {
	return &MemoryBus{topics: map[string][]*memoryConn{}}
}

// Connect returns the Bus of one node.
func (b *MemoryBus) Connect() Bus {
	return &memoryConn{broker: b, arrived: make(chan struct{}, 1)}
}

type memoryMessage struct {
	topic string
	msg   []byte
}

type memoryConn struct {
	broker  *MemoryBus
	arrived chan struct{}

	queue []memoryMessage // guarded by broker.mu
}

// Publish queues msg at every connection that is subscribed.
func (c *memoryConn) Publish(ctx context.Context, topic string, msg []byte) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	m := memoryMessage{topic, slices.Clone(msg)}
	b := c.broker
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, to := range b.topics[topic] {
		to.queue = append(to.queue, m)
		select {
		case to.arrived <- struct{}{}:
		default:
		}
	}
	return nil
}

// Subscribe takes effect at once.
func (c *memoryConn) Subscribe(ctx context.Context, topic string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	b := c.broker
	b.mu.Lock()
	defer b.mu.Unlock()
	if !slices.Contains(b.topics[topic], c) {
		b.topics[topic] = append(slices.Clip(b.topics[topic]), c)
	}
	return nil
}

// Unsubscribe takes effect at once.
func (c *memoryConn) Unsubscribe(_ context.Context, topic string) error {
	b := c.broker
	b.mu.Lock()
	defer b.mu.Unlock()
	b.drop(topic, c)
	return nil
}

func (b *MemoryBus) drop(topic string, c *memoryConn) {
	rest := slices.DeleteFunc(slices.Clone(b.topics[topic]), func(o *memoryConn) bool { return o == c })
	if len(rest) == 0 {
		delete(b.topics, topic)
		return
	}
	b.topics[topic] = rest
}

// Run delivers what was queued; at its end the connection has no topics left.
func (c *memoryConn) Run(ctx context.Context, on Events) error {
	b := c.broker
	defer func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		for topic := range b.topics {
			b.drop(topic, c)
		}
		c.queue = nil
	}()
	on.Restored()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-c.arrived:
		}
		b.mu.Lock()
		queue := c.queue
		c.queue = nil
		b.mu.Unlock()
		for _, m := range queue {
			on.Message(m.topic, m.msg)
		}
	}
}

// Ping always succeeds.
func (c *memoryConn) Ping(context.Context) error { return nil }
