package node

import (
	"context"
	"encoding/binary"
	"time"

	"sockudo/internal/cluster"
	"sockudo/internal/directory"
	"sockudo/internal/hub"
	"sockudo/internal/metrics"
	"sockudo/internal/protocol"
	"sockudo/internal/ws"
)

// nodesApp and these channels, which no client can name, are the topics of the
// nodes themselves.
const (
	nodesApp  = metrics.Cluster
	lastTopic = "#last-event" // events of cache channels, for nodes with a cache of their own
	missTopic = "#cache-miss" // misses of cache channels, for the node that tells the hooks
)

// listen wants the topics of the nodes until ctx is done.
func (n *Node) listen(ctx context.Context) {
	var topics []string
	if !n.opts.CacheShared {
		topics = append(topics, lastTopic)
	}
	if n.feed != nil {
		topics = append(topics, missTopic)
	}
	for _, topic := range topics {
		for n.want(ctx, nodesApp, topic) != nil { // each try waits for the broker
			select {
			case <-ctx.Done():
				return
			case <-time.After(100 * time.Millisecond):
			}
		}
		defer n.unwant(nodesApp, topic)
	}
	<-ctx.Done()
}

// hearLast returns when this node has all further events of cache channels that
// peers publish.
func (n *Node) hearLast(ctx context.Context) error {
	if n.peers == nil || n.opts.CacheShared {
		return nil
	}
	if err := n.want(ctx, nodesApp, lastTopic); err != nil {
		return err
	}
	n.unwant(nodesApp, lastTopic) // listen holds it
	return nil
}

// Local returns what the peers are to be run with: the node, which only has
// itself told what happens in the whole cluster if it has hooks to tell.
func (n *Node) Local() cluster.Local {
	if n.feed == nil {
		return n
	}
	return witness{n}
}

// A witness is a node with hooks.
type witness struct{ *Node }

// Witness is told what comes into being and ends anywhere in the cluster.
func (w witness) Witness(f cluster.Fact) { w.fact(f) }

// Gap says that events of peers may have been missed. What a cache of this node
// alone holds may not be the last event any more.
func (n *Node) Gap() {
	if !n.opts.CacheShared {
		n.era.Add(1)
	}
}

// Truth tells what this node's sockets do, as the peers have been told before.
func (n *Node) Truth(tell func(directory.Entry)) { n.hub.TellAll(entries(tell)) }

// entries makes entries of a directory of what the hub tells.
type entries func(directory.Entry)

func (e entries) SetChannel(appID, channel string, subscriptions int) {
	e(directory.Entry{Kind: directory.Channel, App: appID, Channel: channel, Value: subscriptions})
}

func (e entries) SetMember(appID, channel, user, info string, conns int) {
	e(directory.Entry{Kind: directory.Member, App: appID, Channel: channel, User: user, Info: info, Value: conns})
}

func (e entries) SetSockets(appID string, sockets int) {
	e(directory.Entry{Kind: directory.Sockets, App: appID, Value: sockets})
}

func (e entries) SetUser(appID, user string, conns int) {
	e(directory.Entry{Kind: directory.User, App: appID, User: user, Value: conns})
}

// Deliver hands over what a peer has broadcast on a channel; see cluster.Local.
func (n *Node) Deliver(appID, channel string, payload []byte, exceptSocket string, at time.Time) {
	kind := protocol.KindOf(channel)
	if kind.Is(protocol.Invalid) {
		n.deliverTopic(channel, payload, exceptSocket, at)
		return
	}
	ns := n.hub.Lookup(appID)
	if ns == nil {
		return
	}
	except := exceptConn(ns, exceptSocket)
	if kind.Is(protocol.User) {
		ns.SendToUser(channel[len(protocol.UserPrefix):], ws.TextFrame(payload), except)
		return
	}
	c := ns.Channel(channel)
	if c == nil {
		return
	}
	var stamp hub.Stamp
	if kind.Is(protocol.Cached) {
		if len(payload) < 8 {
			n.log.Warn("malformed event of a peer", "app_id", appID, "channel", channel)
			return
		}
		stamp = hub.Stamp(binary.BigEndian.Uint64(payload))
		payload = payload[8:]
	}
	f := ws.TextFrame(payload)
	n.insist(appID, channel, len(payload), func() error {
		if stamp != 0 {
			return c.DeliverLast(hub.LastEvent{Frame: f, Except: except, At: at, Stamp: stamp})
		}
		return c.Publish(f, except, at)
	})
}

// deliverTopic hands over what a peer has broadcast to the nodes.
func (n *Node) deliverTopic(topic string, payload []byte, exceptSocket string, at time.Time) {
	appID, channel, event, ok := cutAddress(payload)
	if !ok || !protocol.KindOf(channel).Is(protocol.Cached) {
		n.log.Warn("malformed event of a peer", "topic", topic)
		return
	}
	switch topic {
	case lastTopic:
		e := hub.LastEvent{Frame: ws.TextFrame(event), At: at}
		e.Except = exceptConn(n.hub.App(appID), exceptSocket)
		n.insist(appID, channel, len(event), func() error {
			_, err := n.keepLast(context.Background(), appID, channel, e) // in memory: it does not wait
			return err
		})
	case missTopic:
		n.tellMiss(appID, channel)
	}
}

// exceptConn returns the connection with an id, or nil if this node does not
// have it. ns may be nil.
func exceptConn(ns *hub.Namespace, socketID string) *ws.Conn {
	if ns == nil || socketID == "" {
		return nil
	}
	if id, ok := protocol.ParseSocketID(socketID); ok {
		if s := ns.Socket(id); s != nil {
			return s.Conn
		}
	}
	return nil
}

// missed tells the hooks of a miss of a cache channel, at the node that is
// responsible for the channel: whoever misses at the same time, on any node, is
// told of there too (protocol 2.8).
func (n *Node) missed(ctx context.Context, appID, channel string) {
	if n.feed == nil {
		return
	}
	if n.peers == nil || n.peers.Responsible(appID, channel) {
		n.feed.put(appID, protocol.HookEvent{Name: protocol.HookCacheMiss, Channel: channel})
		return
	}
	if err := n.forward(ctx, []parcel{{nodesApp, missTopic, addressed(appID, channel, nil)}}, "", time.Time{}); err != nil {
		n.feed.put(appID, protocol.HookEvent{Name: protocol.HookCacheMiss, Channel: channel}) // rather twice than never
	}
}

func (n *Node) tellMiss(appID, channel string) {
	if n.peers.Responsible(appID, channel) {
		n.feed.put(appID, protocol.HookEvent{Name: protocol.HookCacheMiss, Channel: channel})
	}
}

// ChannelChanged, MemberChanged and UserChanged hand on what changed at the
// peers to those whom it concerns here; see cluster.Local.
func (n *Node) ChannelChanged(appID, channel string) {
	if ns := n.hub.Lookup(appID); ns != nil {
		ns.ChannelChanged(channel)
	}
}

// MemberChanged does it for a member of a presence channel.
func (n *Node) MemberChanged(appID, channel, user string) {
	if ns := n.hub.Lookup(appID); ns != nil {
		ns.MemberChanged(channel, user)
	}
}

// UserChanged does it for a signed-in user.
func (n *Node) UserChanged(appID, user string) {
	if ns := n.hub.Lookup(appID); ns != nil {
		ns.UserChanged(user)
	}
}

// Terminate ends the connections of this node that are signed in as a user.
func (n *Node) Terminate(appID, user string, code int, message string) {
	if ns := n.hub.Lookup(appID); ns != nil {
		for _, s := range ns.UserSockets(user) {
			s.Fail(code, message)
		}
	}
}

// AppChanged makes this node forget what it remembers of an app.
func (n *Node) AppChanged(appID string) {
	if n.opts.AppChanged != nil {
		n.opts.AppChanged(appID)
	}
}
