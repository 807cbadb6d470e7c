package natsbus

import (
	"context"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
)

// An interest is a topic that is subscribed, or was and is to be forgotten.
type interest struct {
	topic string

	// Owned by subscribeAll.
	sub *nats.Subscription

	// Guarded by Bus.mu.
	wanted    bool
	queued    bool
	confirmed bool // by a server, on a connection of now or before
	waiters   []chan error
}

// Subscribe returns when the server has confirmed it.
func (b *Bus) Subscribe(ctx context.Context, topic string) error {
	if err := b.subscribe(ctx, topic); err != nil {
		return fmt.Errorf("natsbus: subscribe: %w", err)
	}
	return nil
}

func (b *Bus) subscribe(ctx context.Context, topic string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	b.mu.Lock()
	t := b.topics[topic]
	if t == nil {
		t = &interest{topic: topic}
		b.topics[topic] = t
	}
	if t.wanted && t.confirmed && !b.lost {
		b.mu.Unlock()
		return nil
	}
	t.wanted = true
	confirmed := make(chan error, 1)
	t.waiters = append(t.waiters, confirmed)
	b.queue(t)
	b.mu.Unlock()

	select {
	case err := <-confirmed:
		return err
	case <-b.ended:
		return errEnded
	case <-ctx.Done():
		b.mu.Lock()
		defer b.mu.Unlock()
		for i, w := range t.waiters {
			if w == confirmed {
				t.waiters = append(t.waiters[:i], t.waiters[i+1:]...)
				break
			}
		}
		return ctx.Err()
	}
}

// Unsubscribe returns at once.
func (b *Bus) Unsubscribe(_ context.Context, topic string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if t := b.topics[topic]; t != nil && t.wanted {
		t.wanted, t.confirmed = false, false
		resolve(t, errUnsubscribed)
		b.queue(t)
	}
	return nil
}

// queue is called with Bus.mu held.
func (b *Bus) queue(t *interest) {
	if !t.queued {
		t.queued = true
		b.changes = append(b.changes, t)
		b.call()
	}
}

func (b *Bus) call() {
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

func resolve(t *interest, err error) {
	for _, w := range t.waiters {
		w <- err
	}
	t.waiters = nil
}

// again is how soon a server that did not confirm is asked again.
const again = 100 * time.Millisecond

// subscribeAll tells the server what is wanted, and those who wait that it
// knows. The library remembers subscriptions and repeats them by itself.
func (b *Bus) subscribeAll(ctx context.Context) {
	select {
	case <-b.witnesses.surveyed:
	case <-ctx.Done():
		return
	}
	var unconfirmed []*interest
	for {
		losses, changes := b.take()
		for _, t := range changes {
			b.apply(t)
		}
		unconfirmed = append(unconfirmed, changes...)
		var retry <-chan time.Time
		err := b.flush(ctx)
		if err == nil {
			b.witnesses.confirm(ctx, func() bool { return b.sameSince(losses) })
		}
		if err == nil && b.confirm(losses, unconfirmed) {
			unconfirmed = nil
		} else {
			retry = time.After(again)
		}
		select {
		case <-b.wake:
		case <-retry:
		case <-ctx.Done():
			return
		}
	}
}

func (b *Bus) take() (losses int, changes []*interest) {
	b.mu.Lock()
	defer b.mu.Unlock()
	changes, b.changes = b.changes, nil
	for _, t := range changes {
		t.queued = false
		if !t.wanted && b.topics[t.topic] == t {
			delete(b.topics, t.topic)
		}
	}
	return b.losses, changes
}

// apply makes the subscription of t what is wanted.
func (b *Bus) apply(t *interest) {
	b.mu.Lock()
	wanted := t.wanted
	b.mu.Unlock()
	var err error
	switch {
	case wanted && t.sub == nil:
		s := subject(t.topic)
		t.sub, err = b.sub.ChanSubscribe(s, b.inbox.queue(s))
	case !wanted && t.sub != nil:
		err = t.sub.Unsubscribe()
		t.sub = nil
	}
	if err != nil {
		b.log.Error("bus topic", "topic", t.topic, "wanted", wanted, "err", err)
		b.mu.Lock()
		defer b.mu.Unlock()
		resolve(t, err)
	}
}

func (b *Bus) flush(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, b.opts.Timeout)
	defer cancel()
	return b.sub.FlushWithContext(ctx)
}

// sameSince says whether the connection was not lost since.
func (b *Bus) sameSince(losses int) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return losses == b.losses
}

// confirm notes what the server knows, unless the connection was lost
// meanwhile. It returns false if it has to be called again.
func (b *Bus) confirm(losses int, changed []*interest) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if losses != b.losses {
		return false
	}
	for _, t := range changed {
		if t.wanted && t.sub != nil {
			t.confirmed = true
			resolve(t, nil)
		}
	}
	// Who hears that continuity is back has something to say.
	if b.lost && b.pubUp.Load() {
		b.lost = false
		for _, t := range b.topics {
			if t.confirmed {
				resolve(t, nil)
			}
		}
		b.continuity.Set(false)
	}
	return !b.lost
}

// lose notes that the connection was lost; what it returns is closed when that
// was told, and nil if there was nothing to tell.
func (b *Bus) lose() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.losses++
	b.lost = true
	if told := b.continuity.Set(true); told != nil {
		b.told = told
	}
	return b.told
}

// A downside notes the losses of one connection.
type downside struct {
	bus *Bus

	mu   sync.Mutex // guards what follows
	down bool
	told <-chan struct{}
}

// lose is called both when the library says it and when it dials, whatever
// comes first.
func (d *downside) lose() <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.down {
		d.down = true
		d.told = d.bus.lose()
	}
	return d.told
}

func (d *downside) regain() {
	d.mu.Lock()
	d.down = false
	d.mu.Unlock()
	d.bus.call()
}

// dial waits until it was told that the connection before was lost.
func (d *downside) dial(network, addr string) (net.Conn, error) {
	b := d.bus
	if b.received.Load() != nil {
		if told := d.lose(); told != nil {
			select {
			case <-told:
			case <-b.ended:
			}
		}
	}
	return b.dial(network, addr)
}

// subscriber is the side that subscribes.
type subscriber struct{ downside }

func (s *subscriber) Dial(network, addr string) (net.Conn, error) {
	b := s.bus
	conn, err := s.dial(network, addr)
	if err != nil {
		return nil, err
	}
	return &gated{Conn: conn, in: b.inbox, received: func() uint64 {
		if conn := b.received.Load(); conn != nil {
			return atomic.LoadUint64(&conn.InBytes)
		}
		return 0
	}}, nil
}

func (s *subscriber) disconnected(err error) {
	s.lose()
	s.bus.log.Warn("bus connection lost, retrying", "side", "subscribe", "err", err)
}

func (s *subscriber) reconnected(addr string) {
	s.bus.log.Info("bus connection is back", "side", "subscribe", "server", addr)
	s.regain()
}
