package config

import (
	"fmt"
	"reflect"
	"slices"
	"strings"

	"sockudo/internal/app"
	"sockudo/internal/origin"
)

// An envRow says that a variable sets a setting. Rows of the same setting stand
// together, strongest first: the first one whose variable is set counts.
type envRow struct {
	name string
	key  string
	alt  bool // a name that Sockudo 2.9 did not read
}

var envTable = []envRow{
	{name: "DEBUG_MODE", key: "debug"},
	{name: "HOST", key: "host"},
	{name: "PORT", key: "port"},
	{name: "ENVIRONMENT", key: "mode"},
	{name: "APP_MODE", key: "mode", alt: true},
	{name: "PATH_PREFIX", key: "path_prefix", alt: true},
	{name: "SHUTDOWN_GRACE_PERIOD", key: "shutdown_grace_period"},
	{name: "USER_AUTHENTICATION_TIMEOUT", key: "user_authentication_timeout"},
	{name: "WEBSOCKET_MAX_PAYLOAD_KB", key: "websocket_max_payload_kb"},
	{name: "ACTIVITY_TIMEOUT", key: "activity_timeout"},
	{name: "PONG_TIMEOUT", key: "pong_timeout"},
	{name: "HEALTH_CHECK_TIMEOUT_MS", key: "health_check_timeout_ms", alt: true},
	{name: "SOCKUDO_MAX_CONNECTIONS", key: "max_connections"},
	{name: "STRICT_PROTOCOL", key: "strict_protocol"},

	{name: "ADAPTER_DRIVER", key: "adapter.driver"},
	{name: "ADAPTER_BUFFER_MULTIPLIER_PER_CPU", key: "adapter.buffer_multiplier_per_cpu"},
	{name: "ADAPTER_FALLBACK_TO_LOCAL", key: "adapter.fallback_to_local", alt: true},
	{name: "ADAPTER_CLUSTER_ID", key: "adapter.cluster_id"},
	{name: "ADAPTER_SECRET", key: "adapter.secret"},
	{name: "REDIS_URL", key: "adapter.redis.redis_pub_options.url"},
	{name: "REDIS_URL", key: "adapter.redis.redis_sub_options.url"},
	{name: "REDIS_CLUSTER_NODES", key: "adapter.cluster.nodes"},
	{name: "NATS_SERVERS", key: "adapter.nats.servers"},
	{name: "NATS_URL", key: "adapter.nats.servers", alt: true},
	{name: "NATS_PREFIX", key: "adapter.nats.prefix", alt: true},
	{name: "NATS_REQUEST_TIMEOUT_MS", key: "adapter.nats.request_timeout_ms"},
	{name: "NATS_CONNECTION_TIMEOUT_MS", key: "adapter.nats.connection_timeout_ms"},
	{name: "NATS_USERNAME", key: "adapter.nats.username"},
	{name: "NATS_PASSWORD", key: "adapter.nats.password"},
	{name: "NATS_TOKEN", key: "adapter.nats.token"},
	{name: "NATS_NODES_NUMBER", key: "adapter.nats.nodes_number", alt: true},
	{name: "CLUSTER_HEALTH_ENABLED", key: "adapter.cluster_health.enabled"},
	{name: "CLUSTER_HEALTH_HEARTBEAT_INTERVAL", key: "adapter.cluster_health.heartbeat_interval_ms"},
	{name: "CLUSTER_HEALTH_NODE_TIMEOUT", key: "adapter.cluster_health.node_timeout_ms"},
	{name: "CLUSTER_HEALTH_CLEANUP_INTERVAL", key: "adapter.cluster_health.cleanup_interval_ms"},

	{name: "APP_MANAGER_DRIVER", key: "app_manager.driver"},
	{name: "APP_MANAGER_CACHE_ENABLED", key: "app_manager.cache.enabled"},
	{name: "APP_MANAGER_CACHE_TTL", key: "app_manager.cache.ttl"},
	{name: "CACHE_TTL_SECONDS", key: "app_manager.cache.ttl"},

	{name: "CACHE_DRIVER", key: "cache.driver"},
	{name: "CACHE_REDIS_PREFIX", key: "cache.redis.prefix", alt: true},
	{name: "CACHE_REDIS_URL", key: "cache.redis.url_override", alt: true},
	{name: "REDIS_URL", key: "cache.redis.url_override"},
	{name: "CACHE_TTL_SECONDS", key: "cache.memory.ttl"},
	{name: "CACHE_CLEANUP_INTERVAL", key: "cache.memory.cleanup_interval"},
	{name: "CACHE_MAX_CAPACITY", key: "cache.memory.max_capacity"},

	{name: "DATABASE_MYSQL_HOST", key: "database.mysql.host"},
	{name: "DATABASE_MYSQL_PORT", key: "database.mysql.port"},
	{name: "DATABASE_MYSQL_USERNAME", key: "database.mysql.username"},
	{name: "DATABASE_MYSQL_USER", key: "database.mysql.username", alt: true},
	{name: "DATABASE_MYSQL_PASSWORD", key: "database.mysql.password"},
	{name: "DATABASE_MYSQL_DATABASE", key: "database.mysql.database"},
	{name: "DATABASE_MYSQL_TABLE_NAME", key: "database.mysql.table_name"},
	{name: "DATABASE_CONNECTION_POOL_SIZE", key: "database.mysql.connection_pool_size"},
	{name: "DATABASE_MYSQL_POOL_MIN", key: "database.mysql.pool_min"},
	{name: "DATABASE_MYSQL_POOL_MAX", key: "database.mysql.pool_max"},
	{name: "DATABASE_POSTGRES_HOST", key: "database.postgres.host"},
	{name: "DATABASE_POSTGRES_PORT", key: "database.postgres.port"},
	{name: "DATABASE_POSTGRES_USERNAME", key: "database.postgres.username"},
	{name: "DATABASE_POSTGRES_USER", key: "database.postgres.username", alt: true},
	{name: "DATABASE_POSTGRES_PASSWORD", key: "database.postgres.password"},
	{name: "DATABASE_POSTGRES_DATABASE", key: "database.postgres.database"},
	{name: "DATABASE_POSTGRES_TABLE_NAME", key: "database.postgres.table_name", alt: true},
	{name: "DATABASE_CONNECTION_POOL_SIZE", key: "database.postgres.connection_pool_size"},
	{name: "DATABASE_POSTGRES_POOL_MIN", key: "database.postgres.pool_min"},
	{name: "DATABASE_POSTGRES_POOL_MAX", key: "database.postgres.pool_max"},
	{name: "DATABASE_REDIS_HOST", key: "database.redis.host"},
	{name: "DATABASE_REDIS_PORT", key: "database.redis.port"},
	{name: "DATABASE_REDIS_DB", key: "database.redis.db"},
	{name: "DATABASE_REDIS_USERNAME", key: "database.redis.username", alt: true},
	{name: "DATABASE_REDIS_PASSWORD", key: "database.redis.password"},
	{name: "DATABASE_REDIS_KEY_PREFIX", key: "database.redis.key_prefix"},
	{name: "DATABASE_REDIS_SENTINEL_PASSWORD", key: "database.redis.sentinel_password", alt: true},
	{name: "REDIS_CLUSTER_NODES", key: "database.redis.cluster_nodes"},
	{name: "DATABASE_REDIS_CLUSTER_NODES", key: "database.redis.cluster_nodes", alt: true},
	{name: "DATABASE_DYNAMODB_REGION", key: "database.dynamodb.region"},
	{name: "DATABASE_DYNAMODB_TABLE_NAME", key: "database.dynamodb.table_name"},
	{name: "DATABASE_DYNAMODB_ENDPOINT_URL", key: "database.dynamodb.endpoint_url"},
	{name: "DATABASE_POOLING_ENABLED", key: "database_pooling.enabled"},
	{name: "DATABASE_POOL_MIN", key: "database_pooling.min"},
	{name: "DATABASE_POOL_MAX", key: "database_pooling.max"},

	{name: "QUEUE_DRIVER", key: "queue.driver"},
	{name: "QUEUE_REDIS_CONCURRENCY", key: "queue.redis.concurrency"},
	{name: "QUEUE_REDIS_PREFIX", key: "queue.redis.prefix"},
	{name: "QUEUE_REDIS_URL", key: "queue.redis.url_override", alt: true},
	{name: "REDIS_URL", key: "queue.redis.url_override"},
	{name: "REDIS_CLUSTER_QUEUE_CONCURRENCY", key: "queue.redis_cluster.concurrency"},
	{name: "REDIS_CLUSTER_QUEUE_PREFIX", key: "queue.redis_cluster.prefix"},
	{name: "REDIS_CLUSTER_NODES", key: "queue.redis_cluster.nodes"},
	{name: "QUEUE_SQS_REGION", key: "queue.sqs.region"},
	{name: "SQS_REGION", key: "queue.sqs.region", alt: true},
	{name: "SQS_QUEUE_URL_PREFIX", key: "queue.sqs.queue_url_prefix", alt: true},
	{name: "QUEUE_SQS_VISIBILITY_TIMEOUT", key: "queue.sqs.visibility_timeout"},
	{name: "QUEUE_SQS_ENDPOINT_URL", key: "queue.sqs.endpoint_url"},
	{name: "SQS_ENDPOINT_URL", key: "queue.sqs.endpoint_url", alt: true},
	{name: "QUEUE_SQS_MAX_MESSAGES", key: "queue.sqs.max_messages"},
	{name: "QUEUE_SQS_WAIT_TIME_SECONDS", key: "queue.sqs.wait_time_seconds"},
	{name: "QUEUE_SQS_CONCURRENCY", key: "queue.sqs.concurrency"},
	{name: "QUEUE_SQS_FIFO", key: "queue.sqs.fifo"},
	{name: "WEBHOOK_BATCHING_ENABLED", key: "webhooks.batching.enabled"},
	{name: "WEBHOOK_BATCHING_DURATION", key: "webhooks.batching.duration"},
	{name: "WEBHOOK_BATCHING_SIZE", key: "webhooks.batching.size", alt: true},

	{name: "HTTP_API_USAGE_ENABLED", key: "http_api.usage_enabled", alt: true},
	{name: "INSTANCE_PROCESS_ID", key: "instance.process_id"},
	{name: "METRICS_ENABLED", key: "metrics.enabled"},
	{name: "METRICS_DRIVER", key: "metrics.driver"},
	{name: "METRICS_HOST", key: "metrics.host"},
	{name: "METRICS_PORT", key: "metrics.port"},
	{name: "METRICS_PROMETHEUS_PREFIX", key: "metrics.prometheus.prefix"},
	{name: "PROMETHEUS_METRICS_PREFIX", key: "metrics.prometheus.prefix", alt: true},

	{name: "ADMIN_ENABLED", key: "admin.enabled"},
	{name: "ADMIN_HOST", key: "admin.host"},
	{name: "ADMIN_PORT", key: "admin.port"},
	{name: "ADMIN_UNIX_SOCKET", key: "admin.unix_socket"},
	{name: "ADMIN_TOKEN", key: "admin.token"},

	{name: "SSL_ENABLED", key: "ssl.enabled"},
	{name: "SSL_CERT_PATH", key: "ssl.cert_path"},
	{name: "SSL_KEY_PATH", key: "ssl.key_path"},
	{name: "SSL_PASSPHRASE", key: "ssl.passphrase", alt: true},
	{name: "SSL_CA_PATH", key: "ssl.ca_path", alt: true},
	{name: "SSL_REDIRECT_HTTP", key: "ssl.redirect_http"},
	{name: "SSL_HTTP_PORT", key: "ssl.http_port"},
	{name: "CORS_CREDENTIALS", key: "cors.credentials"},
	{name: "CORS_ORIGINS", key: "cors.origin"},
	{name: "CORS_METHODS", key: "cors.methods"},
	{name: "CORS_HEADERS", key: "cors.allowed_headers"},
	{name: "UNIX_SOCKET_ENABLED", key: "unix_socket.enabled"},
	{name: "UNIX_SOCKET_PATH", key: "unix_socket.path"},
	{name: "UNIX_SOCKET_PERMISSION_MODE", key: "unix_socket.permission_mode"},

	{name: "RATE_LIMITER_ENABLED", key: "rate_limiter.enabled"},
	{name: "RATE_LIMITER_DRIVER", key: "rate_limiter.driver"},
	{name: "RATE_LIMITER_API_MAX_REQUESTS", key: "rate_limiter.api_rate_limit.max_requests"},
	{name: "RATE_LIMITER_API_WINDOW_SECONDS", key: "rate_limiter.api_rate_limit.window_seconds"},
	{name: "RATE_LIMITER_API_TRUST_HOPS", key: "rate_limiter.api_rate_limit.trust_hops"},
	{name: "RATE_LIMITER_WS_MAX_REQUESTS", key: "rate_limiter.websocket_rate_limit.max_requests"},
	{name: "RATE_LIMITER_WEBSOCKET_MAX_REQUESTS", key: "rate_limiter.websocket_rate_limit.max_requests", alt: true},
	{name: "RATE_LIMITER_WS_WINDOW_SECONDS", key: "rate_limiter.websocket_rate_limit.window_seconds"},
	{name: "RATE_LIMITER_WEBSOCKET_WINDOW_SECONDS", key: "rate_limiter.websocket_rate_limit.window_seconds", alt: true},
	{name: "RATE_LIMITER_WS_TRUST_HOPS", key: "rate_limiter.websocket_rate_limit.trust_hops", alt: true},
	{name: "RATE_LIMITER_WEBSOCKET_TRUST_HOPS", key: "rate_limiter.websocket_rate_limit.trust_hops", alt: true},
	{name: "RATE_LIMITER_REDIS_PREFIX", key: "rate_limiter.redis.prefix"},
	{name: "REDIS_URL", key: "rate_limiter.redis.url_override"},

	{name: "LOG_COLORS_ENABLED", key: "logging.colors_enabled"},
	{name: "LOG_INCLUDE_TARGET", key: "logging.include_target"},

	{name: "CLEANUP_ASYNC_ENABLED", key: "cleanup.async_enabled"},
	{name: "CLEANUP_FALLBACK_TO_SYNC", key: "cleanup.fallback_to_sync"},
	{name: "CLEANUP_QUEUE_BUFFER_SIZE", key: "cleanup.queue_buffer_size"},
	{name: "CLEANUP_BATCH_SIZE", key: "cleanup.batch_size"},
	{name: "CLEANUP_BATCH_TIMEOUT_MS", key: "cleanup.batch_timeout_ms"},
	{name: "CLEANUP_WORKER_THREADS", key: "cleanup.worker_threads"},
	{name: "CLEANUP_MAX_RETRY_ATTEMPTS", key: "cleanup.max_retry_attempts"},
}

// environment applies every variable that is set.
func (l *loader) environment() {
	settings := l.cfg.leaves()
	done := ""
	for _, row := range envTable {
		if row.key == done {
			continue
		}
		set := settings[row.key]
		text, ok := l.opts.Env(row.name)
		if !ok || text == "" && emptyIsUnset(set.value.Type()) {
			continue
		}
		done = row.key
		if row.alt {
			l.report.inform(Source{Kind: FromEnv, Name: row.name}, row.key, "is set by a name that Sockudo 2.9 did not read")
		}
		l.variable(row, set, text)
	}
	if text, ok := l.opts.Env("DEBUG"); ok {
		l.debug(text)
	}
	l.environmentApp()
}

// debug applies DEBUG, which can switch debugging on but never off.
func (l *loader) debug(text string) {
	at := Source{Kind: FromEnv, Name: "DEBUG"}
	switch on, ok := truth(text); {
	case !ok:
		l.report.warn(at, "debug", "ignored: expected true or false, got %q", shorten(text))
	case on:
		l.cfg.Debug = true
		l.report.sources["debug"] = at
	}
}

// emptyIsUnset reports whether a variable that is set to nothing says nothing:
// compose files pass variables on that nobody set.
func emptyIsUnset(t reflect.Type) bool {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	return t.Kind() == reflect.String
}

func (l *loader) variable(row envRow, set leaf, text string) {
	at := Source{Kind: FromEnv, Name: row.name}
	if set.value.Kind() == reflect.Slice && len(list(text)) == 0 {
		return
	}
	parsed := reflect.New(set.value.Type()).Elem()
	err := fromText(set.field, text, parsed)
	switch {
	case err == nil:
		set.value.Set(parsed)
		l.report.sources[row.key] = at
	case len(set.field.oneof) > 0 && row.name != "METRICS_DRIVER":
		l.faults.add(at, row.key, err.Error())
	default:
		l.report.warn(at, row.key, "ignored: %v", err)
	}
}

// flags applies the settings of the command line.
func (l *loader) flags() {
	settings := l.cfg.leaves()
	for _, f := range l.opts.Flags {
		at := Source{Kind: FromFlag, Name: f.Name}
		set, ok := settings[f.Key]
		if !ok || f.Key == "app_manager.array.apps" {
			l.faults.add(at, f.Key, "there is no such setting")
			continue
		}
		if err := fromText(set.field, f.Value, set.value); err != nil {
			l.faults.add(at, f.Key, err.Error())
			continue
		}
		l.report.sources[f.Key] = at
	}
}

const envAppPrefix = "SOCKUDO_DEFAULT_APP_"

// envAppTable is the app that the environment can describe. Variables stand as
// in envTable; keys are those of an app. fallback is what holds if none is set.
var envAppTable = []struct {
	envRow
	fallback string
}{
	{envRow{name: "SOCKUDO_DEFAULT_APP_ENABLED", key: "enabled"}, "true"},
	{envRow{name: "SOCKUDO_DEFAULT_APP_ID", key: "id"}, ""},
	{envRow{name: "SOCKUDO_DEFAULT_APP_KEY", key: "key"}, ""},
	{envRow{name: "SOCKUDO_DEFAULT_APP_SECRET", key: "secret"}, ""},
	{envRow{name: "SOCKUDO_DEFAULT_APP_MAX_CONNECTIONS", key: "max_connections"}, "100"},
	{envRow{name: "SOCKUDO_DEFAULT_APP_MAX_CLIENT_EVENTS_PER_SECOND", key: "max_client_events_per_second"}, "100"},
	{envRow{name: "SOCKUDO_DEFAULT_APP_MAX_BACKEND_EVENTS_PER_SECOND", key: "max_backend_events_per_second"}, ""},
	{envRow{name: "SOCKUDO_DEFAULT_APP_MAX_READ_REQUESTS_PER_SECOND", key: "max_read_requests_per_second"}, ""},
	{envRow{name: "SOCKUDO_DEFAULT_APP_MAX_PRESENCE_MEMBERS_PER_CHANNEL", key: "max_presence_members_per_channel"}, "100"},
	{envRow{name: "SOCKUDO_DEFAULT_APP_MAX_PRESENCE_MEMBER_SIZE_IN_KB", key: "max_presence_member_size_in_kb"}, "100"},
	{envRow{name: "SOCKUDO_DEFAULT_APP_MAX_CHANNEL_NAME_LENGTH", key: "max_channel_name_length"}, "100"},
	{envRow{name: "SOCKUDO_DEFAULT_APP_MAX_EVENT_CHANNELS_AT_ONCE", key: "max_event_channels_at_once"}, "100"},
	{envRow{name: "SOCKUDO_DEFAULT_APP_MAX_EVENT_NAME_LENGTH", key: "max_event_name_length"}, "100"},
	{envRow{name: "SOCKUDO_DEFAULT_APP_MAX_EVENT_PAYLOAD_IN_KB", key: "max_event_payload_in_kb"}, "100"},
	{envRow{name: "SOCKUDO_DEFAULT_APP_MAX_EVENT_BATCH_SIZE", key: "max_event_batch_size"}, "100"},
	{envRow{name: "SOCKUDO_DEFAULT_APP_ENABLE_USER_AUTHENTICATION", key: "enable_user_authentication"}, "false"},
	{envRow{name: "SOCKUDO_DEFAULT_APP_ENABLE_WATCHLIST_EVENTS", key: "enable_watchlist_events"}, "false"},
	{envRow{name: "SOCKUDO_DEFAULT_APP_ALLOWED_ORIGINS", key: "allowed_origins"}, ""},
	{envRow{name: "SOCKUDO_DEFAULT_APP_ENABLE_CLIENT_MESSAGES", key: "enable_client_messages", alt: true}, "false"},
	{envRow{name: "SOCKUDO_ENABLE_CLIENT_MESSAGES", key: "enable_client_messages"}, "false"},
}

// environmentApp appends the app that the environment describes. It takes the
// place of an app of the file that has the same id.
func (l *loader) environmentApp() {
	f, at := l.envAppFields()
	given := 0
	for _, s := range []string{f.ID, f.Key, f.Secret.Reveal()} {
		if s != "" {
			given++
		}
	}
	if given == 0 || !f.Enabled {
		return
	}
	if given < 3 {
		l.report.warn(Source{}, "", "the app of the environment is left out: %sID, %[1]sKEY and %[1]sSECRET belong together",
			envAppPrefix)
		return
	}
	if _, err := origin.Parse(f.AllowedOrigins); err != nil {
		l.faults.add(at, "allowed_origins", strings.ReplaceAll(err.Error(), "\n", "; "))
		return
	}
	apps := &l.cfg.AppManager.Array.Apps
	if slices.ContainsFunc(*apps, func(a *app.App) bool { return a.ID == f.ID }) {
		l.report.warn(at, "app_manager.array.apps", "app %q is in the file too; the one of the environment counts", f.ID)
		*apps = slices.DeleteFunc(*apps, func(a *app.App) bool { return a.ID == f.ID })
	}
	*apps = append(*apps, f.app(nil))
	l.report.sources[appKey(f.ID)] = at
}

func (l *loader) envAppFields() (f appFields, at Source) {
	settings := leavesOf(reflect.ValueOf(&f).Elem())
	at = Source{Kind: FromEnv, Name: envAppPrefix + "ID"}
	done := ""
	for _, row := range envAppTable {
		if row.key == done {
			continue
		}
		set := settings[row.key]
		if row.fallback != "" {
			if err := fromText(set.field, row.fallback, set.value); err != nil {
				panic(fmt.Sprintf("config: fallback of %s: %v", row.name, err))
			}
		}
		text, ok := l.opts.Env(row.name)
		if !ok || text == "" && emptyIsUnset(set.value.Type()) {
			continue
		}
		done = row.key
		if set.value.Kind() == reflect.Slice && len(list(text)) == 0 {
			continue
		}
		if err := fromText(set.field, text, set.value); err != nil {
			l.report.warn(Source{Kind: FromEnv, Name: row.name}, row.key, "ignored: %v", err)
		}
	}
	return f, at
}
