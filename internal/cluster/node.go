package cluster

import (
	"context"
	"fmt"
	"time"
)

// NodeID returns the name of this node.
func (c *Cluster) NodeID() string { return c.opts.NodeID }

// SetChannel tells how many subscriptions this node's sockets have to a
// channel now; 0 stands for none left. It is cheap and takes only a leaf lock;
// calls for one channel must come in the order of what happened.
func (c *Cluster) SetChannel(app, channel string, subscriptions int) {
	c.dir.SetChannel(app, channel, subscriptions)
}

// SetMember tells how many of this node's sockets are connections of a member
// of a presence channel, as SetChannel does. If the peers have the member
// already, info is best theirs: it is what all have shown so far.
func (c *Cluster) SetMember(app, channel, user, info string, conns int) {
	c.dir.SetMember(app, channel, user, info, conns)
}

// SetSockets tells how many of an app's sockets are open at this node, those
// that count for its quota.
func (c *Cluster) SetSockets(app string, n int) { c.dir.SetSockets(app, n) }

// SetUser tells how many of this node's sockets are signed in as a user.
func (c *Cluster) SetUser(app, user string, conns int) { c.dir.SetUser(app, user, conns) }

// Subscriptions returns how many subscriptions to a channel the peers have.
func (c *Cluster) Subscriptions(app, channel string) int { return c.dir.Subscriptions(app, channel) }

// Member returns how many connections of a member of a presence channel the
// peers have, and its user_info if there are any. Nodes with the same view
// return the same user_info.
func (c *Cluster) Member(app, channel, user string) (conns int, info string) {
	return c.dir.Member(app, channel, user)
}

// Members yields the members of a presence channel that the peers have, in no
// order. Nothing is locked while yield runs.
func (c *Cluster) Members(app, channel string, yield func(user, info string, conns int) bool) {
	c.dir.Members(app, channel, yield)
}

// Channels yields the channels with a name that begins with prefix and that
// the peers have subscriptions to. Users are those of the peers. Nothing is
// locked while yield runs.
func (c *Cluster) Channels(app, prefix string, yield func(channel string, subscriptions, users int) bool) {
	c.dir.Channels(app, prefix, yield)
}

// Sockets returns how many sockets of an app the peers have.
func (c *Cluster) Sockets(app string) int { return c.dir.Sockets(app) }

// User returns how many connections of a signed-in user the peers have.
func (c *Cluster) User(app, user string) int { return c.dir.User(app, user) }

// Responsible reports whether this node is the one that tells its witness what
// happens to a channel. Without a witness it never is.
func (c *Cluster) Responsible(app, channel string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.core.charge.state == inCharge && c.core.owner(app, channel) == c.self.node
}

// Interested reports whether the topic of a channel is subscribed and
// acknowledged, so that no Want has to wait.
func (c *Cluster) Interested(t Topic) bool {
	return c.interests.has(c.topics.channel(t.App, t.Channel))
}

// Want subscribes to what the peers broadcast on a channel and returns once
// the broker has acknowledged it; with an error nothing is wanted. Wants are
// counted, and each is ended by one Unwant.
func (c *Cluster) Want(ctx context.Context, app, channel string) error {
	return c.interests.want(ctx, app, channel, c.topics.channel(app, channel))
}

// TryWant is a Want that does not wait: it reports whether the topic is
// acknowledged already, and then it is wanted.
func (c *Cluster) TryWant(app, channel string) bool {
	return c.interests.tryWant(c.topics.channel(app, channel))
}

// Unwant ends a Want. The topic is kept for a while, in case it is wanted again.
func (c *Cluster) Unwant(app, channel string) {
	c.interests.unwant(c.topics.channel(app, channel))
}

// Broadcast hands the payload of a text frame to the peers that want the
// channel, for all subscribers there but the socket with the id exceptSocket.
// An error says that they may not get it. at is when the event was published.
// After the broker was lost it waits a moment for the peers to hear it again.
func (c *Cluster) Broadcast(ctx context.Context, app, channel string, payload []byte, exceptSocket string, at time.Time) error {
	if err := c.gate.pass(ctx); err != nil {
		c.metrics.BusDropped(c.opts.Driver)
		return fmt.Errorf("cluster: broadcast on channel %s: %w", channel, err)
	}
	m := broadcast{app: app, channel: channel, except: exceptSocket, at: at, payload: payload}
	e := c.guard.envelope(kindBroadcast, nil, time.Now())
	b := c.guard.finish(m.append(c.guard.header(e, m.size())))
	if err := c.hand(ctx, e, c.topics.channel(app, channel), Topic{app, channel}, b); err != nil {
		c.metrics.BusDropped(c.opts.Driver)
		return fmt.Errorf("cluster: broadcast on channel %s: %w", channel, err)
	}
	c.metrics.App(app).RequestSent()
	return nil
}

// Terminate closes the connections of a signed-in user at the peers.
func (c *Cluster) Terminate(ctx context.Context, app, user string, code int, message string) error {
	m := terminate{app, user, code, message}
	if err := c.gate.pass(ctx); err != nil {
		return fmt.Errorf("cluster: terminate user %s: %w", user, err)
	}
	if err := c.command(ctx, kindTerminate, m.append(nil)); err != nil {
		return fmt.Errorf("cluster: terminate user %s: %w", user, err)
	}
	c.series().RequestSent()
	return nil
}

// AppChanged tells the peers that an app is not what it was.
func (c *Cluster) AppChanged(ctx context.Context, appID string) error {
	if err := c.gate.pass(ctx); err != nil {
		return fmt.Errorf("cluster: app %s changed: %w", appID, err)
	}
	if err := c.command(ctx, kindApp, []byte(appID)); err != nil {
		return fmt.Errorf("cluster: app %s changed: %w", appID, err)
	}
	c.series().RequestSent()
	return nil
}

// Ready returns nil while the broker passes on what this node says and what
// its peers had when it joined is known; otherwise it says what is wrong.
func (c *Cluster) Ready() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.core.ready(time.Now())
}
