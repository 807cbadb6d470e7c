package hub

import (
	"hash/maphash"
	"strings"
	"sync"

	"sockudo/internal/metrics"
	"sockudo/internal/protocol"
)

const shards = 16

// A Namespace is what one app has on this node.
type Namespace struct {
	// Fixed at creation.
	ID      string
	hub     *Hub
	metrics *metrics.App

	mu      sync.RWMutex // guards what follows
	sockets map[protocol.SocketID]*Socket
	quota   int // sockets that count against max_connections

	userMu  sync.Mutex // guards what follows, and Socket.user and .watching
	users   map[string]*user
	watched map[string]*watched // by the id of the user

	shards [shards]shard
}

type shard struct {
	mu       sync.RWMutex // guards what follows
	channels map[string]*Channel
}

// Metrics returns the series of this app.
func (ns *Namespace) Metrics() *metrics.App { return ns.metrics }

// Add registers a socket. counted says whether it counts against limit, the
// app's max_connections (0: none). It returns ErrQuota when the limit is
// reached, whether the socket counts or not.
func (ns *Namespace) Add(s *Socket, counted bool, limit int) error {
	ns.mu.Lock()
	defer ns.mu.Unlock()
	if ns.full(limit) {
		return ErrQuota
	}
	if counted {
		ns.count(1)
	}
	s.ns, s.counted = ns, counted
	ns.sockets[s.ID] = s
	ns.hub.sockets.Add(1)
	return nil
}

// Count makes a socket that was added uncounted count against limit.
func (ns *Namespace) Count(s *Socket, limit int) error {
	ns.mu.Lock()
	defer ns.mu.Unlock()
	if s.counted {
		return nil
	}
	if ns.full(limit) {
		return ErrQuota
	}
	s.counted = true
	ns.count(1)
	return nil
}

// full reports whether the sockets of all nodes that count reach a limit; mu
// is held.
func (ns *Namespace) full(limit int) bool {
	if limit <= 0 {
		return false
	}
	n := ns.quota
	if p := ns.hub.peers; p != nil {
		n += p.Sockets(ns.ID)
	}
	return n >= limit
}

// count changes how many sockets count; mu is held.
func (ns *Namespace) count(by int) {
	ns.quota += by
	if p := ns.hub.peers; p != nil {
		p.SetSockets(ns.ID, ns.quota)
	}
}

// Remove forgets a socket that has left its channels and its user.
func (ns *Namespace) Remove(s *Socket) {
	ns.mu.Lock()
	defer ns.mu.Unlock()
	if ns.sockets[s.ID] != s {
		return
	}
	delete(ns.sockets, s.ID)
	if s.counted {
		ns.count(-1)
	}
	ns.hub.sockets.Add(-1)
}

// Socket returns the socket with an id, or nil.
func (ns *Namespace) Socket(id protocol.SocketID) *Socket {
	ns.mu.RLock()
	defer ns.mu.RUnlock()
	return ns.sockets[id]
}

// Connections returns how many sockets are registered.
func (ns *Namespace) Connections() int {
	ns.mu.RLock()
	defer ns.mu.RUnlock()
	return len(ns.sockets)
}

// Sockets returns all sockets, in no order.
func (ns *Namespace) Sockets() []*Socket {
	ns.mu.RLock()
	defer ns.mu.RUnlock()
	all := make([]*Socket, 0, len(ns.sockets))
	for _, s := range ns.sockets {
		all = append(all, s)
	}
	return all
}

func (ns *Namespace) shard(channel string) *shard {
	return &ns.shards[maphash.String(ns.hub.seed, channel)%shards]
}

// Channel returns a channel that has subscribers on this node or is pinned, or
// nil.
func (ns *Namespace) Channel(name string) *Channel {
	sh := ns.shard(name)
	sh.mu.RLock()
	defer sh.mu.RUnlock()
	return sh.channels[name]
}

// Pin returns a channel and keeps it from being forgotten until Unpin. A
// channel that is not there is made.
func (ns *Namespace) Pin(name string) *Channel {
	sh := ns.shard(name)
	for {
		c := ns.Channel(name)
		if c == nil {
			sh.mu.Lock()
			if c = sh.channels[name]; c == nil {
				c = &Channel{name: strings.Clone(name), kind: protocol.KindOf(name), ns: ns}
				c.series = metrics.ChannelTypeOf(name)
				sh.channels[c.name] = c
			}
			sh.mu.Unlock()
		}
		c.mu.Lock()
		if !c.gone {
			c.pins++
			c.mu.Unlock()
			return c
		}
		c.mu.Unlock()
		sh.forget(c)
	}
}

// forget takes a channel out of the table if it is still there.
func (sh *shard) forget(c *Channel) {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if sh.channels[c.name] == c {
		delete(sh.channels, c.name)
	}
}

// Channels calls yield for every channel with subscribers on this node whose name starts
// with prefix, in no order, until it returns false. No lock is held meanwhile.
func (ns *Namespace) Channels(prefix string, yield func(*Channel) bool) {
	for i := range ns.shards {
		sh := &ns.shards[i]
		sh.mu.RLock()
		found := make([]*Channel, 0, len(sh.channels))
		for name, c := range sh.channels {
			if strings.HasPrefix(name, prefix) {
				found = append(found, c)
			}
		}
		sh.mu.RUnlock()
		for _, c := range found {
			if c.Subscriptions() > 0 && !yield(c) {
				return
			}
		}
	}
}
