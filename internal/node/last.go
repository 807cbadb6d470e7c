package node

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"sockudo/internal/app"
	"sockudo/internal/cache"
	"sockudo/internal/hub"
	"sockudo/internal/protocol"
	"sockudo/internal/ws"
)

// How the last events of cache channels are the same on all nodes depends on
// the cache.
//
// If nodes share it, the publishing node writes the event there and then
// broadcasts it to the peers that have subscribers, with a stamp in front and
// the same stamp in the cache, which tells them what a subscriber has been
// replayed already (hub.Stamp).
//
// If every node has its own, the event goes to all nodes on one topic, and each
// of them orders and keeps it as if it had been published there. That costs one
// message per node; a node knows the events since it joined the cluster, and
// after it was cut off it forgets what it had, because a newer one may have
// passed it by.

// lastEventKey is where the cache keeps the last event of a channel.
func (n *Node) lastEventKey(appID, channel string) string {
	key := "app:" + appID + ":channel:" + channel + ":cache_miss"
	if era := n.era.Load(); era > 0 {
		return fmt.Sprintf("%s:%d", key, era) // what is under the old keys ages out
	}
	return key
}

// publishLast publishes on a cache channel and returns when the event, or a
// newer one of the channel, is in the cache, with what the peers are to get. A
// cache that is down costs the replay, not the event.
func (n *Node) publishLast(ctx context.Context, a *app.App, channel string, except *ws.Conn, p *Publication) (parcel, error) {
	e := hub.LastEvent{Frame: eventFrame(p, channel), Except: except, At: p.At}
	stamp, err := n.keepLast(ctx, a.ID, channel, e)
	switch {
	case err != nil || n.peers == nil:
		return parcel{}, err
	case n.opts.CacheShared:
		return parcel{a.ID, channel, stamped(stamp, e.Frame.Payload())}, nil
	}
	return parcel{nodesApp, lastTopic, addressed(a.ID, channel, e.Frame.Payload())}, nil
}

// keepLast orders an event in its channel and returns when it is in the cache.
func (n *Node) keepLast(ctx context.Context, appID, channel string, e hub.LastEvent) (hub.Stamp, error) {
	c := n.hub.App(appID).Pin(channel)
	defer c.Unpin()
	var stamp func() hub.Stamp
	if n.peers != nil && n.opts.CacheShared {
		stamp = func() hub.Stamp { return hub.NewStamp(n.number, n.events.Add(1)) }
	}
	var version uint64
	var s hub.Stamp
	err := n.admit(ctx, func() (err error) {
		version, s, err = c.PublishLast(e, stamp)
		return err
	})
	if err != nil {
		return 0, err
	}
	// The event is out: it must reach the cache also when the caller hangs up.
	ctx = context.WithoutCancel(ctx)
	c.Save(version, func(f *ws.Frame, s hub.Stamp) { n.saveLast(ctx, appID, channel, appendStamp(f.Payload(), s)) })
	return s, nil
}

func (n *Node) saveLast(ctx context.Context, appID, channel string, value []byte) {
	ctx, cancel := context.WithTimeout(ctx, n.opts.CacheTimeout)
	defer cancel()
	key := n.lastEventKey(appID, channel)
	err := n.cache.Set(ctx, key, value, n.opts.LastEventTTL)
	if err == nil {
		return
	}
	n.log.Log(ctx, cacheLevel(err), "last event not cached", "app_id", appID, "channel", channel, "err", err)
	// An older event must not be replayed in its place.
	if err := n.cache.Delete(ctx, key); err != nil {
		n.log.Debug("older event not removed", "app_id", appID, "channel", channel, "err", err)
	}
}

// cacheLevel is how loud an error of the cache is told. That it is down, it has
// said itself.
func cacheLevel(err error) slog.Level {
	if errors.Is(err, cache.ErrDown) {
		return slog.LevelDebug
	}
	return slog.LevelWarn
}

// readLast returns the cached event of a channel, or nil.
func (n *Node) readLast(ctx context.Context, appID, channel string) ([]byte, hub.Stamp, time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, n.opts.CacheTimeout)
	defer cancel()
	value, ttl, err := n.cache.Get(ctx, n.lastEventKey(appID, channel))
	switch {
	case errors.Is(err, cache.ErrMiss):
		return nil, 0, 0
	case err != nil:
		n.log.Log(ctx, cacheLevel(err), "last event not read", "app_id", appID, "channel", channel, "err", err)
		return nil, 0, 0
	}
	value, stamp := cutStamp(value)
	if m, err := protocol.Decode(value); err != nil || !m.Channel.Is(channel) {
		n.log.Warn("cached event is malformed", "app_id", appID, "channel", channel)
		return nil, 0, 0
	}
	return value, stamp, ttl
}

// joinCached joins a cache channel with its last event or the miss. What is
// published while it asks the cache is replayed in place of what it read, so
// that no older event follows a newer one.
func (n *Node) joinCached(ctx context.Context, a *app.App, c *hub.Channel, s *hub.Socket, j hub.Join) error {
	j.Replay = c.Newest()
	missed := false
	if j.Replay == nil {
		value, stamp, _ := n.readLast(ctx, a.ID, c.Name())
		if missed = value == nil; missed {
			value = protocol.AppendCacheMiss(nil, c.Name())
		}
		j.Replay, j.Stamp = ws.TextFrame(value), stamp
	}
	facts, err := c.Join(s, j)
	if err == nil && missed && !facts.Newer {
		n.missed(ctx, a.ID, c.Name())
	}
	return err
}

// LastEvent returns the data string of the event that a cache channel replays,
// and how long it will; ok is false when there is none.
func (n *Node) LastEvent(ctx context.Context, a *app.App, channel string) (data string, ttl time.Duration, ok bool, err error) {
	var value []byte
	if ns := n.hub.Lookup(a.ID); ns != nil {
		if c := ns.Channel(channel); c != nil {
			if newest := c.Newest(); newest != nil {
				value, ttl = newest.Payload(), n.opts.LastEventTTL
			}
		}
	}
	if value == nil {
		if value, _, ttl = n.readLast(ctx, a.ID, channel); value == nil {
			return "", 0, false, nil
		}
	}
	m, err := protocol.Decode(value)
	if err != nil {
		return "", 0, false, err
	}
	return m.Data.Text(), ttl, true, nil
}

// blanks are the digits of a stamp in the cache.
const blanks = " \t\n\r"

// stampLen is the length of a stamp in the cache: two bits per character.
const stampLen = 32

// appendStamp writes a stamp behind an event as white space. So the value stays
// the JSON object with event, channel and data that other readers of this key
// expect.
func appendStamp(event []byte, s hub.Stamp) []byte {
	if s == 0 {
		return event
	}
	out := append(make([]byte, 0, len(event)+stampLen), event...)
	for shift := 62; shift >= 0; shift -= 2 {
		out = append(out, blanks[s>>shift&3])
	}
	return out
}

// cutStamp undoes appendStamp; the stamp of a value without one is zero.
func cutStamp(value []byte) ([]byte, hub.Stamp) {
	if len(value) <= stampLen {
		return value, 0
	}
	at := len(value) - stampLen
	var s hub.Stamp
	for _, b := range value[at:] {
		digit := -1
		for i := range len(blanks) {
			if blanks[i] == b {
				digit = i
			}
		}
		if digit < 0 {
			return value, 0
		}
		s = s<<2 | hub.Stamp(digit)
	}
	return value[:at], s
}

// stamped writes a stamp in front of an event, for the bus.
func stamped(s hub.Stamp, event []byte) []byte {
	out := make([]byte, 0, 8+len(event))
	return append(binary.BigEndian.AppendUint64(out, uint64(s)), event...)
}

// addressed writes app and channel in front of an event, for topics that are
// about all channels.
func addressed(appID, channel string, event []byte) []byte {
	out := make([]byte, 0, len(appID)+len(channel)+len(event)+2*binary.MaxVarintLen16)
	out = append(binary.AppendUvarint(out, uint64(len(appID))), appID...)
	out = append(binary.AppendUvarint(out, uint64(len(channel))), channel...)
	return append(out, event...)
}

// cutAddress undoes addressed.
func cutAddress(payload []byte) (appID, channel string, event []byte, ok bool) {
	for _, to := range []*string{&appID, &channel} {
		size, used := binary.Uvarint(payload)
		if used <= 0 || size > uint64(len(payload)-used) {
			return "", "", nil, false
		}
		*to = string(payload[used : used+int(size)])
		payload = payload[used+int(size):]
	}
	return appID, channel, payload, true
}
