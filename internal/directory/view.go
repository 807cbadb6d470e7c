package directory

import "strings"

// Subscriptions returns the subscriptions to a channel that the peers have.
func (d *Directory) Subscriptions(app, name string) int {
	s := d.lookup(app, name)
	if s == nil {
		return 0
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.channels[name].total()
}

// PeerHas reports whether one peer has subscriptions to a channel. Only the one
// who replicates calls it.
func (d *Directory) PeerHas(node, app, name string) bool {
	p, s := d.peers[node], d.lookup(app, name)
	if p == nil || s == nil {
		return false
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	c := s.channels[name]
	return c != nil && c.share(p.slot) != nil
}

// Member returns the connections that the peers have of a member of a presence
// channel, and the user_info if there are any.
func (d *Directory) Member(app, name, user string) (conns int, info string) {
	s := d.lookup(app, name)
	if s == nil {
		return 0, ""
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.channels[name].member(user)
}

// Members yields the members of a presence channel that the peers have, in no
// order, as they were at one moment. Nothing is locked while yield runs.
func (d *Directory) Members(app, name string, yield func(user, info string, conns int) bool) {
	s := d.lookup(app, name)
	if s == nil {
		return
	}
	type member struct {
		user, info string
		conns      int
	}
	var all []member
	s.mu.RLock()
	if c := s.channels[name]; c != nil {
		all = make([]member, 0, len(c.members))
		for user, m := range c.members {
			all = append(all, member{user, m.info(), int(m.n)})
		}
	}
	s.mu.RUnlock()
	for _, m := range all {
		if !yield(m.user, m.info, m.conns) {
			return
		}
	}
}

// Users returns how many members of a presence channel the peers have.
func (d *Directory) Users(app, name string) int {
	s := d.lookup(app, name)
	if s == nil {
		return 0
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	if c := s.channels[name]; c != nil {
		return len(c.members)
	}
	return 0
}

// Channels yields the channels whose name begins with prefix and that the
// peers have subscriptions to, with their members, in no order. Nothing is
// locked while yield runs.
func (d *Directory) Channels(app, prefix string, yield func(name string, subscriptions, users int) bool) {
	v, ok := d.apps.Load(app)
	if !ok {
		return
	}
	type found struct {
		name                 string
		subscriptions, users int
	}
	var all []found
	sp := v.(*space)
	for i := range sp.shards {
		s := &sp.shards[i]
		all = all[:0]
		s.mu.RLock()
		for name, c := range s.channels {
			if c.n > 0 && strings.HasPrefix(name, prefix) {
				all = append(all, found{name, int(c.n), len(c.members)})
			}
		}
		s.mu.RUnlock()
		for _, f := range all {
			if !yield(f.name, f.subscriptions, f.users) {
				return
			}
		}
	}
}

// Sockets returns how many sockets of an app the peers have.
func (d *Directory) Sockets(app string) int {
	v, ok := d.apps.Load(app)
	if !ok {
		return 0
	}
	s := &v.(*space).shards[0]
	s.mu.RLock()
	defer s.mu.RUnlock()
	return int(s.sockets.n)
}

// User returns how many connections of a signed-in user the peers have.
func (d *Directory) User(app, user string) int {
	s := d.lookup(app, user)
	if s == nil {
		return 0
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	if v := s.users[user]; v != nil {
		return int(v.n)
	}
	return 0
}

// Sum returns the subscriptions to a channel, or the connections of a member
// of it, over all partitions, the own one included.
func (d *Directory) Sum(app, name, user string) (n int, info string) {
	s := d.lookup(app, name)
	if s == nil {
		return 0, ""
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	own, peers := s.own[name], s.channels[name]
	if user == "" {
		n = peers.total()
		if own != nil {
			n += int(own.n)
		}
		return n, ""
	}
	n, info = peers.member(user)
	if own != nil && own.members[user] != nil && own.members[user].n > 0 {
		m := own.members[user]
		n, info = n+int(m.n), m.info
	}
	return n, info
}

// Has reports whether the own partition has subscriptions to a channel, or
// connections of a member of it.
func (d *Directory) Has(app, name, user string) bool {
	s := d.lookup(app, name)
	if s == nil {
		return false
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	own := s.own[name]
	switch {
	case own == nil:
		return false
	case user == "":
		return own.n > 0
	}
	m := own.members[user]
	return m != nil && m.n > 0
}
