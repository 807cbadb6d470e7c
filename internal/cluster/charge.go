package cluster

import (
	"cmp"
	"encoding/binary"
	"maps"
	"slices"
	"time"

	"sockudo/internal/directory"
)

// Who tells the world what happens to a channel.
//
// The owner of a channel is chosen among the nodes that claim. It compares what
// the world was told last of a thing with what it sees, and tells the difference.
// The others are sent records of what was told. A thing whose record does not
// match what a node sees is open at this node: it has seen a change and does not
// know yet that the world was told.
//
// That is all there is to remember, whatever happens to the owner: when it dies,
// the next owner finds the thing open and tells it; when the next owner does not
// know of it, others for whom it stays open remind it. What is told twice in the
// end is what an owner told just before it died, or behind the back of the others.
//
// A new owner waits for a while after its claim, in which the old ones send their
// records and nobody tells. Who was deaf for long claims anew.
type charge struct {
	wanted  bool   // there is somebody to tell
	led     bool   // somebody else was known to claim, ever
	told    uint64 // messages with records that were made
	state   chargeState
	claim   uint64           // of this node; 0: it never claimed
	since   time.Time        // of the state
	mute    bool             // for as long as nothing is heard
	deafEnd time.Time        // of the last time that this was so for long
	owners  []string         // sorted, those who claim
	reigns  []reign          // the owners until now, the oldest first
	vouches map[string]vouch // by node, the dead too for a while
	clock   uint64           // never behind any stamp that was seen
	records map[thing]record
	open    map[thing]openThing
	counts  map[thing]time.Time // when the subscriptions of a channel changed
	unsent  map[thing]bool      // records for the others
	sendAt  time.Time           // when they are sent
	pruneAt time.Time
}

// A reign is a time with the same owners.
type reign struct {
	since   time.Time
	owners  []string
	telling []string // those of them that are in charge
}

// A vouch says from when until when all is known that a node told the world: its
// records are here, every one. Its entries outlive the node.
type vouch struct{ whole, until time.Time }

var (
	// unknown are the owners while this node could not hear who they are.
	unknown = []string{"?"}
	// before are those who were in charge when this node began.
	before = []string{"<"}
)

type chargeState uint8

const (
	standby  chargeState = iota // tells nothing
	claiming                    // waits for records
	inCharge
)

// A thing is a channel, which may be occupied, or a member of one, who may be
// there.
type thing struct{ app, channel, user string }

func (what thing) compare(other thing) int {
	return cmp.Or(cmp.Compare(what.app, other.app), cmp.Compare(what.channel, other.channel), cmp.Compare(what.user, other.user))
}

// A record says what the world was told of a thing, and when.
type record struct {
	is    bool
	stamp uint64
	at    time.Time // when this node learned it
}

// An openThing is one whose record does not match what this node sees.
type openThing struct {
	told  bool
	stamp uint64 // of the record; 0: it is assumed that the world knew the state before
	since time.Time
	again time.Time // when its owner is reminded next
	// doubt: it is again what was told last, as far as is known. But its owner may
	// have told that it was not, and died.
	doubt bool
	// blind: it is in doubt because it changed while this node did not see
	// everything. Only somebody who did can end that.
	blind bool
	// loaded: it came with a partition that was there before this node, while
	// nobody was known who might have told it.
	loaded bool
}

// age is for how many milliseconds a thing is open, twice; odd if in doubt.
func (o *openThing) age(now time.Time) uint64 {
	age := uint64(now.Sub(o.since).Milliseconds()) << 1
	if o.doubt {
		age |= 1
	}
	return age
}

const (
	// recordDelay gathers records for the others. Who dies within it takes with it
	// what it told that nobody else could see.
	recordDelay = 50 * time.Millisecond
	// remindAfter is how long a thing is open before its owner is reminded, and
	// remindAgain when it is reminded again.
	remindAfter = 750 * time.Millisecond
	remindAgain = 2 * time.Second
	// certainAfter is after how long what happened has had its effect on the world,
	// or never will.
	certainAfter = time.Second
	// recordsKept is how long records are remembered. It only has to be the same
	// everywhere, so that a later one is never forgotten before an earlier one.
	recordsKept = time.Minute
	// countsKept is how long an owner that takes over looks back for counts that
	// may not have been told.
	countsKept = 5 * time.Second
	// maxOpen bounds what is remembered of each sort.
	maxOpen = 1 << 20
	// maxReminders bounds a reminder.
	maxReminders = 1000
)

// absorb takes the transitions that happened, unless changes of this node that
// are among them have not been published yet. The world must not be told what
// the others cannot know: they could not correct it.
func (k *core) absorb(now time.Time) {
	c := &k.charge
	switch {
	case !c.wanted:
	case c.state == inCharge && !c.mute && (k.dir.Pending() || k.sending != nil && k.sending.kind == kindBatch):
	default:
		k.say(now)
		k.take(now, k.dir.Transitions())
	}
}

// take takes transitions whose causes are known to the others.
func (k *core) take(now time.Time, transitions []directory.Transition) {
	c := &k.charge
	for _, t := range transitions {
		what := thing{t.App, t.Channel, t.User}
		came, went := t.Before == 0, t.After == 0
		if o, ok := c.open[what]; (came || went) && c.led && !k.joined && (!ok || o.blind) {
			k.doubt(now, what)
			continue
		}
		if came {
			k.settle(now, what, k.told(what, false), true, t.Info)
		}
		if t.User == "" {
			c.counts[what] = now
			if k.mayTell(what) {
				k.count(what, t.After)
			}
		}
		if went {
			k.settle(now, what, k.told(what, true), false, t.Info)
		}
	}
}

// doubt opens a thing that came or went, or seemed to, while this node did not
// see everything: who is in charge knows what the world was told.
func (k *core) doubt(now time.Time, what thing) {
	c := &k.charge
	o, ok := c.open[what]
	if !ok && len(c.open) >= maxOpen {
		return
	}
	if !ok {
		o = openThing{stamp: c.records[what].stamp, since: now, again: now.Add(remindAfter)}
	}
	o.told, _ = k.see(what)
	o.doubt, o.blind, o.loaded = true, true, false
	c.open[what] = o
}

// told returns what the world was told of a thing, as far as this node knows;
// before is what it saw until now.
func (k *core) told(what thing, before bool) record {
	if r, ok := k.charge.records[what]; ok {
		return r
	}
	if o, ok := k.charge.open[what]; ok {
		return record{is: o.told, stamp: o.stamp}
	}
	return record{is: before}
}

// settle compares what was told of a thing with what is. The owner tells the
// difference, for others the thing stays open until the owner did.
func (k *core) settle(now time.Time, what thing, told record, is bool, info string) {
	c := &k.charge
	if told.is == is {
		if o, ok := c.open[what]; ok {
			if o.doubt = o.blind || !k.sure(now, what, o.since); o.doubt {
				c.open[what] = o
			} else {
				delete(c.open, what)
			}
		}
		return
	}
	if k.mayTell(what) {
		delete(c.open, what)
		k.tell(now, what, is, info)
		return
	}
	o, ok := c.open[what]
	if !ok {
		if len(c.open) >= maxOpen {
			return
		}
		o.since, o.again = now, now.Add(remindAfter)
	}
	o.told, o.stamp, o.doubt = told.is, told.stamp, false
	c.open[what] = o
}

// owner returns who of those who claim is responsible for a channel.
func (k *core) owner(app, channel string) string {
	return directory.Owner(app, channel, k.charge.owners)
}

// mine reports whether this node is the owner of a thing.
func (k *core) mine(what thing) bool { return k.owner(what.app, what.channel) == k.self.node }

// mayTell reports whether a thing is this node's to tell. While it hears nothing
// it tells nothing: the others cannot hear it either.
func (k *core) mayTell(what thing) bool {
	return k.charge.state == inCharge && !k.charge.mute && k.mine(what)
}

// count tells how many subscriptions a channel has.
func (k *core) count(what thing, n int) {
	k.facts = append(k.facts, Fact{Kind: SubscriptionCount, App: what.app, Channel: what.channel, Count: n})
}

// tell makes a fact of what is, and a record for the others.
func (k *core) tell(now time.Time, what thing, is bool, info string) {
	c := &k.charge
	f := Fact{App: what.app, Channel: what.channel, User: what.user, Kind: Vacated}
	switch {
	case what.user == "" && is:
		f.Kind = Occupied
	case what.user != "" && is:
		f.Kind, f.Info = MemberAdded, info
	case what.user != "":
		f.Kind = MemberRemoved
	}
	k.facts = append(k.facts, f)
	c.clock = max(c.clock+1, uint64(now.UnixMilli()))
	c.records[what] = record{is, c.clock, now}
	k.publishRecord(now, what)
}

func (k *core) publishRecord(now time.Time, what thing) {
	c := &k.charge
	if len(c.unsent) == 0 {
		c.sendAt = now.Add(recordDelay)
	}
	if len(c.unsent) < maxOpen {
		c.unsent[what] = true
	}
}

// see returns whether a thing is, as this node sees it now.
func (k *core) see(what thing) (is bool, info string) {
	n, info := k.dir.Sum(what.app, what.channel, what.user)
	return n > 0, info
}

// chargeWanted makes this node take its share.
func (k *core) chargeWanted() {
	k.charge = charge{
		wanted: true, records: map[thing]record{}, open: map[thing]openThing{},
		counts: map[thing]time.Time{}, vouches: map[string]vouch{}, unsent: map[thing]bool{},
	}
}

// chargeLoaded takes what came with the partition of a peer that was there
// before this node. The world knew it before, if there was anybody to tell it;
// if there was not, it stays open.
func (k *core) chargeLoaded(now time.Time) {
	c := &k.charge
	if !c.wanted {
		return
	}
	transitions := k.dir.Transitions()
	for _, t := range transitions {
		what := thing{t.App, t.Channel, t.User}
		switch {
		case t.Before > 0 || t.After == 0 || k.dir.Has(t.App, t.Channel, t.User):
			k.take(now, []directory.Transition{t}) // not by the partition, or not by it alone
		case !c.led && len(c.open) < maxOpen:
			c.open[what] = openThing{since: now, again: now.Add(remindAfter), loaded: true}
			if t.User == "" {
				c.counts[what] = now
			}
		}
	}
}

// chargeLed notes that there is somebody in charge. While this node joins, that
// means that the world knew what was loaded, and may know what happened since.
func (k *core) chargeLed() {
	c := &k.charge
	if c.led {
		return
	}
	c.led = true
	if !k.joined {
		maps.DeleteFunc(c.open, func(_ thing, o openThing) bool { return o.loaded })
		for what := range c.open {
			k.doubt(k.last, what)
		}
		c.reigns = slices.Insert(c.reigns, 0, reign{time.Time{}, before, before})
	}
}

// chargeJoined compares the records that came in while this node did not see
// yet what they are about.
func (k *core) chargeJoined(now time.Time) {
	c := &k.charge
	k.absorb(now)
	c.since = now
	for _, what := range slices.SortedFunc(maps.Keys(c.open), thing.compare) {
		o := c.open[what]
		if o.blind {
			k.doubt(now, what) // as it is, now that all is seen
			continue
		}
		is, info := k.see(what)
		k.settle(now, what, record{is: o.told, stamp: o.stamp}, is, info)
	}
	for what, r := range c.records {
		is, info := k.see(what)
		k.settle(now, what, r, is, info)
	}
}

// chargeDeaf ends the charge of a node that was deaf for long.
func (k *core) chargeDeaf(now time.Time) {
	c := &k.charge
	if mute := !k.hears(now); mute != c.mute {
		c.mute = mute
		if !mute && now.Sub(k.deaf) >= k.timing.timeout/2 {
			c.deafEnd = now
		}
		if !mute && now.Sub(k.deaf) < k.timing.timeout/2 {
			k.takeOver(now, k.deaf, func(thing) bool { return true })
		}
	}
	if k.deaf.IsZero() || now.Sub(k.deaf) < k.timing.timeout/2 {
		return
	}
	if c.state != standby {
		k.absorb(now)
		// Its claim stands, as in the eyes of those who did not drop it, until it
		// claims anew: until then nobody tells.
		c.state = standby
		c.reigns = append(c.reigns, reign{now, unknown, unknown})
	}
	c.since = now
}

// claimToTell returns what heartbeats say. Where a node that is not in charge
// any more was dropped, it is no owner until it claims anew; where it was not,
// its last claim stands.
func (k *core) claimToTell() uint64 {
	if k.charge.state == standby {
		return 0
	}
	return k.charge.claim
}

// chargeTick does what is due.
func (k *core) chargeTick(now time.Time) {
	c := &k.charge
	if !c.wanted {
		return
	}
	switch waited := now.Sub(c.since); {
	case c.state == standby && k.joined && k.hears(now) && waited >= settle && k.allHeld(now):
		k.ids++
		c.claim = k.ids
		c.state, c.since = claiming, now
		k.reckon()
		k.beatAt = now
	case c.state == claiming && waited >= settle:
		c.state, c.since = inCharge, now
		k.beatAt = now
		k.takeOver(now, now.Add(-countsKept), func(thing) bool { return true })
	}
	if k.joined {
		k.remindOwners(now)
	}
	if !now.Before(c.pruneAt) {
		c.pruneAt = now.Add(settle)
		maps.DeleteFunc(c.records, func(_ thing, r record) bool { return now.Sub(r.at) > recordsKept })
		maps.DeleteFunc(c.vouches, func(node string, v vouch) bool { return k.peers[node] == nil && now.Sub(v.until) > recordsKept })
		for len(c.reigns) > 1 && now.Sub(c.reigns[1].since) > recordsKept {
			c.reigns = c.reigns[1:]
		}
		maps.DeleteFunc(c.counts, func(_ thing, at time.Time) bool { return now.Sub(at) > k.timing.timeout+countsKept })
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

// reckon makes the list of those who claim.
func (k *core) reckon() {
	k.charge.owners = nil
	if k.charge.claim > 0 {
		k.charge.owners = append(k.charge.owners, k.self.node)
	}
	for _, p := range k.peers {
		if p.claim > 0 {
			k.charge.owners = append(k.charge.owners, p.node)
		}
	}
	slices.Sort(k.charge.owners)
	k.reign(k.last)
}

// reign notes who may tell from now on.
func (k *core) reign(now time.Time) {
	r := reign{now, k.charge.owners, nil}
	for _, p := range k.peers {
		if p.telling {
			r.telling = append(r.telling, p.node)
		}
	}
	k.charge.reigns = append(k.charge.reigns, r)
}

// sure reports whether this node knows all that the world was told of a thing
// from a moment on, as far as that can have been caused by what happened then.
func (k *core) sure(now time.Time, what thing, since time.Time) bool {
	end := now
	for _, r := range slices.Backward(k.charge.reigns) {
		until := since.Add(certainAfter)
		if end.Before(until) {
			until = end
		}
		if !k.clear(what, &r, max2(r.since, since), until) {
			return false
		}
		if !r.since.After(since) {
			break
		}
		end = r.since
	}
	return true
}

// clear is sure for a part of one reign.
func (k *core) clear(what thing, r *reign, from, until time.Time) bool {
	knows := func(v vouch) bool { return !v.whole.After(from) && !v.until.Before(until) }
	switch {
	case slices.Equal(r.owners, unknown):
		return false
	case slices.Equal(r.owners, before):
		for _, v := range k.charge.vouches {
			if !knows(v) {
				return false
			}
		}
		return true
	}
	owner := directory.Owner(what.app, what.channel, r.owners)
	return owner == k.self.node || !slices.Contains(r.telling, owner) || knows(k.charge.vouches[owner])
}

// takeOver tells what is open of the things that are this node's now, and the
// counts that changed after a moment of the channels that became its own.
func (k *core) takeOver(now, after time.Time, new func(thing) bool) {
	c := &k.charge
	k.absorb(now)
	if c.state != inCharge || c.mute {
		return
	}
	for _, what := range slices.SortedFunc(maps.Keys(c.open), thing.compare) {
		if k.mine(what) {
			k.close(now, what)
		}
	}
	for _, what := range slices.SortedFunc(maps.Keys(c.counts), thing.compare) {
		if c.counts[what].After(after) && k.mine(what) && new(what) {
			n, _ := k.dir.Sum(what.app, what.channel, "")
			k.count(what, n)
		}
	}
}

// close tells an open thing of this node.
func (k *core) close(now time.Time, what thing) {
	o := k.charge.open[what]
	delete(k.charge.open, what)
	if is, info := k.see(what); is != o.told || o.blind || o.doubt && !k.sure(now, what, o.since) {
		k.tell(now, what, is, info)
	}
}

// chargeBeat notes that a peer whose partition is known claims, maybe anew. From
// then on its channels are told by it, once it has the records of the others.
func (k *core) chargeBeat(now time.Time, p *peer) {
	c := &k.charge
	if !c.wanted || p.beat.claim == 0 {
		return
	}
	if p.beat.telling {
		k.chargeLed()
	}
	if !p.held {
		return
	}
	k.absorb(now)
	if p.telling != p.beat.telling {
		p.telling = p.beat.telling
		k.reign(now)
	}
	if p.claim == p.beat.claim {
		return
	}
	p.claim = p.beat.claim
	k.reckon()
	// Before it is in charge it has all that was told, and knows that it has.
	c.sendAt = now
	if c.state == inCharge && k.beatAt.After(now.Add(helloDelay)) {
		k.beatAt = now.Add(helloDelay)
	}
}

// counted notes how many messages with records a peer has sent until now.
func (k *core) counted(now time.Time, p *peer, told uint64) {
	switch _, known := k.charge.vouches[p.node]; {
	case p.whole.IsZero() && !known && !k.joined:
		p.told, p.whole = told, k.started // whatever it sent since would have come
	case p.whole.IsZero() || told > p.told:
		p.told, p.whole = told, now
	}
}

// chargeVouch notes that a peer has said that it sent all its records, as many as
// counted: if none is missing, it told nothing but what they say.
func (k *core) chargeVouch(now time.Time, p *peer) {
	if k.charge.wanted {
		k.charge.vouches[p.node] = vouch{p.whole, now}
	}
}

// chargeDrop inherits the channels of a node that is no more. It is off the list
// of peers already, its partition is dropped afterwards.
func (k *core) chargeDrop(now time.Time, p *peer) {
	c := &k.charge
	if !c.wanted || p.claim == 0 {
		return
	}
	before := c.owners
	k.reckon()
	if p.telling && p.heard.Before(c.deafEnd) {
		k.doubtOwn(now)
	}
	k.takeOver(now, p.heard.Add(-settle), func(what thing) bool {
		return directory.Owner(what.app, what.channel, before) == p.node
	})
}

// doubtOwn puts all that this node has in doubt: while it was deaf, a peer may
// have told that it was gone, and now that peer is dead itself.
func (k *core) doubtOwn(now time.Time) {
	k.dir.Own(func(e directory.Entry) {
		what := thing{e.App, e.Channel, e.User}
		if _, ok := k.charge.open[what]; !ok && (e.Kind == directory.Channel || e.Kind == directory.Member) && len(k.charge.open) < maxOpen {
			k.charge.open[what] = openThing{told: true, stamp: k.charge.records[what].stamp, since: now.Add(-recordsKept), again: now, doubt: true}
		}
	})
}

// A toldList is a body: what the world was told or, of a reminder, what the
// sender knows of that.
type toldList struct {
	to      target // of a reminder
	number  uint64 // of records: how many such messages there were, with this one
	stamps  []uint64
	ages    []uint64 // of a reminder: for how many milliseconds it is open, twice; odd if in doubt
	entries []directory.Entry
}

func (m *toldList) add(what thing, is bool, stamp uint64) {
	e := directory.Entry{Kind: directory.Channel, App: what.app, Channel: what.channel, User: what.user}
	if what.user != "" {
		e.Kind = directory.Member
	}
	if is {
		e.Value = 1
	}
	m.entries = append(m.entries, e)
	m.stamps = append(m.stamps, stamp)
}

func (m *toldList) append(b []byte) []byte {
	b = m.to.append(b)
	b = binary.AppendUvarint(b, m.number)
	b = binary.AppendUvarint(b, uint64(len(m.stamps)))
	b = binary.AppendUvarint(b, uint64(len(m.ages)))
	for _, s := range m.stamps {
		b = binary.AppendUvarint(b, s)
	}
	for _, a := range m.ages {
		b = binary.AppendUvarint(b, a)
	}
	return directory.AppendEntries(b, m.entries)
}

func readToldList(b []byte) (m toldList, ok bool) {
	r := reader{b: b}
	m.to = r.target()
	m.number = r.uvarint()
	n, ages := r.count(len(b)), r.count(len(b))
	for range n {
		m.stamps = append(m.stamps, r.uvarint())
	}
	for range ages {
		m.ages = append(m.ages, r.uvarint())
	}
	if r.bad || ages != 0 && ages != n {
		return m, false
	}
	ok = true
	err := directory.Decode(r.b, func(e *directory.Entry) {
		ok = ok && (e.Kind == directory.Channel && e.User == "" || e.Kind == directory.Member && e.User != "") && e.Value <= 1
		m.entries = append(m.entries, *e)
	})
	return m, ok && err == nil && len(m.entries) == len(m.stamps)
}

// drainRecords returns a message with records for the others, or nil when there
// is none to send. It has at least one when final is set or there are many.
func (k *core) drainRecords(now time.Time) *outgoing {
	c := &k.charge
	if len(c.unsent) == 0 || now.Before(c.sendAt) {
		return nil
	}
	var m toldList
	size := 0
	for _, what := range slices.SortedFunc(maps.Keys(c.unsent), thing.compare) {
		delete(c.unsent, what)
		if r, ok := c.records[what]; ok {
			m.add(what, r.is, r.stamp)
		}
		if size += len(what.app) + len(what.channel) + len(what.user) + 24; size > messageLimit {
			break
		}
	}
	if len(m.entries) == 0 || len(k.peers) == 0 {
		return nil
	}
	c.told++
	m.number = c.told
	return &outgoing{topic: toDirectory, kind: kindTold, body: m.append(nil)}
}

// hearTold takes the records of an owner.
func (k *core) hearTold(now time.Time, p *peer, m *toldList) {
	c := &k.charge
	if !c.wanted {
		return
	}
	if m.number == p.told+1 && !p.whole.IsZero() {
		p.told = m.number
	}
	k.counted(now, p, m.number)
	k.absorb(now)
	for i := range m.entries {
		what := thing{m.entries[i].App, m.entries[i].Channel, m.entries[i].User}
		k.learn(now, what, record{m.entries[i].Value > 0, m.stamps[i], now})
	}
}

// learn takes a record, unless a later one is known.
func (k *core) learn(now time.Time, what thing, r record) {
	c := &k.charge
	c.clock = max(c.clock, r.stamp)
	if old, ok := c.records[what]; ok && old.stamp >= r.stamp {
		if o, open := c.open[what]; !open || o.stamp >= old.stamp {
			return
		}
		r = old // the thing was opened by somebody who did not know of it
	}
	if len(c.records) < maxOpen {
		c.records[what] = r
	}
	delete(c.open, what)
	if k.joined { // before, it sees nothing that it could be compared with
		is, info := k.see(what)
		k.settle(now, what, r, is, info)
	}
}

// remindOwners tells the owners of things that are open for long what this node
// knows of them.
func (k *core) remindOwners(now time.Time) {
	if len(k.charge.open) == 0 {
		return
	}
	lists := map[string]*toldList{}
	due := map[thing]int{}
	for what, o := range k.charge.open {
		if !now.Before(o.again) {
			due[what] = 0
		}
	}
	for _, what := range slices.SortedFunc(maps.Keys(due), thing.compare) {
		o := k.charge.open[what]
		if o.doubt && !o.blind && k.sure(now, what, o.since) {
			delete(k.charge.open, what)
			continue
		}
		if k.mayTell(what) {
			k.close(now, what)
			continue
		}
		p := k.peers[k.owner(what.app, what.channel)]
		if p == nil {
			continue
		}
		o.again = now.Add(remindAgain)
		k.charge.open[what] = o
		l := lists[p.node]
		if l == nil {
			l = &toldList{to: p.target}
			lists[p.node] = l
		}
		if len(l.entries) < maxReminders {
			l.add(what, o.told, o.stamp)
			l.ages = append(l.ages, o.age(now))
		}
	}
	for _, node := range slices.Sorted(maps.Keys(lists)) {
		k.send(toNode, node, kindRemind, lists[node].append(nil))
	}
}

// confide tells a peer that fetches this node's partition what of it may not have
// been told: the peer would take it for known.
func (k *core) confide(now time.Time, to target) {
	l := toldList{to: to}
	for _, what := range slices.SortedFunc(maps.Keys(k.charge.open), thing.compare) {
		if len(l.entries) == maxReminders {
			break
		}
		o := k.charge.open[what]
		l.add(what, o.told, o.stamp)
		l.ages = append(l.ages, o.age(now))
	}
	if len(l.entries) > 0 {
		k.send(toNode, to.node, kindRemind, l.append(nil))
	}
}

// adopt takes over what a peer confides while this node joins.
func (k *core) adopt(now time.Time, what thing, told record, age time.Duration, doubt bool) {
	c := &k.charge
	if told.stamp > c.records[what].stamp {
		k.learn(now, what, told)
	}
	if c.records[what].stamp > told.stamp {
		return
	}
	if o, ok := c.open[what]; (!ok || o.blind || o.loaded) && (ok || len(c.open) < maxOpen) {
		c.open[what] = openThing{told: told.is, stamp: told.stamp, since: now.Add(-age), again: now, doubt: doubt}
	}
}

// reminded takes what a peer knows of things of which it sees something else, or
// is in doubt.
func (k *core) reminded(now time.Time, from target, m *toldList) {
	c := &k.charge
	if !c.wanted {
		return
	}
	k.absorb(now)
	sure := toldList{to: from}
	defer func() {
		if len(sure.entries) > 0 {
			k.send(toNode, from.node, kindSure, sure.append(nil))
		}
	}()
	for i := range m.entries {
		what := thing{m.entries[i].App, m.entries[i].Channel, m.entries[i].User}
		told := record{m.entries[i].Value > 0, m.stamps[i], now}
		age, doubt := time.Duration(m.ages[i]>>1)*time.Millisecond, m.ages[i]&1 != 0
		if !k.joined {
			k.adopt(now, what, told, age, doubt)
			continue
		}
		if known, ok := c.records[what]; told.stamp > known.stamp {
			k.learn(now, what, told)
			if c.records[what].stamp > told.stamp {
				continue // it was told just now
			}
		} else if ok {
			missed := known.stamp > told.stamp
			told = known
			if missed {
				k.publishRecord(now, what)
				if !doubt || known.at.After(now.Add(-age)) {
					continue
				}
			}
		}
		if _, open := c.open[what]; open {
			continue // it will be told by whoever is the owner
		}
		is, _ := k.see(what)
		if is == told.is && !doubt {
			continue // the peer sees something else
		}
		if is == told.is && k.sure(now, what, now.Add(-age)) {
			sure.add(what, is, m.stamps[i]) // nobody can have told that it was not
			continue
		}
		c.open[what] = openThing{told: told.is, stamp: told.stamp, since: now.Add(-age), again: now, doubt: doubt}
		if k.mayTell(what) {
			k.close(now, what)
		}
	}
}

// assured ends the doubt about things: what was told last is what is known here.
func (k *core) assured(m *toldList) {
	for i := range m.entries {
		what := thing{m.entries[i].App, m.entries[i].Channel, m.entries[i].User}
		if o, ok := k.charge.open[what]; ok && o.doubt && o.stamp == m.stamps[i] && o.told == (m.entries[i].Value > 0) {
			delete(k.charge.open, what)
		}
	}
}
