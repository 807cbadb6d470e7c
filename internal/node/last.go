package node

import (
	"context"
	"errors"
	"time"

	"sockudo/internal/app"
	"sockudo/internal/cache"
	"sockudo/internal/hub"
	"sockudo/internal/protocol"
	"sockudo/internal/ws"
)

// lastEventKey is where the cache keeps the last event of a channel.
func lastEventKey(appID, channel string) string {
	return "app:" + appID + ":channel:" + channel + ":cache_miss"
}

// publishLast publishes on a cache channel and returns when the event, or a
// newer one of the channel, is in the cache. A cache that is down costs the
// replay, not the event.
func (n *Node) publishLast(ctx context.Context, a *app.App, channel string, except *ws.Conn, p *Publication) error {
	c := n.hub.App(a.ID).Pin(channel)
	defer c.Unpin()
	version, err := c.PublishLast(eventFrame(p, channel), except, p.At)
	if err != nil {
		return err
	}
	// The event is out: it must reach the cache also when the caller hangs up.
	ctx = context.WithoutCancel(ctx)
	c.Save(version, func(f *ws.Frame) { n.saveLast(ctx, a.ID, channel, f) })
	return nil
}

func (n *Node) saveLast(ctx context.Context, appID, channel string, f *ws.Frame) {
	ctx, cancel := context.WithTimeout(ctx, n.timeout)
	defer cancel()
	key := lastEventKey(appID, channel)
	err := n.cache.Set(ctx, key, f.Payload(), n.ttl)
	if err == nil {
		return
	}
	n.log.Warn("last event not cached", "app_id", appID, "channel", channel, "err", err)
	// An older event must not be replayed in its place.
	if err := n.cache.Delete(ctx, key); err != nil {
		n.log.Debug("older event not removed", "app_id", appID, "channel", channel, "err", err)
	}
}

// readLast returns the cached event of a channel, or nil.
func (n *Node) readLast(ctx context.Context, appID, channel string) ([]byte, time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, n.timeout)
	defer cancel()
	value, ttl, err := n.cache.Get(ctx, lastEventKey(appID, channel))
	switch {
	case errors.Is(err, cache.ErrMiss):
		return nil, 0
	case err != nil:
		n.log.Warn("last event not read", "app_id", appID, "channel", channel, "err", err)
		return nil, 0
	}
	if m, err := protocol.Decode(value); err != nil || !m.Channel.Is(channel) {
		n.log.Warn("cached event is malformed", "app_id", appID, "channel", channel)
		return nil, 0
	}
	return value, ttl
}

// joinCached joins a cache channel with its last event or the miss. It asks
// the cache first and asks again when an event was published meanwhile, so
// that no older event is replayed after a newer one.
func (n *Node) joinCached(ctx context.Context, a *app.App, c *hub.Channel, s *hub.Socket, j hub.Join) (hub.Joined, error) {
	for {
		version, unsaved := c.LastVersion()
		j.Version, j.Replay = version, unsaved
		if unsaved == nil {
			if value, _ := n.readLast(ctx, a.ID, c.Name()); value != nil {
				j.Replay = ws.TextFrame(value)
			} else {
				j.Replay = ws.TextFrame(protocol.AppendCacheMiss(nil, c.Name()))
			}
		}
		facts, err := c.Join(s, j)
		if !errors.Is(err, hub.ErrStale) {
			return facts, err
		}
	}
}

// LastEvent returns the data string of the event that a cache channel replays,
// and how long it will; ok is false when there is none.
func (n *Node) LastEvent(ctx context.Context, a *app.App, channel string) (data string, ttl time.Duration, ok bool, err error) {
	var value []byte
	if ns := n.hub.Lookup(a.ID); ns != nil {
		if c := ns.Channel(channel); c != nil {
			if _, unsaved := c.LastVersion(); unsaved != nil {
				value, ttl = unsaved.Payload(), n.ttl
			}
		}
	}
	if value == nil {
		if value, ttl = n.readLast(ctx, a.ID, channel); value == nil {
			return "", 0, false, nil
		}
	}
	m, err := protocol.Decode(value)
	if err != nil {
		return "", 0, false, err
	}
	return m.Data.Text(), ttl, true, nil
}
