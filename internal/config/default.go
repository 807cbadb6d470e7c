package config

// Default returns the settings that hold where no source says anything.
// queue.driver and instance.process_id are decided by Load.
func Default() *Config {
	return &Config{
		Host:                      "0.0.0.0",
		Port:                      6001,
		Mode:                      "production",
		PathPrefix:                "/",
		ShutdownGracePeriod:       10,
		UserAuthenticationTimeout: 3600,
		WebsocketMaxPayloadKB:     64,
		ActivityTimeout:           120,
		PongTimeout:               30,
		HealthCheckTimeout:        400,
		WebSocket: WebSocket{
			MaxQueuedBytes:     1 << 20,
			MaxQueuedMessages:  16384,
			MaxQueueAge:        10_000,
			MaxSubscriptions:   10_000,
			SlowConsumerPolicy: "close",
			Transport:          "auto",
		},
		Adapter: Adapter{
			Driver:           "local",
			BufferMultiplier: 64,
			ClusterID:        "default",
			Redis: AdapterRedis{
				RequestsTimeout: 5000,
				Prefix:          "sockudo_adapter:",
			},
			Cluster: AdapterCluster{
				Prefix:               "sockudo",
				RequestTimeout:       5000,
				UseConnectionManager: true,
			},
			NATS: AdapterNATS{
				Servers:           []URL{"nats://localhost:4222"},
				Prefix:            "sockudo",
				RequestTimeout:    5000,
				ConnectionTimeout: 5000,
			},
			ClusterHealth: ClusterHealth{
				Enabled:           true,
				HeartbeatInterval: 10_000,
				NodeTimeout:       30_000,
				CleanupInterval:   10_000,
			},
		},
		AppManager: AppManager{
			Driver: "memory",
			Cache:  AppCache{Enabled: true, TTL: 300, NegativeTTL: 5},
		},
		Cache: Cache{
			Driver: "memory",
			Redis:  CacheRedis{Prefix: new("sockudo_cache:")},
			Memory: CacheMemory{TTL: 300, CleanupInterval: 60, MaxCapacity: 10_000},
		},
		Database: Database{
			MySQL:    defaultSQL(3306),
			Postgres: defaultSQL(5432),
			Redis: Redis{
				Host:      "127.0.0.1",
				Port:      6379,
				KeyPrefix: "sockudo:",
				Name:      "mymaster",
			},
			DynamoDB: DynamoDB{Region: "us-east-1", TableName: "sockudo-applications"},
			ScyllaDB: ScyllaDB{
				Nodes:             []string{"127.0.0.1:9042"},
				Keyspace:          "sockudo",
				TableName:         "applications",
				ReplicationClass:  "SimpleStrategy",
				ReplicationFactor: 3,
			},
		},
		DatabasePooling: DatabasePooling{Enabled: true, Min: 2, Max: 10},
		Queue: Queue{
			Driver: "redis",
			Redis:  QueueRedis{Concurrency: 5, Prefix: new("sockudo_queue:")},
			RedisCluster: QueueRedisCluster{
				Concurrency:    5,
				Prefix:         new("sockudo_queue:"),
				Nodes:          []URL{"redis://127.0.0.1:6379"},
				RequestTimeout: 5000,
			},
			SQS: QueueSQS{
				Region:            "us-east-1",
				VisibilityTimeout: 30,
				MaxMessages:       10,
				WaitTimeSeconds:   5,
				Concurrency:       5,
				MessageGroupID:    "default",
			},
		},
		Webhooks: Webhooks{
			Batching:       WebhookBatching{Enabled: true, Duration: 50, Size: 100},
			RequestTimeout: 10_000,
			Retry: WebhookRetry{
				Enabled:        true,
				MaxAttempts:    5,
				MaxElapsed:     300_000,
				InitialBackoff: 1000,
				MaxBackoff:     60_000,
			},
		},
		ChannelLimits: ChannelLimits{MaxNameLength: 200, CacheTTL: 3600},
		EventLimits: EventLimits{
			MaxChannelsAtOnce: 100,
			MaxNameLength:     200,
			MaxPayloadKB:      100,
			MaxBatchSize:      10,
		},
		Presence: Presence{MaxMembersPerChannel: 100, MaxMemberSizeKB: 2},
		HTTPAPI: HTTPAPI{
			RequestLimitMB: 10,
			UsageEnabled:   true,
			StatsEnabled:   true,
			AcceptTraffic:  AcceptTraffic{MemoryThreshold: 0.9},
		},
		Metrics: Metrics{
			Enabled:    true,
			Driver:     "prometheus",
			Host:       "0.0.0.0",
			Port:       9601,
			Prometheus: Prometheus{Prefix: "sockudo_"},
		},
		Admin: Admin{Enabled: true, Host: "127.0.0.1"},
		SSL:   SSL{HTTPPort: 80},
		CORS: CORS{
			Credentials:    true,
			Origin:         []string{"*"},
			Methods:        []string{"GET", "POST", "OPTIONS"},
			AllowedHeaders: []string{"Authorization", "Content-Type", "X-Requested-With", "Accept"},
		},
		UnixSocket: UnixSocket{
			Path:           "/var/run/sockudo/sockudo.sock",
			PermissionMode: 0o660,
		},
		RateLimiter: RateLimiter{
			Driver:           "memory",
			API:              RateLimit{MaxRequests: 100, Window: 60, Identifier: "api"},
			WebSocket:        RateLimit{MaxRequests: 20, Window: 60, Identifier: "websocket_connect"},
			Redis:            LimiterRedis{Prefix: new("sockudo_rl:")},
			EnforceAppLimits: true,
		},
		Logging: Logging{ColorsEnabled: true, IncludeTarget: true},
		Cleanup: Cleanup{
			AsyncEnabled:     true,
			FallbackToSync:   true,
			QueueBufferSize:  50_000,
			BatchSize:        25,
			BatchTimeout:     50,
			MaxRetryAttempts: 2,
		},
	}
}

func defaultSQL(port uint16) SQL {
	return SQL{
		Host:                 "localhost",
		Port:                 port,
		Username:             "root",
		Database:             "sockudo",
		TableName:            "applications",
		ConnectionPoolSize:   10,
		CacheTTL:             300,
		CacheCleanupInterval: 60,
		CacheMaxCapacity:     100,
	}
}

// preset is what an object holds before its members are read, where that is
// not what the section holds when the object is absent.
type presetter interface{ preset() }

// A rate limit of which a file gives only some members is not completed from
// the limit it replaces.
func (l *RateLimit) preset() {
	*l = RateLimit{MaxRequests: 60, Window: 60, Identifier: "default"}
}

func (r *CacheRedis) preset()   { r.Prefix = nil }
func (r *LimiterRedis) preset() { r.Prefix = nil }
func (n *SentinelNode) preset() { *n = SentinelNode{Host: "localhost", Port: 26379} }
func (n *ClusterNode) preset()  { *n = ClusterNode{Host: "127.0.0.1", Port: 7000} }
