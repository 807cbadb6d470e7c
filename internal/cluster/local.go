package cluster

import (
	"fmt"
	"time"

	"sockudo/internal/directory"
)

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

// A Truth is a Local that can tell all own facts anew, so that an audit can
// compare them with those that were set.
type Truth interface {
	Truth(tell func(directory.Entry))
}

// A Hearer is a Local that wants to know that broadcasts may have passed it by:
// Gap is called when the broker is lost, from when on some may, and when it is
// back, until when some may have.
type Hearer interface {
	Gap()
}

// A Fact is a change of the whole cluster's view of a channel.
type Fact struct {
	Kind    FactKind
	App     string
	Channel string
	User    string // of MemberAdded and MemberRemoved
	Info    string // user_info as JSON, of MemberAdded
	Count   int    // subscriptions in the whole cluster, of the others
}

// FactKind says what changed.
type FactKind uint8

// The kinds of facts.
const (
	Occupied          FactKind = iota + 1 // the first subscription in the cluster
	Vacated                               // the last one is gone
	MemberAdded                           // a user's first connection
	MemberRemoved                         // the last one is gone
	SubscriptionCount                     // the number of subscriptions is another one
)

// String returns the name of a kind.
func (k FactKind) String() string {
	names := [...]string{Occupied: "occupied", Vacated: "vacated", MemberAdded: "member added", MemberRemoved: "member removed", SubscriptionCount: "subscription count"}
	if int(k) < len(names) && names[k] != "" {
		return names[k]
	}
	return fmt.Sprintf("fact %d", uint8(k))
}
