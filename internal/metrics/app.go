package metrics

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// An App is the series of one app. A series appears at its first use and is
// looked up only then, so that booking takes no lock.
type App struct {
	m  *Metrics
	id string

	connected      func() prometheus.Gauge
	connections    func() prometheus.Counter
	disconnections func() prometheus.Counter
	received       func() prometheus.Counter
	transmitted    func() prometheus.Counter
	messagesIn     func() prometheus.Counter
	messagesOut    func() prometheus.Counter
	clientEvents   func() prometheus.Counter
	members        func() prometheus.Gauge
	slow           func() prometheus.Counter

	httpReceived    func() prometheus.Counter
	httpTransmitted func() prometheus.Counter
	httpCalls       func() prometheus.Counter

	resolveTime       func() prometheus.Observer
	resolved          func() prometheus.Counter
	unresolved        func() prometheus.Counter
	requestsSent      func() prometheus.Counter
	requestsReceived  func() prometheus.Counter
	responsesReceived func() prometheus.Counter

	channels [channelTypes]atomic.Pointer[channelSeries]
}

// channelSeries are the series of one type of channels.
type channelSeries struct {
	subscriptions   func() prometheus.Counter
	unsubscriptions func() prometheus.Counter
	active          func() prometheus.Gauge
	latency         [len(recipientBuckets)]func() prometheus.Observer
}

// first returns a function that makes the series at its first call.
func first[T any](v interface{ WithLabelValues(...string) T }, labels ...string) func() T {
	return sync.OnceValue(func() T { return v.WithLabelValues(labels...) })
}

func (m *Metrics) newApp(id string) *App {
	return &App{
		m: m, id: id,
		connected:      first(m.connected, id, m.port),
		connections:    first(m.connections, id, m.port),
		disconnections: first(m.disconnections, id, m.port),
		received:       first(m.received, id, m.port),
		transmitted:    first(m.transmitted, id, m.port),
		messagesIn:     first(m.messagesIn, id, m.port),
		messagesOut:    first(m.messagesOut, id, m.port),
		clientEvents:   first(m.clientEvents, id, m.port),
		members:        first(m.members, id, m.port),
		slow:           first(m.slow, id, m.port),

		httpReceived:    first(m.httpReceived, id, m.port),
		httpTransmitted: first(m.httpTransmitted, id, m.port),
		httpCalls:       first(m.httpCalls, id, m.port),

		resolveTime:       first(m.resolveTime, id, m.port),
		resolved:          first(m.resolved, id, m.port),
		unresolved:        first(m.unresolved, id, m.port),
		requestsSent:      first(m.requestsSent, id, m.port),
		requestsReceived:  first(m.requestsReceived, id, m.port),
		responsesReceived: first(m.responsesReceived, id, m.port),
	}
}

func (a *App) channel(t ChannelType) *channelSeries {
	if s := a.channels[t].Load(); s != nil {
		return s
	}
	m, name := a.m, t.String()
	s := &channelSeries{
		subscriptions:   first(m.subscriptions, a.id, m.port, name),
		unsubscriptions: first(m.unsubscriptions, a.id, m.port, name),
		active:          first(m.channels, a.id, m.port, name),
	}
	for i, b := range recipientBuckets {
		s.latency[i] = first(m.latency, a.id, m.port, name, b.name)
	}
	a.channels[t].Store(s) // whoever else is here stores the same series
	return s
}

// ConnectionOpened books an accepted connection.
func (a *App) ConnectionOpened() {
	if a != nil {
		a.connected().Inc()
		a.connections().Inc()
	}
}

// ConnectionClosed books the end of one.
func (a *App) ConnectionClosed() {
	if a != nil {
		a.connected().Dec()
		a.disconnections().Inc()
	}
}

// ConnectionError books an error of a connection; kind is one of the types of
// docs/metrics.md.
func (a *App) ConnectionError(kind string) {
	if a != nil {
		a.m.ConnectionError(a.id, kind)
	}
}

// Received books a message from a client with the bytes of its payload.
func (a *App) Received(bytes int) {
	if a != nil {
		a.messagesIn().Inc()
		a.received().Add(float64(bytes))
	}
}

// Sent books frames handed to sockets, all at once, with the bytes of all
// their payloads.
func (a *App) Sent(messages, bytes int) {
	if a != nil && messages > 0 {
		a.messagesOut().Add(float64(messages))
		a.transmitted().Add(float64(bytes))
	}
}

// Subscribed books a subscription.
func (a *App) Subscribed(t ChannelType) {
	if a != nil {
		a.channel(t).subscriptions().Inc()
	}
}

// Unsubscribed books a channel that was left.
func (a *App) Unsubscribed(t ChannelType) {
	if a != nil {
		a.channel(t).unsubscriptions().Inc()
	}
}

// ChannelOpened books a channel's first subscriber.
func (a *App) ChannelOpened(t ChannelType) {
	if a != nil {
		a.channel(t).active().Inc()
	}
}

// ChannelClosed books the leave of its last one.
func (a *App) ChannelClosed(t ChannelType) {
	if a != nil {
		a.channel(t).active().Dec()
	}
}

// Broadcast books the time from a publish until the last of the recipients
// had the event queued. Nothing is booked without recipients.
func (a *App) Broadcast(t ChannelType, recipients int, latency time.Duration) {
	if a != nil && recipients > 0 {
		a.channel(t).latency[recipientBucket(recipients)]().Observe(milliseconds(latency))
	}
}

// ClientEvent books an accepted client event.
func (a *App) ClientEvent() {
	if a != nil {
		a.clientEvents().Inc()
	}
}

// PresenceMembers books members who came (positive) or went.
func (a *App) PresenceMembers(delta int) {
	if a != nil {
		a.members().Add(float64(delta))
	}
}

// SlowConsumer books a connection that was closed because its client did not read.
func (a *App) SlowConsumer() {
	if a != nil {
		a.slow().Inc()
	}
}

// APICall books a finished call of the HTTP API with the bytes of its bodies.
func (a *App) APICall(in, out int) {
	if a != nil {
		a.httpCalls().Inc()
		a.httpReceived().Add(float64(in))
		a.httpTransmitted().Add(float64(out))
	}
}

// RequestSent books a request that was published to the peers of this node.
func (a *App) RequestSent() {
	if a != nil {
		a.requestsSent().Inc()
	}
}

// RequestReceived books a request of a peer.
func (a *App) RequestReceived() {
	if a != nil {
		a.requestsReceived().Inc()
	}
}

// ResponseReceived books a peer's answer to a request of this node that was
// still waiting for it.
func (a *App) ResponseReceived() {
	if a != nil {
		a.responsesReceived().Inc()
	}
}

// Resolved books the end of a request that peers had to answer, and whether
// all of them did. A request without peers is not booked.
func (a *App) Resolved(took time.Duration, complete bool) {
	if a == nil {
		return
	}
	a.resolveTime().Observe(milliseconds(took))
	if complete {
		a.resolved().Inc()
	} else {
		a.unresolved().Inc()
	}
}
