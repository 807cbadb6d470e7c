package directory

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// A count is the share of one partition in a sum.
type count struct {
	slot, gen uint16
	n         int32
	info      string
}

// A sum is a value over all partitions of peers. Most have one share only.
type sum struct {
	n    int32
	one  count
	more *[]count
}

func (v *sum) share(slot uint16) *count {
	if v.one.n > 0 && v.one.slot == slot {
		return &v.one
	}
	if v.more != nil {
		for i := range *v.more {
			if c := &(*v.more)[i]; c.slot == slot {
				return c
			}
		}
	}
	return nil
}

// set replaces a share and returns what it was.
func (v *sum) set(slot, gen uint16, n int32, info string) (old int32, oldInfo string) {
	c := v.share(slot)
	if c != nil {
		old, oldInfo = c.n, c.info
	}
	v.n += n - old
	switch {
	case n == 0 && c == nil:
	case n == 0:
		v.remove(slot)
	case c != nil:
		c.gen, c.n = gen, n
		if c.info != info {
			c.info = v.intern(info)
		}
	case v.one.n == 0:
		v.one = count{slot, gen, n, strings.Clone(info)}
	default:
		if v.more == nil {
			v.more = new([]count)
		}
		*v.more = append(*v.more, count{slot, gen, n, v.intern(info)})
	}
	return old, oldInfo
}

// intern returns info in the memory of a share that has the same.
func (v *sum) intern(info string) string {
	if v.one.info == info {
		return v.one.info
	}
	return strings.Clone(info)
}

func (v *sum) remove(slot uint16) {
	if v.one.slot == slot {
		v.one = count{}
		if v.more == nil {
			return
		}
		last := len(*v.more) - 1
		v.one = (*v.more)[last]
		*v.more = (*v.more)[:last]
	} else {
		*v.more = slices.DeleteFunc(*v.more, func(c count) bool { return c.slot == slot })
	}
	if len(*v.more) == 0 {
		v.more = nil
	}
}

// info returns the smallest of those that the shares have, so that it does not
// depend on who came first.
func (v *sum) info() string {
	info := v.one.info
	if v.more != nil {
		for _, c := range *v.more {
			info = min(info, c.info)
		}
	}
	return info
}

func (c *channel) total() int {
	if c == nil {
		return 0
	}
	return int(c.n)
}

func (c *channel) member(user string) (conns int, info string) {
	if c == nil {
		return 0, ""
	}
	m := c.members[user]
	if m == nil {
		return 0, ""
	}
	return int(m.n), m.info()
}

// A partition is what is known of a peer's, besides its shares in the sums.
type partition struct {
	slot, gen uint16
	seq       uint64
	digest    uint64
	sizes     Sizes
}

// MaxPeers is how many partitions of peers a directory holds at most.
const MaxPeers = 4096

// Add begins an empty partition as of sequence number 0 and reports whether
// there was room for it. The node has none yet.
func (d *Directory) Add(node string) bool {
	slot := slices.Index(d.slots, false)
	if slot < 0 {
		if slot = len(d.slots); slot == MaxPeers {
			return false
		}
		d.slots = append(d.slots, false)
	}
	d.slots[slot] = true
	d.peers[node] = &partition{slot: uint16(slot)}
	return true
}

// A Peer is the state of a peer's partition.
type Peer struct {
	Seq    uint64 // of the last change that was applied
	Digest uint64
	Sizes  Sizes
}

// Peer returns the state of a partition, and whether the node has one.
func (d *Directory) Peer(node string) (Peer, bool) {
	p := d.peers[node]
	if p == nil {
		return Peer{}, false
	}
	return Peer{p.seq, p.digest, p.sizes}, true
}

// A Change names something in the sum of the peers' partitions that is not
// what it was.
type Change struct {
	Kind          Kind
	App           string
	Channel, User string
}

var (
	errNoPartition = errors.New("directory: node without a partition")
	errGap         = errors.New("directory: changes are missing")
)

func errLength(b Batch, n int) error {
	return fmt.Errorf("directory: batch of %d changes has %d", b.N, n)
}

// Apply applies a batch of a peer. Changes that were applied already are
// passed over. With an error nothing is applied: the batch is broken, or does
// not follow what was applied last.
func (d *Directory) Apply(node string, b Batch) ([]Change, error) {
	p := d.peers[node]
	if p == nil {
		return nil, errNoPartition
	}
	if b.N < 0 || b.First == 0 || b.First > p.seq+1 {
		return nil, errGap
	}
	n := 0
	if err := Decode(b.Entries, func(*Entry) { n++ }); err != nil {
		return nil, err
	}
	if n != b.N {
		return nil, errLength(b, n)
	}
	var changes []Change
	seq := b.First - 1
	_ = Decode(b.Entries, func(e *Entry) {
		if seq++; seq > p.seq {
			p.seq = seq
			if ch, ok := d.apply(p, e); ok {
				changes = append(changes, ch)
			}
		}
	})
	return changes, nil
}

// Replace makes a peer's partition what a snapshot of it as of seq says, with
// the batches that followed it; they must be in order and without a gap.
// Entries that come out the same are not touched, so that nobody looks gone for
// a moment. It returns what changed, each thing once. With an error nothing was
// changed: something is broken.
func (d *Directory) Replace(node string, seq uint64, parts [][]byte, later []Batch) ([]Change, error) {
	p := d.peers[node]
	if p == nil {
		return nil, errNoPartition
	}
	for _, part := range parts {
		if err := Decode(part, func(*Entry) {}); err != nil {
			return nil, err
		}
	}
	newer, last, err := latest(seq, later)
	if err != nil {
		return nil, err
	}
	var changes []Change
	set := func(e *Entry) {
		if ch, ok := d.apply(p, e); ok {
			changes = append(changes, ch)
		}
	}
	p.gen++
	for _, part := range parts {
		_ = Decode(part, func(e *Entry) {
			if len(newer) == 0 {
				set(e)
			} else if _, ok := newer[e.change()]; !ok {
				set(e)
			}
		})
	}
	for _, b := range later {
		_ = Decode(b.Entries, func(e *Entry) {
			if last, ok := newer[e.change()]; ok {
				set(&last)
				delete(newer, e.change())
			}
		})
	}
	changes = append(changes, d.sweep(p, func(c *count) bool { return c.gen != p.gen })...)
	p.seq = last
	return changes, nil
}

// latest returns the last value of everything that batches change after seq,
// and the sequence number of the last change.
func latest(seq uint64, batches []Batch) (map[Change]Entry, uint64, error) {
	newer := map[Change]Entry{}
	for _, b := range batches {
		if b.First == 0 || b.First > seq+1 {
			return nil, 0, errGap
		}
		n := 0
		err := Decode(b.Entries, func(e *Entry) {
			if at := b.First + uint64(n); at > seq {
				newer[e.change()] = *e
			}
			n++
		})
		if err == nil && n != b.N {
			err = errLength(b, n)
		}
		if err != nil {
			return nil, 0, err
		}
		seq = max(seq, b.Last())
	}
	return newer, seq, nil
}

// Drop forgets a partition, whole: a half-dropped node would let a user look
// gone and come back. It returns what changed, each thing once.
func (d *Directory) Drop(node string) []Change {
	p := d.peers[node]
	if p == nil {
		return nil
	}
	changes := d.sweep(p, func(*count) bool { return true })
	delete(d.peers, node)
	d.slots[p.slot] = false
	return changes
}

// apply sets one share and reports whether that was a change.
func (d *Directory) apply(p *partition, e *Entry) (Change, bool) {
	sp := d.space(e.App)
	e.App = sp.app
	var old count
	switch e.Kind {
	case Channel, Member:
		s := sp.shard(e.Channel)
		s.mu.Lock()
		old = d.applyChannel(s, p, e)
		s.mu.Unlock()
	case User:
		s := sp.shard(e.User)
		s.mu.Lock()
		v := s.users[e.User]
		if v == nil && e.Value > 0 {
			if s.users == nil {
				s.users = map[string]*sum{}
			}
			v = &sum{}
			s.users[strings.Clone(e.User)] = v
		}
		if v != nil {
			old.n, _ = v.set(p.slot, p.gen, int32(e.Value), "")
			if v.n == 0 {
				delete(s.users, e.User)
			}
		}
		s.mu.Unlock()
	case Sockets:
		s := &sp.shards[0]
		s.mu.Lock()
		old.n, _ = s.sockets.set(p.slot, p.gen, int32(e.Value), "")
		s.mu.Unlock()
	}
	if old.n == int32(e.Value) && old.info == e.Info {
		return Change{}, false
	}
	p.replaced(e, old)
	return e.change(), true
}

func (p *partition) replaced(e *Entry, old count) {
	was := *e
	was.Value, was.Info = int(old.n), old.info
	p.digest += e.hash() - was.hash()
	p.sizes.add(e.Kind, old.n, -1)
	p.sizes.add(e.Kind, int32(e.Value), 1)
}

// applyChannel is apply for a channel and its members. The shard is locked.
func (d *Directory) applyChannel(s *shard, p *partition, e *Entry) (old count) {
	c := s.channels[e.Channel]
	if c == nil {
		if e.Value == 0 {
			return count{}
		}
		if s.channels == nil {
			s.channels = map[string]*channel{}
		}
		c = &channel{}
		s.channels[strings.Clone(e.Channel)] = c
	}
	if e.Kind == Channel {
		old.n, _ = c.set(p.slot, p.gen, int32(e.Value), "")
		d.recordChannel(s, e.Channel, int(c.n)+int(old.n)-e.Value, int(c.n))
	} else if m := c.sumOf(e.User, e.Value > 0); m != nil {
		old.n, old.info = m.set(p.slot, p.gen, int32(e.Value), e.Info)
		d.recordMember(s, e.Channel, e.User, m, int(m.n)+int(old.n)-e.Value)
		if m.n == 0 {
			delete(c.members, e.User)
		}
	}
	s.pruneChannel(e.Channel, c)
	return old
}

func (c *channel) sumOf(user string, create bool) *sum {
	m := c.members[user]
	if m == nil && create {
		if c.members == nil {
			c.members = map[string]*sum{}
		}
		m = &sum{}
		c.members[strings.Clone(user)] = m
	}
	return m
}

func (s *shard) pruneChannel(name string, c *channel) {
	if len(c.members) == 0 {
		c.members = nil
		if c.n == 0 {
			delete(s.channels, name)
		}
	}
}

// recordChannel records a change of a channel's sum over the peers.
func (d *Directory) recordChannel(s *shard, name string, before, after int) {
	if !d.watched.Load() {
		return
	}
	here := 0
	if c := s.own[name]; c != nil {
		here = int(c.n)
	}
	d.record(Transition{App: s.space.app, Channel: name, Before: before + here, After: after + here})
}

// recordMember records a change of a member's sum over the peers.
func (d *Directory) recordMember(s *shard, name, user string, m *sum, before int) {
	if !d.watched.Load() {
		return
	}
	here, info := 0, m.info()
	if c := s.own[name]; c != nil {
		if o := c.members[user]; o != nil && o.n > 0 {
			here, info = int(o.n), o.info
		}
	}
	d.record(Transition{App: s.space.app, Channel: name, User: user, Info: info, Before: before + here, After: int(m.n) + here})
}

// sweep removes the shares of a partition that gone asks for and returns what
// changed. It locks one channel at a time: the names are collected first.
func (d *Directory) sweep(p *partition, gone func(*count) bool) []Change {
	var changes []Change
	mine := func(v *sum) bool {
		c := v.share(p.slot)
		return c != nil && gone(c)
	}
	remove := func(v *sum, e Entry) {
		var old count
		old.n, old.info = v.set(p.slot, p.gen, 0, "")
		p.replaced(&e, old)
		changes = append(changes, e.change())
	}
	d.apps.Range(func(_, value any) bool {
		sp := value.(*space)
		for i := range sp.shards {
			s := &sp.shards[i]
			channels, users := s.collect(mine)
			for _, name := range channels {
				s.mu.Lock()
				d.sweepChannel(s, name, mine, remove)
				s.mu.Unlock()
			}
			for _, user := range users {
				s.mu.Lock()
				if v := s.users[user]; v != nil && mine(v) {
					remove(v, Entry{Kind: User, App: sp.app, User: user})
					if v.n == 0 {
						delete(s.users, user)
					}
				}
				s.mu.Unlock()
			}
		}
		s := &sp.shards[0]
		s.mu.Lock()
		if mine(&s.sockets) {
			remove(&s.sockets, Entry{Kind: Sockets, App: sp.app})
		}
		s.mu.Unlock()
		return true
	})
	return changes
}

// collect returns the names of channels and users that have a share.
func (s *shard) collect(mine func(*sum) bool) (channels, users []string) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for name, c := range s.channels {
		some := mine(&c.sum)
		for _, m := range c.members {
			if some {
				break
			}
			some = mine(m)
		}
		if some {
			channels = append(channels, name)
		}
	}
	for user, v := range s.users {
		if mine(v) {
			users = append(users, user)
		}
	}
	return channels, users
}

// sweepChannel removes the members of a channel first, so that it is left
// empty before it is vacated. The shard is locked.
func (d *Directory) sweepChannel(s *shard, name string, mine func(*sum) bool, remove func(*sum, Entry)) {
	c := s.channels[name]
	if c == nil {
		return
	}
	e := Entry{Kind: Member, App: s.space.app, Channel: name}
	for user, m := range c.members {
		if !mine(m) {
			continue
		}
		e.User = user
		before := int(m.n)
		remove(m, e)
		d.recordMember(s, name, user, m, before)
		if m.n == 0 {
			delete(c.members, user)
		}
	}
	if mine(&c.sum) {
		before := int(c.n)
		remove(&c.sum, Entry{Kind: Channel, App: s.space.app, Channel: name})
		d.recordChannel(s, name, before, int(c.n))
	}
	s.pruneChannel(name, c)
}

// Entries visits the partition of a peer as this node has it. It locks a part
// of it at a time; visit must not call the directory.
func (d *Directory) Entries(node string, visit func(Entry)) {
	p := d.peers[node]
	if p == nil {
		return
	}
	d.apps.Range(func(_, value any) bool {
		sp := value.(*space)
		for i := range sp.shards {
			sp.shards[i].entries(p.slot, visit)
		}
		return true
	})
}

func (s *shard) entries(slot uint16, visit func(Entry)) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	is := func(e Entry, v *sum) {
		if c := v.share(slot); c != nil {
			e.App, e.Value, e.Info = s.space.app, int(c.n), c.info
			visit(e)
		}
	}
	is(Entry{Kind: Sockets}, &s.sockets)
	for name, c := range s.channels {
		is(Entry{Kind: Channel, Channel: name}, &c.sum)
		for user, m := range c.members {
			is(Entry{Kind: Member, Channel: name, User: user}, m)
		}
	}
	for user, v := range s.users {
		is(Entry{Kind: User, User: user}, v)
	}
}

// RecountPeer returns what the digest of a peer's partition must be, from all
// of its entries.
func (d *Directory) RecountPeer(node string) uint64 {
	var sum uint64
	d.Entries(node, func(e Entry) { sum += e.hash() })
	return sum
}
