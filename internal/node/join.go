package node

import (
	"context"
	"errors"
	"fmt"

	"sockudo/internal/app"
	"sockudo/internal/cluster"
	"sockudo/internal/hub"
	"sockudo/internal/protocol"
	"sockudo/internal/ws"
)

// JoinWaits reports whether joining a channel may wait: for the cache, or for
// the broker when this node does not listen to the channel yet.
func (n *Node) JoinWaits(a *app.App, channel string) bool {
	k := protocol.KindOf(channel)
	return k.Is(protocol.Cached) || !k.Is(protocol.User) && n.wantWaits(a.ID, channel)
}

// SignInWaits reports whether signing in as a user may wait for the broker.
func (n *Node) SignInWaits(a *app.App, userID string) bool {
	return n.wantWaits(a.ID, protocol.UserPrefix+userID)
}

func (n *Node) wantWaits(appID, channel string) bool {
	return n.peers != nil && !n.peers.Interested(cluster.Topic{App: appID, Channel: channel})
}

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

func (n *Node) unwant(appID, channel string) {
	if n.peers != nil {
		n.peers.Unwant(appID, channel)
	}
}

// Join puts s on a channel whose name and signature have been checked, with
// member on a presence channel. It waits only if JoinWaits says so. Its error is
// a *protocol.Error, a *protocol.SubscriptionError or an internal one.
func (n *Node) Join(ctx context.Context, a *app.App, s *hub.Socket, channel string, member *protocol.Member) error {
	kind := protocol.KindOf(channel)
	if err := n.hear(ctx, a.ID, channel, kind); err != nil {
		n.log.Warn("channel not joined: no answer from the broker", "app_id", a.ID, "channel", channel, "err", err)
		return &protocol.SubscriptionError{
			Channel: channel, Type: protocol.TypeUnavailable, Status: 503, Code: protocol.CodeGeneric,
			Message: "Channel " + channel + " cannot be subscribed to now because the server has no connection to the other nodes, try again",
		}
	}
	err := n.join(ctx, a, s, channel, member)
	if err != nil {
		n.ignore(a.ID, channel, kind)
	}
	return err
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

func (n *Node) join(ctx context.Context, a *app.App, s *hub.Socket, channel string, member *protocol.Member) error {
	c := s.Namespace().Pin(channel)
	defer c.Unpin()
	j := hub.Join{
		Member:     member,
		MaxMembers: a.Limits.PresenceMembers,
		Count:      a.EnableSubscriptionCount != nil && *a.EnableSubscriptionCount,
		Tell:       n.joined(a.ID, channel, member),
	}
	var err error
	if c.Kind().Is(protocol.Cached) {
		err = n.joinCached(ctx, a, c, s, j)
	} else {
		_, err = c.Join(s, j)
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

// SignIn makes s a connection of a user. userData is repeated to the client
// byte for byte. It waits only if SignInWaits says so. Its error is a
// *protocol.Error.
func (n *Node) SignIn(ctx context.Context, a *app.App, s *hub.Socket, u protocol.UserData, userData string) error {
	var watch []string
	if a.EnableWatchlistEvents != nil && *a.EnableWatchlistEvents {
		watch = u.Watchlist[:min(len(u.Watchlist), protocol.MaxWatchlist)]
	}
	again := s.User() == u.ID // its events are wanted already
	if !again {
		if err := n.want(ctx, a.ID, protocol.UserPrefix+u.ID); err != nil {
			n.log.Warn("user not signed in: no answer from the broker", "app_id", a.ID, "user_id", u.ID, "err", err)
			return &protocol.Error{Code: protocol.CodeGeneric,
				Message: "Signing in is not possible now because the server has no connection to the other nodes, try again"}
		}
	}
	success := ws.TextFrame(protocol.AppendSigninSuccess(nil, userData))
	if _, err := s.Namespace().SignIn(s, u.ID, success, watch); err != nil {
		n.unwant(a.ID, protocol.UserPrefix+u.ID)
		return &protocol.Error{Code: protocol.CodeUnauthorized, Message: "Connection is already signed in as another user"}
	}
	return nil
}
