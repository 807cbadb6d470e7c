package node

import (
	"context"
	"sync"
	"time"

	"sockudo/internal/cluster"
	"sockudo/internal/hub"
	"sockudo/internal/protocol"
)

// Hooks are told what webhooks report (protocol section 6), once in the whole
// cluster: what comes into being and ends by the node that is responsible for
// the channel, at least once and twice only around the death of a node. Delays
// and what cancels each other within one (6.5) are the hooks' own matter.
type Hooks interface {
	// Happened is told of one event at a time, those of a channel in order. It
	// must not wait and may keep e.
	Happened(appID string, e protocol.HookEvent)
}

// missInterval is for how long further misses of a cache channel are the same
// one (protocol 2.8).
const missInterval = time.Second

// countInterval is the pause between two subscription_count events of a channel
// with more than protocol.SubscriptionCountQuiet subscriptions (protocol 2.10).
const countInterval = 5 * time.Second

// A feed brings events to the hooks, on one goroutine and with no lock held.
// What happens under the lock of a channel is put into it there, so that it
// stays in order. A nil feed tells nobody.
type feed struct {
	hooks Hooks
	came  chan struct{} // holds one when there is something in the queue

	mu    sync.Mutex // guards what follows
	queue []happening

	// Owned by Run's goroutine.
	counts map[cluster.Topic]*count
	misses map[cluster.Topic]time.Time // when the last one was told
}

// A happening is an event of an app.
type happening struct {
	app string
	protocol.HookEvent
}

// A count is what the hooks know of the subscriptions of a large channel.
type count struct {
	told time.Time
	held bool // there is another number since then
	n    int  // that number
}

func newFeed(h Hooks) *feed {
	if h == nil {
		return nil
	}
	return &feed{hooks: h, came: make(chan struct{}, 1), counts: map[cluster.Topic]*count{}, misses: map[cluster.Topic]time.Time{}}
}

// put queues an event, unless it is of a user channel.
func (f *feed) put(app string, e protocol.HookEvent) {
	if f == nil || protocol.KindOf(e.Channel).Is(protocol.User) {
		return
	}
	f.mu.Lock()
	f.queue = append(f.queue, happening{app, e})
	f.mu.Unlock()
	select {
	case f.came <- struct{}{}:
	default:
	}
}

func (f *feed) take() []happening {
	f.mu.Lock()
	defer f.mu.Unlock()
	queue := f.queue
	f.queue = nil
	return queue
}

// run tells the hooks until ctx is done and nothing is left to tell.
func (f *feed) run(ctx context.Context) {
	tick := time.NewTicker(250 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			f.tellAll(time.Now())
			f.flush(time.Time{})
			return
		case <-f.came:
			f.tellAll(time.Now())
		case now := <-tick.C:
			f.flush(now)
		}
	}
}

func (f *feed) tellAll(now time.Time) {
	for _, h := range f.take() {
		key := cluster.Topic{App: h.app, Channel: h.Channel}
		switch h.Name {
		case protocol.HookSubscriptionCount:
			if !f.due(key, h.Subscriptions, now) {
				continue
			}
		case protocol.HookCacheMiss:
			if last, told := f.misses[key]; told && now.Sub(last) < missInterval {
				continue
			}
			f.misses[key] = now
		}
		f.hooks.Happened(h.app, h.HookEvent)
	}
}

// due reports whether a number of subscriptions is told now, and keeps it for
// later if it is not.
func (f *feed) due(key cluster.Topic, n int, now time.Time) bool {
	c := f.counts[key]
	switch {
	case n <= protocol.SubscriptionCountQuiet:
		delete(f.counts, key)
		return true
	case c == nil:
		f.counts[key] = &count{told: now}
		return true
	}
	c.held, c.n = true, n // flush tells it
	return false
}

// flush tells the numbers that were held back for long enough, all of them if
// now is zero, and forgets what is not needed any more.
func (f *feed) flush(now time.Time) {
	for key, c := range f.counts {
		switch {
		case !now.IsZero() && now.Sub(c.told) < countInterval:
		case c.held:
			f.hooks.Happened(key.App, protocol.HookEvent{Name: protocol.HookSubscriptionCount, Channel: key.Channel, Subscriptions: c.n})
			c.told, c.held = now, false
		default:
			delete(f.counts, key)
		}
	}
	for key, told := range f.misses {
		if now.Sub(told) >= missInterval {
			delete(f.misses, key)
		}
	}
}

// joined returns what is to be told of a join to a node without peers; with
// peers, fact is.
func (n *Node) joined(app, channel string, member *protocol.Member) func(hub.Joined) {
	if n.feed == nil || n.peers != nil {
		return nil
	}
	return func(j hub.Joined) {
		if j.First {
			n.feed.put(app, protocol.HookEvent{Name: protocol.HookChannelOccupied, Channel: channel})
		}
		if j.NewMember {
			n.feed.put(app, protocol.HookEvent{Name: protocol.HookMemberAdded, Channel: channel, UserID: member.ID})
		}
		n.counted(app, channel, j.Subscriptions)
	}
}

// left is to leaves what joined is to joins.
func (n *Node) left(app, channel string) func(hub.Left) {
	if n.feed == nil || n.peers != nil {
		return nil
	}
	return func(l hub.Left) {
		if l.Member != "" {
			n.feed.put(app, protocol.HookEvent{Name: protocol.HookMemberRemoved, Channel: channel, UserID: l.Member})
		}
		n.counted(app, channel, l.Subscriptions)
		if l.Last {
			n.feed.put(app, protocol.HookEvent{Name: protocol.HookChannelVacated, Channel: channel})
		}
	}
}

func (n *Node) counted(app, channel string, subscriptions int) {
	if protocol.KindOf(channel).Counted() {
		n.feed.put(app, protocol.HookEvent{Name: protocol.HookSubscriptionCount, Channel: channel, Subscriptions: subscriptions})
	}
}

// fact tells the hooks what came into being or ended in the cluster.
func (n *Node) fact(f cluster.Fact) {
	e := protocol.HookEvent{Channel: f.Channel, UserID: f.User}
	switch f.Kind {
	case cluster.Occupied:
		e.Name = protocol.HookChannelOccupied
	case cluster.Vacated:
		e.Name = protocol.HookChannelVacated
	case cluster.MemberAdded:
		e.Name = protocol.HookMemberAdded
	case cluster.MemberRemoved:
		e.Name = protocol.HookMemberRemoved
	case cluster.SubscriptionCount:
		n.counted(f.App, f.Channel, f.Count)
		return
	default:
		return // of a newer version
	}
	n.feed.put(f.App, e)
}
