package hub

import (
	"time"

	"sockudo/internal/protocol"
	"sockudo/internal/ws"
)

// Peers are the other nodes of a cluster. The hub tells them what its sockets
// do and asks what theirs do, under the locks of the channel, the users or the
// app that it is about: every method must be quick and take locks of its own
// only.
//
// A value of the peers is always read under such a lock, never handed over, so
// that an old value cannot take the place of a newer one. When it has changed,
// the hub is told by ChannelChanged, MemberChanged or UserChanged afterwards.
type Peers interface {
	Facts
	View
}

// Facts take what this node has, as new values and in order.
type Facts interface {
	SetChannel(app, channel string, subscriptions int)
	SetMember(app, channel, user, info string, conns int)
	SetSockets(app string, n int) // that count against the quota
	SetUser(app, user string, conns int)
}

// A View is what all other nodes have together.
type View interface {
	Subscriptions(app, channel string) int
	Member(app, channel, user string) (conns int, info string)
	Members(app, channel string, yield func(user, info string, conns int) bool)
	Sockets(app string) int
	User(app, user string) int
}

// load takes over what the peers have of the channel when it gets its first
// subscriber; mu is held. From then on ChannelChanged and MemberChanged keep it
// right: a change before this is read here, and one after it is told when the
// subscriber is there, because mu is held until then.
func (c *Channel) load() {
	p := c.ns.hub.peers
	if p == nil || len(c.slots) > 0 {
		return
	}
	c.remote = p.Subscriptions(c.ns.ID, c.name)
	if !c.kind.Is(protocol.Presence) {
		return
	}
	p.Members(c.ns.ID, c.name, func(user, info string, conns int) bool {
		if c.members == nil {
			c.members = map[string]*member{}
		}
		c.members[user] = &member{info: info, remote: conns}
		return true
	})
	c.greet = nil
}

// unload forgets what the peers have, unless there is a subscriber to tell; mu
// is held.
func (c *Channel) unload() {
	if c.ns.hub.peers == nil || len(c.slots) > 0 {
		return
	}
	c.remote = 0
	if c.members != nil {
		c.members, c.greet = nil, nil
	}
}

// tell tells the peers what this node has of the channel after a subscription
// of a member, or of nobody if user is "", began or ended; mu is held.
func (c *Channel) tell(user string) {
	p := c.ns.hub.peers
	if p == nil {
		return
	}
	p.SetChannel(c.ns.ID, c.name, len(c.slots))
	if user == "" {
		return
	}
	if m := c.members[user]; m != nil {
		p.SetMember(c.ns.ID, c.name, user, m.info, m.conns)
	} else {
		p.SetMember(c.ns.ID, c.name, user, "", 0)
	}
}

// ChannelChanged says that the peers have another number of subscriptions to a
// channel.
func (ns *Namespace) ChannelChanged(channel string) {
	c := ns.Channel(channel)
	if c == nil {
		return
	}
	c.mu.Lock()
	if len(c.slots) > 0 {
		if n := ns.hub.peers.Subscriptions(ns.ID, channel); n != c.remote {
			c.remote = n
			c.countChanged()
		}
	}
	c.send() // unlocks
}

// MemberChanged says that the peers have another number of connections of a
// member. Subscribers here learn of it if that makes the member come or go.
func (ns *Namespace) MemberChanged(channel, user string) {
	c := ns.Channel(channel)
	if c == nil {
		return
	}
	c.mu.Lock()
	if len(c.slots) > 0 {
		c.memberChanged(user)
	}
	c.send() // unlocks
}

func (c *Channel) memberChanged(user string) {
	conns, info := c.ns.hub.peers.Member(c.ns.ID, c.name, user)
	m := c.members[user]
	switch {
	case m == nil && conns > 0:
		if c.members == nil {
			c.members = map[string]*member{}
		}
		c.members[user] = &member{info: info, remote: conns}
		c.greet = nil
		c.order(ws.TextFrame(protocol.AppendMemberAdded(nil, c.name, protocol.Member{ID: user, Info: info})), nil, time.Time{})
	case m != nil && m.conns == 0 && conns == 0:
		delete(c.members, user)
		c.greet = nil
		c.order(ws.TextFrame(protocol.AppendMemberRemoved(nil, c.name, user)), nil, time.Time{})
	case m != nil:
		m.remote = conns
	}
}

// UserChanged says that the peers have another number of connections that are
// signed in as a user.
func (ns *Namespace) UserChanged(id string) {
	ns.userMu.Lock()
	defer ns.userMu.Unlock()
	if w := ns.watched[id]; w != nil {
		ns.announce(id, w)
	}
}

// TellAll tells f all that this node has now. It calls f under the locks that
// the facts are told under as they change.
func (h *Hub) TellAll(f Facts) {
	for _, ns := range h.Apps() {
		ns.mu.RLock()
		if ns.quota > 0 {
			f.SetSockets(ns.ID, ns.quota)
		}
		ns.mu.RUnlock()
		ns.userMu.Lock()
		for id, u := range ns.users {
			f.SetUser(ns.ID, id, len(u.sockets))
		}
		ns.userMu.Unlock()
		ns.Channels("", func(c *Channel) bool {
			c.mu.Lock()
			defer c.mu.Unlock()
			f.SetChannel(ns.ID, c.name, len(c.slots))
			for user, m := range c.members {
				if m.conns > 0 {
					f.SetMember(ns.ID, c.name, user, m.info, m.conns)
				}
			}
			return true
		})
	}
}

// Counts returns how many sockets are subscribed to a channel of an app and how
// many distinct members there are, in the whole cluster.
func (h *Hub) Counts(app, channel string) (subscriptions, users int) {
	if ns := h.Lookup(app); ns != nil {
		if c := ns.Channel(channel); c != nil {
			if subscriptions, users = c.Counts(); subscriptions > 0 {
				return subscriptions, users
			}
		}
	}
	if h.peers == nil {
		return 0, 0
	}
	if protocol.KindOf(channel).Is(protocol.Presence) {
		h.peers.Members(app, channel, func(string, string, int) bool {
			users++
			return true
		})
	}
	return h.peers.Subscriptions(app, channel), users
}

// Members returns the ids of the members of a presence channel in the whole
// cluster, in no order.
func (h *Hub) Members(app, channel string) []string {
	if ns := h.Lookup(app); ns != nil {
		if c := ns.Channel(channel); c != nil {
			if ids := c.Members(); len(ids) > 0 {
				return ids
			}
		}
	}
	var ids []string
	if h.peers != nil {
		h.peers.Members(app, channel, func(user, _ string, _ int) bool {
			ids = append(ids, user)
			return true
		})
	}
	return ids
}
