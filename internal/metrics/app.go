package metrics

import (
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// An App is the series of one app, looked up once. All its methods are free of
// locks and look-ups.
type App struct {
	m  *Metrics
	id string

	connected       prometheus.Gauge
	connections     prometheus.Counter
	disconnections  prometheus.Counter
	received        prometheus.Counter
	transmitted     prometheus.Counter
	messagesIn      prometheus.Counter
	messagesOut     prometheus.Counter
	httpReceived    prometheus.Counter
	httpTransmitted prometheus.Counter
	httpCalls       prometheus.Counter

	// Series that appear at first use.
	clientEvents  atomic.Pointer[prometheus.Counter]
	byChannelType [channelTypes]atomic.Pointer[channelSeries]
}

// channelSeries are the series of one channel type.
type channelSeries struct {
	subscriptions, unsubscriptions prometheus.Counter
	active                         prometheus.Gauge
}

func (m *Metrics) newApp(id string) *App {
	return &App{
		m: m, id: id,
		connected:       m.connected.WithLabelValues(id, m.port),
		connections:     m.connections.WithLabelValues(id, m.port),
		disconnections:  m.disconnections.WithLabelValues(id, m.port),
		received:        m.received.WithLabelValues(id, m.port),
		transmitted:     m.transmitted.WithLabelValues(id, m.port),
		messagesIn:      m.messagesIn.WithLabelValues(id, m.port),
		messagesOut:     m.messagesOut.WithLabelValues(id, m.port),
		httpReceived:    m.httpReceived.WithLabelValues(id, m.port),
		httpTransmitted: m.httpTransmitted.WithLabelValues(id, m.port),
		httpCalls:       m.httpCalls.WithLabelValues(id, m.port),
	}
}

// ConnectionOpened books an accepted connection.
func (a *App) ConnectionOpened() {
	if a != nil {
		a.connected.Inc()
		a.connections.Inc()
	}
}

// ConnectionClosed books the end of one.
func (a *App) ConnectionClosed() {
	if a != nil {
		a.connected.Dec()
		a.disconnections.Inc()
	}
}

// ConnectionError books an error of a connection.
func (a *App) ConnectionError(kind string) {
	if a != nil {
		a.m.ConnectionError(a.id, kind)
	}
}

// Received books a message from a client.
func (a *App) Received(bytes int) {
	if a != nil {
		a.messagesIn.Inc()
		a.received.Add(float64(bytes))
	}
}

// Sent books frames handed to sockets, all at once.
func (a *App) Sent(messages, bytes int) {
	if a != nil && messages > 0 {
		a.messagesOut.Add(float64(messages))
		a.transmitted.Add(float64(bytes))
	}
}

func (a *App) channel(t ChannelType) *channelSeries {
	if s := a.byChannelType[t].Load(); s != nil {
		return s
	}
	m := a.m
	s := &channelSeries{
		subscriptions:   m.subscriptions.WithLabelValues(a.id, m.port, t.String()),
		unsubscriptions: m.unsubscriptions.WithLabelValues(a.id, m.port, t.String()),
		active:          m.channels.WithLabelValues(a.id, m.port, t.String()),
	}
	a.byChannelType[t].Store(s) // whoever else is here stores the same series
	return s
}

// Subscribed books a subscription.
func (a *App) Subscribed(t ChannelType) {
	if a != nil {
		a.channel(t).subscriptions.Inc()
	}
}

// Unsubscribed books a channel that was left.
func (a *App) Unsubscribed(t ChannelType) {
	if a != nil {
		a.channel(t).unsubscriptions.Inc()
	}
}

// ChannelOpened books a channel's first subscriber.
func (a *App) ChannelOpened(t ChannelType) {
	if a != nil {
		a.channel(t).active.Inc()
	}
}

// ChannelClosed books the leave of its last one.
func (a *App) ChannelClosed(t ChannelType) {
	if a != nil {
		a.channel(t).active.Dec()
	}
}

// Broadcast books the time from a publish until the last of the recipients,
// who are at least one, had the event queued.
func (a *App) Broadcast(t ChannelType, recipients int, latency time.Duration) {
	if a != nil && recipients > 0 {
		bucket := recipientBuckets[recipientBucket(recipients)].name
		a.m.latency.WithLabelValues(a.id, a.m.port, t.String(), bucket).Observe(milliseconds(latency))
	}
}

// ClientEvent books an accepted client event.
func (a *App) ClientEvent() {
	if a == nil {
		return
	}
	c := a.clientEvents.Load()
	if c == nil {
		series := a.m.clientEvents.WithLabelValues(a.id, a.m.port)
		c = &series
		a.clientEvents.Store(c)
	}
	(*c).Inc()
}

// PresenceMembers books members who came or went.
func (a *App) PresenceMembers(delta int) {
	if a != nil {
		a.m.members.WithLabelValues(a.id, a.m.port).Add(float64(delta))
	}
}

// SlowConsumer books a connection that was closed because its client did not read.
func (a *App) SlowConsumer() {
	if a != nil {
		a.m.slow.WithLabelValues(a.id, a.m.port).Inc()
	}
}

// APICall books a finished call of the HTTP API with the sizes of its bodies.
func (a *App) APICall(in, out int) {
	if a != nil {
		a.httpCalls.Inc()
		a.httpReceived.Add(float64(in))
		a.httpTransmitted.Add(float64(out))
	}
}
