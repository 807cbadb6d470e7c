package metrics

import (
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// scrape returns what Prometheus would read, without go_* and process_*.
func scrape(t testing.TB, m *Metrics) []string {
	t.Helper()
	w := httptest.NewRecorder()
	m.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	if w.Code != http.StatusOK {
		t.Fatalf("status %d: %s", w.Code, w.Body)
	}
	var lines []string
	for line := range strings.Lines(w.Body.String()) {
		if strings.HasPrefix(line, "go_") || strings.HasPrefix(line, "process_") || regexp.MustCompile(`^# \w+ (go|process)_`).MatchString(line) {
			continue
		}
		lines = append(lines, strings.TrimSuffix(line, "\n"))
	}
	return lines
}

// samples returns the series and values alone.
func samples(t testing.TB, m *Metrics) []string {
	t.Helper()
	return slices.DeleteFunc(scrape(t, m), func(line string) bool { return strings.HasPrefix(line, "#") })
}

func value(t testing.TB, m *Metrics, series string) string {
	t.Helper()
	for _, line := range samples(t, m) {
		if v, ok := strings.CutPrefix(line, series+" "); ok {
			return v
		}
	}
	return "absent"
}

// TestEverySeriesOfTheTable books each of the metrics that dashboards know and
// compares all of the text.
func TestEverySeriesOfTheTable(t *testing.T) {
	m := New(Options{Prefix: "sockudo_", Port: 9601})
	a := m.App("app-1")
	a.ConnectionOpened()
	a.ConnectionOpened()
	a.ConnectionClosed()
	a.ConnectionError("origin_not_allowed")
	m.ConnectionError(Unknown, "app_not_found")
	a.Received(10)
	a.Sent(3, 30)
	a.Sent(0, 0)
	a.APICall(5, 7)
	m.App(System).APICall(0, 2)
	m.RateLimit(Global, "api_rate_limit", "http_api", false)
	m.RateLimit("app-1", "client_events", "unknown", true)
	a.Subscribed(Presence)
	a.Unsubscribed(Presence)
	a.ChannelOpened(Cache)
	a.ChannelOpened(Cache)
	a.ChannelClosed(Cache)
	a.ClientEvent()
	a.PresenceMembers(3)
	a.PresenceMembers(-1)
	a.SlowConsumer()
	a.RequestSent()
	a.RequestReceived()
	a.ResponseReceived()
	a.Resolved(700*time.Millisecond, true)
	a.Resolved(time.Minute, false)
	a.Broadcast(Public, 0, time.Second) // reached nobody
	a.Broadcast(PrivateEncrypted, 11, 1500*time.Microsecond)
	a.Broadcast(PrivateEncrypted, 100, -time.Second) // a clock was set back
	m.Endpoint("POST", "/apps/:app_id/events").Answered(2 * time.Millisecond)

	const app = `app_id="app-1",port="9601"`
	want := []string{
		`sockudo_active_channels{` + app + `,channel_type="cache"} 1`,
		`sockudo_broadcast_latency_ms_count{` + app + `,channel_type="private_encrypted",recipient_count_bucket="sm"} 2`,
		`sockudo_broadcast_latency_ms_sum{` + app + `,channel_type="private_encrypted",recipient_count_bucket="sm"} 1.5`,
		`sockudo_channel_subscriptions_total{` + app + `,channel_type="presence"} 1`,
		`sockudo_channel_unsubscriptions_total{` + app + `,channel_type="presence"} 1`,
		`sockudo_client_events_total{` + app + `} 1`,
		`sockudo_connected{` + app + `} 1`,
		`sockudo_connection_errors_total{` + app + `,error_type="origin_not_allowed"} 1`,
		`sockudo_connection_errors_total{app_id="unknown",port="9601",error_type="app_not_found"} 1`,
		`sockudo_horizontal_adapter_received_requests{` + app + `} 1`,
		`sockudo_horizontal_adapter_received_responses{` + app + `} 1`,
		`sockudo_horizontal_adapter_resolve_time_count{` + app + `} 2`,
		`sockudo_horizontal_adapter_resolve_time_sum{` + app + `} 60700`,
		`sockudo_horizontal_adapter_resolved_promises{` + app + `} 1`,
		`sockudo_horizontal_adapter_sent_requests{` + app + `} 1`,
		`sockudo_horizontal_adapter_uncomplete_promises{` + app + `} 1`,
		`sockudo_http_calls_received_total{` + app + `} 1`,
		`sockudo_http_calls_received_total{app_id="system",port="9601"} 1`,
		`sockudo_http_received_bytes{` + app + `} 5`,
		`sockudo_http_received_bytes{app_id="system",port="9601"} 0`,
		`sockudo_http_request_duration_seconds_count{endpoint="/apps/:app_id/events",method="POST"} 1`,
		`sockudo_http_request_duration_seconds_sum{endpoint="/apps/:app_id/events",method="POST"} 0.002`,
		`sockudo_http_transmitted_bytes{` + app + `} 7`,
		`sockudo_http_transmitted_bytes{app_id="system",port="9601"} 2`,
		`sockudo_new_connections_total{` + app + `} 2`,
		`sockudo_new_disconnections_total{` + app + `} 1`,
		`sockudo_presence_members{` + app + `} 2`,
		`sockudo_rate_limit_checks_total{app_id="app-1",limiter_type="client_events",port="9601",request_context="unknown"} 1`,
		`sockudo_rate_limit_checks_total{app_id="global",limiter_type="api_rate_limit",port="9601",request_context="http_api"} 1`,
		`sockudo_rate_limit_triggered_total{app_id="app-1",limiter_type="client_events",port="9601",request_context="unknown"} 1`,
		`sockudo_slow_consumer_disconnects_total{` + app + `} 1`,
		`sockudo_socket_received_bytes{` + app + `} 10`,
		`sockudo_socket_transmitted_bytes{` + app + `} 30`,
		`sockudo_ws_messages_received_total{` + app + `} 1`,
		`sockudo_ws_messages_sent_total{` + app + `} 3`,
	}
	got := slices.DeleteFunc(samples(t, m), func(line string) bool { return strings.Contains(line, "_bucket{") })
	if diff := cmp.Diff(canonical(want), canonical(got)); diff != "" {
		t.Errorf("series (-want +got):\n%s", diff)
	}
}

// canonical sorts the labels of every line, and the lines.
func canonical(lines []string) []string {
	out := slices.Clone(lines)
	for i, line := range out {
		name, rest, _ := strings.Cut(line, "{")
		labels, value, _ := strings.Cut(rest, "}")
		pairs := strings.Split(labels, ",")
		slices.Sort(pairs)
		out[i] = name + "{" + strings.Join(pairs, ",") + "}" + value
	}
	slices.Sort(out)
	return out
}

func TestTypesAndBuckets(t *testing.T) {
	m := New(Options{Port: 1})
	a := m.App("a")
	a.Broadcast(Public, 1, 0)
	a.Resolved(0, true)
	a.Received(1)
	lines := scrape(t, m)
	for _, want := range []string{
		"# TYPE connected gauge", "# TYPE socket_received_bytes counter", "# TYPE broadcast_latency_ms histogram", "# TYPE horizontal_adapter_resolve_time histogram",
	} {
		if !slices.Contains(lines, want) {
			t.Errorf("%s is missing", want)
		}
	}
	bounds := func(name string) string {
		var out []string
		for _, line := range lines {
			if m := regexp.MustCompile(`^` + name + `_bucket\{.*le="([^"]+)"`).FindStringSubmatch(line); m != nil {
				out = append(out, m[1])
			}
		}
		return strings.Join(out, " ")
	}
	if got, want := bounds("broadcast_latency_ms"), "0.5 1 2.5 5 10 25 50 100 250 500 1000 2500 5000 +Inf"; got != want {
		t.Errorf("bounds of the broadcast latency: %s", got)
	}
	if got, want := bounds("horizontal_adapter_resolve_time"), "0.005 0.01 0.025 0.05 0.1 0.25 0.5 1 2.5 5 10 25 50 100 250 500 1000 2500 5000 10000 +Inf"; got != want {
		t.Errorf("bounds of the resolve time: %s", got)
	}
}

func TestOnlyTheGaugeOfConnectionsIsThereFromTheStart(t *testing.T) {
	m := New(Options{Prefix: "p_", Port: 9})
	m.App("a")
	for _, name := range []string{Global, Cluster, System, Unknown} {
		m.App(name)
	}
	m.Endpoint("GET", "/x")
	if diff := cmp.Diff([]string{`p_connected{app_id="a",port="9"} 0`}, samples(t, m)); diff != "" {
		t.Errorf("series (-want +got):\n%s", diff)
	}
}

func TestTextFormatIsNeverNegotiated(t *testing.T) {
	m := New(Options{Prefix: "sockudo_"})
	m.App("a").Received(1)
	for _, accept := range []string{"", "*/*", "application/openmetrics-text; version=1.0.0", "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited", "text/plain;version=1.0.0;escaping=allow-utf-8"} {
		r := httptest.NewRequest(http.MethodGet, "/metrics", nil)
		r.Header.Set("Accept", accept)
		w := httptest.NewRecorder()
		m.Handler().ServeHTTP(w, r)
		if got := w.Header().Get("Content-Type"); got != "text/plain; version=0.0.4; charset=utf-8" {
			t.Errorf("Accept %q: content type %q", accept, got)
		}
		if body := w.Body.String(); !strings.Contains(body, "\nsockudo_socket_received_bytes{") || strings.Contains(body, "socket_received_bytes_total") || strings.Contains(body, "# EOF") {
			t.Errorf("Accept %q: %s", accept, body)
		}
		for _, name := range []string{"\ngo_goroutines ", "\nprocess_cpu_seconds_total "} {
			if !strings.Contains(w.Body.String(), name) {
				t.Errorf("%s is missing", name)
			}
		}
	}
}

func TestNilCountsNothing(t *testing.T) {
	var m *Metrics
	m.ConnectionError("a", "x")
	m.RateLimit("a", "x", "y", true)
	m.Endpoint("GET", "/").Answered(1)
	a := m.App("a")
	a.ConnectionOpened()
	a.ConnectionClosed()
	a.ConnectionError("x")
	a.Received(1)
	a.Sent(1, 1)
	a.Subscribed(Public)
	a.Unsubscribed(Public)
	a.ChannelOpened(Public)
	a.ChannelClosed(Public)
	a.Broadcast(Public, 1, 1)
	a.ClientEvent()
	a.PresenceMembers(1)
	a.SlowConsumer()
	a.APICall(1, 1)
	a.RequestSent()
	a.RequestReceived()
	a.ResponseReceived()
	a.Resolved(1, true)
	w := httptest.NewRecorder()
	if m.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil)); w.Code != http.StatusNotFound {
		t.Errorf("status %d", w.Code)
	}
}

func TestTypesOfChannels(t *testing.T) {
	for name, want := range map[string]string{
		"private-encrypted-cache-x": "cache", "private-cache-x": "cache", "presence-cache-x": "cache", "cache-x": "cache",
		"private-encrypted-x": "private_encrypted", "private-x": "private", "presence-x": "presence", "x": "public",
		"my-cache-x": "public", "private-mycache-x": "private", "private-cache": "private", "Private-x": "public", "#server-to-user-1": "public", "": "public",
		"presence-encrypted-x": "presence", "cache-private-x": "cache",
	} {
		if got := ChannelTypeOf(name).String(); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
}

func TestSizesOfBroadcasts(t *testing.T) {
	m := New(Options{})
	for n, bucket := range map[int]string{1: "xs", 10: "xs", 11: "sm", 100: "sm", 101: "md", 1000: "md", 1001: "lg", 10_000: "lg", 10_001: "xl"} {
		series := `broadcast_latency_ms_count{app_id="a",channel_type="public",port="0",recipient_count_bucket="` + bucket + `"}`
		before := value(t, m, series)
		m.App("a").Broadcast(Public, n, time.Millisecond)
		if after := value(t, m, series); after == before {
			t.Errorf("%d recipients are not in %s", n, bucket)
		}
	}
}

func TestManyBookAtOnce(t *testing.T) {
	m := New(Options{})
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 500 {
				a := m.App("a")
				a.ConnectionOpened()
				a.Subscribed(Private)
				a.ConnectionClosed()
				a.Broadcast(Private, 1, 1)
			}
		})
	}
	wg.Wait()
	for series, want := range map[string]string{
		`connected{app_id="a",port="0"}`:                                          "0",
		`new_connections_total{app_id="a",port="0"}`:                              "4000",
		`channel_subscriptions_total{app_id="a",channel_type="private",port="0"}`: "4000",
	} {
		if got := value(t, m, series); got != want {
			t.Errorf("%s is %s, want %s", series, got, want)
		}
	}
}

func BenchmarkSent(b *testing.B) {
	a := New(Options{}).App("a")
	b.ReportAllocs()
	for b.Loop() {
		a.Sent(1, 100)
	}
}

func BenchmarkBroadcast(b *testing.B) {
	a := New(Options{}).App("a")
	b.ReportAllocs()
	for b.Loop() {
		a.Broadcast(Public, 1, time.Millisecond)
	}
}
