package session

import (
	"errors"
	"fmt"
	"strconv"
	"time"

	"sockudo/internal/hub"
	"sockudo/internal/protocol"
	"sockudo/internal/ws"
)

func generic(message string) error {
	return &protocol.Error{Code: protocol.CodeGeneric, Message: message}
}

var (
	errClientEventsOff  = generic("To send client events, you must enable this feature in the Settings")
	errNoClientChannel  = generic("Client event rejected - channel must be a string")
	errClientEventBusy  = generic("Client event rejected - channel is overloaded, try again")
	errClientEventPeers = generic("Client event not delivered everywhere - the server has no connection to the other nodes, try again")
	errClientEventClass = generic("Client event rejected - only supported on private and presence channels")
)

// clientEvent handles an event that a client sends to a channel (protocol 2.7).
func (s *Session) clientEvent(c *ws.Conn, m *protocol.Message) error {
	if !s.app.EnableClientMessages {
		return errClientEventsOff
	}
	if most := s.app.Limits.EventNameLength; most > 0 && protocol.Length(m.Event) > most {
		return generic(fmt.Sprintf("Client event rejected - name has %d characters, max_event_name_length is %d", protocol.Length(m.Event), most))
	}
	if m.Channel.Kind != protocol.String {
		return errNoClientChannel
	}
	channel := m.Channel.Text()
	if !protocol.KindOf(channel).ClientEvents() {
		return errClientEventClass
	}
	sub := s.sock.Subscription(channel)
	if sub == nil {
		return generic("Client event rejected - not subscribed to " + clip(channel))
	}
	size := m.Data.Size()
	if m.Data.Kind == protocol.Absent {
		size = len("null")
	}
	if most := s.app.Limits.EventPayloadBytes; most > 0 && size > most {
		return generic(fmt.Sprintf("Client event rejected - data has %d bytes, max_event_payload_in_kb allows %d", size, most))
	}
	if most := s.app.Limits.ClientEventsPerSecond; most > 0 {
		if s.rate == nil {
			s.rate = newRateWindow(most)
		}
		allowed := s.rate.allow(time.Now())
		s.gate.opts.Metrics.RateLimit(s.app.ID, "client_events", "unknown", !allowed)
		if !allowed {
			return &protocol.Error{Code: protocol.CodeClientEventRate,
				Message: "Client event rejected due to rate limit: max_client_events_per_second is " + strconv.Itoa(most)}
		}
	}
	later := s.gate.node.Relay(sub, &s.sock, m.Event, m.Data.AppendSpan(nil))
	if later == nil {
		s.metrics().ClientEvent()
		return nil
	}
	// The next message waits for this one, so that all get them in order, and a
	// client who is faster than the others can be written to is not read.
	c.Await(func() {
		err := later(s.background())
		switch {
		case errors.Is(err, hub.ErrBusy):
			s.report(errClientEventBusy)
			return
		case err != nil:
			s.report(errClientEventPeers)
		}
		s.metrics().ClientEvent()
	})
	return nil
}

// exactWindow is up to which limit a rateWindow remembers every event.
const exactWindow = 256

// A rateWindow admits so many events in any second: exactly up to exactWindow,
// and above it in seconds that are counted one by one.
type rateWindow struct {
	limit int
	times []int64 // ring of the last admitted events, Unix nanoseconds
	next  int
	start int64 // of the second that is counted
	count int
}

func newRateWindow(limit int) *rateWindow {
	w := &rateWindow{limit: limit}
	if limit <= exactWindow {
		w.times = make([]int64, limit)
	}
	return w
}

func (w *rateWindow) allow(now time.Time) bool {
	t := now.UnixNano()
	if w.times != nil {
		if t-w.times[w.next] < int64(time.Second) {
			return false
		}
		w.times[w.next] = t
		w.next = (w.next + 1) % w.limit
		return true
	}
	if t-w.start >= int64(time.Second) {
		w.start, w.count = t, 0
	}
	w.count++
	return w.count <= w.limit
}
