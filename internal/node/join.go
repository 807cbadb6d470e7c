package node

import (
	"context"
	"errors"
	"fmt"
	"time"

	"sockudo/internal/app"
	"sockudo/internal/hub"
	"sockudo/internal/protocol"
	"sockudo/internal/ws"
)

// Waits reports whether joining a channel of this class may wait.
func Waits(k protocol.Kind) bool { return k.Is(protocol.Cached) }

// Join puts s on a channel whose name and signature have been checked, with
// member on a presence channel. It waits only if Waits says so. Its error is a
// *protocol.Error, a *protocol.SubscriptionError or an internal one.
func (n *Node) Join(ctx context.Context, a *app.App, s *hub.Socket, channel string, member *protocol.Member) error {
	c := s.Namespace().Pin(channel)
	defer c.Unpin()
	j := hub.Join{
		Member:     member,
		MaxMembers: a.Limits.PresenceMembers,
		Count:      a.EnableSubscriptionCount != nil && *a.EnableSubscriptionCount,
	}
	var err error
	if c.Kind().Is(protocol.Cached) {
		_, err = n.joinCached(ctx, a, c, s, j)
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
func (n *Node) Leave(sub *hub.Subscription) { sub.Leave(nil) }

// Gone ends all that a closed connection had.
func (n *Node) Gone(s *hub.Socket) {
	for sub := s.Last(); sub != nil; sub = s.Last() {
		sub.Leave(nil)
	}
	ns := s.Namespace()
	ns.SignOut(s)
	ns.Remove(s)
}

// SignIn makes s a connection of a user. userData is repeated to the client
// byte for byte. Its error is a *protocol.Error.
func (n *Node) SignIn(a *app.App, s *hub.Socket, u protocol.UserData, userData string) error {
	var watch []string
	if a.EnableWatchlistEvents != nil && *a.EnableWatchlistEvents {
		watch = u.Watchlist[:min(len(u.Watchlist), protocol.MaxWatchlist)]
	}
	success := ws.TextFrame(protocol.AppendSigninSuccess(nil, userData))
	if _, err := s.Namespace().SignIn(s, u.ID, success, watch); err != nil {
		return &protocol.Error{Code: protocol.CodeUnauthorized, Message: "Connection is already signed in as another user"}
	}
	return nil
}

// Relay sends a client event to the other subscribers of a channel. data is
// the content of the data string, JSON-escaped. It returns ErrUnavailable when
// the channel has too many events waiting.
func (n *Node) Relay(sub *hub.Subscription, from *hub.Socket, event string, data []byte) error {
	c := sub.Channel()
	buf := make([]byte, 0, len(data)+len(event)+len(c.Name())+len(sub.Member())+80)
	f := ws.TextFrame(protocol.AppendEvent(buf, event, c.Name(), data, sub.Member()))
	if err := c.Publish(f, from.Conn, time.Time{}); err != nil {
		return fmt.Errorf("%w: channel %s: %w", ErrUnavailable, c.Name(), err)
	}
	return nil
}
