package config

import "strings"

// laterKeys are settings of newer Sockudo versions that files may hold. A name
// with a dot at its end is a section, one with _ the beginning of names.
var laterKeys = []string{
	"ably_compat.", "ai_transport.", "annotations.", "connection_recovery.", "delta_compression.", "echo_control.",
	"ephemeral.", "event_name_filtering.", "history.", "idempotency.", "push.", "server_role", "tag_filtering.",
	"tcp_exporter.", "versioned_messages.",
	"adapter.aggregate_counts", "adapter.cluster.use_sharded_pubsub", "adapter.enable_socket_counting",
	"adapter.nats.client_capacity", "adapter.nats.discovery_", "adapter.nats.max_reconnects", "adapter.nats.no_echo",
	"adapter.google_pubsub.", "adapter.iggy.", "adapter.kafka.", "adapter.pulsar.", "adapter.rabbitmq.",
	"app_manager.register_inline_apps",
	"database.surrealdb.", "database.redis.cluster.", "database.redis.master_tls.", "database.redis.sentinel_tls.", "database.redis.sentinel_username",
	"presence.ungraceful_timeout_seconds", "queue.redis.response_timeout_ms", "queue.reliability.",
	"queue.google_pubsub.", "queue.iggy.", "queue.kafka.", "queue.pulsar.", "queue.rabbitmq.",
	"websocket.compression", "websocket.disconnect_on_buffer_full", "websocket.idle_timeout", "websocket.max_bytes",
	"websocket.auto_ping", "websocket.max_backpressure", "websocket.max_frame_size", "websocket.max_message_size",
	"websocket.max_messages", "websocket.ping_interval", "websocket.write_buffer_size",
}

// laterAppKeys are the same within an app.
var laterAppKeys = []string{
	"decay_seconds", "terminate_on_limit", "message_rate_limit", "channel_namespaces",
	"channel_delta_compression", "idempotency", "connection_recovery", "history", "retry", "request_timeout_ms", "channel_namespace",
}

// isLater reports whether path is a setting of newer versions.
func isLater(path string) bool {
	if _, inApp, ok := strings.Cut(path, "app_manager.array.apps["); ok {
		last := inApp[strings.LastIndexByte(inApp, '.')+1:]
		for _, k := range laterAppKeys {
			if last == k {
				return true
			}
		}
		return false
	}
	for _, k := range laterKeys {
		if path == strings.TrimSuffix(k, ".") || strings.HasSuffix(k, "_") && strings.HasPrefix(path, k) {
			return true
		}
	}
	return false
}

// nearest returns the name of a sibling that was probably meant, else "".
func nearest(key string, siblings []field) string {
	const longest = 64 // no name is near to a longer one
	if len(key) > longest {
		return ""
	}
	best, least := "", max(1, min(3, len(key)/3))+1
	for _, f := range siblings {
		for _, name := range append([]string{f.key}, f.aliases...) {
			if d := distance(squash(key), squash(name)); d < least {
				best, least = f.key, d
			}
		}
	}
	return best
}

// squash makes spellings that differ by habit only the same.
func squash(s string) string {
	return strings.NewReplacer("_", "", "-", "").Replace(strings.ToLower(s))
}

// distance counts the letters to insert, delete, replace or swap with their
// neighbour to turn a into b.
func distance(a, b string) int {
	var before []int // the row of i-2
	last := make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row := make([]int, len(b)+1)
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last = last, row
	}
	return last[len(b)]
}
