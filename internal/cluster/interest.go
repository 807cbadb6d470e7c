package cluster

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

var errStopped = errors.New("cluster: stopped")

// interests are the topics of channels that this node wants.
type interests struct {
	bus    Bus
	linger time.Duration

	mu      sync.RWMutex // guards what follows
	byTopic map[string]*interest
	idle    []idleInterest // in the order of their time
	stopped bool
	work    sync.WaitGroup
	ctx     context.Context // of Run, until it ends; nil before
	began   chan struct{}   // closed with ctx set
}

// An interest is one topic, and those who want it.
type interest struct {
	app, channel, topic string

	// Guarded by interests.mu.
	wants int
	acked bool          // the broker has confirmed it
	from  time.Time     // when it first did
	busy  chan struct{} // closed when the call of the bus that runs has returned; nil: none runs
	err   error         // of that call
	since uint64        // counts the times that it became idle
}

type idleInterest struct {
	it    *interest
	since uint64
	at    time.Time
}

func newInterests(bus Bus, linger time.Duration) *interests {
	return &interests{bus: bus, linger: linger, byTopic: map[string]*interest{}, began: make(chan struct{})}
}

// find returns the interest of a topic, or nil.
func (n *interests) find(topic string) *interest {
	n.mu.RLock()
	defer n.mu.RUnlock()
	return n.byTopic[topic]
}

// since reports whether a topic is wanted, and was at a time in the past.
func (n *interests) since(topic string, at time.Time) bool {
	n.mu.RLock()
	defer n.mu.RUnlock()
	it := n.byTopic[topic]
	return it != nil && it.acked && !it.from.After(at)
}

func (n *interests) has(topic string) bool {
	n.mu.RLock()
	defer n.mu.RUnlock()
	it := n.byTopic[topic]
	return it != nil && it.acked
}

// tryWant wants a topic if nothing has to be waited for.
func (n *interests) tryWant(topic string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	it := n.byTopic[topic]
	if it == nil || !it.acked {
		return false
	}
	it.wants++
	return true
}

func (n *interests) want(ctx context.Context, app, channel, topic string) error {
	select {
	case <-n.began:
	case <-ctx.Done():
		return fmt.Errorf("cluster: topic of channel %s: %w", channel, ctx.Err())
	}
	n.mu.Lock()
	if n.stopped {
		n.mu.Unlock()
		return errStopped
	}
	it := n.byTopic[topic]
	if it == nil {
		it = &interest{app: app, channel: channel, topic: topic}
		n.byTopic[topic] = it
	}
	it.wants++
	if it.acked {
		n.mu.Unlock()
		return nil
	}
	if it.busy == nil {
		n.subscribe(it)
	}
	for {
		busy := it.busy // not nil: only what has stopped is not subscribed
		n.mu.Unlock()
		var err error
		select {
		case <-busy:
		case <-ctx.Done():
			err = ctx.Err()
		}
		n.mu.Lock()
		switch {
		case it.acked:
			n.mu.Unlock()
			return nil
		case err == nil && it.err == nil && it.busy != nil:
			continue // it was being left, and is subscribed anew
		case err == nil:
			err = it.err
		}
		n.release(it)
		n.mu.Unlock()
		return fmt.Errorf("cluster: topic of channel %s: %w", channel, err)
	}
}

// subscribeTimeout bounds the wait for a broker's confirmation.
const subscribeTimeout = 5 * time.Second

// subscribe calls the bus. n.mu is held and nothing is busy with the topic.
func (n *interests) subscribe(it *interest) {
	busy := make(chan struct{})
	it.busy, it.err = busy, nil
	ctx := n.ctx
	if n.stopped {
		it.err, it.busy = errStopped, nil
		close(busy)
		return
	}
	n.work.Go(func() {
		ctx, cancel := context.WithTimeout(ctx, subscribeTimeout)
		err := n.bus.Subscribe(ctx, it.topic)
		cancel()
		if err != nil {
			n.leave(ctx, it)
		}
		n.mu.Lock()
		defer n.mu.Unlock()
		it.busy, it.err, it.acked, it.from = nil, err, err == nil, time.Now()
		if it.wants == 0 {
			n.rest(it)
		}
		close(busy)
	})
}

// leave tells the bus that a topic is not wanted.
func (n *interests) leave(ctx context.Context, it *interest) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), subscribeTimeout)
	defer cancel()
	// Whatever the error, the bus has forgotten the topic; the broker will when
	// the connection ends.
	_ = n.bus.Unsubscribe(ctx, it.topic)
}

func (n *interests) unwant(topic string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if it := n.byTopic[topic]; it != nil && it.wants > 0 {
		n.release(it)
	}
}

func (n *interests) release(it *interest) {
	if it.wants--; it.wants == 0 && it.busy == nil {
		n.rest(it)
	}
}

// rest notes that nobody wants a topic any more, or drops it if it was not
// subscribed. n.mu is held and nothing is busy with the topic.
func (n *interests) rest(it *interest) {
	if !it.acked {
		delete(n.byTopic, it.topic)
		return
	}
	it.since++
	n.idle = append(n.idle, idleInterest{it, it.since, time.Now()})
}

// sweepers is how many topics are left at the same time.
const sweepers = 16

// sweep leaves the topics that nobody has wanted for a while.
func (n *interests) sweep(ctx context.Context, now time.Time) {
	var leaving []*interest
	n.mu.Lock()
	for len(n.idle) > 0 && now.Sub(n.idle[0].at) >= n.linger {
		i := n.idle[0]
		n.idle[0] = idleInterest{}
		n.idle = n.idle[1:]
		if i.it.wants == 0 && i.it.since == i.since && i.it.acked && i.it.busy == nil {
			i.it.acked, i.it.busy, i.it.err = false, make(chan struct{}), nil
			leaving = append(leaving, i.it)
		}
	}
	n.mu.Unlock()
	var wg sync.WaitGroup
	next := make(chan *interest)
	for range min(sweepers, len(leaving)) {
		wg.Go(func() {
			for it := range next {
				n.leave(ctx, it)
				n.left(it)
			}
		})
	}
	for _, it := range leaving {
		next <- it
	}
	close(next)
	wg.Wait()
}

// left ends the leaving of a topic, which somebody may want again by now.
func (n *interests) left(it *interest) {
	n.mu.Lock()
	defer n.mu.Unlock()
	busy := it.busy
	it.busy = nil
	if it.wants > 0 {
		n.subscribe(it)
	} else {
		delete(n.byTopic, it.topic)
	}
	close(busy)
}

// begin lets wants go through until end.
func (n *interests) begin(ctx context.Context) {
	n.mu.Lock()
	n.ctx = ctx
	n.mu.Unlock()
	close(n.began)
}

// end fails all wants from now on and waits for the calls that run.
func (n *interests) end() {
	n.mu.Lock()
	n.stopped = true
	n.mu.Unlock()
	n.work.Wait()
}
