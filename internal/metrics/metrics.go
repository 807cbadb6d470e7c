// Package metrics is every Prometheus series of the server, in one table. The
// names, labels and buckets are those of docs/metrics.md; they are kept
// because dashboards and alerts exist for them.
//
// A nil *Metrics and a nil *App count nothing.
package metrics

import (
	"math"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/common/expfmt"
)

// Values of the label app_id that name no app.
const (
	Global  = "global"  // the limiters by address
	Cluster = "cluster" // what nodes tell each other about themselves
	System  = "system"  // GET /up
	Unknown = "unknown" // the app could not be found
)

// Options are the parts of the metrics that have a default.
type Options struct {
	Prefix string // of all names but go_* and process_*; "": none
	Port   int    // of the metrics listener, the value of the label port
}

// Metrics are all series of a process.
type Metrics struct {
	registry *prometheus.Registry
	port     string

	connected      *prometheus.GaugeVec
	connections    *prometheus.CounterVec
	disconnections *prometheus.CounterVec
	errors         *prometheus.CounterVec
	received       *prometheus.CounterVec
	transmitted    *prometheus.CounterVec
	messagesIn     *prometheus.CounterVec
	messagesOut    *prometheus.CounterVec

	httpReceived    *prometheus.CounterVec
	httpTransmitted *prometheus.CounterVec
	httpCalls       *prometheus.CounterVec
	httpDuration    *prometheus.HistogramVec

	resolveTime       *prometheus.HistogramVec
	resolved          *prometheus.CounterVec
	unresolved        *prometheus.CounterVec
	requestsSent      *prometheus.CounterVec
	requestsReceived  *prometheus.CounterVec
	responsesReceived *prometheus.CounterVec

	limitChecks    *prometheus.CounterVec
	limitTriggered *prometheus.CounterVec

	subscriptions   *prometheus.CounterVec
	unsubscriptions *prometheus.CounterVec
	channels        *prometheus.GaugeVec
	latency         *prometheus.HistogramVec

	clientEvents *prometheus.CounterVec
	members      *prometheus.GaugeVec
	slow         *prometheus.CounterVec

	clusterNodes       *prometheus.GaugeVec
	clusterRefused     *prometheus.CounterVec
	clusterDropped     *prometheus.CounterVec
	clusterResyncs     *prometheus.CounterVec
	clusterDifferences *prometheus.GaugeVec
	reconnections      *prometheus.CounterVec
	dropped            *prometheus.CounterVec

	mu   sync.RWMutex // guards what follows
	apps map[string]*App
}

// Bounds of the histograms. Those of the resolve time go on where Sockudo ends,
// at 10 ms: its alert for 500 ms could never fire.
var (
	latencyBuckets  = []float64{0.5, 1, 2.5, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000}
	resolveBuckets  = []float64{0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10000}
	durationBuckets = []float64{0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10}
)

// New returns metrics with a registry of their own.
func New(opts Options) *Metrics {
	m := &Metrics{registry: prometheus.NewRegistry(), port: strconv.Itoa(opts.Port), apps: map[string]*App{}}
	base := func(labels []string) []string { return append([]string{"app_id", "port"}, labels...) }
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		v := prometheus.NewCounterVec(prometheus.CounterOpts{Name: opts.Prefix + name, Help: help}, base(labels))
		m.registry.MustRegister(v)
		return v
	}
	gauge := func(name, help string, labels ...string) *prometheus.GaugeVec {
		v := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: opts.Prefix + name, Help: help}, base(labels))
		m.registry.MustRegister(v)
		return v
	}
	histogram := func(name, help string, buckets []float64, labels ...string) *prometheus.HistogramVec {
		v := prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: opts.Prefix + name, Help: help, Buckets: buckets}, labels)
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
	m.httpDuration = histogram("http_request_duration_seconds", "Time to answer a call of the HTTP API", durationBuckets, "method", "endpoint")

	m.resolveTime = histogram("horizontal_adapter_resolve_time", "Time until peers answered a request, in milliseconds", resolveBuckets, base(nil)...)
	m.resolved = counter("horizontal_adapter_resolved_promises", "Requests that all peers answered")
	m.unresolved = counter("horizontal_adapter_uncomplete_promises", "Requests that not all peers answered in time")
	m.requestsSent = counter("horizontal_adapter_sent_requests", "Requests sent to peers")
	m.requestsReceived = counter("horizontal_adapter_received_requests", "Requests received from peers")
	m.responsesReceived = counter("horizontal_adapter_received_responses", "Answers of peers to requests of this node")

	m.limitChecks = counter("rate_limit_checks_total", "Rate limiter evaluations", "limiter_type", "request_context")
	m.limitTriggered = counter("rate_limit_triggered_total", "Rate limiter rejections", "limiter_type", "request_context")

	m.subscriptions = counter("channel_subscriptions_total", "Successful subscriptions", "channel_type")
	m.unsubscriptions = counter("channel_unsubscriptions_total", "Channels left, for whatever reason", "channel_type")
	m.channels = gauge("active_channels", "Channels with a subscriber on this node", "channel_type")
	m.latency = histogram("broadcast_latency_ms", "Time from publish to the last local socket's queue, in milliseconds",
		latencyBuckets, base([]string{"channel_type", "recipient_count_bucket"})...)

	m.clientEvents = counter("client_events_total", "Client events accepted")
	m.members = gauge("presence_members", "Presence members on this node, one per user and channel")
	m.slow = counter("slow_consumer_disconnects_total", "Connections closed because the client did not read")

	node := func(labels ...string) []string { return append([]string{"port"}, labels...) }
	m.clusterNodes = prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: opts.Prefix + "cluster_nodes", Help: "Nodes of the cluster that live, as this one sees it, itself included"}, node())
	m.clusterRefused = prometheus.NewCounterVec(prometheus.CounterOpts{Name: opts.Prefix + "cluster_refused_envelopes_total", Help: "Messages on the topics of the cluster that were not taken"}, node("reason"))
	m.clusterDropped = prometheus.NewCounterVec(prometheus.CounterOpts{Name: opts.Prefix + "cluster_dropped_events_total", Help: "Events of peers that a channel of this node was too busy for"}, node())
	m.clusterResyncs = prometheus.NewCounterVec(prometheus.CounterOpts{Name: opts.Prefix + "cluster_resyncs_total", Help: "Partitions of peers that were fetched whole"}, node("reason"))
	m.clusterDifferences = prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: opts.Prefix + "cluster_audit_differences", Help: "Entries of the directory found to be wrong by the last comparison"}, node())
	m.reconnections = prometheus.NewCounterVec(prometheus.CounterOpts{Name: opts.Prefix + "horizontal_transport_reconnections_total", Help: "Times that the broker was lost and found again"}, []string{"driver"})
	m.dropped = prometheus.NewCounterVec(prometheus.CounterOpts{Name: opts.Prefix + "horizontal_transport_messages_dropped_total", Help: "Events that the broker did not take"}, []string{"driver"})
	for _, c := range []prometheus.Collector{m.clusterNodes, m.clusterRefused, m.clusterDropped, m.clusterResyncs, m.clusterDifferences, m.reconnections, m.dropped} {
		m.registry.MustRegister(c)
	}

	m.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// Handler serves the series as Prometheus text 0.0.4 and as nothing else:
// OpenMetrics would add _total to names that must not have it.
func (m *Metrics) Handler() http.Handler {
	if m == nil {
		return http.NotFoundHandler()
	}
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
// the id of an app that exists, or Unknown.
func (m *Metrics) ConnectionError(appID, kind string) {
	if m != nil {
		m.errors.WithLabelValues(appID, m.port, kind).Inc()
	}
}

// RateLimit books a limiter's answer. appID is the id of an app that exists, or
// Global.
func (m *Metrics) RateLimit(appID, limiterType, requestContext string, triggered bool) {
	if m == nil {
		return
	}
	m.limitChecks.WithLabelValues(appID, m.port, limiterType, requestContext).Inc()
	if triggered {
		m.limitTriggered.WithLabelValues(appID, m.port, limiterType, requestContext).Inc()
	}
}

// App returns the series of an app that exists, or of one of the names that
// are none. Names that clients choose must not get here: every one of them
// would be kept. The gauge of an app's connections is there from now on, so
// that dashboards know the app before its first connection.
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
		switch id {
		case Global, Cluster, System, Unknown:
		default:
			a.connected()
		}
	}
	return a
}

// An Endpoint is the series of one route of the HTTP API. A nil *Endpoint
// counts nothing.
type Endpoint struct{ duration func() prometheus.Observer }

// Endpoint returns the series of a route, named by its template.
func (m *Metrics) Endpoint(method, template string) *Endpoint {
	if m == nil {
		return nil
	}
	return &Endpoint{first(m.httpDuration, method, template)}
}

// Answered books the time that an answer took.
func (e *Endpoint) Answered(took time.Duration) {
	if e != nil {
		e.duration().Observe(took.Seconds())
	}
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
var recipientBuckets = [...]struct {
	most int
	name string
}{{10, "xs"}, {100, "sm"}, {1000, "md"}, {10_000, "lg"}, {math.MaxInt, "xl"}}

func recipientBucket(n int) int {
	for i, b := range recipientBuckets {
		if n <= b.most {
			return i
		}
	}
	return len(recipientBuckets) - 1
}

func milliseconds(d time.Duration) float64 { return max(float64(d)/float64(time.Millisecond), 0) }
