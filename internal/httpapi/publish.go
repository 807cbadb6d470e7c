package httpapi

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"sockudo/internal/node"
	"sockudo/internal/protocol"
)

// A problem is what is wrong with an event.
type problem struct {
	status  int
	slug    string
	message string
}

func invalid(format string, args ...any) *problem {
	return &problem{http.StatusBadRequest, "invalid_input", fmt.Sprintf(format, args...)}
}

func exceeded(format string, args ...any) *problem {
	return &problem{http.StatusBadRequest, "limit_exceeded", fmt.Sprintf(format, args...)}
}

// An event is one event of a request, checked by check.
type event struct {
	name, data, channel, channels, socketID, info protocol.Value
	publication                                   node.Publication
	wants                                         info
}

// field notes a member of the event's object; the last one of a name counts.
func (e *event) field(key, v protocol.Value) {
	switch {
	case key.Is("name"):
		e.name = v
	case key.Is("data"):
		e.data = v
	case key.Is("channel"):
		e.channel = v
	case key.Is("channels"):
		e.channels = v
	case key.Is("socket_id"):
		e.socketID = v
	case key.Is("info"):
		e.info = v
	}
}

// An info says which attributes of channels are asked for.
type info struct{ users, subscriptions, cache, any bool }

// events handles POST /apps/{id}/events.
func (c *call) events() {
	if !c.validText() {
		return
	}
	var e event
	if err := c.scan(&e); err != nil {
		c.invalid("The body is not a JSON object: " + err.Error())
		return
	}
	if p := c.check(&e, false); p != nil {
		c.fail(p.status, p.slug, p.message)
		return
	}
	if !c.allowed(eventLimit, 1) || !c.publish(&e) {
		return
	}
	if !e.wants.any {
		c.json(emptyObject)
		return
	}
	out := []byte(`{"channels":{`)
	for i, channel := range e.publication.Channels {
		if i > 0 {
			out = append(out, ',')
		}
		out = append(protocol.AppendString(out, channel), ':')
		out = c.appendCounts(out, channel, e.wants)
	}
	c.json(append(out, "}}"...))
}

// scan reads the event of the body or, when that is empty, of the query.
func (c *call) scan(e *event) error {
	if len(c.body) > 0 {
		return protocol.ScanObject(c.body, e.field)
	}
	for _, name := range []string{"name", "data", "channel", "socket_id", "info"} {
		if value, ok := c.params.Get(name); ok {
			e.field(quoted(name), quoted(value))
		}
	}
	if e.name.Kind == protocol.Absent {
		return errors.New("it is empty")
	}
	return nil
}

// quoted returns text as the value of a JSON string.
func quoted(text string) protocol.Value {
	raw := protocol.AppendEscaped(nil, text)
	return protocol.Value{Kind: protocol.String, Raw: raw, Escaped: bytes.IndexByte(raw, '\\') >= 0}
}

// batch handles POST /apps/{id}/batch_events: all events are checked before
// the first one is published.
func (c *call) batch() {
	if !c.validText() {
		return
	}
	var list protocol.Value
	err := protocol.ScanObject(c.body, func(key, v protocol.Value) {
		if key.Is("batch") {
			list = v
		}
	})
	if err != nil {
		c.invalid("The body is not a JSON object: " + err.Error())
		return
	}
	if list.Kind != protocol.Array {
		c.invalid("batch must be an array of events")
		return
	}
	events, p := c.checkBatch(list)
	if p != nil {
		c.fail(p.status, p.slug, p.message)
		return
	}
	if len(events) > 0 && !c.allowed(eventLimit, len(events)) {
		return
	}
	asked := false
	for i := range events {
		if !c.publish(&events[i]) {
			return
		}
		asked = asked || events[i].wants.any
	}
	if !asked {
		c.json(emptyObject)
		return
	}
	out := []byte(`{"batch":[`)
	for i := range events {
		if i > 0 {
			out = append(out, ',')
		}
		out = c.appendCounts(out, events[i].publication.Channels[0], events[i].wants)
	}
	c.json(append(out, "]}"...))
}

func (c *call) checkBatch(list protocol.Value) ([]event, *problem) {
	var values []protocol.Value
	n, most := 0, c.app.Limits.BatchSize
	_ = protocol.ScanArray(list.Raw, func(v protocol.Value) { // scanned before
		if n++; most == 0 || n <= most {
			values = append(values, v)
		}
	})
	if n > len(values) {
		return nil, exceeded("The batch has %d events, max_event_batch_size is %d", n, most)
	}
	events := make([]event, len(values))
	for i, v := range values {
		if v.Kind != protocol.Object {
			return nil, invalid("batch[%d] is not an object", i)
		}
		_ = protocol.ScanObject(v.Raw, events[i].field) // scanned before
		if p := c.check(&events[i], true); p != nil {
			p.message = "batch[" + strconv.Itoa(i) + "]: " + p.message
			return nil, p
		}
	}
	return events, nil
}

// check validates an event and prepares its publication. single says that it
// must name one channel.
func (c *call) check(e *event, single bool) *problem {
	p := &e.publication
	p.At = time.Now()
	if e.name.Kind != protocol.String || len(e.name.Raw) == 0 {
		return invalid("name must be a non-empty string")
	}
	p.Name = e.name.Text()
	limits := &c.app.Limits
	switch {
	case limits.EventNameLength > 0 && protocol.Length(p.Name) > limits.EventNameLength:
		return exceeded("name has %d characters, max_event_name_length is %d", protocol.Length(p.Name), limits.EventNameLength)
	case protocol.ReservedEvent(p.Name):
		return invalid("name %q is reserved: events that begin with pusher: or pusher_internal: belong to the protocol", p.Name)
	case e.data.Kind == protocol.Absent:
		return invalid("data is missing")
	}
	if bad := c.checkChannels(e, single); bad != nil {
		return bad
	}
	if bad := c.setData(e); bad != nil {
		return bad
	}
	switch e.socketID.Kind {
	case protocol.Absent, protocol.Null:
	case protocol.String:
		if p.Except = e.socketID.Text(); !protocol.ValidSocketID(p.Except) {
			return invalid("socket_id %q must be two numbers joined by a dot", clip(p.Except))
		}
	default:
		return invalid("socket_id must be a string")
	}
	switch e.info.Kind {
	case protocol.Absent, protocol.Null:
	case protocol.String:
		e.wants = parseInfo(e.info.Text())
	default:
		return invalid("info must be a string")
	}
	return nil
}

// setData makes the data string: a string as it is, anything else as its
// compact text.
func (c *call) setData(e *event) *problem {
	data := e.data
	if data.Kind == protocol.Object || data.Kind == protocol.Array {
		var b bytes.Buffer
		if err := json.Compact(&b, data.Raw); err == nil { // never fails: it was scanned
			data.Raw = b.Bytes()
		}
	}
	p := &e.publication
	p.DataLen = data.Size()
	if most := c.app.Limits.EventPayloadBytes; most > 0 && p.DataLen > most {
		return &problem{http.StatusRequestEntityTooLarge, "payload_too_large",
			fmt.Sprintf("data has %d bytes, max_event_payload_in_kb allows %d", p.DataLen, most)}
	}
	p.Data = data.AppendSpan(make([]byte, 0, len(data.Raw)+16))
	return nil
}

// checkChannels sets and checks the targets of an event.
func (c *call) checkChannels(e *event, single bool) *problem {
	p := &e.publication
	if !single {
		if bad := c.listed(e.channels, p); bad != nil {
			return bad
		}
	}
	if len(p.Channels) == 0 {
		switch e.channel.Kind {
		case protocol.String:
			p.Channels = []string{e.channel.Text()}
		case protocol.Absent, protocol.Null:
			return &problem{http.StatusBadRequest, "missing_channel_info", "channel or channels is needed"}
		default:
			return invalid("channel must be a string")
		}
	}
	return c.checkNames(p)
}

// listed sets the targets that channels names.
func (c *call) listed(channels protocol.Value, p *node.Publication) *problem {
	switch channels.Kind {
	case protocol.Absent, protocol.Null:
		return nil
	case protocol.Array:
	default:
		return invalid("channels must be an array of strings")
	}
	n, most, bad := 0, c.app.Limits.EventChannels, false
	_ = protocol.ScanArray(channels.Raw, func(v protocol.Value) { // scanned before
		bad = bad || v.Kind != protocol.String
		if n++; most == 0 || n <= most {
			p.Channels = append(p.Channels, v.Text())
		}
	})
	switch {
	case bad:
		return invalid("channels must be an array of strings")
	case n > len(p.Channels):
		return exceeded("The event has %d channels, max_event_channels_at_once is %d", n, most)
	}
	return nil
}

func (c *call) checkNames(p *node.Publication) *problem {
	encrypted := false
	for _, name := range p.Channels {
		if bad := c.checkName(name); bad != nil {
			return bad
		}
		encrypted = encrypted || protocol.KindOf(name).Is(protocol.Encrypted)
	}
	if len(p.Channels) > 1 {
		p.Channels = unique(p.Channels)
	}
	if encrypted && len(p.Channels) > 1 {
		return invalid("An event for an encrypted channel cannot go to any other channel")
	}
	return nil
}

func (c *call) checkName(name string) *problem {
	most := c.app.Limits.ChannelNameLength
	switch {
	case most > 0 && protocol.Length(name) > most:
		return exceeded("Channel name has %d characters, max_channel_name_length is %d", protocol.Length(name), most)
	case !protocol.ValidChannel(name):
		return invalid("Channel name %q is invalid: only letters, digits and _ - = @ , . ; are allowed", clip(name))
	}
	return nil
}

// unique removes repetitions and keeps the order.
func unique(names []string) []string {
	seen := make(map[string]struct{}, len(names))
	return slices.DeleteFunc(names, func(name string) bool {
		_, again := seen[name]
		seen[name] = struct{}{}
		return again
	})
}

func parseInfo(text string) info {
	var in info
	for word := range strings.SplitSeq(text, ",") {
		switch strings.TrimSpace(word) {
		case "user_count":
			in.users, in.any = true, true
		case "subscription_count":
			in.subscriptions, in.any = true, true
		case "":
		default:
			in.any = true // an unknown word changes the shape of the answer only
		}
	}
	return in
}

// publish hands an event to the node and answers when it was not accepted.
func (c *call) publish(e *event) bool {
	err := c.api.node.Publish(c.r.Context(), c.app, &e.publication)
	switch {
	case err == nil:
		return true
	case errors.Is(err, node.ErrUnavailable):
		c.unavailable("The event was not accepted, or not by all nodes, because the server is overloaded or cut off from them, try again")
	default:
		c.api.log.Error("event not published", "app_id", c.app.ID, "err", err)
		c.internal()
	}
	return false
}

// appendCounts appends the attributes of a channel that were asked for.
func (c *call) appendCounts(dst []byte, channel string, want info) []byte {
	dst = append(dst, '{')
	counts := c.api.node.Counts(c.app, channel)
	if want.users && protocol.KindOf(channel).Is(protocol.Presence) {
		dst = strconv.AppendInt(append(dst, `"user_count":`...), int64(counts.Users), 10)
		if want.subscriptions {
			dst = append(dst, ',')
		}
	}
	if want.subscriptions {
		dst = strconv.AppendInt(append(dst, `"subscription_count":`...), int64(counts.Subscriptions), 10)
	}
	return append(dst, '}')
}

// oldEvents handles the deprecated POST /apps/{id}/channels/{channel}/events:
// the body is the data.
func (c *call) oldEvents() {
	if !c.validText() {
		return
	}
	e := event{name: quoted(c.param("name")), channel: quoted(c.path[1]), data: quoted(string(c.body))}
	if id, ok := c.params.Get("socket_id"); ok {
		e.socketID = quoted(id)
	}
	if p := c.check(&e, true); p != nil {
		c.fail(p.status, p.slug, p.message)
		return
	}
	if c.allowed(eventLimit, 1) && c.publish(&e) {
		c.w.text(http.StatusAccepted, "")
	}
}
