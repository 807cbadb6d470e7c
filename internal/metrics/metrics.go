// Package metrics is every Prometheus series of the server, in one table. The
// names, labels and buckets are those of docs/metrics.md; they are kept
// because dashboards and alerts exist for them.
//
// A nil *Metrics and a nil *App count nothing.
package metrics

import (
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/common/expfmt"
)

// Options are the parts of the metrics that have a default.
type Options struct {
	Prefix string // of the names; "": sockudo_
	Port   int    // of the metrics listener, the value of the label port
}

// Metrics are all series of a process.
type Metrics struct {
	registry *prometheus.Registry
	port     string

	connected       *prometheus.GaugeVec
	connections     *prometheus.CounterVec
	disconnections  *prometheus.CounterVec
	errors          *prometheus.CounterVec
	received        *prometheus.CounterVec
	transmitted     *prometheus.CounterVec
	messagesIn      *prometheus.CounterVec
	messagesOut     *prometheus.CounterVec
	httpReceived    *prometheus.CounterVec
	httpTransmitted *prometheus.CounterVec
	httpCalls       *prometheus.CounterVec
	limitChecks     *prometheus.CounterVec
	limitTriggered  *prometheus.CounterVec
	subscriptions   *prometheus.CounterVec
	unsubscriptions *prometheus.CounterVec
	channels        *prometheus.GaugeVec
	latency         *prometheus.HistogramVec
	clientEvents    *prometheus.CounterVec
	members         *prometheus.GaugeVec
	slow            *prometheus.CounterVec

	mu   sync.RWMutex // guards what follows
	apps map[string]*App
}

// latencyBuckets are the bounds of broadcast_latency_ms.
var latencyBuckets = []float64{0.5, 1, 2.5, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000}

// New returns metrics with a registry of their own.
func New(opts Options) *Metrics {
	if opts.Prefix == "" {
		opts.Prefix = "sockudo_"
	}
	m := &Metrics{registry: prometheus.NewRegistry(), port: strconv.Itoa(opts.Port), apps: map[string]*App{}}
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		v := prometheus.NewCounterVec(prometheus.CounterOpts{Name: opts.Prefix + name, Help: help}, append([]string{"app_id", "port"}, labels...))
		m.registry.MustRegister(v)
		return v
	}
	gauge := func(name, help string, labels ...string) *prometheus.GaugeVec {
		v := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: opts.Prefix + name, Help: help}, append([]string{"app_id", "port"}, labels...))
		m.registry.MustRegister(v)
		return v
	}
	m.connected = gauge("connected", "Currently open WebSocket connections")
	m.connections = counter("new_connections_total", "Accepted WebSocket connections")
	m.disconnections = counter("new_disconnections_total", "Ended WebSocket connections")
	m.errors = counter("connection_errors_total", "Connection errors by type", "error_type")
	m.received = counter("socket_received_bytes", "Payload bytes received over WebSocket")
	m.transmitted = counter("socket_transmitted_bytes", "Payload bytes sent over WebSocket")
	m.messagesIn = counter("ws_messages_received_total", "Messages received over WebSocket")
	m.messagesOut = counter("ws_messages_sent_total", "Messages sent over WebSocket, one per socket")
	m.httpReceived = counter("http_received_bytes", "Request body bytes of the HTTP API")
	m.httpTransmitted = counter("http_transmitted_bytes", "Response body bytes of the HTTP API")
	m.httpCalls = counter("http_calls_received_total", "Calls of the HTTP API, failed ones included")
	m.limitChecks = counter("rate_limit_checks_total", "Rate limiter evaluations", "limiter_type", "request_context")
	m.limitTriggered = counter("rate_limit_triggered_total", "Rate limiter rejections", "limiter_type", "request_context")
	m.subscriptions = counter("channel_subscriptions_total", "Successful subscriptions", "channel_type")
	m.unsubscriptions = counter("channel_unsubscriptions_total", "Channels left, for whatever reason", "channel_type")
	m.channels = gauge("active_channels", "Channels with a subscriber on this node", "channel_type")
	m.latency = prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: opts.Prefix + "broadcast_latency_ms", Help: "Time from publish to the last local socket's queue, in milliseconds",
		Buckets: latencyBuckets,
	}, []string{"app_id", "port", "channel_type", "recipient_count_bucket"})
	m.registry.MustRegister(m.latency)
	m.clientEvents = counter("client_events_total", "Client events accepted")
	m.members = gauge("presence_members", "Presence members on this node, one per user and channel")
	m.slow = counter("slow_consumer_disconnects_total", "Connections closed because the client did not read")
	m.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// Handler serves the series as Prometheus text 0.0.4 and as nothing else:
// OpenMetrics would add _total to names that must not have it.
func (m *Metrics) Handler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		families, err := m.registry.Gather()
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
		enc := expfmt.NewEncoder(w, expfmt.NewFormat(expfmt.TypeTextPlain))
		for _, f := range families {
			if enc.Encode(f) != nil {
				return // the scraper is gone
			}
		}
	})
}

// ConnectionError books an error of a connection that has no app yet. appID is
// the id of an app that exists, or "unknown".
func (m *Metrics) ConnectionError(appID, kind string) {
	if m != nil {
		m.errors.WithLabelValues(appID, m.port, kind).Inc()
	}
}

// RateLimit books a limiter's answer.
func (m *Metrics) RateLimit(appID, limiterType, requestContext string, triggered bool) {
	if m == nil {
		return
	}
	m.limitChecks.WithLabelValues(appID, m.port, limiterType, requestContext).Inc()
	if triggered {
		m.limitTriggered.WithLabelValues(appID, m.port, limiterType, requestContext).Inc()
	}
}

// App returns the series of an app that exists, or of one of the fixed names
// of docs/metrics.md. Names that clients choose must not get here.
func (m *Metrics) App(id string) *App {
	if m == nil {
		return nil
	}
	m.mu.RLock()
	a := m.apps[id]
	m.mu.RUnlock()
	if a != nil {
		return a
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if a = m.apps[id]; a == nil {
		a = m.newApp(id)
		m.apps[id] = a
	}
	return a
}

// ChannelType is the class of a channel as the label channel_type names it.
type ChannelType uint8

// The channel types.
const (
	Public ChannelType = iota
	Private
	Presence
	PrivateEncrypted
	Cache
	channelTypes
)

// String returns the value of the label.
func (t ChannelType) String() string {
	return [channelTypes]string{"public", "private", "presence", "private_encrypted", "cache"}[t]
}

// ChannelTypeOf returns the type of a channel, by the longest prefix.
func ChannelTypeOf(channel string) ChannelType {
	for _, p := range []string{"private-encrypted-cache-", "private-cache-", "presence-cache-", "cache-"} {
		if strings.HasPrefix(channel, p) {
			return Cache
		}
	}
	switch {
	case strings.HasPrefix(channel, "private-encrypted-"):
		return PrivateEncrypted
	case strings.HasPrefix(channel, "private-"):
		return Private
	case strings.HasPrefix(channel, "presence-"):
		return Presence
	}
	return Public
}

// recipientBuckets name how many sockets a broadcast reached.
var recipientBuckets = []struct {
	most int
	name string
}{{10, "xs"}, {100, "sm"}, {1000, "md"}, {10_000, "lg"}, {1 << 62, "xl"}}

func recipientBucket(n int) int {
	for i, b := range recipientBuckets {
		if n <= b.most {
			return i
		}
	}
	return len(recipientBuckets) - 1
}

func milliseconds(d time.Duration) float64 { return max(float64(d)/float64(time.Millisecond), 0) }
