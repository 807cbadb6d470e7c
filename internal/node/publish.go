package node

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"sockudo/internal/app"
	"sockudo/internal/hub"
	"sockudo/internal/protocol"
	"sockudo/internal/ws"
)

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

// Publish delivers an event to the subscribers of each of its channels, at once
// to those of this node, and hands it to the broker for the peers. It has been
// validated. What the error wraps is ErrUnavailable or the context's error; some
// subscribers may have got the event nevertheless.
func (n *Node) Publish(ctx context.Context, a *app.App, p *Publication) error {
	if err := n.hasRoom(ctx, roomFor); err != nil {
		return err
	}
	ns := n.hub.Lookup(a.ID)
	except := exceptConn(ns, p.Except)
	var out []parcel
	var failed error
	for _, channel := range p.Channels {
		sent, err := n.publish(ctx, a, ns, channel, except, p)
		if err != nil {
			failed = fmt.Errorf("channel %s: %w", channel, err)
			break
		}
		if n.peers != nil {
			out = append(out, sent)
		}
	}
	return errors.Join(failed, n.forward(ctx, out, p.Except, p.At))
}

// publish delivers an event to the subscribers of one channel on this node and
// returns what the peers are to get.
func (n *Node) publish(ctx context.Context, a *app.App, ns *hub.Namespace, channel string, except *ws.Conn, p *Publication) (parcel, error) {
	kind := protocol.KindOf(channel)
	if kind.Is(protocol.Cached) {
		return n.publishLast(ctx, a, channel, except, p)
	}
	var c *hub.Channel
	if ns != nil && !kind.Is(protocol.User) {
		c = ns.Channel(channel)
	}
	if n.peers == nil && c == nil && (ns == nil || !kind.Is(protocol.User)) {
		return parcel{}, nil // nobody anywhere
	}
	f := eventFrame(p, channel)
	switch {
	case c != nil:
		if err := n.admit(ctx, func() error { return c.Publish(f, except, p.At) }); err != nil {
			return parcel{}, err
		}
	case ns != nil && kind.Is(protocol.User):
		ns.SendToUser(channel[len(protocol.UserPrefix):], f, except)
	}
	return parcel{a.ID, channel, f.Payload()}, nil
}

func eventFrame(p *Publication, channel string) *ws.Frame {
	buf := make([]byte, 0, len(p.Data)+len(p.Name)+len(channel)+64)
	return ws.TextFrame(protocol.AppendEvent(buf, p.Name, channel, p.Data, ""))
}

// A parcel is what the peers that want a channel are to get.
type parcel struct {
	app, channel string
	payload      []byte
}

// forward hands parcels to the broker, all at the same time: they are for
// different channels, and order is kept in each.
func (n *Node) forward(ctx context.Context, parcels []parcel, except string, at time.Time) error {
	if len(parcels) == 0 {
		return nil
	}
	ctx, cancel := n.peerContext(ctx)
	defer cancel()
	send := func(p parcel) error {
		if err := n.peers.Broadcast(ctx, p.app, p.channel, p.payload, except, at); err != nil {
			return fmt.Errorf("%w: channel %s, for other nodes: %w", ErrUnavailable, p.channel, err)
		}
		return nil
	}
	if len(parcels) == 1 {
		return send(parcels[0])
	}
	var sending errgroup.Group
	for _, p := range parcels {
		sending.Go(func() error { return send(p) })
	}
	return sending.Wait()
}

// Relay sends a client event to the other subscribers of a channel. data is the
// content of the data string, JSON-escaped, and is kept. It does not wait; what
// has to wait is returned to be called: for room in the channel, which ends with
// hub.ErrBusy when there is none, or to hand the event to the broker for the
// peers. nil: it is done.
func (n *Node) Relay(sub *hub.Subscription, from *hub.Socket, event string, data []byte) (later func(context.Context) error) {
	c := sub.Channel()
	app := from.Namespace().ID
	buf := make([]byte, 0, len(data)+len(event)+len(c.Name())+len(sub.Member())+80)
	f := ws.TextFrame(protocol.AppendEvent(buf, event, c.Name(), data, sub.Member()))
	publish := func() error {
		err := c.Publish(f, from.Conn, time.Time{})
		if err == nil {
			n.feed.put(app, protocol.HookEvent{
				Name: protocol.HookClientEvent, Channel: c.Name(), Event: event, Data: data, SocketID: from.ID.String(), UserID: sub.Member(),
			})
		}
		return err
	}
	err := publish()
	if err == nil && n.peers == nil {
		return nil
	}
	return func(ctx context.Context) error {
		if err != nil {
			if err := n.admit(ctx, publish); err != nil {
				return err
			}
		}
		if n.peers == nil {
			return nil
		}
		payload := f.Payload()
		if c.Kind().Is(protocol.Cached) {
			payload = stamped(0, payload)
		}
		return n.forward(ctx, []parcel{{app, c.Name(), payload}}, from.ID.String(), time.Time{})
	}
}
