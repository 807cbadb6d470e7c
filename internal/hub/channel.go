package hub

import (
	"sync"
	"time"

	"sockudo/internal/metrics"
	"sockudo/internal/protocol"
	"sockudo/internal/ws"
)

const (
	// chunk is how many sends happen under one hold of a channel's lock: about
	// 15 µs, the longest that a join waits for a broadcast.
	chunk = 256
	// inline is up to how many subscribers the publisher itself sends to; above
	// it a goroutine does, so that no event loop is busy with a large channel.
	inline = 256
	// maxWaiting and maxWaitingBytes bound the broadcasts of one channel that are
	// not sent yet. One is always taken, however large.
	maxWaiting      = 1024
	maxWaitingBytes = 1 << 20
	// paceFor is how long a fan-out waits for the sockets before each broadcast,
	// if they are behind.
	paceFor = time.Second
	// countInterval is the pause between two subscription_count events of a
	// channel with more than protocol.SubscriptionCountQuiet subscribers.
	countInterval = 5 * time.Second
)

// A Channel is a channel with its subscribers on this node. All broadcasts take
// their order under its lock; one walker at a time sends them, in chunks. While
// it has subscribers it also holds what the peers have of it, so that what they
// are told first and all that they are told later follow from one state.
type Channel struct {
	// Fixed at creation.
	name   string
	kind   protocol.Kind
	series metrics.ChannelType
	ns     *Namespace

	mu      sync.Mutex // guards what follows
	slots   []slot
	members map[string]*member // presence channels only; of this node and of the peers
	locals  int                // members with a connection to this node
	remote  int                // subscriptions at the peers
	greet   *ws.Frame          // success frame, until the members change
	pins    int
	gone    bool // out of the table for good

	seq     uint64 // broadcasts that have their place in the order
	waiting []broadcast
	bytes   int // of the frames that wait
	walking bool
	pos     int // slots before it have been sent the broadcast being walked

	last lastEvent // cache channels only

	counted   bool      // subscription_count is on
	countAt   time.Time // when it was last sent
	countHeld bool      // a change has not been told yet
}

// A slot is a subscriber as the fan-out sees it. since is the number of
// broadcasts that were ordered before it joined and are not for it.
type slot struct {
	conn  *ws.Conn
	since uint64
	sub   *Subscription
}

type member struct {
	info   string
	conns  int // to this node
	remote int // to the peers
}

// A broadcast is a frame with its place in a channel's order.
type broadcast struct {
	frame  *ws.Frame
	except *ws.Conn
	seq    uint64
	at     time.Time // when it was published; zero: not measured
	stamp  Stamp     // zero: it is for all subscribers
}

// Name returns the channel's name.
func (c *Channel) Name() string { return c.name }

// Kind returns the channel's class.
func (c *Channel) Kind() protocol.Kind { return c.kind }

// Series returns the class that metrics book the channel under.
func (c *Channel) Series() metrics.ChannelType { return c.series }

// Unpin allows the channel to be forgotten again.
func (c *Channel) Unpin() {
	c.mu.Lock()
	if c.pins--; c.pins == 0 {
		c.last.newest = nil // it is in the cache
	}
	gone := c.reap()
	c.mu.Unlock()
	if gone {
		c.ns.shard(c.name).forget(c)
	}
}

// reap marks a channel that nothing needs any more. Its caller takes it out of
// the table after unlocking.
func (c *Channel) reap() bool {
	if !c.gone && len(c.slots) == 0 && c.pins == 0 {
		c.gone = true
		return true
	}
	return false
}

// Subscriptions returns the number of sockets of this node that are subscribed.
func (c *Channel) Subscriptions() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.slots)
}

// Local returns the number of sockets of this node that are subscribed and of
// distinct members among them.
func (c *Channel) Local() (subscriptions, users int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.slots), c.locals
}

// Counts returns the number of subscribed sockets and of distinct members in
// the whole cluster, zeros while this node has no subscriber.
func (c *Channel) Counts() (subscriptions, users int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.total(), len(c.members)
}

// total is the number of subscriptions in the whole cluster.
func (c *Channel) total() int { return len(c.slots) + c.remote }

// Members returns the ids of the members in the whole cluster, in no order;
// none while this node has no subscriber.
func (c *Channel) Members() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	ids := make([]string, 0, len(c.members))
	for id := range c.members {
		ids = append(ids, id)
	}
	return ids
}

// A Join says how a socket joins a channel.
type Join struct {
	Member     *protocol.Member // presence channels only
	MaxMembers int              // distinct users; 0: no limit
	Count      bool             // subscription_count is on for the app
	// Replay is queued for the socket right after its success frame: the last
	// event of a cache channel, or the miss, as the cache has it. What was
	// published since the channel was pinned goes before it. nil: nothing is.
	Replay *ws.Frame
	Stamp  Stamp // of Replay
	// Tell is called with the facts while the channel is locked, so that they
	// come in order; it must be quick. nil: nobody is told.
	Tell func(Joined)
}

// Joined are the facts about a join.
type Joined struct {
	First         bool // the channel was vacant
	NewMember     bool
	Subscriptions int  // in the whole cluster
	Newer         bool // something was published that took the place of Replay
}

// Join adds s to the channel and queues its success frame, so that no
// broadcast can overtake it and every later one follows it. The others learn
// of a new member. It returns ErrSubscribed or ErrFull.
func (c *Channel) Join(s *Socket, j Join) (Joined, error) {
	if s.Subscription(c.name) != nil {
		return Joined{}, ErrSubscribed
	}
	c.mu.Lock()
	var out Joined
	if j.Replay != nil && c.last.newest != nil {
		out.Newer = j.Replay != c.last.newest
		j.Replay, j.Stamp = c.last.newest, c.last.stamp
	}
	sub := s.subscription()
	*sub = Subscription{socket: s, channel: c, slot: len(c.slots), stamp: j.Stamp}
	c.load()
	members := c.locals
	if j.Member != nil {
		var err error
		if out.NewMember, err = c.enter(*j.Member, j.MaxMembers); err != nil {
			c.unload()
			c.mu.Unlock()
			return Joined{}, err
		}
		sub.user = j.Member.ID
	}
	c.slots = append(c.slots, slot{conn: s.Conn, since: c.seq, sub: sub})
	s.add(sub)
	opened := len(c.slots) == 1
	out.First = c.total() == 1
	out.Subscriptions = c.total()
	s.Send(c.greeting())
	if j.Replay != nil {
		s.Send(j.Replay)
		if j.Stamp != 0 {
			c.last.stamped = time.Now()
		}
	}
	if out.NewMember {
		m := protocol.Member{ID: j.Member.ID, Info: c.members[j.Member.ID].info}
		c.order(ws.TextFrame(protocol.AppendMemberAdded(nil, c.name, m)), s.Conn, time.Time{})
	}
	c.counted = j.Count
	c.countChanged()
	c.tell(sub.user)
	if j.Tell != nil {
		j.Tell(out)
	}
	members = c.locals - members
	c.send() // unlocks

	m := c.ns.metrics
	m.Subscribed(c.series)
	if opened {
		m.ChannelOpened(c.series)
	}
	if members > 0 {
		m.PresenceMembers(1)
	}
	return out, nil
}

// enter counts one more connection of a member and reports whether the member is new.
func (c *Channel) enter(m protocol.Member, limit int) (bool, error) {
	if present := c.members[m.ID]; present != nil {
		if present.conns++; present.conns == 1 { // was only with the peers
			c.locals++
		}
		return false, nil // the first user_info stays until the user has left
	}
	if limit > 0 && len(c.members) >= limit {
		return false, ErrFull
	}
	if c.members == nil {
		c.members = map[string]*member{}
	}
	c.members[m.ID] = &member{info: m.Info, conns: 1}
	c.locals++
	c.greet = nil
	return true, nil
}

// greeting returns the success frame of the channel as it is now.
func (c *Channel) greeting() *ws.Frame {
	if c.greet != nil {
		return c.greet
	}
	if !c.kind.Is(protocol.Presence) {
		c.greet = ws.TextFrame(protocol.AppendSucceeded(nil, c.name))
		return c.greet
	}
	c.greet = ws.TextFrame(protocol.AppendPresence(nil, c.name, func(yield func(protocol.Member) bool) {
		for id, m := range c.members {
			if !yield(protocol.Member{ID: id, Info: m.info}) {
				return
			}
		}
	}))
	return c.greet
}

// Left are the facts about a leave.
type Left struct {
	Last          bool   // the channel is vacant now
	Member        string // the member who is gone, or ""
	Subscriptions int    // in the whole cluster
}

// Leave ends a subscription. The others learn of a member who is gone. tell is
// called with the facts while the channel is locked, as in Join; nil: nobody is
// told.
func (sub *Subscription) Leave(tell func(Left)) Left {
	c := sub.channel
	c.mu.Lock()
	c.remove(sub.slot)
	sub.socket.drop(sub)
	members := c.locals
	out := Left{Last: c.total() == 0, Subscriptions: c.total()}
	if c.exit(sub.user) {
		out.Member = sub.user
		c.order(ws.TextFrame(protocol.AppendMemberRemoved(nil, c.name, sub.user)), nil, time.Time{})
	}
	c.countChanged()
	c.tell(sub.user)
	if tell != nil {
		tell(out)
	}
	members -= c.locals
	closed := len(c.slots) == 0
	if closed {
		c.unload()
	}
	gone := c.reap()
	c.send() // unlocks
	if gone {
		c.ns.shard(c.name).forget(c)
	}

	m := c.ns.metrics
	m.Unsubscribed(c.series)
	if closed {
		m.ChannelClosed(c.series)
	}
	if members > 0 {
		m.PresenceMembers(-1)
	}
	return out
}

// exit counts one connection of a member less and reports whether the member
// is gone. Who is only with the peers stays, with no connection here.
func (c *Channel) exit(user string) bool {
	m := c.members[user]
	if m == nil {
		return false
	}
	if m.conns--; m.conns > 0 {
		return false
	}
	c.locals--
	if m.remote > 0 {
		return false
	}
	delete(c.members, user)
	c.greet = nil
	return true
}

// remove takes slot i out. While a broadcast is walked, the slots before pos
// have been served and must stay together: a slot that moves across pos would
// be served twice or never.
func (c *Channel) remove(i int) {
	if c.walking && i < c.pos {
		c.pos--
		c.move(c.pos, i)
		i = c.pos
	}
	last := len(c.slots) - 1
	c.move(last, i)
	c.slots[last] = slot{}
	c.slots = c.slots[:last]
	if n := cap(c.slots); n > 64 && len(c.slots) < n/4 {
		c.slots = append(make([]slot, 0, n/2), c.slots...)
	}
}

func (c *Channel) move(from, to int) {
	if from != to {
		c.slots[to] = c.slots[from]
		c.slots[to].sub.slot = to
	}
}

// Publish orders a frame for all subscribers but except and sends it. It
// returns ErrBusy when too much waits already, here or for the sockets; the
// server of the connections tells when there is room (ws.Server.Room).
func (c *Channel) Publish(f *ws.Frame, except *ws.Conn, at time.Time) error {
	c.mu.Lock()
	if c.busy() {
		c.mu.Unlock()
		return ErrBusy
	}
	c.order(f, except, at)
	c.send() // unlocks
	return nil
}

// busy reports that no further broadcast should be taken. The sockets are asked
// under the lock: of many publishers who found room at the same time, only
// those pass for whom there is.
func (c *Channel) busy() bool {
	return len(c.waiting) >= maxWaiting || c.bytes > maxWaitingBytes || len(c.slots) > 0 && c.slots[0].conn.Server().Full()
}

// order gives a frame its place behind all earlier ones. The caller sends.
func (c *Channel) order(f *ws.Frame, except *ws.Conn, at time.Time) {
	c.seq++
	if len(c.slots) == 0 {
		return
	}
	c.waiting = append(c.waiting, broadcast{frame: f, except: except, seq: c.seq, at: at})
	c.bytes += f.Size()
}

// send unlocks the channel after it has sent what waits, or has seen to it
// that somebody does.
func (c *Channel) send() {
	switch {
	case c.walking || len(c.waiting) == 0:
		c.mu.Unlock()
	case len(c.slots) > inline:
		c.walking, c.pos = true, 0
		c.ns.hub.walks.Add(1)
		c.mu.Unlock()
		go func() {
			defer c.ns.hub.walks.Done()
			c.mu.Lock()
			c.walk(true)
		}()
	default:
		c.walking, c.pos = true, 0
		c.walk(false)
	}
}

// walk sends all that waits and unlocks. It lets others at the lock after
// every chunk. A patient walk waits before each broadcast while the sockets are
// behind, so that clients who keep up are never over their bound.
func (c *Channel) walk(patient bool) {
	for ; len(c.waiting) > 0; c.pos = 0 {
		if patient && len(c.slots) > 0 {
			if srv := c.slots[0].conn.Server(); srv.Full() {
				c.mu.Unlock()
				srv.Pace(paceFor)
				c.mu.Lock()
			}
		}
		b := c.waiting[0]
		c.bytes -= b.frame.Size()
		c.waiting[0] = broadcast{}
		c.waiting = c.waiting[1:]
		if len(c.waiting) == 0 {
			c.waiting = nil
		}
		sent := 0
		for c.pos < len(c.slots) {
			stop := min(c.pos+chunk, len(c.slots))
			for i := c.pos; i < stop; i++ {
				s := &c.slots[i]
				if s.since >= b.seq || s.conn == b.except || b.stamp != 0 && s.sub.stamp.covers(b.stamp) {
					continue
				}
				if s.conn.Send(b.frame) {
					sent++
				}
			}
			c.pos = stop
			if stop < len(c.slots) {
				c.mu.Unlock()
				c.mu.Lock()
			}
		}
		if sent > 0 {
			c.ns.metrics.Sent(sent, sent*b.frame.Size())
			if !b.at.IsZero() {
				c.ns.metrics.Broadcast(c.series, sent, time.Since(b.at))
			}
		}
	}
	c.walking, c.pos = false, 0 // the next walk may be a while in coming, and slots may leave meanwhile
	c.mu.Unlock()
}

// countChanged tells the subscribers how many they are, or remembers to do so
// when that was told a moment ago (section 2.10).
func (c *Channel) countChanged() {
	if !c.counted || !c.kind.Counted() || c.countHeld {
		return
	}
	now := time.Now()
	if c.total() > protocol.SubscriptionCountQuiet && now.Sub(c.countAt) < countInterval {
		c.countHeld = true
		h := c.ns.hub
		h.countMu.Lock() // a leaf: nothing is taken below it
		h.counts = append(h.counts, c)
		h.countMu.Unlock()
		return
	}
	c.sendCount(now)
}

func (c *Channel) sendCount(now time.Time) {
	c.countAt = now
	c.order(ws.TextFrame(protocol.AppendCount(nil, c.name, c.total())), nil, time.Time{})
}

// flushCount sends a count that was held back, if it is due, and reports
// whether nothing is held any more.
func (c *Channel) flushCount(now time.Time) bool {
	c.mu.Lock()
	if c.total() > protocol.SubscriptionCountQuiet && now.Sub(c.countAt) < countInterval {
		c.mu.Unlock()
		return false
	}
	c.countHeld = false
	c.sendCount(now)
	c.send() // unlocks
	return true
}
