package cluster

import (
	"slices"
	"time"

	"sockudo/internal/directory"
)

// A vouch says from when until when all is known that a node told the world: its
// records are here, every one. Its entries outlive the node.
type vouch struct{ whole, until time.Time }

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

// sure reports whether this node knows all that the world was told of a thing
// from a moment on, as far as that can have been caused by what happened then. Of
// what is in doubt since long, as after this node was deaf, it is all until now.
func (k *core) sure(now time.Time, what thing, since time.Time) bool {
	end := now
	for _, r := range slices.Backward(k.charge.reigns) {
		until := since.Add(certainAfter)
		if end.Before(until) || now.Sub(since) >= recordsKept {
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
