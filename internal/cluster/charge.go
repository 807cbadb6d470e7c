package cluster

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"sockudo/internal/directory"
)

// Who tells the world what happens to a channel: at least once, and twice at most
// around the death of a node.
//
// A thing is a channel, which may be occupied, or a member of one, who may be
// there. Every node sees all partitions, so every node sees every thing come and
// go. One of them tells the world: its owner.
//
// # Nodes
//
//	standby ── joined, hears, knows all partitions, for a second ──▶ claiming
//	claiming ── a second ──▶ inCharge
//	inCharge, claiming ── deaf for half the timeout ──▶ standby
//
// Heartbeats say who claims and who is in charge. The owner of a channel is chosen
// among those who claim, by a hash that all compute alike, so a new claim takes
// channels from the others at once; until the new one is in charge nobody tells
// what happens to them. In that second the old owners send their records. A node
// that hears nothing is mute: the others could not correct what it says. It tells
// nothing either before the broker has taken the changes of its own that caused it.
//
// # Things
//
// When an owner tells, it makes a record: the thing, what was told, and a stamp
// that is above all stamps it ever saw. The others get it within recordDelay.
// Where a thing is not what was told last, it is open:
//
//	seen     told     owner                 others
//	is       is       nothing               nothing
//	is       is not   tells, makes record   open, until the record comes
//	is not   is       the same              the same
//	as told, but was  nothing, it knows     in doubt: open, unless sure
//	open before       what it told
//
// Nothing else is remembered of things that rest: what has no record and is not
// open is known to the world as it is seen.
//
// When an owner dies, its channels have new owners, who tell what is open here and
// theirs now. If the new owner has not seen the thing change, others have, and
// remind it of what is open for long, with what they know was told and for how
// long it is open. So a thing is open somewhere until it was told.
//
// Doubt (doubt.go) is about things that changed and changed back: the owner may
// have told what was in between, and died before its record was out. Records are
// numbered, and heartbeats and goodbyes say how many there were. Who has them all
// knows what the sender told, and is sure without asking. A doubt that stays is
// told once more by the next owner; that is the duplicate around a death.
//
// A node that joins sees things come and go because partitions come in one by one.
// What came with a partition, the world knows, if anybody was in charge; whoever
// gives the partition away confides what it has open. What changes before the node
// has joined is blind: it is in doubt until somebody who saw everything assures
// the node or tells it.
//
// A node that leaves may be the last that knows of one which died and is not missed
// yet, because the others came since: it makes records of what that one had.
//
// What can be lost: what an owner told within recordDelay of its death that nobody
// else could see (it knew less, or more, than the others), until the thing changes
// again; and what all who saw it took with them.
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
		// What a blind thing is said to have been told is a guess, also later on.
		if o, ok := c.open[what]; (came || went) && (!ok && c.led && !k.joined || o.blind && !k.mayTell(what)) {
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
