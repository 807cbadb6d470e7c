// Package node holds the rules: what joining, leaving, publishing and signing
// in cause on this node. It waits only where it says so, for the cache.
package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"sockudo/internal/app"
	"sockudo/internal/cache"
	"sockudo/internal/hub"
	"sockudo/internal/protocol"
	"sockudo/internal/ws"
)

// ErrUnavailable says that an event was not accepted; trying again may help.
var ErrUnavailable = errors.New("node: overloaded, try again")

// DefaultLastEventTTL is how long a cache channel keeps its last event when
// nothing else is configured (protocol 3.3).
const DefaultLastEventTTL = 30 * time.Minute

// Options are the parts of a node that have a default.
type Options struct {
	LastEventTTL time.Duration // 0: DefaultLastEventTTL
	CacheTimeout time.Duration // bound of one cache call; 0: 2 s
	// Room waits while the transport has too much to write already, and returns
	// an error when that takes too long. nil: there is always room.
	Room func(ctx context.Context) error
	Log  *slog.Logger // nil: nothing is logged
}

// A Node is one server process as its clients and the HTTP API see it.
type Node struct {
	hub     *hub.Hub
	cache   cache.Cache
	ttl     time.Duration
	timeout time.Duration
	room    func(ctx context.Context) error
	log     *slog.Logger
}

// New returns a node without peers. The last events of cache channels are kept in c.
func New(h *hub.Hub, c cache.Cache, opts Options) *Node {
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
		hub:     h,
		cache:   c,
		ttl:     opts.LastEventTTL,
		timeout: opts.CacheTimeout,
		room:    opts.Room,
		log:     opts.Log.With("component", "node"),
	}
}

// Run sends what is sent on time until ctx is done.
func (n *Node) Run(ctx context.Context) error {
	tick := time.NewTicker(250 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			n.hub.Wait()
			return nil
		case now := <-tick.C:
			n.hub.FlushCounts(now)
		}
	}
}

// A Publication is an event that the HTTP API accepted.
type Publication struct {
	Name string
	// Data is the content of the data string, JSON-escaped, without quotes.
	Data     []byte
	DataLen  int // its length unescaped, in bytes
	Channels []string
	Except   string    // id of the socket that does not get it, or ""
	At       time.Time // when it was published; zero: delivery is not measured
}

// Publish delivers an event to each of its channels. It has been validated.
// What the error wraps is ErrUnavailable or the context's error.
func (n *Node) Publish(ctx context.Context, a *app.App, p *Publication) error {
	if n.room != nil {
		if err := n.room(ctx); err != nil {
			return fmt.Errorf("%w: %w", ErrUnavailable, err)
		}
	}
	ns := n.hub.Lookup(a.ID)
	var except *ws.Conn
	if ns != nil && p.Except != "" {
		if s := ns.Socket(p.Except); s != nil {
			except = s.Conn
		}
	}
	for _, channel := range p.Channels {
		if err := n.publish(ctx, a, ns, channel, except, p); err != nil {
			return fmt.Errorf("%w: channel %s: %w", ErrUnavailable, channel, err)
		}
	}
	return nil
}

func (n *Node) publish(ctx context.Context, a *app.App, ns *hub.Namespace, channel string, except *ws.Conn, p *Publication) error {
	kind := protocol.KindOf(channel)
	if kind.Is(protocol.Cached) {
		return n.publishLast(ctx, a, channel, except, p)
	}
	if ns == nil {
		return nil
	}
	if kind.Is(protocol.User) {
		ns.SendToUser(channel[len(protocol.UserPrefix):], eventFrame(p, channel), except)
		return nil
	}
	c := ns.Channel(channel)
	if c == nil {
		return nil
	}
	return c.Publish(eventFrame(p, channel), except, p.At)
}

func eventFrame(p *Publication, channel string) *ws.Frame {
	buf := make([]byte, 0, len(p.Data)+len(p.Name)+len(channel)+64)
	return ws.TextFrame(protocol.AppendEvent(buf, p.Name, channel, p.Data, ""))
}

// Counts are the sizes of a channel.
type Counts struct {
	Subscriptions int // sockets
	Users         int // distinct presence members
}

// Counts returns the sizes of a channel, zero when it is not occupied.
func (n *Node) Counts(a *app.App, channel string) Counts {
	if ns := n.hub.Lookup(a.ID); ns != nil {
		if c := ns.Channel(channel); c != nil {
			return counts(c)
		}
	}
	return Counts{}
}

func counts(c *hub.Channel) Counts {
	subscriptions, users := c.Counts()
	return Counts{subscriptions, users}
}

// Channels calls yield for every occupied channel whose name starts with
// prefix until it returns false. User channels are left out.
func (n *Node) Channels(a *app.App, prefix string, yield func(channel string, c Counts) bool) {
	ns := n.hub.Lookup(a.ID)
	if ns == nil {
		return
	}
	ns.Channels(prefix, func(c *hub.Channel) bool {
		if c.Kind().Is(protocol.User) {
			return true
		}
		return yield(c.Name(), counts(c))
	})
}

// Users returns the distinct members of a presence channel, in no order.
func (n *Node) Users(a *app.App, channel string) []string {
	if ns := n.hub.Lookup(a.ID); ns != nil {
		if c := ns.Channel(channel); c != nil {
			return c.Members()
		}
	}
	return nil
}

// Disconnect ends every connection that is signed in as a user, with the code
// and message (protocol 5.9, 5.10).
func (n *Node) Disconnect(_ context.Context, a *app.App, userID string, code int, message string) error {
	if ns := n.hub.Lookup(a.ID); ns != nil {
		for _, s := range ns.UserSockets(userID) {
			s.Fail(code, message)
		}
	}
	return nil
}
