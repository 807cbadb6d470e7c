package node

import (
	"slices"
	"strings"

	"sockudo/internal/hub"
	"sockudo/internal/protocol"
)

// Stats is what GET /stats tells about this node (protocol 5.10).
type Stats struct {
	Totals Totals     `json:"totals"`
	Apps   []AppStats `json:"apps"`
}

// Totals are the sums over all apps.
type Totals struct {
	Apps int `json:"apps"`
	Sums
}

// AppStats are the numbers of one app.
type AppStats struct {
	AppID string `json:"app_id"`
	Sums
}

// Sums count connections, users and channels.
type Sums struct {
	Connections              int       `json:"connections"`
	AuthenticatedConnections int       `json:"authenticated_connections"` // signed in
	Users                    int       `json:"users"`
	ConnectionsWithMeta      int       `json:"connections_with_meta"` // always 0: nothing else is kept about a connection
	Occupancy                Occupancy `json:"occupancy"`
}

// Occupancy counts channels and who is on them.
type Occupancy struct {
	Channels              int `json:"channels"`
	Subscriptions         int `json:"subscriptions"`
	PresenceChannels      int `json:"presence_channels"`
	PresenceSubscriptions int `json:"presence_subscriptions"`
	PresenceMembers       int `json:"presence_members"`
}

// Stats counts what is on this node now, app by app in order of id.
func (n *Node) Stats() Stats {
	out := Stats{Apps: []AppStats{}} // in JSON a list, also without apps
	for _, ns := range n.hub.Apps() {
		a := AppStats{AppID: ns.ID}
		a.Connections = ns.Connections()
		a.Users, a.AuthenticatedConnections = ns.UserCounts()
		ns.Channels("", func(c *hub.Channel) bool {
			a.Occupancy.add(c)
			return true
		})
		out.Apps = append(out.Apps, a)
		out.Totals.add(a.Sums)
	}
	slices.SortFunc(out.Apps, func(a, b AppStats) int { return strings.Compare(a.AppID, b.AppID) })
	out.Totals.Apps = len(out.Apps)
	return out
}

func (o *Occupancy) add(c *hub.Channel) {
	subscriptions, members := c.Local()
	o.Channels++
	o.Subscriptions += subscriptions
	if c.Kind().Is(protocol.Presence) {
		o.PresenceChannels++
		o.PresenceSubscriptions += subscriptions
		o.PresenceMembers += members
	}
}

func (s *Sums) add(o Sums) {
	s.Connections += o.Connections
	s.AuthenticatedConnections += o.AuthenticatedConnections
	s.Users += o.Users
	s.Occupancy.Channels += o.Occupancy.Channels
	s.Occupancy.Subscriptions += o.Occupancy.Subscriptions
	s.Occupancy.PresenceChannels += o.Occupancy.PresenceChannels
	s.Occupancy.PresenceSubscriptions += o.Occupancy.PresenceSubscriptions
	s.Occupancy.PresenceMembers += o.Occupancy.PresenceMembers
}
