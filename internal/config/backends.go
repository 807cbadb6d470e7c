package config

// Adapter says how the nodes of a cluster reach each other. Load turns Driver
// into redis-cluster if it is redis and Redis.ClusterMode is set.
type Adapter struct {
	Driver           string         `key:"driver" oneof:"local,redis,redis-cluster,nats"`
	BufferMultiplier uint32         `key:"buffer_multiplier_per_cpu"`
	FallbackToLocal  bool           `key:"fallback_to_local"`
	ClusterID        string         `key:"cluster_id"`
	Secret           Secret         `key:"secret"` // empty: what nodes send each other is not signed
	Redis            AdapterRedis   `key:"redis"`
	Cluster          AdapterCluster `key:"cluster"`
	NATS             AdapterNATS    `key:"nats"`
	ClusterHealth    ClusterHealth  `key:"cluster_health"`
}

// AdapterRedis is about the driver redis.
type AdapterRedis struct {
	RequestsTimeout Millis       `key:"requests_timeout" min:"1"`
	Prefix          string       `key:"prefix"`
	Pub             RedisOptions `key:"redis_pub_options"`
	Sub             RedisOptions `key:"redis_sub_options"`
	ClusterMode     bool         `key:"cluster_mode"`
}

// RedisOptions are the connection settings of the adapter alone. Zero members
// are not set.
type RedisOptions struct {
	URL      URL                  `key:"url"`
	Username string               `key:"username"`
	Password Secret               `key:"password"`
	DB       *uint32              `key:"db"`
	Sentinel RedisOptionsSentinel `key:"sentinel"`
}

// RedisOptionsSentinel is about Sentinel for the adapter alone; it counts if
// Hosts is not empty.
type RedisOptionsSentinel struct {
	MasterName string         `key:"master_name"`
	Hosts      []SentinelNode `key:"hosts"`
	Password   Secret         `key:"password"`
}

// AdapterCluster is about the driver redis-cluster. Load fills Nodes from
// database.redis.cluster_nodes if it is empty.
type AdapterCluster struct {
	Nodes                []URL  `key:"nodes"`
	Prefix               string `key:"prefix"`
	RequestTimeout       Millis `key:"request_timeout_ms" min:"1"`
	UseConnectionManager bool   `key:"use_connection_manager"` // ignored
}

// AdapterNATS is about the driver nats.
type AdapterNATS struct {
	Servers           []URL   `key:"servers"`
	Prefix            string  `key:"prefix"`
	RequestTimeout    Millis  `key:"request_timeout_ms" min:"1"`
	ConnectionTimeout Millis  `key:"connection_timeout_ms" min:"1"`
	Username          string  `key:"username"` // counts only together with Password
	Password          Secret  `key:"password"`
	Token             Secret  `key:"token"`        // counts if user name and password do not
	NodesNumber       *uint32 `key:"nodes_number"` // ignored: nodes find each other
}

// ClusterHealth is about finding dead nodes. Load guarantees HeartbeatInterval
// ≤ NodeTimeout/3 and CleanupInterval ≤ NodeTimeout, all above zero.
type ClusterHealth struct {
	Enabled           bool   `key:"enabled"`
	HeartbeatInterval Millis `key:"heartbeat_interval_ms"`
	NodeTimeout       Millis `key:"node_timeout_ms"`
	CleanupInterval   Millis `key:"cleanup_interval_ms"`
}

// LegacyClusterHealth is the old place of adapter.cluster_health. What is set
// here and not there, Load copies there; nobody else reads it.
type LegacyClusterHealth struct {
	Enabled           *bool   `key:"enabled"`
	HeartbeatInterval *Millis `key:"heartbeat_interval_ms"`
	NodeTimeout       *Millis `key:"node_timeout_ms"`
	CleanupInterval   *Millis `key:"cleanup_interval_ms"`
}

// Cache says where last events and cached apps are kept. Load turns Driver
// into redis-cluster if it is redis and Redis.ClusterMode is set.
type Cache struct {
	Driver string      `key:"driver" oneof:"memory,redis,redis-cluster,none"`
	Redis  CacheRedis  `key:"redis"`
	Memory CacheMemory `key:"memory"`
}

// CacheRedis is about the drivers redis and redis-cluster.
type CacheRedis struct {
	Prefix      *string `key:"prefix" opt:"null"` // nil: see Config.CachePrefix
	URLOverride URL     `key:"url_override"`
	ClusterMode bool    `key:"cluster_mode"`
}

// CacheMemory is about the driver memory.
type CacheMemory struct {
	TTL             Seconds `key:"ttl"` // of entries that come without one; 0: none
	CleanupInterval Seconds `key:"cleanup_interval" min:"1"`
	MaxCapacity     uint64  `key:"max_capacity" min:"1"` // entries
}

// Database holds the servers that several components use.
type Database struct {
	MySQL    SQL      `key:"mysql"`
	Postgres SQL      `key:"postgres"`
	Redis    Redis    `key:"redis"`
	DynamoDB DynamoDB `key:"dynamodb"`
	ScyllaDB ScyllaDB `key:"scylladb"`
}

// SQL is one SQL database. Config.Pool tells the size of its pool.
type SQL struct {
	Host               string  `key:"host"`
	Port               uint16  `key:"port"`
	Username           string  `key:"username"`
	Password           Secret  `key:"password"`
	Database           string  `key:"database"`
	TableName          string  `key:"table_name"` // an identifier, perhaps behind "schema."
	ConnectionPoolSize uint32  `key:"connection_pool_size" min:"1"`
	PoolMin            *uint32 `key:"pool_min"`
	PoolMax            *uint32 `key:"pool_max"`

	// Ignored; app_manager.cache is what counts.
	CacheTTL             uint64 `key:"cache_ttl"`
	CacheCleanupInterval uint64 `key:"cache_cleanup_interval"`
	CacheMaxCapacity     uint64 `key:"cache_max_capacity"`
}

// DatabasePooling sizes the pools of SQL databases. Load guarantees Min ≤ Max.
type DatabasePooling struct {
	Enabled bool   `key:"enabled"`
	Min     uint32 `key:"min"`
	Max     uint32 `key:"max" min:"1"`
}

// Redis is the Redis that all components share unless they have their own.
type Redis struct {
	Host             URL            `key:"host"`
	Port             uint16         `key:"port"`
	DB               uint32         `key:"db"`
	Username         string         `key:"username"`
	Password         Secret         `key:"password"`
	KeyPrefix        string         `key:"key_prefix"`
	Sentinels        []SentinelNode `key:"sentinels"`
	SentinelPassword Secret         `key:"sentinel_password"`
	Name             string         `key:"name"` // of the Sentinel master
	ClusterNodes     []ClusterNode  `key:"cluster_nodes"`
}

// SentinelNode is one Sentinel; localhost:26379 where nothing is said.
type SentinelNode struct {
	Host URL    `key:"host"` // or only a name, perhaps with a port
	Port uint16 `key:"port"`
}

// ClusterNode is one seed of a Redis Cluster; 127.0.0.1:7000 where nothing is
// said. URL gives its address.
type ClusterNode struct {
	Host URL    `key:"host"` // or only a name, perhaps with a port
	Port uint16 `key:"port"`
}

// DynamoDB is about the app store dynamodb. AccessKeyID and SecretAccessKey
// count only if both are set; otherwise the SDK looks for credentials.
type DynamoDB struct {
	Region          string `key:"region"`
	TableName       string `key:"table_name"`
	EndpointURL     URL    `key:"endpoint_url" alias:"endpoint"`
	AccessKeyID     string `key:"aws_access_key_id" alias:"access_key"`
	SecretAccessKey Secret `key:"aws_secret_access_key" alias:"secret_key"`
	ProfileName     string `key:"aws_profile_name" alias:"profile_name"`
}

// ScyllaDB is about the app store scylladb.
type ScyllaDB struct {
	Nodes             []string `key:"nodes"`
	Keyspace          string   `key:"keyspace"`
	TableName         string   `key:"table_name"`
	Username          string   `key:"username"`
	Password          Secret   `key:"password"`
	ReplicationClass  string   `key:"replication_class"`
	ReplicationFactor uint32   `key:"replication_factor" min:"1"`
}

// Queue says where webhook jobs wait. If no source names a driver, Load
// chooses one: redis if a Redis was named, else memory.
type Queue struct {
	Implied bool // Load chose Driver

	Driver       string            `key:"driver" oneof:"memory,redis,redis-cluster,sqs,none"`
	Redis        QueueRedis        `key:"redis"`
	RedisCluster QueueRedisCluster `key:"redis_cluster"`
	SQS          QueueSQS          `key:"sqs"`
}

// QueueRedis is about the driver redis.
type QueueRedis struct {
	Concurrency uint32  `key:"concurrency"`       // workers; 0: this node only produces
	Prefix      *string `key:"prefix" opt:"null"` // nil: see Config.QueuePrefix
	URLOverride URL     `key:"url_override"`
	ClusterMode bool    `key:"cluster_mode"`
}

// QueueRedisCluster is about the driver redis-cluster. Load fills Nodes from
// database.redis.cluster_nodes, then with three local ones, if it is empty.
type QueueRedisCluster struct {
	Concurrency    uint32  `key:"concurrency"`
	Prefix         *string `key:"prefix" opt:"null"`
	Nodes          []URL   `key:"nodes"`
	RequestTimeout Millis  `key:"request_timeout_ms" min:"1"`
}

// QueueSQS is about the driver sqs.
type QueueSQS struct {
	Region            string `key:"region"`
	QueueURLPrefix    URL    `key:"queue_url_prefix"`
	VisibilityTimeout int32  `key:"visibility_timeout" min:"0" max:"43200"` // s
	EndpointURL       URL    `key:"endpoint_url"`
	MaxMessages       int32  `key:"max_messages"`      // 1 to 10, clamped
	WaitTimeSeconds   int32  `key:"wait_time_seconds"` // 0 to 20, clamped
	Concurrency       uint32 `key:"concurrency"`
	FIFO              bool   `key:"fifo"`
	MessageGroupID    string `key:"message_group_id"`
}

// RateLimiter limits requests by address. Load turns the driver none into
// memory, and redis into redis-cluster if Redis.ClusterMode is set.
type RateLimiter struct {
	Enabled          bool         `key:"enabled"`
	Driver           string       `key:"driver" oneof:"memory,redis,redis-cluster,none"`
	API              RateLimit    `key:"api_rate_limit"`
	WebSocket        RateLimit    `key:"websocket_rate_limit"`
	Redis            LimiterRedis `key:"redis"`
	EnforceAppLimits bool         `key:"enforce_app_limits"` // per-second limits of apps
}

// RateLimit is one limit.
type RateLimit struct {
	MaxRequests uint32  `key:"max_requests"` // 0: unlimited
	Window      Seconds `key:"window_seconds" min:"1"`
	Identifier  string  `key:"identifier"` // in logs
	TrustHops   uint32  `key:"trust_hops"` // trusted proxies in front of the server
}

// LimiterRedis is about the drivers redis and redis-cluster.
type LimiterRedis struct {
	Prefix      *string `key:"prefix" opt:"null"` // nil: see Config.RateLimiterPrefix
	URLOverride URL     `key:"url_override"`
	ClusterMode bool    `key:"cluster_mode"`
}
