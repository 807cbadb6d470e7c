package cluster

import (
	"context"
	"log/slog"
	"time"

	"sockudo/internal/metrics"
)

// Options are the parts of a cluster that have a default.
type Options struct {
	// Prefix begins every topic, so that clusters can share a broker; "": "sockudo".
	Prefix string
	// ID names the cluster. Nodes refuse what comes from a cluster of another
	// name; "": "default".
	ID string
	// Secret, if not empty, signs every envelope; what is not signed with it is refused.
	Secret []byte
	// NodeID names this node in the cluster, unique among those that live; "": by chance.
	NodeID string

	HeartbeatInterval time.Duration // 0: 10 s
	NodeTimeout       time.Duration // silence after which a node counts as dead; 0: 30 s
	Linger            time.Duration // how long a topic is kept after its last Unwant; 0: 5 s
	JoinTimeout       time.Duration // how long Ready waits for the partitions of silent peers; 0: 10 s

	Log     *slog.Logger     // nil: nothing is logged
	Metrics *metrics.Metrics // nil: nothing is counted
}

// Local is this node as the cluster sees it. Deliver, Terminate and AppChanged
// are called by one goroutine at a time per topic, the rest by one goroutine at
// a time; none must wait long. No lock of the cluster is held during a call.
type Local interface {
	// Deliver hands over an event that a peer broadcast: the ready payload of a
	// text frame for all subscribers but the socket with the id exceptSocket.
	Deliver(app, channel string, payload []byte, exceptSocket string, at time.Time)

	// ChannelChanged, MemberChanged and UserChanged say that what the peers have
	// of it changed; the new values are read from the Cluster, as often as
	// wanted. The same change may be told twice.
	ChannelChanged(app, channel string)
	MemberChanged(app, channel, user string)
	UserChanged(app, user string)

	// Terminate closes the connections of a signed-in user.
	Terminate(app, user string, code int, message string)
	// AppChanged forgets what is remembered of an app's settings.
	AppChanged(app string)
}

// A Witness is a Local that wants to know what comes into being and ends in the
// whole cluster. Every fact is told to the witness of one node, the one that is
// responsible for the channel: at least once, and twice only around a node's
// death. The calls come from one goroutine and must return soon.
type Witness interface {
	Witness(Fact)
}

// A Fact is a change of the whole cluster's view of a channel.
type Fact struct {
	Kind    FactKind
	App     string
	Channel string
	User    string // of MemberAdded and MemberRemoved
	Info    string // user_info as JSON, of MemberAdded
	Count   int    // subscriptions in the whole cluster now, of SubscriptionCount
}

// FactKind says what changed.
type FactKind uint8

// The kinds of facts. A channel's Occupied comes before, and its Vacated after,
// all its other facts.
const (
	Occupied          FactKind = iota + 1 // the first subscription in the cluster
	Vacated                               // the last one is gone
	MemberAdded                           // a user's first connection
	MemberRemoved                         // the last one is gone
	SubscriptionCount                     // the number of subscriptions is another one
)

// A Topic is a channel of an app.
type Topic struct {
	App, Channel string
}

// A Cluster is the other nodes as this one sees them. Methods that take no
// context never wait.
type Cluster struct {
	bus  Bus
	opts Options
}

// New returns a cluster over bus. It does nothing before Run.
func New(bus Bus, opts Options) *Cluster {
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	return &Cluster{bus: bus, opts: opts}
}

// Run takes part in the cluster until ctx is done, then says goodbye.
func (c *Cluster) Run(ctx context.Context, local Local) error { return nil }

// NodeID returns the name of this node.
func (c *Cluster) NodeID() string { return c.opts.NodeID }

// SetChannel tells how many subscriptions this node's sockets have to a
// channel now; 0 stands for none left. It is cheap and takes only a leaf lock;
// calls for one channel must come in the order of what happened.
func (c *Cluster) SetChannel(app, channel string, subscriptions int) {}

// SetMember tells how many of this node's sockets are connections of a member
// of a presence channel, as SetChannel does.
func (c *Cluster) SetMember(app, channel, user, info string, conns int) {}

// SetSockets tells how many of an app's sockets are open at this node, those
// that count for its quota.
func (c *Cluster) SetSockets(app string, n int) {}

// SetUser tells how many of this node's sockets are signed in as a user.
func (c *Cluster) SetUser(app, user string, conns int) {}

// Subscriptions returns how many subscriptions to a channel the peers have.
func (c *Cluster) Subscriptions(app, channel string) int { return 0 }

// Member returns how many connections of a member of a presence channel the
// peers have, and the user_info that all nodes agree on, if there are any.
func (c *Cluster) Member(app, channel, user string) (conns int, info string) { return 0, "" }

// Members yields the members of a presence channel that the peers have, in no
// order. Nothing is locked while yield runs.
func (c *Cluster) Members(app, channel string, yield func(user, info string, conns int) bool) {}

// Channels yields the channels with a name that begins with prefix and that
// the peers have subscriptions to. Users are those of the peers.
func (c *Cluster) Channels(app, prefix string, yield func(channel string, subscriptions, users int) bool) {
}

// Sockets returns how many sockets of an app the peers have.
func (c *Cluster) Sockets(app string) int { return 0 }

// User returns how many connections of a signed-in user the peers have.
func (c *Cluster) User(app, user string) int { return 0 }

// Responsible reports whether this node is the one that tells the world what
// happens to a channel.
func (c *Cluster) Responsible(app, channel string) bool { return false }

// Interested reports whether the topic of a channel is subscribed and
// acknowledged, so that no Want has to wait.
func (c *Cluster) Interested(t Topic) bool { return false }

// Want subscribes to what the peers broadcast on a channel and returns once
// the broker has acknowledged it; with an error nothing is wanted. Wants are
// counted, and each is ended by one Unwant.
func (c *Cluster) Want(ctx context.Context, app, channel string) error { return nil }

// Unwant ends a Want. The topic is kept for a while, in case it is wanted again.
func (c *Cluster) Unwant(app, channel string) {}

// Broadcast hands the payload of a text frame to the peers that want the
// channel, for all subscribers there but the socket with the id exceptSocket.
// An error says that they may not get it. at is when the event was published.
func (c *Cluster) Broadcast(ctx context.Context, app, channel string, payload []byte, exceptSocket string, at time.Time) error {
	return nil
}

// Terminate closes the connections of a signed-in user at the peers.
func (c *Cluster) Terminate(ctx context.Context, app, user string, code int, message string) error {
	return nil
}

// AppChanged tells the peers that an app is not what it was.
func (c *Cluster) AppChanged(ctx context.Context, appID string) error { return nil }

// Ready returns nil while the broker passes on what this node says and the
// partitions of all peers that live are known; otherwise it says what is wrong.
func (c *Cluster) Ready() error { return nil }

// Status is a node's view of the cluster.
type Status struct{}

// Status returns what this node knows of the cluster.
func (c *Cluster) Status() Status { return Status{} }
