// Package config holds the settings of a server: what they are, what they
// default to, and how files, the environment and the command line change them.
//
// Every setting is one field here, one value in Default, at most a few rows in
// the environment table and one row in docs/configuration.md; a test compares
// the four. Fields carry their name in files in the tag key; further tags are
//
//	alias:"a,b"     other names that are accepted in files
//	oneof:"a,b"     the values of a string, compared without regard to case
//	also:"x=a"      other spellings of those values
//	min:"1"         the least value of a number
//	max:"100"       the greatest value of a number
//	opt:"null"      null is a value of its own and not the same as absent
package config

import (
	"sockudo/internal/app"
)

// Config is a complete set of settings. Load returns one that has been
// validated; it is not changed afterwards.
type Config struct {
	Debug                     bool    `key:"debug"`
	Host                      string  `key:"host"` // address or name to listen on
	Port                      uint16  `key:"port"` // HTTP API and WebSocket; 0: any free one
	Mode                      string  `key:"mode"`
	PathPrefix                string  `key:"path_prefix"` // "/", or "/prefix" without a slash at its end
	ShutdownGracePeriod       Seconds `key:"shutdown_grace_period"`
	UserAuthenticationTimeout Seconds `key:"user_authentication_timeout"`
	WebsocketMaxPayloadKB     uint32  `key:"websocket_max_payload_kb"` // KiB of an inbound message; 0: unlimited
	ActivityTimeout           Seconds `key:"activity_timeout" min:"1"`
	PongTimeout               Seconds `key:"pong_timeout" min:"1"`
	HealthCheckTimeout        Millis  `key:"health_check_timeout_ms" min:"1"`
	MaxConnections            uint64  `key:"max_connections"` // sockets of this node; 0: unlimited
	StrictProtocol            bool    `key:"strict_protocol"` // refuse connections that name no protocol version

	WebSocket       WebSocket           `key:"websocket"`
	Adapter         Adapter             `key:"adapter"`
	ClusterHealth   LegacyClusterHealth `key:"cluster_health"`
	AppManager      AppManager          `key:"app_manager"`
	Cache           Cache               `key:"cache"`
	Database        Database            `key:"database"`
	DatabasePooling DatabasePooling     `key:"database_pooling"`
	Queue           Queue               `key:"queue"`
	Webhooks        Webhooks            `key:"webhooks"`
	ChannelLimits   ChannelLimits       `key:"channel_limits"`
	EventLimits     EventLimits         `key:"event_limits"`
	Presence        Presence            `key:"presence"`
	HTTPAPI         HTTPAPI             `key:"http_api"`
	Instance        Instance            `key:"instance"`
	Metrics         Metrics             `key:"metrics"`
	Admin           Admin               `key:"admin"`
	SSL             SSL                 `key:"ssl"`
	CORS            CORS                `key:"cors"`
	UnixSocket      UnixSocket          `key:"unix_socket"`
	RateLimiter     RateLimiter         `key:"rate_limiter"`
	Logging         Logging             `key:"logging"`
	Cleanup         Cleanup             `key:"cleanup"`
}

// WebSocket bounds what is queued for one connection.
type WebSocket struct {
	MaxQueuedBytes     uint64 `key:"max_queued_bytes" min:"1"`
	MaxQueuedMessages  uint32 `key:"max_queued_messages" min:"1"`
	MaxQueueAge        Millis `key:"max_queue_age_ms" min:"1"`
	MaxSubscriptions   uint32 `key:"max_subscriptions"` // channels of one connection; 0: unlimited
	SlowConsumerPolicy string `key:"slow_consumer_policy" oneof:"close,drop"`
	Transport          string `key:"transport" oneof:"auto,stream"`
	CongestionControl  string `key:"congestion_control"` // of TCP, Linux only; empty: the system's
}

// AppManager says where apps are kept.
type AppManager struct {
	Driver string   `key:"driver" oneof:"memory,mysql,dynamodb,pgsql,scylladb" also:"postgres=pgsql,postgresql=pgsql,scylla=scylladb"`
	Array  AppArray `key:"array"`
	Cache  AppCache `key:"cache"`
}

// AppArray holds the apps of the file and of the environment, in that order
// and with unique ids and keys. They are upserted into the store at start.
type AppArray struct {
	Apps []*app.App `key:"apps"`
}

// AppCache is the read-through cache of the app store.
type AppCache struct {
	Enabled     bool    `key:"enabled"`
	TTL         Seconds `key:"ttl"`          // 0: no expiry
	NegativeTTL Seconds `key:"negative_ttl"` // 0: unknown apps are asked for every time
}

// Webhooks says how events become deliveries.
type Webhooks struct {
	Batching       WebhookBatching `key:"batching"`
	RequestTimeout Millis          `key:"request_timeout_ms" min:"1"`
	Retry          WebhookRetry    `key:"retry"`
}

// WebhookBatching gathers events of an app. A Duration of 0 switches it off;
// Load then clears Enabled.
type WebhookBatching struct {
	Enabled  bool   `key:"enabled"`
	Duration Millis `key:"duration"`
	Size     uint32 `key:"size" min:"1"` // events that end a batch early
}

// WebhookRetry says how often a failed delivery is tried again.
type WebhookRetry struct {
	Enabled        bool   `key:"enabled"`
	MaxAttempts    uint32 `key:"max_attempts" min:"1"`
	MaxElapsed     Millis `key:"max_elapsed_time_ms"`
	InitialBackoff Millis `key:"initial_backoff_ms" min:"1"`
	MaxBackoff     Millis `key:"max_backoff_ms" min:"1"`
}

// ChannelLimits are the defaults of apps that set no limit of their own.
type ChannelLimits struct {
	MaxNameLength uint32  `key:"max_name_length"`
	CacheTTL      Seconds `key:"cache_ttl"` // of the last event of a cache channel
}

// EventLimits are the defaults of apps that set no limit of their own.
type EventLimits struct {
	MaxChannelsAtOnce uint32 `key:"max_channels_at_once"`
	MaxNameLength     uint32 `key:"max_name_length"`
	MaxPayloadKB      uint32 `key:"max_payload_in_kb"` // KiB of the data string
	MaxBatchSize      uint32 `key:"max_batch_size"`
}

// Presence holds the defaults of apps that set no limit of their own.
type Presence struct {
	MaxMembersPerChannel uint32 `key:"max_members_per_channel"`
	MaxMemberSizeKB      uint32 `key:"max_member_size_in_kb"` // KiB of user_info
}

// HTTPAPI is about the REST API.
type HTTPAPI struct {
	RequestLimitMB uint32        `key:"request_limit_in_mb" min:"1"` // MiB of a request body
	UsageEnabled   bool          `key:"usage_enabled"`               // GET /usage
	StatsEnabled   bool          `key:"stats_enabled"`               // GET /stats
	AcceptTraffic  AcceptTraffic `key:"accept_traffic"`
}

// AcceptTraffic is checked and has no effect.
type AcceptTraffic struct {
	MemoryThreshold float64 `key:"memory_threshold" min:"0" max:"1"`
}

// Instance names this process in logs. It is never the id of a cluster node.
type Instance struct {
	ProcessID string `key:"process_id"` // Load fills in a random UUID
}

// Metrics is about the Prometheus listener.
type Metrics struct {
	Enabled    bool       `key:"enabled"`
	Driver     string     `key:"driver" oneof:"prometheus"`
	Host       string     `key:"host"`
	Port       uint16     `key:"port"`
	Prometheus Prometheus `key:"prometheus"`
}

// Prometheus is about the names of metrics.
type Prometheus struct {
	Prefix string `key:"prefix"`
}

// Admin is about the listener for operators. AdminAddr returns where it is.
type Admin struct {
	Enabled    bool   `key:"enabled"`
	Host       string `key:"host"`
	Port       uint16 `key:"port"`        // 0: follows from the main listener
	UnixSocket string `key:"unix_socket"` // path; not empty: in place of host and port
	Token      Secret `key:"token"`       // that requests must carry; empty: none
}

// SSL is about TLS on the main listener. Load clears Enabled when the server
// listens on a Unix socket.
type SSL struct {
	Enabled      bool   `key:"enabled"`
	CertPath     string `key:"cert_path"`
	KeyPath      string `key:"key_path"`
	Passphrase   Secret `key:"passphrase"`
	CAPath       string `key:"ca_path"`
	RedirectHTTP bool   `key:"redirect_http"`
	HTTPPort     uint16 `key:"http_port"`
}

// CORS is about browsers that call the REST API. If Origin has a wildcard,
// Load makes it the only entry, written "*", and clears Credentials; an empty
// Origin clears Credentials too.
type CORS struct {
	Credentials    bool     `key:"credentials"`
	Origin         []string `key:"origin"`
	Methods        []string `key:"methods"`
	AllowedHeaders []string `key:"allowed_headers"`
}

// UnixSocket replaces the main TCP listener.
type UnixSocket struct {
	Enabled        bool     `key:"enabled"`
	Path           string   `key:"path"`
	PermissionMode FileMode `key:"permission_mode"`
}

// Logging is the part of logging that files can set; the rest is read from the
// environment by package logging, before there is a file.
type Logging struct {
	ColorsEnabled bool `key:"colors_enabled"`
	IncludeTarget bool `key:"include_target"`
}

// Cleanup is about the work that a disconnect causes.
type Cleanup struct {
	AsyncEnabled     bool    `key:"async_enabled"`
	FallbackToSync   bool    `key:"fallback_to_sync"`
	QueueBufferSize  uint64  `key:"queue_buffer_size" min:"1"` // per worker
	BatchSize        uint64  `key:"batch_size" min:"1"`        // per worker
	BatchTimeout     Millis  `key:"batch_timeout_ms" min:"1" max:"60000"`
	WorkerThreads    Workers `key:"worker_threads"`
	MaxRetryAttempts uint32  `key:"max_retry_attempts"`
}
