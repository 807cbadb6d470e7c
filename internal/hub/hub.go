// Package hub knows this node's sockets, channels and users and fans out to
// them. Nothing in it ever waits for anything but a short lock. If the node has
// peers, members, counts, quotas and who is online are those of all nodes
// together: see Peers.
//
// Every app has a Namespace of its own, and nothing crosses from one to
// another.
//
// Lock order: shard.mu → Channel.mu → the small lock inside ws.Conn, and those
// inside Peers. Namespace.mu and Namespace.userMu are taken with none of these
// held, and the same small locks below them.
package hub

import (
	"errors"
	"hash/maphash"
	"sync"
	"sync/atomic"
	"time"

	"sockudo/internal/metrics"
	"sockudo/internal/protocol"
)

var (
	// ErrQuota says that the app has as many connections as it may have.
	ErrQuota = errors.New("app is over its connection quota")
	// ErrSubscribed says that the socket is on the channel already.
	ErrSubscribed = errors.New("already subscribed")
	// ErrFull says that a presence channel has as many members as it may have.
	ErrFull = errors.New("presence channel is full")
	// ErrBusy says that publishers outran the fan-out of a channel, or the sockets.
	ErrBusy = errors.New("channel has too many events waiting")
)

// Options are the parts of a hub that have a default.
type Options struct {
	Peers   Peers            // nil: the node is alone
	Metrics *metrics.Metrics // nil: nothing is counted
}

// A Hub holds the namespaces of all apps on this node.
type Hub struct {
	peers   Peers // nil: the node is alone
	metrics *metrics.Metrics
	seed    maphash.Seed
	sockets atomic.Int64
	walks   sync.WaitGroup // fan-outs that run on a goroutine of their own

	mu   sync.RWMutex // guards what follows
	apps map[string]*Namespace

	countMu sync.Mutex // guards what follows
	counts  []*Channel // channels with a subscription_count that is held back
}

// New returns an empty hub.
func New(opts Options) *Hub {
	return &Hub{peers: opts.Peers, metrics: opts.Metrics, seed: maphash.MakeSeed(), apps: map[string]*Namespace{}}
}

// App returns the namespace of an app and makes it when it is new. Only ids of
// apps that exist may be asked for.
func (h *Hub) App(id string) *Namespace {
	if ns := h.Lookup(id); ns != nil {
		return ns
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	ns := h.apps[id]
	if ns == nil {
		ns = &Namespace{
			ID:      id,
			hub:     h,
			metrics: h.metrics.App(id),
			sockets: map[protocol.SocketID]*Socket{},
			users:   map[string]*user{},
			watched: map[string]*watched{},
		}
		for i := range ns.shards {
			ns.shards[i].channels = map[string]*Channel{}
		}
		h.apps[id] = ns
	}
	return ns
}

// Lookup returns the namespace of an app, or nil when nothing of it is here.
func (h *Hub) Lookup(id string) *Namespace {
	h.mu.RLock()
	defer h.mu.RUnlock()
	return h.apps[id]
}

// Apps returns all namespaces, in no order.
func (h *Hub) Apps() []*Namespace {
	h.mu.RLock()
	defer h.mu.RUnlock()
	all := make([]*Namespace, 0, len(h.apps))
	for _, ns := range h.apps {
		all = append(all, ns)
	}
	return all
}

// Connections returns the number of registered sockets of all apps.
func (h *Hub) Connections() int { return int(h.sockets.Load()) }

// Sockets returns all registered sockets, in no order. It is for shutting down.
func (h *Hub) Sockets() []*Socket {
	var all []*Socket
	for _, ns := range h.Apps() {
		all = append(all, ns.Sockets()...)
	}
	return all
}

// Wait returns when no fan-out is running.
func (h *Hub) Wait() { h.walks.Wait() }

// FlushCounts sends the subscription_count events that are due at now; it is
// to be called a few times a second.
func (h *Hub) FlushCounts(now time.Time) {
	h.countMu.Lock()
	waiting := h.counts
	h.counts = nil
	h.countMu.Unlock()
	var later []*Channel
	for _, c := range waiting {
		if !c.flushCount(now) {
			later = append(later, c)
		}
	}
	if len(later) > 0 {
		h.countMu.Lock()
		h.counts = append(h.counts, later...)
		h.countMu.Unlock()
	}
}

// Sizes count what all maps and lists of a hub hold; on an idle node everything
// but Apps is zero.
type Sizes struct {
	Apps, Sockets, Quota, Users, Watchers, Channels, HeldCounts int
}

// Sizes returns the sizes of now, for tests and audits.
func (h *Hub) Sizes() Sizes {
	var out Sizes
	for _, ns := range h.Apps() {
		out.Apps++
		ns.mu.RLock()
		out.Sockets += len(ns.sockets)
		out.Quota += ns.quota
		ns.mu.RUnlock()
		ns.userMu.Lock()
		out.Users += len(ns.users)
		out.Watchers += len(ns.watched)
		ns.userMu.Unlock()
		for i := range ns.shards {
			sh := &ns.shards[i]
			sh.mu.RLock()
			out.Channels += len(sh.channels)
			sh.mu.RUnlock()
		}
	}
	h.countMu.Lock()
	out.HeldCounts = len(h.counts)
	h.countMu.Unlock()
	return out
}
