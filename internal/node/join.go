package node

import (
	"context"
	"errors"
	"fmt"

	"sockudo/internal/app"
	"sockudo/internal/hub"
	"sockudo/internal/protocol"
	"sockudo/internal/ws"
)

// ErrWait says that nothing was done because something has to be waited for.
var ErrWait = errors.New("node: that takes a while")

// want begins to listen to what the peers broadcast on a channel; every want is
// ended by an unwant. It returns when nothing can be missed any more.
func (n *Node) want(ctx context.Context, appID, channel string) error {
	if n.peers == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, n.opts.PeerTimeout)
	defer cancel()
	return n.peers.Want(ctx, appID, channel)
}

// tryWant reports whether a want need not wait, and then it is one.
func (n *Node) tryWant(appID, channel string) bool {
	return n.peers == nil || n.peers.TryWant(appID, channel)
}

func (n *Node) unwant(appID, channel string) {
	if n.peers != nil {
		n.peers.Unwant(appID, channel)
	}
}

// TryJoin is a Join that does not wait: it returns ErrWait if it would have to,
// for the cache or because the broker does not bring the channel's events yet.
func (n *Node) TryJoin(a *app.App, s *hub.Socket, channel string, member *protocol.Member) error {
	kind := protocol.KindOf(channel)
	if kind.Is(protocol.Cached) || !kind.Is(protocol.User) && !n.tryWant(a.ID, channel) {
		return ErrWait
	}
	return n.join(context.Background(), a, s, channel, kind, member)
}

// Join puts s on a channel whose name and signature have been checked, with
// member on a presence channel. Its error is a *protocol.Error, a
// *protocol.SubscriptionError or an internal one.
func (n *Node) Join(ctx context.Context, a *app.App, s *hub.Socket, channel string, member *protocol.Member) error {
	kind := protocol.KindOf(channel)
	if err := n.hear(ctx, a.ID, channel, kind); err != nil {
		n.log.Warn("channel not joined: no answer from the broker", "app_id", a.ID, "channel", channel, "err", err)
		return &protocol.SubscriptionError{
			Channel: channel, Type: protocol.TypeUnavailable, Status: 503, Code: protocol.CodeGeneric,
			Message: "Channel " + channel + " cannot be subscribed to now because the server has no connection to the other nodes, try again",
		}
	}
	return n.join(ctx, a, s, channel, kind, member)
}

// hear returns when this node gets all further events of a channel that peers
// publish; ignore ends that.
func (n *Node) hear(ctx context.Context, appID, channel string, kind protocol.Kind) error {
	if kind.Is(protocol.User) { // its events come with the sign-in
		return nil
	}
	if err := n.want(ctx, appID, channel); err != nil {
		return err
	}
	if kind.Is(protocol.Cached) {
		if err := n.hearLast(ctx); err != nil {
			n.unwant(appID, channel)
			return err
		}
	}
	return nil
}

func (n *Node) ignore(appID, channel string, kind protocol.Kind) {
	if !kind.Is(protocol.User) {
		n.unwant(appID, channel)
	}
}

// join is Join when the channel is heard, which ends if it fails.
func (n *Node) join(ctx context.Context, a *app.App, s *hub.Socket, channel string, kind protocol.Kind, member *protocol.Member) error {
	c := s.Namespace().Pin(channel)
	defer c.Unpin()
	j := hub.Join{
		Member:     member,
		MaxMembers: a.Limits.PresenceMembers,
		Count:      a.EnableSubscriptionCount != nil && *a.EnableSubscriptionCount,
		Tell:       n.joined(a.ID, channel, member),
	}
	var err error
	if kind.Is(protocol.Cached) {
		err = n.joinCached(ctx, a, c, s, j)
	} else {
		_, err = c.Join(s, j)
	}
	if err != nil {
		n.ignore(a.ID, channel, kind)
	}
	switch {
	case errors.Is(err, hub.ErrSubscribed):
		return &protocol.Error{Code: protocol.CodeGeneric, Message: "Existing subscription to channel " + channel}
	case errors.Is(err, hub.ErrFull):
		return &protocol.SubscriptionError{
			Channel: channel, Type: protocol.TypeLimitReached, Status: 403, Code: protocol.CodeGeneric,
			Message: fmt.Sprintf("Presence channel %s is full: max_presence_members_per_channel is %d", channel, j.MaxMembers),
		}
	}
	return err
}

// Leave ends one subscription.
func (n *Node) Leave(s *hub.Socket, sub *hub.Subscription) {
	c, appID := sub.Channel(), s.Namespace().ID
	sub.Leave(n.left(appID, c.Name()))
	n.ignore(appID, c.Name(), c.Kind())
}

// Gone ends all that a closed connection had.
func (n *Node) Gone(s *hub.Socket) {
	for sub := s.Last(); sub != nil; sub = s.Last() {
		n.Leave(s, sub)
	}
	ns := s.Namespace()
	if user := ns.SignOut(s); user != "" {
		n.unwant(ns.ID, protocol.UserPrefix+user)
	}
	ns.Remove(s)
}

// TrySignIn is a SignIn that does not wait: it returns ErrWait if the broker
// does not bring the user's events yet.
func (n *Node) TrySignIn(a *app.App, s *hub.Socket, u protocol.UserData, userData string) error {
	if s.User() != u.ID && !n.tryWant(a.ID, protocol.UserPrefix+u.ID) {
		return ErrWait
	}
	return n.signIn(a, s, u, userData)
}

// SignIn makes s a connection of a user. userData is repeated to the client
// byte for byte. Its error is a *protocol.Error.
func (n *Node) SignIn(ctx context.Context, a *app.App, s *hub.Socket, u protocol.UserData, userData string) error {
	if s.User() != u.ID { // otherwise its events are heard already
		if err := n.want(ctx, a.ID, protocol.UserPrefix+u.ID); err != nil {
			n.log.Warn("user not signed in: no answer from the broker", "app_id", a.ID, "user_id", u.ID, "err", err)
			return &protocol.Error{Code: protocol.CodeGeneric,
				Message: "Signing in is not possible now because the server has no connection to the other nodes, try again"}
		}
	}
	return n.signIn(a, s, u, userData)
}

func (n *Node) signIn(a *app.App, s *hub.Socket, u protocol.UserData, userData string) error {
	var watch []string
	if a.EnableWatchlistEvents != nil && *a.EnableWatchlistEvents {
		watch = u.Watchlist[:min(len(u.Watchlist), protocol.MaxWatchlist)]
	}
	success := ws.TextFrame(protocol.AppendSigninSuccess(nil, userData))
	if _, err := s.Namespace().SignIn(s, u.ID, success, watch); err != nil {
		n.unwant(a.ID, protocol.UserPrefix+u.ID)
		return &protocol.Error{Code: protocol.CodeUnauthorized, Message: "Connection is already signed in as another user"}
	}
	return nil
}
