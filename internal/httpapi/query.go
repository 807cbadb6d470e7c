package httpapi

import (
	"strconv"
	"strings"
	"time"

	"sockudo/internal/node"
	"sockudo/internal/protocol"
)

// wants reads the info parameter of a query; every word must be allowed.
func (c *call) wants(allow func(word string) string) (info, bool) {
	var in info
	for word := range strings.SplitSeq(c.param("info"), ",") {
		word = strings.TrimSpace(word)
		if word == "" {
			continue
		}
		if reason := allow(word); reason != "" {
			c.invalid(reason)
			return info{}, false
		}
		switch word {
		case "user_count":
			in.users = true
		case "subscription_count":
			in.subscriptions = true
		case "cache":
			in.cache = true
		}
		in.any = true
	}
	return in, true
}

func unknownInfo(word string) string {
	return "info: there is no attribute " + strconv.Quote(clip(word))
}

// channels handles GET /apps/{id}/channels.
func (c *call) channels() {
	prefix := c.param("filter_by_prefix")
	want, ok := c.wants(func(word string) string {
		switch {
		case word == "user_count" && !strings.HasPrefix(prefix, "presence-"):
			return "info: user_count needs a filter_by_prefix that begins with presence-"
		case word == "user_count", word == "subscription_count":
			return ""
		}
		return unknownInfo(word)
	})
	if !ok {
		return
	}
	out := []byte(`{"channels":{`)
	first := true
	c.api.node.Channels(c.app, prefix, func(channel string, n node.Counts) bool {
		if !first {
			out = append(out, ',')
		}
		first = false
		out = append(protocol.AppendString(out, channel), ':', '{')
		if want.users {
			out = strconv.AppendInt(append(out, `"user_count":`...), int64(n.Users), 10)
			if want.subscriptions {
				out = append(out, ',')
			}
		}
		if want.subscriptions {
			out = strconv.AppendInt(append(out, `"subscription_count":`...), int64(n.Subscriptions), 10)
		}
		out = append(out, '}')
		return true
	})
	c.json(append(out, "}}"...))
}

// named returns the channel of the path, if it can be one.
func (c *call) named() (string, protocol.Kind, bool) {
	name := c.path[1]
	if p := c.checkName(name); p != nil {
		c.fail(p.status, p.slug, p.message)
		return "", 0, false
	}
	return name, protocol.KindOf(name), true
}

// channel handles GET /apps/{id}/channels/{channel}.
func (c *call) channel() {
	name, kind, ok := c.named()
	if !ok {
		return
	}
	want, ok := c.wants(func(word string) string {
		switch {
		case word == "user_count" && !kind.Is(protocol.Presence):
			return "info: user_count is only there on presence channels"
		case word == "cache" && !kind.Is(protocol.Cached):
			return "info: cache is only there on cache channels"
		case word == "user_count", word == "cache", word == "subscription_count":
			return ""
		}
		return unknownInfo(word)
	})
	if !ok {
		return
	}
	n := c.api.node.Counts(c.app, name)
	out := strconv.AppendBool([]byte(`{"occupied":`), n.Subscriptions > 0)
	if want.users {
		out = strconv.AppendInt(append(out, `,"user_count":`...), int64(n.Users), 10)
	}
	if want.subscriptions {
		out = strconv.AppendInt(append(out, `,"subscription_count":`...), int64(n.Subscriptions), 10)
	}
	if want.cache {
		if out, ok = c.appendLast(out, name); !ok {
			return
		}
	}
	c.json(append(out, '}'))
}

func (c *call) appendLast(dst []byte, channel string) ([]byte, bool) {
	data, ttl, found, err := c.api.node.LastEvent(c.r.Context(), c.app, channel)
	switch {
	case err != nil:
		c.api.log.Error("last event not read", "app_id", c.app.ID, "channel", channel, "err", err)
		c.internal()
		return nil, false
	case !found:
		return append(dst, `,"cache":null`...), true
	}
	dst = append(dst, `,"cache":{"data":`...)
	dst = protocol.AppendString(dst, data)
	dst = append(dst, `,"ttl":`...)
	dst = strconv.AppendInt(dst, int64((ttl+time.Second-1)/time.Second), 10)
	return append(dst, '}'), true
}

// users handles GET /apps/{id}/channels/{channel}/users.
func (c *call) users() {
	name, kind, ok := c.named()
	if !ok {
		return
	}
	if !kind.Is(protocol.Presence) {
		c.invalid("users are only there on presence channels")
		return
	}
	out := []byte(`{"users":[`)
	for i, id := range c.api.node.Users(c.app, name) {
		if i > 0 {
			out = append(out, ',')
		}
		out = append(out, `{"id":`...)
		out = append(protocol.AppendString(out, id), '}')
	}
	c.json(append(out, "]}"...))
}

// oldStats handles the deprecated GET /apps/{id}/channels/{channel}/stats.
func (c *call) oldStats() {
	name, kind, ok := c.named()
	if !ok {
		return
	}
	n := c.api.node.Counts(c.app, name)
	out := strconv.AppendBool([]byte(`{"occupied":`), n.Subscriptions > 0)
	if kind.Is(protocol.Presence) {
		out = strconv.AppendInt(append(out, `,"user_count":`...), int64(n.Users), 10)
	}
	c.json(append(out, '}'))
}

func (c *call) terminate() {
	c.disconnect(protocol.CodeUnauthorized, "You got disconnected by the app.")
}

func (c *call) reconnect() {
	c.disconnect(protocol.CodeReconnect, "Force reconnect requested by the app.")
}

// disconnect ends all connections of the signed-in user of the path.
func (c *call) disconnect(code int, message string) {
	if len(c.body) > 0 {
		if !c.validText() {
			return
		}
		if err := protocol.ScanObject(c.body, func(_, _ protocol.Value) {}); err != nil {
			c.invalid("The body must be empty or a JSON object")
			return
		}
	}
	if err := c.api.node.Disconnect(c.r.Context(), c.app, c.path[1], code, message); err != nil {
		c.api.log.Warn("user not disconnected", "app_id", c.app.ID, "user_id", c.path[1], "err", err)
		c.unavailable("The connections could not be ended now, try again")
		return
	}
	c.json(emptyObject)
}
