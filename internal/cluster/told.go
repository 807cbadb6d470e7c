package cluster

import (
	"encoding/binary"
	"maps"
	"slices"
	"time"

	"sockudo/internal/directory"
)

// age is for how many milliseconds a thing is open, twice; odd if in doubt.
func (o *openThing) age(now time.Time) uint64 {
	age := uint64(now.Sub(o.since).Milliseconds()) << 1
	if o.doubt {
		age |= 1
	}
	return age
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
	if len(m.entries) == 0 {
		return nil // also who knows of nobody sends them: somebody may stand still
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

// bequeath makes records of what rests with peers that were not heard since another
// one appeared: that one may not know of them, and if they are dead nobody else may
// be left who misses them.
func (k *core) bequeath(now time.Time) {
	c := &k.charge
	if !c.wanted {
		return
	}
	var newest time.Time
	for _, p := range k.peers {
		newest = max2(newest, p.since)
	}
	for _, p := range k.inOrder() {
		if !p.heard.Before(newest) {
			continue
		}
		k.dir.Entries(p.node, func(e directory.Entry) {
			what := thing{e.App, e.Channel, e.User}
			if e.Kind != directory.Channel && e.Kind != directory.Member || e.Value == 0 || !k.told(what, true).is {
				return
			}
			if _, ok := c.records[what]; !ok && len(c.records) < maxOpen {
				c.records[what] = record{is: true, at: now}
			}
			k.publishRecord(now, what)
		})
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
