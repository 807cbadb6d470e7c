package cluster

import (
	"maps"
	"slices"
	"time"

	"sockudo/internal/directory"
)

// Who tells the world what happens to a channel, and how that duty passes from
// one node to another.
//
// The owner of a channel is chosen among the nodes that claim. It tells every
// transition of its own view as it happens, so what it told last is what it sees.
// Every node remembers the transitions of a while, also those that were not its
// own to tell, because the duty moves:
//
//   - A node that claims waits for what the owners before it told last (their
//     handovers), then tells what differs. What nobody handed over, it tells from
//     its memory. It is late rather than wrong: in between nobody tells.
//   - When a node dies, what it may not have told any more is told again by its
//     successors, from memory.
//   - A node that leaves hands over to all before its goodbye.
//   - A node that was deaf for long gives up its claim, because others may have
//     taken its place, and claims anew.
type charge struct {
	wanted  bool // there is somebody to tell
	state   chargeState
	claim   uint64    // told to the others; 0: none
	since   time.Time // of the state
	claimed time.Time
	await   map[string]bool          // owners whose handover is missing
	awaited bool                     // there was one to wait for
	lists   map[string]*handoverList // by node: handovers and farewells
	owners  []string                 // sorted, those who claim
	log     []logged
}

type chargeState uint8

const (
	standby  chargeState = iota // tells nothing
	claiming                    // waits for handovers
	inCharge
)

// logged is a transition that was seen, with the time.
type logged struct {
	at time.Time
	directory.Transition
}

// A handoverList is what a node told last.
type handoverList struct {
	claim uint64 // that it answers
	got   int
	parts []bool
	told  map[thing]int
}

// A thing is a channel, or a member of one.
type thing struct{ app, channel, user string }

func (t *logged) thing() thing { return thing{t.App, t.Channel, t.User} }

const (
	// handoverWindow is how far back a handover reaches. What did not change for
	// so long is seen the same by all.
	handoverWindow = 10 * time.Second
	// maxLog bounds the memory of transitions.
	maxLog = 1 << 20
)

// window is how long transitions are remembered: as long as a node may be dead
// before that is noticed.
func (k *core) window() time.Duration { return k.timing.timeout + handoverWindow + 5*time.Second }

// absorb takes the transitions that happened and tells those that are this
// node's to tell.
func (k *core) absorb(now time.Time) {
	if !k.charge.wanted {
		return
	}
	for _, t := range k.dir.Transitions() {
		k.charge.log = append(k.charge.log, logged{now, t})
		if k.charge.state == inCharge && k.owner(t.App, t.Channel) == k.self.node {
			k.tell(&t)
		}
	}
}

// owner returns who of those who claim is responsible for a channel.
func (k *core) owner(app, channel string) string {
	return directory.Owner(app, channel, k.charge.owners)
}

// tell makes facts of a transition.
func (k *core) tell(t *directory.Transition) {
	f := Fact{App: t.App, Channel: t.Channel, User: t.User}
	if t.User != "" {
		switch {
		case t.Before == 0 && t.After > 0:
			f.Kind, f.Info = MemberAdded, t.Info
		case t.Before > 0 && t.After == 0:
			f.Kind = MemberRemoved
		default:
			return
		}
		k.facts = append(k.facts, f)
		return
	}
	if t.Before == t.After {
		return
	}
	f.Count = t.After
	if t.Before == 0 {
		f.Kind = Occupied
		k.facts = append(k.facts, f)
	}
	f.Kind = SubscriptionCount
	k.facts = append(k.facts, f)
	if t.After == 0 {
		f.Kind = Vacated
		k.facts = append(k.facts, f)
	}
}

// chargeJoined forgets what was seen while the partitions of the others came
// in: it had been told before. If there is nobody who could have, it is kept.
func (k *core) chargeJoined(now time.Time) {
	k.absorb(now)
	k.charge.since = now
	for _, p := range k.peers {
		if p.beat.claim > 0 {
			k.charge.log = nil
			return
		}
	}
}

// chargeDeaf gives up the claim of a node that was deaf for long.
func (k *core) chargeDeaf(now time.Time) {
	c := &k.charge
	if k.deaf.IsZero() || now.Sub(k.deaf) < k.timing.timeout/2 {
		return
	}
	if c.state != standby {
		k.absorb(now)
		c.state, c.claim = standby, 0
		c.await, c.lists, c.log = nil, nil, nil // all until now was told
		k.reckon()
	}
	c.since = now
}

// chargeTick begins to claim, and takes over when it may.
func (k *core) chargeTick(now time.Time) {
	c := &k.charge
	if !c.wanted {
		return
	}
	switch c.state {
	case standby:
		if k.joined && k.hears(now) && now.Sub(c.since) >= settle && k.allHeld(now) {
			k.claim(now)
		}
	case claiming:
		// Where nobody is in charge, others may begin at the same time.
		if waited := now.Sub(c.since); len(c.await) == 0 && (c.awaited || waited >= settle) || waited >= 2*settle {
			k.takeOver(now)
		}
	case inCharge:
		k.trim(now)
	}
	if over := len(c.log) - maxLog; over > 0 {
		c.log = slices.Delete(c.log, 0, over)
	}
}

func (k *core) allHeld(now time.Time) bool {
	for _, p := range k.peers {
		if (!p.held || p.transfer != nil) && now.Sub(p.since) < k.timing.join {
			return false
		}
	}
	return true
}

// claim tells the others that this node wants its share.
func (k *core) claim(now time.Time) {
	c := &k.charge
	k.ids++
	c.claim = k.ids<<8 | 1
	c.state, c.since = claiming, now
	c.await, c.lists = map[string]bool{}, map[string]*handoverList{}
	for _, p := range k.peers {
		if p.claim > 0 {
			c.await[p.node] = true
		}
	}
	c.awaited, c.claimed = len(c.await) > 0, now
	k.reckon()
	k.beatAt = now
}

// reckon makes the list of those who claim.
func (k *core) reckon() {
	k.charge.owners = k.charge.owners[:0:0]
	if k.charge.claim > 0 {
		k.charge.owners = append(k.charge.owners, k.self.node)
	}
	for _, p := range k.peers {
		if p.claim > 0 {
			k.charge.owners = append(k.charge.owners, p.node)
		}
	}
	slices.Sort(k.charge.owners)
}

// takeOver tells what the owners before did not, and is in charge from then on.
func (k *core) takeOver(now time.Time) {
	c := &k.charge
	k.absorb(now)
	told := map[thing]int{}
	for _, node := range slices.Sorted(maps.Keys(c.lists)) {
		maps.Copy(told, c.lists[node].told)
	}
	c.state, c.since = inCharge, now
	c.await, c.lists = nil, nil
	k.catchUp(now, c.log, told, func(app, channel string) bool { return k.owner(app, channel) == k.self.node })
}

// catchUp tells of the things that mine asks for what differs from what was
// told of them last. Of those of which that is not known, it tells the
// transitions of log.
func (k *core) catchUp(now time.Time, log []logged, told map[thing]int, mine func(app, channel string) bool) {
	last := map[thing]int{} // index in log
	for i := range log {
		last[log[i].thing()] = i
	}
	for i := range log {
		t := &log[i]
		if !mine(t.App, t.Channel) {
			continue
		}
		what := t.thing()
		if before, ok := told[what]; !ok {
			k.tell(&t.Transition)
		} else if last[what] == i {
			k.tell(&directory.Transition{App: t.App, Channel: t.Channel, User: t.User, Info: t.Info, Before: before, After: t.After})
		}
	}
	var rest []directory.Transition
	for what, before := range told {
		if _, ok := last[what]; !ok && mine(what.app, what.channel) {
			after, info := k.dir.Sum(what.app, what.channel, what.user)
			rest = append(rest, directory.Transition{App: what.app, Channel: what.channel, User: what.user, Info: info, Before: before, After: after})
		}
	}
	k.tellRest(now, rest)
}

// tellRest tells differences of things that did not change here lately. While
// their sums were read others may have changed them: those changes are still to
// be absorbed, and the difference ends where they begin.
func (k *core) tellRest(now time.Time, rest []directory.Transition) {
	newer := k.dir.Transitions()
	for i := range rest {
		for _, t := range newer {
			if t.App == rest[i].App && t.Channel == rest[i].Channel && t.User == rest[i].User {
				rest[i].After = t.Before
				break
			}
		}
	}
	// Channels come before their members and vanish after them.
	rank := func(t *directory.Transition) int {
		switch {
		case t.User != "":
			return 1
		case t.After > 0:
			return 0
		default:
			return 2
		}
	}
	slices.SortFunc(rest, func(a, b directory.Transition) int {
		if r := rank(&a) - rank(&b); r != 0 {
			return r
		}
		if a.App+"\x00"+a.Channel+"\x00"+a.User < b.App+"\x00"+b.Channel+"\x00"+b.User {
			return -1
		}
		return 1
	})
	for i := range rest {
		k.tell(&rest[i])
	}
	for _, t := range newer {
		k.charge.log = append(k.charge.log, logged{now, t})
		if k.charge.state == inCharge && k.owner(t.App, t.Channel) == k.self.node {
			k.tell(&t)
		}
	}
}

// chargeHeld counts a peer among the owners once its partition is known.
func (k *core) chargeHeld(now time.Time, p *peer) { k.chargeBeat(now, p) }

// chargeBeat notes that a peer claims, maybe anew. One that gave up its claim
// keeps its channels until it claims again or is dropped: it keeps in mind what
// it did not tell.
func (k *core) chargeBeat(now time.Time, p *peer) {
	if !p.held || p.beat.claim == 0 || p.claim == p.beat.claim {
		return
	}
	k.absorb(now)
	before := k.charge.owners
	p.claim, p.claimed = p.beat.claim, now
	k.reckon()
	k.handOver(now, p, before)
}

// handOver tells a node that claims what this one told last of the channels
// that are that node's now.
func (k *core) handOver(now time.Time, p *peer, before []string) {
	c := &k.charge
	if !c.wanted {
		return
	}
	var entries []directory.Entry
	if c.state != standby {
		entries = k.lastTold(now, func(app, channel string) bool {
			return directory.Owner(app, channel, before) == k.self.node && k.owner(app, channel) == p.node
		})
	}
	k.sendList(entries, func(m handover) {
		m.to, m.claim = p.target, p.claim
		k.send(toNode, p.node, kindHandover, m.append(nil))
	})
}

// lastTold lists what this node told last of the things that mine asks for and
// that changed lately.
func (k *core) lastTold(now time.Time, mine func(app, channel string) bool) []directory.Entry {
	told := map[thing]int{}
	var order []thing
	for i := range k.charge.log {
		t := &k.charge.log[i]
		if k.charge.state == inCharge && now.Sub(t.at) > handoverWindow || !mine(t.App, t.Channel) {
			continue
		}
		what := t.thing()
		if _, ok := told[what]; !ok {
			order = append(order, what)
			told[what] = t.Before // it has told nothing yet
		}
		if k.charge.state == inCharge {
			told[what] = t.After
		}
	}
	entries := make([]directory.Entry, 0, len(order))
	for _, what := range order {
		e := directory.Entry{Kind: directory.Channel, App: what.app, Channel: what.channel, User: what.user, Value: told[what]}
		if what.user != "" {
			e.Kind = directory.Member
		}
		entries = append(entries, e)
	}
	return entries
}

// sendList cuts entries into handovers; there is at least one.
func (k *core) sendList(entries []directory.Entry, send func(handover)) {
	var parts [][]byte
	for len(entries) > 0 {
		n, size := 0, 0
		for n < len(entries) && size < messageLimit {
			size += len(entries[n].App) + len(entries[n].Channel) + len(entries[n].User) + 16
			n++
		}
		parts = append(parts, directory.AppendEntries(nil, entries[:n]))
		entries = entries[n:]
	}
	if len(parts) == 0 {
		parts = [][]byte{nil}
	}
	for i, b := range parts {
		send(handover{index: i, total: len(parts), entries: b})
	}
}

// list adds a part to the list of a node. It reports whether it was one, and
// whether the list is complete.
func (k *core) list(node string, m *handover) (ok, complete bool) {
	c := &k.charge
	if c.lists == nil {
		c.lists = map[string]*handoverList{}
	}
	l := c.lists[node]
	if l == nil || l.claim != m.claim || len(l.parts) != m.total {
		l = &handoverList{claim: m.claim, parts: make([]bool, m.total), told: map[thing]int{}}
		c.lists[node] = l
	}
	err := directory.Decode(m.entries, func(e *directory.Entry) {
		if e.Kind == directory.Channel || e.Kind == directory.Member {
			l.told[thing{e.App, e.Channel, e.User}] = e.Value
		}
	})
	if err != nil {
		return false, false
	}
	if !l.parts[m.index] {
		l.parts[m.index] = true
		l.got++
	}
	return true, l.got == len(l.parts)
}

// handedOver takes what a peer told last. If this node did not wait for it, it
// was an owner all along in its own eyes, and tells what differs at once.
func (k *core) handedOver(now time.Time, p *peer, m *handover) bool {
	c := &k.charge
	if !c.wanted || m.claim != c.claim || c.state == standby {
		return true
	}
	ok, complete := k.list(p.node, m)
	if !ok || !complete {
		return ok
	}
	if c.state == claiming {
		delete(c.await, p.node)
		return true
	}
	told := c.lists[p.node].told
	delete(c.lists, p.node)
	k.catchUp(now, nil, told, func(app, channel string) bool { return k.owner(app, channel) == k.self.node })
	return true
}

// farewell takes what a peer that leaves told last.
func (k *core) farewell(p *peer, m *handover) bool {
	if !k.charge.wanted {
		return true
	}
	ok, _ := k.list(p.node, m)
	return ok
}

// farewells are the handovers to everybody of a node that leaves.
func (k *core) farewells(now time.Time) []outgoing {
	var out []outgoing
	c := &k.charge
	k.absorb(now)
	if !c.wanted || c.state == standby {
		return nil
	}
	entries := k.lastTold(now, func(app, channel string) bool { return k.owner(app, channel) == k.self.node })
	k.sendList(entries, func(m handover) {
		m.claim = c.claim
		out = append(out, outgoing{topic: toDirectory, kind: kindFarewell, body: m.append(nil)})
	})
	return out
}

// chargeDrop passes on what a node was responsible for, and takes the node off
// the list of peers. Its partition is dropped afterwards, by then its channels
// have other owners.
func (k *core) chargeDrop(now time.Time, p *peer, left bool) {
	c := &k.charge
	delete(k.peers, p.node)
	delete(c.await, p.node)
	before := c.owners
	k.reckon()
	list := c.lists[p.node]
	if c.state == claiming && left {
		// Its farewell is as good as a handover.
	} else {
		delete(c.lists, p.node)
	}
	if !c.wanted || p.claim == 0 || c.state != inCharge {
		return
	}
	// Those who claimed after the dead was heard last may not remember what it
	// did not tell. Those who were there before it fell silent do.
	heirs := k.heirs(p)
	var told map[thing]int
	if left && list != nil && list.got == len(list.parts) {
		told = list.told
	}
	// What it told long before it was heard last has reached the world.
	log := k.logSince(p.heard.Add(-handoverWindow))
	k.catchUp(now, log, told, func(app, channel string) bool {
		return directory.Owner(app, channel, before) == p.node && directory.Owner(app, channel, heirs) == k.self.node
	})
}

// heirs are those who claimed before a node was heard last.
func (k *core) heirs(dead *peer) []string {
	var heirs []string
	if k.charge.claimed.Before(dead.heard) {
		heirs = append(heirs, k.self.node)
	}
	for _, p := range k.peers {
		if p.claim > 0 && p.claimed.Before(dead.heard) {
			heirs = append(heirs, p.node)
		}
	}
	if len(heirs) == 0 {
		return k.charge.owners
	}
	return heirs
}

func (k *core) logSince(t time.Time) []logged {
	log := k.charge.log
	for len(log) > 0 && log[0].at.Before(t) {
		log = log[1:]
	}
	return log
}

// trim forgets what no successor has to tell any more.
func (k *core) trim(now time.Time) {
	c := &k.charge
	n := 0
	for n < len(c.log) && now.Sub(c.log[n].at) > k.window() {
		n++
	}
	if n > 1024 || n == len(c.log) {
		c.log = slices.Clone(c.log[n:])
	}
}
