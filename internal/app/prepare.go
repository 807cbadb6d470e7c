package app

import "sockudo/internal/origin"

// Defaults are the limits of an app that has none of its own; zero means: no limit.
type Defaults struct {
	ChannelNameLength    uint32 // characters
	EventNameLength      uint32 // characters
	EventPayloadInKB     uint32 // KiB
	EventChannels        uint32
	BatchSize            uint32
	PresenceMembers      uint32
	PresenceMemberSizeKB uint32 // KiB
}

// StandardDefaults are the limits of the protocol document, section 3.3.
func StandardDefaults() Defaults {
	return Defaults{
		ChannelNameLength:    200,
		EventNameLength:      200,
		EventPayloadInKB:     100,
		EventChannels:        100,
		BatchSize:            10,
		PresenceMembers:      100,
		PresenceMemberSizeKB: 2,
	}
}

// Prepare fills in what is derived from an app's fields: Limits and Origins.
// It returns what was wrong with the origins; a bad pattern is left out and
// never widens access.
func Prepare(a *App, d Defaults) []error {
	a.Limits = Limits{
		ChannelNameLength:      limit(a.MaxChannelNameLength, d.ChannelNameLength),
		EventNameLength:        limit(a.MaxEventNameLength, d.EventNameLength),
		EventPayloadBytes:      limit(a.MaxEventPayloadInKB, d.EventPayloadInKB) << 10,
		EventChannels:          limit(a.MaxEventChannelsAtOnce, d.EventChannels),
		BatchSize:              limit(a.MaxEventBatchSize, d.BatchSize),
		PresenceMembers:        limit(a.MaxPresenceMembersPerChannel, d.PresenceMembers),
		PresenceMemberBytes:    limit(a.MaxPresenceMemberSizeInKB, d.PresenceMemberSizeKB) << 10,
		ClientEventsPerSecond:  int(a.MaxClientEventsPerSecond),
		BackendEventsPerSecond: limit(a.MaxBackendEventsPerSecond, 0),
		ReadRequestsPerSecond:  limit(a.MaxReadRequestsPerSecond, 0),
		MaxConnections:         int(a.MaxConnections),
	}
	var problems []error
	a.Origins = nil
	if len(a.AllowedOrigins) > 0 {
		a.Origins, problems = origin.ParseLenient(a.AllowedOrigins)
	}
	return problems
}

func limit(own *uint32, inherited uint32) int {
	if own != nil {
		return int(*own)
	}
	return int(inherited)
}
