package directory

import (
	"math"

	"github.com/cespare/xxhash/v2"
)

// SetChannel sets the subscriptions that this node's sockets have to a channel.
func (d *Directory) SetChannel(app, name string, subscriptions int) {
	s := d.space(app).shard(name)
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.ownChannel(name, subscriptions > 0)
	if c == nil {
		return
	}
	before := int(c.n)
	if !d.set(s, &c.ownValue, ownKey{kind: Channel, channel: name}, subscriptions, "") {
		return
	}
	there := s.channels[name].total()
	d.record(Transition{App: s.space.app, Channel: name, Before: before + there, After: int(c.n) + there})
}

// SetMember sets the connections that this node has of a member of a presence
// channel.
func (d *Directory) SetMember(app, name, user, info string, conns int) {
	s := d.space(app).shard(name)
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.ownChannel(name, conns > 0)
	if c == nil {
		return
	}
	m := c.members[user]
	if m == nil {
		if conns <= 0 {
			return
		}
		if c.members == nil {
			c.members = map[string]*ownValue{}
		}
		m = &ownValue{}
		c.members[user] = m
	}
	before := int(m.n)
	if !d.set(s, m, ownKey{kind: Member, channel: name, user: user}, conns, info) {
		return
	}
	there, _ := s.channels[name].member(user)
	d.record(Transition{App: s.space.app, Channel: name, User: user, Info: info, Before: before + there, After: int(m.n) + there})
}

// SetSockets sets how many sockets of an app are open at this node.
func (d *Directory) SetSockets(app string, n int) {
	s := &d.space(app).shards[0]
	s.mu.Lock()
	defer s.mu.Unlock()
	d.set(s, &s.ownSockets, ownKey{kind: Sockets}, n, "")
}

// SetUser sets how many of this node's sockets are signed in as a user.
func (d *Directory) SetUser(app, user string, conns int) {
	s := d.space(app).shard(user)
	s.mu.Lock()
	defer s.mu.Unlock()
	v := s.ownUsers[user]
	if v == nil {
		if conns <= 0 {
			return
		}
		if s.ownUsers == nil {
			s.ownUsers = map[string]*ownValue{}
		}
		v = &ownValue{}
		s.ownUsers[user] = v
	}
	d.set(s, v, ownKey{kind: User, user: user}, conns, "")
}

func (s *shard) ownChannel(name string, create bool) *ownChannel {
	c := s.own[name]
	if c == nil && create {
		if s.own == nil {
			s.own = map[string]*ownChannel{}
		}
		c = &ownChannel{}
		s.own[name] = c
	}
	return c
}

// set changes a value and queues it. It reports whether that was a change.
func (d *Directory) set(s *shard, v *ownValue, key ownKey, n int, info string) bool {
	n = max(0, min(n, math.MaxInt32))
	if n == 0 {
		info = ""
	}
	if v.n == int32(n) && v.info == info {
		return false
	}
	v.n, v.info = int32(n), info
	if v.queued {
		return true
	}
	v.queued = true
	s.queue = append(s.queue, key)
	if len(s.queue) == 1 {
		d.mu.Lock()
		d.dirty = append(d.dirty, s)
		d.mu.Unlock()
	}
	d.wake()
	return true
}

// Pending reports whether there is something to drain.
func (d *Directory) Pending() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.dirty) > 0
}

// A Batch is a run of changes of one partition. The first has the sequence
// number First, the others those that follow.
type Batch struct {
	First   uint64
	N       int
	Entries []byte
}

// Last returns the sequence number of the last change.
func (b *Batch) Last() uint64 { return b.First + uint64(b.N) - 1 }

// Drain returns own changes that were not drained before, and stops once they
// have limit bytes. A value that changed several times is in it once, and not
// at all if it is again what it was. N is 0 when there is nothing to tell.
func (d *Directory) Drain(limit int) Batch {
	b := Batch{First: d.seq + 1}
	var enc encoder
	for len(enc.buf) < limit {
		s := d.popDirty()
		if s == nil {
			break
		}
		s.mu.Lock()
		done := 0
		for done < len(s.queue) && len(enc.buf) < limit {
			d.tell(s, s.queue[done], &enc, &b.N)
			done++
		}
		s.queue = s.queue[done:]
		if len(s.queue) == 0 {
			s.queue = nil
		} else {
			d.mu.Lock()
			d.dirty = append(d.dirty, s)
			d.mu.Unlock()
		}
		s.mu.Unlock()
	}
	d.seq += uint64(b.N)
	b.Entries = enc.buf
	return b
}

func (d *Directory) popDirty() *shard {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.dirty) == 0 {
		d.dirty = nil
		return nil
	}
	s := d.dirty[0]
	d.dirty[0] = nil
	d.dirty = d.dirty[1:]
	return s
}

// tell encodes one own value as it is now and forgets it if it is no more.
func (d *Directory) tell(s *shard, key ownKey, enc *encoder, n *int) {
	v := s.ownValue(key)
	v.queued = false
	if v.n != v.told || v.info != v.toldInfo {
		e := Entry{Kind: key.kind, App: s.space.app, Channel: key.channel, User: key.user}
		e.Value, e.Info = int(v.told), v.toldInfo
		d.digest -= e.hash()
		d.sizes.add(key.kind, v.told, -1)
		v.told, v.toldInfo = v.n, v.info
		e.Value, e.Info = int(v.told), v.toldInfo
		d.digest += e.hash()
		d.sizes.add(key.kind, v.told, 1)
		enc.append(&e)
		*n++
	}
	s.prune(key, v)
}

func (s *shard) ownValue(key ownKey) *ownValue {
	switch key.kind {
	case Channel:
		return &s.own[key.channel].ownValue
	case Member:
		return s.own[key.channel].members[key.user]
	case User:
		return s.ownUsers[key.user]
	default:
		return &s.ownSockets
	}
}

func (s *shard) prune(key ownKey, v *ownValue) {
	if v.n > 0 {
		return
	}
	switch key.kind {
	case Sockets:
		return
	case User:
		delete(s.ownUsers, key.user)
		return
	case Member:
		c := s.own[key.channel]
		delete(c.members, key.user)
		if len(c.members) == 0 {
			c.members = nil
		}
	}
	// A channel stays while anything of it is there or waits in the queue.
	if c := s.own[key.channel]; c != nil && c.n == 0 && !c.queued && len(c.members) == 0 {
		delete(s.own, key.channel)
	}
}

// Seq returns the sequence number of the last change that was drained.
func (d *Directory) Seq() uint64 { return d.seq }

// Digest returns the digest of the own partition as of Seq.
func (d *Directory) Digest() uint64 { return d.digest }

// Sizes returns the size of the own partition as of Seq.
func (d *Directory) Sizes() Sizes { return d.sizes }

// Snapshot returns the own partition as of Seq, in parts of about limit bytes.
func (d *Directory) Snapshot(limit int) [][]byte {
	var parts [][]byte
	var enc encoder
	d.toldEntries(func(e *Entry) {
		enc.append(e)
		if len(enc.buf) >= limit {
			parts = append(parts, enc.buf)
			enc = encoder{}
		}
	})
	if len(enc.buf) > 0 {
		parts = append(parts, enc.buf)
	}
	return parts
}

// Recount returns what the digest of the own partition must be, from all of
// its entries.
func (d *Directory) Recount() uint64 {
	var sum uint64
	d.toldEntries(func(e *Entry) { sum += e.hash() })
	return sum
}

// toldEntries visits the own partition as the peers were told it. Values that
// changed since are visited as they were: the changes follow with Drain.
func (d *Directory) toldEntries(visit func(*Entry)) {
	d.apps.Range(func(_, value any) bool {
		sp := value.(*space)
		for i := range sp.shards {
			sp.shards[i].toldEntries(visit)
		}
		return true
	})
}

func (s *shard) toldEntries(visit func(*Entry)) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	e := Entry{App: s.space.app}
	told := func(kind Kind, v *ownValue) {
		if v.told > 0 {
			e.Kind, e.Value, e.Info = kind, int(v.told), v.toldInfo
			visit(&e)
		}
	}
	told(Sockets, &s.ownSockets)
	for name, c := range s.own {
		e.Channel = name
		told(Channel, &c.ownValue)
		for user, m := range c.members {
			e.User = user
			told(Member, m)
		}
		e.User = ""
	}
	e.Channel = ""
	for user, v := range s.ownUsers {
		e.User = user
		told(User, v)
	}
}

// Own visits the own partition as it is now, also what was not drained. It
// locks a part of it at a time; visit must not call the directory.
func (d *Directory) Own(visit func(Entry)) {
	d.apps.Range(func(_, value any) bool {
		sp := value.(*space)
		for i := range sp.shards {
			sp.shards[i].visitOwn(visit)
		}
		return true
	})
}

func (s *shard) visitOwn(visit func(Entry)) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	is := func(e Entry, v *ownValue) {
		if v.n > 0 {
			e.App, e.Value, e.Info = s.space.app, int(v.n), v.info
			visit(e)
		}
	}
	is(Entry{Kind: Sockets}, &s.ownSockets)
	for name, c := range s.own {
		is(Entry{Kind: Channel, Channel: name}, &c.ownValue)
		for user, m := range c.members {
			is(Entry{Kind: Member, Channel: name, User: user}, m)
		}
	}
	for user, v := range s.ownUsers {
		is(Entry{Kind: User, User: user}, v)
	}
}

// Owner returns the node that is responsible for a channel: the one of nodes
// that scores highest, so that a node that comes or goes moves only its own
// channels. It returns "" when there are no nodes.
func Owner(app, channel string, nodes []string) string {
	var owner string
	var best uint64
	for _, node := range nodes {
		var h xxhash.Digest
		h.Reset()
		writeString(&h, node)
		writeString(&h, app)
		writeString(&h, channel)
		if score := h.Sum64(); owner == "" || score > best || score == best && node < owner {
			owner, best = node, score
		}
	}
	return owner
}
