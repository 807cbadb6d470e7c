// Package node holds the rules: what joining, leaving, publishing, signing in
// and dying cause, on this node and on its peers. It waits only where it says
// so: for the cache, and for the broker between nodes. Nothing waits for another
// node.
package node

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"sockudo/internal/app"
	"sockudo/internal/cache"
	"sockudo/internal/cluster"
	"sockudo/internal/hub"
	"sockudo/internal/protocol"
)

// ErrUnavailable says that an event was not accepted, or not by all nodes;
// trying again may help.
var ErrUnavailable = errors.New("node: overloaded or cut off, try again")

// DefaultLastEventTTL is how long a cache channel keeps its last event when
// nothing else is configured (protocol 3.3).
const DefaultLastEventTTL = 30 * time.Minute

// Options are the parts of a node that have a default.
type Options struct {
	// Peers are the other nodes, which the hub has been given too, and which are
	// run with Local; nil: this node is alone.
	Peers *cluster.Cluster
	// PeerTimeout bounds what waits for the broker between nodes; 0: 5 s.
	PeerTimeout  time.Duration
	LastEventTTL time.Duration // 0: DefaultLastEventTTL
	CacheTimeout time.Duration // bound of one cache call; 0: 2 s
	// CacheShared says that the peers use the same cache.
	CacheShared bool
	// Room waits while the transport has too much to write already, and returns
	// an error when that takes longer than most. nil: there is always room.
	Room func(ctx context.Context, most time.Duration) error
	// AppChanged is told of an app whose settings have changed, by whatever node.
	// It must not wait. nil: nobody is told.
	AppChanged func(appID string)
	// Dropped is told how many events of peers the subscribers of a channel of this
	// node did not get because it was too busy. nil: nobody is told.
	Dropped func(events int)
	Hooks   Hooks        // nil: nobody is told
	Log     *slog.Logger // nil: nothing is logged
}

// A Node is one server process as its clients, its peers and the HTTP API see
// it.
type Node struct {
	hub   *hub.Hub
	cache cache.Cache
	peers *cluster.Cluster // nil: this node is alone
	feed  *feed            // nil: nobody is told
	opts  Options
	log   *slog.Logger

	backlogs backlogs

	number uint32        // of this node in the stamps of cached events
	events atomic.Uint64 // cached events of this node
	era    atomic.Uint64 // of what a cache of this node alone holds
}

// New returns a node. The last events of cache channels are kept in c.
func New(h *hub.Hub, c cache.Cache, opts Options) *Node {
	if opts.PeerTimeout == 0 {
		opts.PeerTimeout = 5 * time.Second
	}
	if opts.LastEventTTL == 0 {
		opts.LastEventTTL = DefaultLastEventTTL
	}
	if opts.CacheTimeout == 0 {
		opts.CacheTimeout = 2 * time.Second
	}
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	return &Node{
		hub:    h,
		cache:  c,
		peers:  opts.Peers,
		feed:   newFeed(opts.Hooks),
		opts:   opts,
		log:    opts.Log.With("component", "node"),
		number: rand.Uint32(),
	}
}

// Run does what is done in time and tells the hooks, until ctx is done.
func (n *Node) Run(ctx context.Context) error {
	var helpers errgroup.Group
	if n.feed != nil {
		helpers.Go(func() error { n.feed.run(ctx); return nil })
	}
	if n.peers != nil {
		helpers.Go(func() error { n.listen(ctx); return nil })
	}
	tick := time.NewTicker(250 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			n.backlogs.work.Wait()
			n.hub.Wait()
			return helpers.Wait()
		case now := <-tick.C:
			n.hub.FlushCounts(now)
		}
	}
}

// Counts are the sizes of a channel.
type Counts struct {
	Subscriptions int // sockets
	Users         int // distinct presence members
}

// Counts returns the sizes of a channel in the whole cluster, zero when it is
// not occupied.
func (n *Node) Counts(a *app.App, channel string) Counts {
	subscriptions, users := n.hub.Counts(a.ID, channel)
	return Counts{subscriptions, users}
}

// Channels calls yield for every channel whose name starts with prefix and that
// is occupied anywhere in the cluster, until it returns false. User channels are
// left out.
func (n *Node) Channels(a *app.App, prefix string, yield func(channel string, c Counts) bool) {
	more := true
	var here map[string]struct{} // what the peers need not tell
	if n.peers != nil {
		here = map[string]struct{}{}
	}
	if ns := n.hub.Lookup(a.ID); ns != nil {
		ns.Channels(prefix, func(c *hub.Channel) bool {
			subscriptions, users := c.Counts()
			if subscriptions == 0 || c.Kind().Is(protocol.User) {
				return true
			}
			if here != nil {
				here[c.Name()] = struct{}{}
			}
			more = yield(c.Name(), Counts{subscriptions, users})
			return more
		})
	}
	if n.peers == nil || !more {
		return
	}
	n.peers.Channels(a.ID, prefix, func(channel string, subscriptions, users int) bool {
		if _, told := here[channel]; told || protocol.KindOf(channel).Is(protocol.User) {
			return true
		}
		return yield(channel, Counts{subscriptions, users})
	})
}

// Users returns the distinct members of a presence channel in the whole
// cluster, in no order.
func (n *Node) Users(a *app.App, channel string) []string { return n.hub.Members(a.ID, channel) }

// Disconnect ends every connection that is signed in as a user, on all nodes,
// with the code and message (protocol 5.9, 5.10). It waits for the broker
// between nodes; with an error the connections at peers may go on.
func (n *Node) Disconnect(ctx context.Context, a *app.App, userID string, code int, message string) error {
	n.Terminate(a.ID, userID, code, message)
	if n.peers == nil {
		return nil
	}
	ctx, cancel := n.peerContext(ctx)
	defer cancel()
	return n.peers.Terminate(ctx, a.ID, userID, code, message)
}

// ChangeApp says that the settings of an app have changed: this node and its
// peers forget what they remember of it. It waits for the broker between nodes;
// with an error the peers find out when they look again.
func (n *Node) ChangeApp(ctx context.Context, appID string) error {
	n.AppChanged(appID)
	if n.peers == nil {
		return nil
	}
	ctx, cancel := n.peerContext(ctx)
	defer cancel()
	return n.peers.AppChanged(ctx, appID)
}

// peerContext bounds what waits for the broker between nodes. What was begun
// goes on when the caller hangs up: it has happened here already.
func (n *Node) peerContext(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), n.opts.PeerTimeout)
}
