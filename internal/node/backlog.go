package node

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"

	"sockudo/internal/cluster"
	"sockudo/internal/hub"
)

const (
	// maxBacklog and maxBacklogBytes bound what waits for one channel, and
	// maxBacklogs what waits for all of them. What is beyond is dropped.
	maxBacklog      = 4096
	maxBacklogBytes = 4 << 20
	maxBacklogs     = 64 << 20
)

// backlogs are the events of peers that their channels are too busy for. What
// the broker brings for other channels does not wait behind them.
type backlogs struct {
	some atomic.Int64 // backlogs; zero: nothing has to be looked up
	work sync.WaitGroup

	mu      sync.Mutex // guards what follows
	waiting map[cluster.Topic]*backlog
	bytes   int
}

// A backlog is what waits for one channel, in order. It exists while a goroutine
// works on it.
type backlog struct {
	queue   []overdue
	bytes   int
	dropped int
}

// An overdue is an event that is to be published when there is room.
type overdue struct {
	size    int
	publish func() error
}

// insist publishes an event of a peer, whose publisher has been told that it was
// accepted, so a channel that is busy is given a while. It does not wait. The
// events of one channel come from one goroutine at a time.
func (n *Node) insist(appID, channel string, size int, publish func() error) {
	key := cluster.Topic{App: appID, Channel: channel}
	b := &n.backlogs
	if b.some.Load() > 0 && b.add(key, overdue{size, publish}, false) {
		return
	}
	switch err := publish(); {
	case errors.Is(err, hub.ErrBusy):
		if !b.add(key, overdue{size, publish}, true) {
			b.work.Go(func() { n.catchUp(key) })
		}
	case err != nil:
		n.log.Warn("event of a peer dropped", "app_id", appID, "channel", channel, "err", err)
	}
}

// add puts an event behind those that wait already and reports whether there are
// any. If there are none it is put there only when begin is set, and its caller
// sees to it.
func (b *backlogs) add(key cluster.Topic, e overdue, begin bool) (behind bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	l := b.waiting[key]
	behind = l != nil
	if !behind && !begin {
		return false
	}
	if !behind {
		if b.waiting == nil {
			b.waiting = map[cluster.Topic]*backlog{}
		}
		l = &backlog{}
		b.waiting[key] = l
		b.some.Add(1)
	}
	if len(l.queue) >= maxBacklog || l.bytes+e.size > maxBacklogBytes && len(l.queue) > 0 || b.bytes+e.size > maxBacklogs {
		l.dropped++
		return behind
	}
	l.queue = append(l.queue, e)
	l.bytes += e.size
	b.bytes += e.size
	return behind
}

// next removes the event that a channel got, or did not, and returns the one
// after it; when there is none the backlog ends.
func (b *backlogs) next(key cluster.Topic, done *overdue) (e overdue, dropped int, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	l := b.waiting[key]
	if done != nil {
		l.queue[0] = overdue{}
		l.queue = l.queue[1:]
		l.bytes -= done.size
		b.bytes -= done.size
	}
	if len(l.queue) == 0 {
		delete(b.waiting, key)
		b.some.Add(-1)
		return overdue{}, l.dropped, false
	}
	return l.queue[0], 0, true
}

// catchUp publishes what waits for a channel. An event for which there is no
// room for long is dropped, so that what comes after it is not too old.
func (n *Node) catchUp(key cluster.Topic) {
	late := 0
	var done *overdue
	for {
		e, dropped, ok := n.backlogs.next(key, done)
		if !ok {
			if late+dropped > 0 {
				n.dropped(key, late+dropped)
			}
			return
		}
		if err := n.admit(context.Background(), e.publish); err != nil { // it takes roomFor at most
			late++
		}
		done = &e
	}
}

// dropped accounts for events of peers that subscribers of this node did not get.
func (n *Node) dropped(key cluster.Topic, events int) {
	n.log.Warn("events of peers dropped: the channel is too busy", "app_id", key.App, "channel", key.Channel, "events", events)
	if n.opts.Dropped != nil {
		n.opts.Dropped(events)
	}
}
