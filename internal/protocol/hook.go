package protocol

// Names of the events that webhooks report (section 6.2).
const (
	HookChannelOccupied   = "channel_occupied"
	HookChannelVacated    = "channel_vacated"
	HookMemberAdded       = "member_added"
	HookMemberRemoved     = "member_removed"
	HookClientEvent       = "client_event"
	HookCacheMiss         = "cache_miss"
	HookSubscriptionCount = "subscription_count"
)

// A HookEvent is something that webhooks report (section 6.2). What does not
// belong to an event of its name is empty.
type HookEvent struct {
	Name          string
	Channel       string
	UserID        string // of a member, or of the sender of a client event on a presence channel
	Event         string // name of a client event
	Data          []byte // of a client event: content of the data string, JSON-escaped, without quotes
	SocketID      string // of the sender of a client event
	Subscriptions int    // of a subscription_count
}
