package redisbus

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/redis/rueidis"
)

type state uint8

const (
	out      state = iota // not subscribed
	entering              // the command is under way
	in                    // confirmed
	leaving               // the command is under way
)

// A topic is subscribed, or was and is to be forgotten. Its link alone sends
// commands for it, one at a time. All fields are guarded by Bus.mu; sharded and
// name are written only while no command is under way, so the link may read them.
type topic struct {
	name string

	link      *link // nil: homeless
	state     state
	sharded   bool // how it is subscribed
	wanted    bool
	queued    bool // is in link.changes
	misplaced bool // is to be left here and subscribed elsewhere
	evicted   bool // the server took it away before its confirmation was seen
	broken    bool // was subscribed, should be and is not
	waiters   []chan error
}

// Subscribe returns when the server has confirmed it.
func (b *Bus) Subscribe(ctx context.Context, name string) error {
	if err := b.subscribe(ctx, name); err != nil {
		return fmt.Errorf("redisbus: subscribe: %w", err)
	}
	return nil
}

func (b *Bus) subscribe(ctx context.Context, name string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	b.mu.Lock()
	t := b.topics[name]
	if t == nil {
		t = &topic{name: name}
		b.topics[name] = t
		b.place(t)
	}
	t.wanted = true
	if t.state == in && !t.misplaced {
		b.mu.Unlock()
		return nil
	}
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
func (b *Bus) Unsubscribe(_ context.Context, name string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	t := b.topics[name]
	if t == nil {
		return nil
	}
	t.wanted = false
	b.setBroken(t, false)
	if t.state == out {
		b.forget(t)
	} else {
		b.queue(t)
	}
	b.update()
	return nil
}

// --- with Bus.mu held ---------------------------------------------------------

// place gives t to the link that the topology names.
func (b *Bus) place(t *topic) {
	t.queued, t.misplaced = false, false
	t.link = nil
	if now := b.topology.Load(); now != nil {
		t.link = now.link(t.name)
	}
	if t.link == nil {
		b.homeless[t] = struct{}{}
		return
	}
	delete(b.homeless, t)
	b.queue(t)
}

// evict takes t, which the server has no more, from its link until the cluster
// was looked at.
func (b *Bus) evict(t *topic) {
	t.state = out
	t.queued, t.misplaced = false, false
	t.link = nil
	if !t.wanted {
		b.forget(t)
		return
	}
	b.homeless[t] = struct{}{}
}

// queue lets the link of t look at it.
func (b *Bus) queue(t *topic) {
	if t.queued || t.link == nil {
		return
	}
	t.queued = true
	t.link.changes = append(t.link.changes, t)
	t.link.call()
}

// forget is for a topic that is out and not wanted.
func (b *Bus) forget(t *topic) {
	b.setBroken(t, false)
	delete(b.homeless, t)
	delete(b.topics, t.name)
	t.link = nil
	resolve(t, errUnsubscribed)
}

func (b *Bus) setBroken(t *topic, broken bool) {
	if t.broken == broken {
		return
	}
	t.broken = broken
	if broken {
		b.broken++
	} else {
		b.broken--
	}
}

func resolve(t *topic, err error) {
	for _, w := range t.waiters {
		w <- err
	}
	t.waiters = nil
}

// update tells that continuity was lost or restored; what it returns is closed
// when that was told, and is nil when there was nothing to tell.
func (b *Bus) update() <-chan struct{} {
	return b.continuity.Set(b.missing > 0 || b.broken > 0)
}

// adopt makes t the topology and moves topics to where they belong now.
func (b *Bus) adopt(t *topology) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.topology.Load() == nil {
		defer close(b.ready)
	}
	b.topology.Store(t)
	for _, s := range t.servers {
		for _, l := range s.links {
			l.call() // those that were complete without a topology look again
		}
	}
	for _, topic := range b.topics {
		to := t.link(topic.name)
		switch {
		case topic.link == nil || topic.state == out:
			b.place(topic)
		case !topic.sharded && !t.sharded:
			// Any server will do; to move would only tear a hole.
		case to != topic.link || topic.sharded != t.sharded:
			topic.misplaced = true
			b.queue(topic)
		default:
			topic.misplaced = false
		}
	}
}

// house places what has no link.
func (b *Bus) house() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for t := range b.homeless {
		b.place(t)
	}
}

// --- what links say -------------------------------------------------------------

// connected queues everything that l has to subscribe.
func (b *Bus) connected(l *link) {
	b.mu.Lock()
	defer b.mu.Unlock()
	l.up = true
	l.changes = nil
	for _, t := range b.topics {
		if t.link == l {
			t.queued = false
			b.queue(t)
		}
	}
}

// disconnected returns like update.
func (b *Bus) disconnected(l *link) <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !l.up {
		return nil
	}
	l.up = false
	l.changes, l.refused = nil, nil
	if !l.missing {
		l.missing = true
		b.missing++
	}
	for _, t := range b.topics {
		if t.link != l {
			continue
		}
		if t.wanted && (t.state == in || t.state == leaving && t.misplaced) {
			b.setBroken(t, true)
		}
		t.state = out
		t.queued = false
		switch {
		case !t.wanted:
			b.forget(t)
		case t.misplaced:
			b.place(t)
		default:
			b.queue(t)
		}
	}
	return b.update()
}

// gone is the end of l: its topics have no home.
func (b *Bus) gone(l *link) {
	b.disconnected(l)
	b.mu.Lock()
	defer b.mu.Unlock()
	if l.missing {
		l.missing = false
		b.missing--
	}
	for _, t := range b.topics {
		if t.link == l {
			b.evict(t)
		}
	}
}

// complete says that nothing is left to do for l.
func (b *Bus) complete(l *link) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.topology.Load() == nil {
		return
	}
	if l.missing && len(l.changes) == 0 {
		l.missing = false
		b.missing--
	}
	b.update()
}

// take returns the next topics that l has to subscribe and to unsubscribe.
func (b *Bus) take(l *link, most int) (enter, leave []*topic) {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := 0
	for ; n < len(l.changes) && n < most; n++ {
		t := l.changes[n]
		if t.link != l || !t.queued {
			continue
		}
		t.queued = false
		switch {
		case t.state == out && t.wanted:
			t.state, t.evicted = entering, false
			t.sharded = b.topology.Load().sharded
			enter = append(enter, t)
		case t.state == out:
			b.forget(t)
		case t.state == in && (!t.wanted || t.misplaced):
			t.state = leaving
			leave = append(leave, t)
		}
	}
	if l.changes = l.changes[n:]; len(l.changes) == 0 {
		l.changes = nil
	}
	return enter, leave
}

// entered takes the answer to the subscription of topics.
func (b *Bus) entered(l *link, topics []*topic, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, t := range topics {
		if t.link != l || t.state != entering {
			continue
		}
		switch {
		case err == nil && t.evicted:
			b.setBroken(t, t.wanted)
			b.evict(t)
			b.look()
		case err == nil:
			t.state = in
			b.setBroken(t, false)
			resolve(t, nil)
			if !t.wanted || t.misplaced {
				b.queue(t)
			}
		case elsewhere(err):
			b.evict(t)
			b.look()
		default:
			t.state = out
			if !passing(err) {
				resolve(t, err)
			}
			l.refused = append(l.refused, t)
		}
	}
	b.update()
}

// passing says whether the server cannot do it now but will be able to.
func passing(err error) bool {
	for _, code := range []string{"CLUSTERDOWN", "TRYAGAIN", "LOADING", "MASTERDOWN", "BUSY"} {
		if re, ok := errors.AsType[*rueidis.RedisError](err); ok && strings.HasPrefix(re.Error(), code) {
			return true
		}
	}
	return false
}

// retry queues what was refused.
func (b *Bus) retry(l *link) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, t := range l.refused {
		if t.link == l && t.state == out {
			b.queue(t)
		}
	}
	l.refused = nil
}

// left takes the answer to the end of the subscription of topics.
func (b *Bus) left(l *link, topics []*topic) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, t := range topics {
		if t.link != l || t.state != leaving {
			continue
		}
		t.state = out
		switch {
		case !t.wanted:
			b.forget(t)
		case t.misplaced:
			b.setBroken(t, true)
			b.place(t)
		default: // subscribed again meanwhile
			b.queue(t)
		}
	}
	b.update()
}

// takenAway hears that the server ended a subscription, by itself or because
// it was asked to.
func (b *Bus) takenAway(l *link, name string) <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	t := b.topics[name]
	if t == nil || t.link != l {
		return nil
	}
	switch t.state {
	case in:
		b.setBroken(t, t.wanted)
		b.evict(t)
		b.look()
	case entering:
		t.evicted = true
	}
	return b.update()
}
