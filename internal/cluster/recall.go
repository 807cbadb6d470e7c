package cluster

import (
	"cmp"
	"context"
	"encoding/binary"
	"slices"
	"sync"
	"time"
)

// What a broker has taken just before its death, or before that of a connection,
// may not have reached everybody. So each node keeps what it published last, and
// when a node is back after a loss, it and each of its peers say that again to
// each other. Envelopes have numbers, by which a receiver knows what it had, and
// what would come too late to be in order.

const (
	// keepFor and maxKept bound what is kept. The canary proves every second that
	// what was published before has arrived.
	keepFor = 5 * time.Second
	maxKept = 8 << 20
	// recallMargin is by how much more is said again than since the last proof:
	// others may have it later than the canary.
	recallMargin = time.Second
)

// A keeper keeps what was published last.
type keeper struct {
	mu    sync.Mutex // guards what follows and the parcels
	kept  []*parcel
	bytes int
}

// A parcel is an envelope that was handed to the broker.
type parcel struct {
	number uint64
	topic  string
	of     Topic // zero: for all nodes
	msg    []byte
	at     time.Time
	taken  bool // by the broker
}

func (k *keeper) keep(p *parcel) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.kept = append(k.kept, p)
	k.bytes += len(p.msg)
	k.prune(p.at)
}

// settle notes what became of a parcel. What was refused is not said again: its
// publisher was told so.
func (k *keeper) settle(p *parcel, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if p.taken = err == nil; !p.taken {
		k.bytes -= len(p.msg)
		p.msg = nil
	}
}

// forget drops what is old. It is not called while the broker is lost.
func (k *keeper) forget(now time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.prune(now)
}

// prune is called with mu held.
func (k *keeper) prune(now time.Time) {
	n := 0
	for ; n < len(k.kept) && (k.bytes > maxKept || now.Sub(k.kept[n].at) > keepFor); n++ {
		k.bytes -= len(k.kept[n].msg)
		k.kept[n] = nil
	}
	if k.kept = k.kept[n:]; len(k.kept) == 0 {
		k.kept = nil // do not keep what a burst has grown
	}
}

// since returns the bodies that say again what was published within age, as
// far as wanted.
func (k *keeper) since(now time.Time, age time.Duration, wanted func(Topic) bool) (bodies [][]byte) {
	k.mu.Lock()
	defer k.mu.Unlock()
	var all []*parcel
	for _, p := range k.kept {
		if p.taken && now.Sub(p.at) <= age && (p.of == Topic{} || wanted(p.of)) {
			all = append(all, p)
		}
	}
	slices.SortFunc(all, func(a, b *parcel) int { return cmp.Compare(a.number, b.number) })
	var body []byte
	for _, p := range all {
		if len(body) > 0 && len(body)+len(p.msg) > messageLimit {
			bodies = append(bodies, body)
			body = nil
		}
		body = appendString(body, p.topic)
		body = binary.AppendUvarint(body, uint64(now.Sub(p.at).Milliseconds()))
		body = binary.AppendUvarint(body, uint64(len(p.msg)))
		body = append(body, p.msg...)
	}
	if len(body) > 0 {
		bodies = append(bodies, body)
	}
	return bodies
}

// readAgain calls visit with what since returned.
func readAgain(b []byte, visit func(topic string, age time.Duration, msg []byte)) (ok bool) {
	r := reader{b: b}
	for len(r.b) > 0 {
		topic, ms, msg := r.string(), r.uvarint(), r.bytes()
		if r.bad || ms > uint64(freshness.Milliseconds()) {
			return false
		}
		visit(topic, time.Duration(ms)*time.Millisecond, msg)
	}
	return !r.bad
}

// --- at the receiver ---------------------------------------------------------------

const (
	// maxHeld bounds what is held back of one node.
	maxHeld = 16 << 20
	// recents is of how many events of a node it is known what came last.
	recents = 1024
)

// A held event came after a loss, and waits for those that came before.
type held struct {
	topic string
	env   envelope
}

// A recent event is one that was delivered.
type recent struct{ topic, number uint64 }

// hold has the events of all nodes wait until each of them has said again what
// was missed. Before the broker is back, that takes as long as it takes.
func (g *guard) hold(now time.Time, back bool) {
	g.mu.RLock()
	defer g.mu.RUnlock()
	for _, s := range g.sources {
		s.mu.Lock()
		s.holding = true
		s.holds++
		s.heldAt, s.back = now, back
		s.mu.Unlock()
	}
}

// pass reports whether an event is to be delivered now, or else whether those
// that wait are not to wait any longer: while a part of the broker works, only for
// a moment.
func (g *guard) pass(topic string, e *envelope, now time.Time) (ok, enough bool) {
	s := e.from
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.holding {
		s.note(g.hash(topic), e.number)
		return true, false
	}
	if len(s.waiting) == 0 {
		s.waitsAt = now
	}
	s.waiting = append(s.waiting, held{topic, *e})
	s.waitingBytes += len(e.body)
	return false, s.waitingBytes > maxHeld || now.Sub(s.waitsAt) >= holdFor
}

// passAgain does that for what is said again. It must not come behind what
// was said after it.
func (g *guard) passAgain(topic string, e *envelope, now time.Time) (ok, enough bool) {
	s := e.from
	hash := g.hash(topic)
	s.mu.Lock()
	late := slices.ContainsFunc(s.recent, func(r recent) bool { return r.topic == hash && r.number > e.number })
	s.mu.Unlock()
	if late {
		return false, false
	}
	return g.pass(topic, e, now)
}

// saysAgain notes that what it says again may overtake what it said.
func (s *source) saysAgain(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.again = now
}

// note is called with mu held.
func (s *source) note(topic, number uint64) {
	if len(s.recent) < recents {
		s.recent = append(s.recent, recent{topic, number})
		return
	}
	s.recent[s.oldest] = recent{topic, number}
	s.oldest = (s.oldest + 1) % recents
}

// release delivers what is held back of a node, in order, and lets pass what
// comes.
func (g *guard) release(s *source, deliver func(topic string, e *envelope)) {
	s.mu.Lock()
	if s.releasing || !s.holding {
		s.mu.Unlock()
		return
	}
	s.releasing = true
	holds := s.holds
	for len(s.waiting) > 0 {
		waiting := s.waiting
		s.waiting, s.waitingBytes = nil, 0
		slices.SortStableFunc(waiting, func(a, b held) int { return cmp.Compare(a.env.number, b.env.number) })
		for i := range waiting {
			s.note(g.hash(waiting[i].topic), waiting[i].env.number)
		}
		s.mu.Unlock()
		for i := range waiting {
			deliver(waiting[i].topic, &waiting[i].env)
		}
		s.mu.Lock()
	}
	s.releasing = false
	s.holding = s.holds != holds // lost again meanwhile
	s.mu.Unlock()
}

// overdue returns the nodes that have not said in time what was missed.
func (g *guard) overdue(now time.Time) (all []*source) {
	g.mu.RLock()
	defer g.mu.RUnlock()
	for _, s := range g.sources {
		s.mu.Lock()
		since, limit := s.heldAt, listenTimeout
		if len(s.waiting) > 0 {
			since = max2(s.waitsAt, s.heldAt)
			if s.back {
				limit = holdFor
			}
		}
		if s.holding && now.Sub(since) >= limit {
			all = append(all, s)
		}
		s.mu.Unlock()
	}
	return all
}

// event delivers an event of a peer, or holds it back.
func (c *Cluster) event(pass func(string, *envelope, time.Time) (ok, enough bool), topic string, env *envelope, now time.Time) {
	ok, enough := pass(topic, env, now)
	switch {
	case ok:
		c.deliver(topic, env)
	case enough:
		c.guard.release(env.from, c.deliver)
	}
}

// again takes what a peer says again.
func (c *Cluster) again(by *envelope, now time.Time) {
	by.from.saysAgain(now)
	ok := readAgain(by.body, func(topic string, age time.Duration, msg []byte) {
		env, why := c.guard.examine(msg, now)
		switch {
		case why == refusedReplayed, why == late: // it was not missed, or means nothing any more
		case why == own, why == "" && (env.from != by.from || !env.kind.deed()):
			c.guard.refuse(refusedMisrouted, &env)
		case why != "":
			c.guard.refuse(why, &env)
		case env.kind != kindBroadcast:
			c.take(topic, &env, now)
		case c.interests.since(topic, now.Add(-age)):
			c.event(c.guard.passAgain, topic, &env, now)
		}
	})
	if !ok {
		c.guard.refuse(refusedMalformed, by)
	}
}

// complete ends the hold of a peer that has said again what was missed.
func (c *Cluster) complete(env *envelope) {
	if m, ok := readListen(env.body); ok && m.to == c.self && m.loss == c.gate.count() {
		c.guard.release(env.from, c.deliver)
	}
}

// hand publishes an envelope, and keeps it so that it can be said again. of is
// the zero value for what concerns all nodes.
func (c *Cluster) hand(ctx context.Context, e *envelope, topic string, of Topic, msg []byte) error {
	p := &parcel{number: e.number, topic: topic, of: of, msg: msg, at: e.sent}
	c.keeper.keep(p)
	err := c.bus.Publish(ctx, topic, msg)
	c.keeper.settle(p, err)
	return err
}

// command publishes what all nodes are to do.
func (c *Cluster) command(ctx context.Context, k kind, body []byte) error {
	e := c.guard.envelope(k, body, time.Now())
	return c.hand(ctx, e, c.topics.control, Topic{}, c.guard.sealer.seal(e))
}
