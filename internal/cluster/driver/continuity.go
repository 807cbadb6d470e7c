package driver

import (
	"context"
	"sync"

	"sockudo/internal/cluster"
)

// Continuity tells the one who runs a bus that continuity was lost and
// restored, in turns, from one goroutine. The zero value is not usable.
type Continuity struct {
	wake chan struct{}

	mu    sync.Mutex // guards what follows
	lost  bool
	queue []turn
}

type turn struct {
	lost bool
	told chan struct{}
}

// NewContinuity returns one that is lost, which nobody is told.
func NewContinuity() *Continuity {
	return &Continuity{lost: true, wake: make(chan struct{}, 1)}
}

// Set notes whether continuity is lost. When that is news it returns what is
// closed when the news was told, otherwise nil. It does not wait.
func (c *Continuity) Set(lost bool) (told <-chan struct{}) {
	c.mu.Lock()
	if lost == c.lost {
		c.mu.Unlock()
		return nil
	}
	c.lost = lost
	t := turn{lost: lost, told: make(chan struct{})}
	c.queue = append(c.queue, t)
	c.mu.Unlock()
	select {
	case c.wake <- struct{}{}:
	default:
	}
	return t.told
}

// Run tells on the news until ctx is done.
func (c *Continuity) Run(ctx context.Context, on cluster.Events) {
	for {
		c.mu.Lock()
		queue := c.queue
		c.queue = nil
		c.mu.Unlock()
		for _, t := range queue {
			if t.lost {
				on.Lost()
			} else {
				on.Restored()
			}
			close(t.told)
		}
		if len(queue) > 0 {
			continue
		}
		select {
		case <-c.wake:
		case <-ctx.Done():
			return
		}
	}
}
