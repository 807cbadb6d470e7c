package config

import (
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sockudo/internal/app"
)

func TestDefaultsAreValid(t *testing.T) {
	if err := Default().Validate(); err != nil {
		t.Error(err)
	}
}

func TestClusterHealthIsMergedKeyByKey(t *testing.T) {
	c, _ := mustLoad(t, sources{
		json: `{"cluster_health": {"enabled": false, "heartbeat_interval_ms": 2000, "node_timeout_ms": 60000},
			"adapter": {"cluster_health": {"node_timeout_ms": 12000}}}`,
		env: map[string]string{"CLUSTER_HEALTH_CLEANUP_INTERVAL": "3000"},
	})
	if d := cmp.Diff(ClusterHealth{false, 2000, 12000, 3000}, c.Adapter.ClusterHealth); d != "" {
		t.Error(d)
	}
}

func TestImpossibleIntervalsAreReplacedAndEnabledIsKept(t *testing.T) {
	for _, bad := range []string{`"heartbeat_interval_ms": 11000`, `"heartbeat_interval_ms": 0`, `"node_timeout_ms": 0`,
		`"cleanup_interval_ms": 30001`, `"cleanup_interval_ms": 0`} {
		c, r := mustLoad(t, sources{json: `{"adapter": {"cluster_health": {"enabled": false, ` + bad + `}}}`})
		if d := cmp.Diff(ClusterHealth{false, 10000, 30000, 10000}, c.Adapter.ClusterHealth); d != "" || len(r.Warnings) != 1 {
			t.Errorf("%s: %s\n%s", bad, d, warnings(r))
		}
	}
	c, r := mustLoad(t, sources{json: `{"adapter": {"cluster_health": {"heartbeat_interval_ms": 500}}}`})
	if c.Adapter.ClusterHealth.HeartbeatInterval != 500 || !strings.Contains(warnings(r), "less than a second") {
		t.Error(warnings(r))
	}
}

func TestQueueDriverIsChosenIfNobodyDid(t *testing.T) {
	for _, c := range []struct{ json, env, want string }{
		{`{}`, "", "memory"},
		{`{"queue": {"redis": {"concurrency": 3}}}`, "", "memory"},
		{`{"database": {"redis": {"password": "p"}}}`, "", "memory"},
		{`{"database": {"redis": {"host": "127.0.0.1"}}}`, "", "redis"},
		{`{"database": {"redis": {"sentinels": [{}]}}}`, "", "redis"},
		{`{"cache": {"redis": {"url_override": "redis://h"}}}`, "", "redis"},
		{`{"database": {"redis": {"host": "h"}}, "queue": {"redis": {"cluster_mode": true}}}`, "", "redis-cluster"},
		{`{}`, "REDIS_URL=redis://h", "redis"},
		{`{}`, "DATABASE_REDIS_PORT=6380", "redis"},
		{`{}`, "REDIS_CLUSTER_NODES=h", "redis-cluster"},
		{`{"queue": {"driver": "memory"}}`, "REDIS_URL=redis://h", "memory"},
		{`{"queue": {"driver": "redis"}}`, "", "redis"},
		{`{"queue": {"driver": "redis", "redis": {"cluster_mode": true}}}`, "", "redis-cluster"},
		{`{}`, "QUEUE_DRIVER=sqs", "sqs"},
	} {
		env := map[string]string{}
		if name, v, ok := strings.Cut(c.env, "="); ok {
			env[name] = v
		}
		got, _ := mustLoad(t, sources{json: c.json, env: env})
		named := strings.Contains(c.json, `"driver"`) || strings.HasPrefix(c.env, "QUEUE_DRIVER")
		if got.Queue.Driver != c.want || got.Queue.Implied == named {
			t.Errorf("%s %s: %s, implied %t; want %s", c.json, c.env, got.Queue.Driver, got.Queue.Implied, c.want)
		}
	}
}

func TestClusterModeMeansTheClusterDriver(t *testing.T) {
	c, r := mustLoad(t, sources{json: `{"adapter": {"driver": "redis", "redis": {"cluster_mode": true}},
		"cache": {"driver": "redis", "redis": {"cluster_mode": true}},
		"rate_limiter": {"driver": "redis", "redis": {"cluster_mode": true}},
		"database": {"redis": {"cluster_nodes": [{"host": "a"}, {"host": "b:1"}, "c:2"]}}}`})
	if c.Adapter.Driver != "redis-cluster" || c.Cache.Driver != "redis-cluster" || c.RateLimiter.Driver != "redis-cluster" {
		t.Errorf("%s %s %s", c.Adapter.Driver, c.Cache.Driver, c.RateLimiter.Driver)
	}
	want := []URL{"redis://a:7000", "redis://b:1", "redis://c:2"}
	if d := cmp.Diff(want, c.Adapter.Cluster.Nodes); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff(want, c.Queue.RedisCluster.Nodes); d != "" {
		t.Error(d)
	}
	if len(r.Infos) == 0 || len(r.Warnings) > 0 {
		t.Errorf("%v %v", r.Infos, r.Warnings)
	}
}

func TestEmptyNodesOfTheQueueMeanThreeLocalOnes(t *testing.T) {
	c, _ := mustLoad(t, sources{json: `{"queue": {"driver": "redis-cluster", "redis_cluster": {"nodes": []}}}`})
	if d := cmp.Diff([]URL{"redis://127.0.0.1:7000", "redis://127.0.0.1:7001", "redis://127.0.0.1:7002"}, c.Queue.RedisCluster.Nodes); d != "" {
		t.Error(d)
	}
}

func TestValuesAreClampedWithAWarning(t *testing.T) {
	c, r := mustLoad(t, sources{json: `{"database_pooling": {"min": 20, "max": 5}, "queue": {"sqs": {"max_messages": 11,
		"wait_time_seconds": -1, "message_group_id": null}}, "database": {"mysql": {"pool_min": 9}},
		"webhooks": {"batching": {"duration": 0}}, "rate_limiter": {"driver": "none"}}`})
	if c.DatabasePooling.Min != 5 || c.Queue.SQS.MaxMessages != 10 || c.Queue.SQS.WaitTimeSeconds != 0 ||
		c.Queue.SQS.MessageGroupID != "default" || c.Webhooks.Batching.Enabled || c.RateLimiter.Driver != "memory" {
		t.Errorf("%+v", c)
	}
	if least, most := c.Pool(&c.Database.MySQL); least != 5 || most != 5 {
		t.Errorf("pool %d to %d", least, most)
	}
	if len(r.Warnings) != 5 {
		t.Errorf("warnings:\n%s", warnings(r))
	}
}

func TestPoolSizesFollowTheSwitch(t *testing.T) {
	for _, c := range []struct {
		json        string
		least, most uint32
	}{
		{`{}`, 2, 10},
		{`{"database_pooling": {"enabled": false}}`, 0, 10},
		{`{"database_pooling": {"enabled": false}, "database": {"postgres": {"connection_pool_size": 4, "pool_max": 9}}}`, 0, 4},
		{`{"database": {"postgres": {"pool_min": 3, "pool_max": 9}}}`, 3, 9},
		{`{"database": {"postgres": {"pool_max": 1}}}`, 1, 1},
	} {
		got, _ := mustLoad(t, sources{json: c.json})
		if least, most := got.Pool(&got.Database.Postgres); least != c.least || most != c.most {
			t.Errorf("%s: %d to %d, want %d to %d", c.json, least, most, c.least, c.most)
		}
	}
}

func TestFatalRules(t *testing.T) {
	for json, want := range map[string]string{
		`{"admin": {"host": "0.0.0.0"}}`:                                                                              "admin.host: \"0.0.0.0\" can be reached by others, who need no token: set admin.token",
		`{"admin": {"host": "10.0.0.1", "token": "geheim"}}`:                                                          "admin.token: has 6 bytes, at least 16 are needed",
		`{"admin": {"host": ""}}`:                                                                                     "admin.host: must not be empty",
		`{"admin": {"unix_socket": "a"}}`:                                                                             "admin.unix_socket: must be absolute",
		`{"admin": {"token": "geheim geheim"}}`:                                                                       "admin.token: must be printable ASCII without spaces, byte 7 is not",
		`{"unix_socket": {"enabled": true, "path": "/a"}, "admin": {"unix_socket": "/a"}}`:                            "admin.unix_socket: is unix_socket.path too",
		`{"activity_timeout": 0}`:                                                                                     "activity_timeout: must be at least 1",
		`{"adapter": {"driver": "redis-cluster"}}`:                                                                    "adapter.cluster.nodes: is empty",
		`{"adapter": {"driver": "nats", "nats": {"servers": ["http://u:geheim@h"]}}}`:                                 "adapter.nats.servers: [0]: expected nats://",
		`{"adapter": {"driver": "nats", "nats": {"servers": []}}}`:                                                    "adapter.nats.servers: must not be empty",
		`{"cache": {"driver": "redis-cluster"}}`:                                                                      "database.redis.cluster_nodes: is empty",
		`{"rate_limiter": {"enabled": true, "driver": "redis-cluster"}}`:                                              "database.redis.cluster_nodes: is empty",
		`{"ssl": {"enabled": true, "key_path": "k"}}`:                                                                 "ssl.cert_path: must not be empty",
		`{"metrics": {"prometheus": {"prefix": "9x"}}}`:                                                               "metrics.prometheus.prefix",
		`{"cors": {"methods": ["GE T"]}}`:                                                                             "cors.methods: [0]",
		`{"cors": {"allowed_headers": ["ok", "b:d"]}}`:                                                                "cors.allowed_headers: [1]",
		`{"unix_socket": {"enabled": true, "path": ""}}`:                                                              "unix_socket.path: must not be empty",
		`{"unix_socket": {"enabled": true, "path": "a/b"}}`:                                                           "unix_socket.path: must be absolute",
		`{"unix_socket": {"enabled": true, "path": "/a/../b"}}`:                                                       "unix_socket.path: must not contain ..",
		`{"unix_socket": {"permission_mode": "888"}}`:                                                                 "unix_socket.permission_mode: expected octal",
		`{"unix_socket": {"permission_mode": "1777"}}`:                                                                "unix_socket.permission_mode: expected octal",
		`{"rate_limiter": {"api_rate_limit": {"window_seconds": 0}}}`:                                                 "rate_limiter.api_rate_limit.window_seconds: must be at least 1",
		`{"cleanup": {"async_enabled": false, "fallback_to_sync": false}}`:                                            "cleanup.async_enabled",
		`{"cleanup": {"batch_size": 0}}`:                                                                              "cleanup.batch_size: must be at least 1",
		`{"cleanup": {"queue_buffer_size": 5}}`:                                                                       "cleanup.queue_buffer_size: is less",
		`{"cleanup": {"batch_timeout_ms": 60001}}`:                                                                    "cleanup.batch_timeout_ms: must be from 1 to 60000, got 60001",
		`{"queue": {"sqs": {"visibility_timeout": 43201}}}`:                                                           "queue.sqs.visibility_timeout: must be from 0 to 43200, got 43201",
		`{"queue": {"sqs": {"visibility_timeout": -1}}}`:                                                              "queue.sqs.visibility_timeout: must be from 0",
		`{"http_api": {"accept_traffic": {"memory_threshold": 1.1}}}`:                                                 "http_api.accept_traffic.memory_threshold: must be from 0 to 1, got 1.1",
		`{"database_pooling": {"max": 0}}`:                                                                            "database_pooling.max: must be at least 1",
		`{"database": {"mysql": {"table_name": "a b"}}}`:                                                              "database.mysql.table_name",
		`{"database": {"postgres": {"table_name": "a.b.c"}}}`:                                                         "database.postgres.table_name",
		`{"database": {"dynamodb": {"table_name": "x"}}}`:                                                             "database.dynamodb.table_name",
		`{"database": {"redis": {"host": " "}}}`:                                                                      "database.redis.host: the host is empty",
		`{"cache": {"redis": {"url_override": "http://h"}}}`:                                                          "cache.redis.url_override: expected redis://",
		`{"queue": {"redis": {"url_override": "redis://h:0"}}}`:                                                       "queue.redis.url_override: the port",
		`{"rate_limiter": {"redis": {"url_override": "redis://h/x"}}}`:                                                "rate_limiter.redis.url_override: the database",
		`{"path_prefix": "/a b"}`:                                                                                     "path_prefix",
		`{"host": ""}`:                                                                                                "host: must not be empty",
		`{"websocket": {"slow_consumer_policy": "wait"}}`:                                                             "websocket.slow_consumer_policy: expected one of close, drop",
		`{"webhooks": {"retry": {"initial_backoff_ms": 70000}}}`:                                                      "webhooks.retry.max_backoff_ms",
		`{"queue": {"redis_cluster": {"nodes": ["redis://:geheim@ho st"]}}}`:                                          "queue.redis_cluster.nodes: [0]",
		`{"database": {"redis": {"cluster_nodes": [{"host": "http://a:geheim@"}]}}}`:                                  "database.redis.cluster_nodes: [0]",
		`{"app_manager": {"array": {"apps": [{"id":"a","key":"k","secret":"s"},{"id":"b","key":"k","secret":"s"}]}}}`: `app "b" has the same key as app "a"`,
		`{"app_manager": {"array": {"apps": [{"id":"a","key":"k","secret":"s","webhooks":[{"url":"http://h"}]}]}}}`:   "app_manager.array.apps[0].webhooks[0].event_types: must not be missing",
	} {
		got := problems(t, sources{json: json})
		if len(got) != 1 || !strings.Contains(got[0], want) || strings.Contains(got[0], "geheim") {
			t.Errorf("%s:\n got %q\nwant %q", json, got, want)
		}
	}
}

func TestProblemsOfTheEnvironmentNameTheVariable(t *testing.T) {
	got := problems(t, sources{env: map[string]string{"SSL_ENABLED": "1", "SSL_CERT_PATH": "c", "ACTIVITY_TIMEOUT": "0"}})
	want := []string{
		"ssl.key_path: must not be empty while ssl.enabled is true",
		"env ACTIVITY_TIMEOUT: activity_timeout: must be at least 1, got 0",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func TestWildcardCORSSwitchesCredentialsOff(t *testing.T) {
	for _, c := range []struct {
		json        string
		credentials bool
		origins     string
		warns       int
	}{
		{`{}`, false, "*", 0},
		{`{"cors": {"credentials": true}}`, false, "*", 1},
		{`{"cors": {"origin": ["https://a", "Any"], "credentials": true}}`, false, "*", 2},
		{`{"cors": {"origin": ["https://a"]}}`, true, "https://a", 0},
		{`{"cors": {"origin": []}}`, false, "", 0},
	} {
		got, r := mustLoad(t, sources{json: c.json})
		if got.CORS.Credentials != c.credentials || strings.Join(got.CORS.Origin, " ") != c.origins || len(r.Warnings) != c.warns {
			t.Errorf("%s: %+v\n%s", c.json, got.CORS, warnings(r))
		}
	}
}

func TestUnixSocketWarnings(t *testing.T) {
	c, r := mustLoad(t, sources{json: `{"unix_socket": {"enabled": true, "path": "/tmp/s.sock", "permission_mode": "0666"},
		"ssl": {"enabled": true}}`})
	if c.SSL.Enabled || c.UnixSocket.PermissionMode != 0o666 || len(r.Warnings) != 3 {
		t.Errorf("%+v\n%s", c.UnixSocket, warnings(r))
	}
	_, r = mustLoad(t, sources{json: `{"unix_socket": {"enabled": true, "path": "/tmp/s.sock"}, "mode": "development"}`})
	if len(r.Warnings) != 0 {
		t.Error(warnings(r))
	}
}

func TestPathPrefixIsCleaned(t *testing.T) {
	for in, want := range map[string]string{"/": "/", "": "/", "ws": "/ws", "/ws/": "/ws", "//a//b/": "/a/b"} {
		if c, _ := mustLoad(t, sources{json: `{"path_prefix": "` + in + `"}`}); c.PathPrefix != want {
			t.Errorf("%q: %q, want %q", in, c.PathPrefix, want)
		}
	}
}

func TestAppsAreReadInEitherForm(t *testing.T) {
	apps := func(s sources) []*app.App {
		t.Helper()
		c, r := mustLoad(t, s)
		if len(r.Warnings) > 0 {
			t.Errorf("warnings:\n%s", warnings(r))
		}
		return c.AppManager.Array.Apps
	}
	flat := apps(sources{json: `{"app_manager": {"array": {"apps": [{
		"id": "a", "key": "k", "secret": "s", "previous_secret": "o", "previous_secret_until": "2099-01-31T18:30:00Z", "enabled": false,
		"max_connections": "10", "enable_client_messages": true, "max_client_events_per_second": 5,
		"max_backend_events_per_second": "1", "max_read_requests_per_second": null, "max_presence_members_per_channel": 2,
		"max_channel_name_length": "3", "max_event_batch_size": 0,
		"enable_user_authentication": true, "enable_watchlist_events": null, "enable_subscription_count": true,
		"enable_signin": false, "require_tls": true, "allowed_origins": ["https://a"],
		"webhooks": [{"url": "https://h/x", "event_types": ["cache_missed"], "headers": {"A": "b"},
			"filter": {"channel_prefix": "p-", "channel_suffix": null}},
			{"lambda": {"function_name": "f"}, "event_types": ["member_added"]}]
	}]}}}`})
	nested := apps(sources{toml: `
		[[app_manager.array.apps]]
		id = "a"
		key = "k"
		secret = "s"
		previous_secret = "o"
		previous_secret_until = 2099-01-31T18:30:00Z
		enabled = false
		[app_manager.array.apps.policy.limits]
		max_connections = 10
		max_client_events_per_second = 5
		max_backend_events_per_second = 1
		max_presence_members_per_channel = 2
		max_channel_name_length = 3
		max_event_batch_size = 0
		[app_manager.array.apps.policy.features]
		enable_client_messages = true
		enable_user_authentication = true
		enable_subscription_count = true
		enable_signin = false
		require_tls = true
		[app_manager.array.apps.policy.channels]
		allowed_origins = ["https://a"]
		[[app_manager.array.apps.policy.webhooks]]
		url = "https://h/x"
		event_types = ["cache_miss"]
		headers = {A = "b"}
		filter = {channel_prefix = "p-"}
		[[app_manager.array.apps.policy.webhooks]]
		lambda = {function_name = "f"}
		event_types = ["member_added"]
	`})
	want := []*app.App{{
		ID: "a", Key: "k", Secret: "s", PreviousSecret: "o", PreviousUntil: time.Date(2099, 1, 31, 18, 30, 0, 0, time.UTC), MaxConnections: 10, EnableClientMessages: true,
		MaxClientEventsPerSecond: 5, MaxBackendEventsPerSecond: new(uint32(1)), MaxPresenceMembersPerChannel: new(uint32(2)),
		MaxChannelNameLength: new(uint32(3)), MaxEventBatchSize: new(uint32(0)), EnableUserAuthentication: new(true),
		EnableSubscriptionCount: new(true), EnableSignin: new(false), RequireTLS: new(true), AllowedOrigins: []string{"https://a"},
		Webhooks: []app.Webhook{
			{URL: "https://h/x", EventTypes: []string{"cache_miss"}, Headers: map[string]string{"A": "b"}, Filter: &app.WebhookFilter{ChannelPrefix: new("p-")}},
			{Lambda: &app.Lambda{FunctionName: "f"}, EventTypes: []string{"member_added"}},
		},
	}}
	secrets := cmp.Comparer(func(a, b app.Secret) bool { return a == b })
	if d := cmp.Diff(want, flat, secrets); d != "" {
		t.Errorf("flat: %s", d)
	}
	if d := cmp.Diff(want, nested, secrets); d != "" {
		t.Errorf("nested: %s", d)
	}
}

func TestPolicyReplacesFlatFields(t *testing.T) {
	c, r := mustLoad(t, sources{json: `{"app_manager": {"array": {"apps": [{"id": "a", "key": "k", "secret": "s",
		"max_connections": 5, "policy": {"limits": {}}}]}}}`})
	if c.AppManager.Array.Apps[0].MaxConnections != 0 || !strings.Contains(warnings(r), "max_connections: ignored, because policy is present") {
		t.Errorf("%+v\n%s", c.AppManager.Array.Apps[0], warnings(r))
	}
}

func TestLastAppOfAnIDCounts(t *testing.T) {
	c, r := mustLoad(t, sources{json: "{\"app_manager\": {\"array\": {\"apps\": [\n" +
		"{\"id\":\"a\",\"key\":\"k\",\"secret\":\"1\"},\n{\"id\":\"b\",\"key\":\"kb\",\"secret\":\"s\"},\n{\"id\":\"a\",\"key\":\"k\",\"secret\":\"2\"}]}}}"})
	apps := c.AppManager.Array.Apps
	if len(apps) != 2 || apps[1].ID != "a" || apps[1].Secret != "2" || !apps[1].Enabled {
		t.Errorf("%+v", apps)
	}
	if !strings.Contains(warnings(r), `:4: app_manager.array.apps[2]: app "a" is in line 2 too; this one counts`) {
		t.Error(warnings(r))
	}
}

func TestUnusableWebhooksAreLeftOut(t *testing.T) {
	c, r := mustLoad(t, sources{json: `{"queue": {"driver": "none"}, "app_manager": {"array": {"apps": [{"id": "a", "key": "k", "secret": "s", "webhooks": [
		{"event_types": []}, {"url": "/relative", "event_types": []}, {"url": "ftp://h", "event_types": []},
		{"url": "http://h", "event_types": ["made_up", "member_added"], "headers": {"content-type": "x", "X-Mine": "y"},
		 "filter": {"channel_pattern": "(", "channel_type": "odd"}},
		{"lambda_function": "f", "event_types": []}]}]}}}`})
	hooks := c.AppManager.Array.Apps[0].Webhooks
	if len(hooks) != 2 || len(hooks[0].Headers) != 1 || !slices.Contains(hooks[0].EventTypes, "made_up") {
		t.Errorf("%+v", hooks)
	}
	for _, want := range []string{"webhook 0 of app \"a\" is left out: it has neither", "webhook 1 of app \"a\" is left out: its url is not absolute",
		"webhook 2 of app \"a\" is left out: its url is neither", "event type \"made_up\" does not exist", "header content-type cannot be changed",
		"channel_pattern never matches", "channel_type \"odd\" never matches", "none switches webhooks off"} {
		if !strings.Contains(warnings(r), want) {
			t.Errorf("no warning %q in\n%s", want, warnings(r))
		}
	}
}

func TestTimesDoNotOverflow(t *testing.T) {
	if Seconds(math.MaxUint64).Duration() <= 0 || Millis(math.MaxUint64).Duration() <= 0 {
		t.Error("a long time became a negative one")
	}
	if Seconds(2).Duration() != 2*time.Second || Millis(2).Duration() != 2*time.Millisecond {
		t.Error("wrong unit")
	}
}

func TestAutoWorkersFollowTheMachine(t *testing.T) {
	c, _ := mustLoad(t, sources{json: `{"cleanup": {"worker_threads": "AUTO"}}`})
	if n := c.Cleanup.WorkerThreads.Count(); n < 1 || n > 4 {
		t.Errorf("%d workers", n)
	}
	c, _ = mustLoad(t, sources{json: `{"cleanup": {"worker_threads": 9}}`})
	if n := c.Cleanup.WorkerThreads.Count(); n != 9 {
		t.Errorf("%d workers", n)
	}
}

func TestWhereTheAdminListenerIs(t *testing.T) {
	for _, c := range []struct {
		json, network, address string
		loopback               bool
	}{
		{`{}`, "tcp", "127.0.0.1:16001", true},
		{`{"port": 60000}`, "tcp", "127.0.0.1:50000", true},
		{`{"port": 0}`, "tcp", "127.0.0.1:0", true},
		{`{"admin": {"port": 99, "host": "::1"}}`, "tcp", "[::1]:99", true},
		{`{"admin": {"host": "::", "token": "0123456789abcdef"}}`, "tcp", "[::]:16001", false},
		{`{"unix_socket": {"enabled": true, "path": "/run/s"}}`, "unix", "/run/s.admin", true},
		{`{"unix_socket": {"enabled": true, "path": "/run/s"}, "admin": {"port": 99}}`, "tcp", "127.0.0.1:99", true},
		{`{"admin": {"unix_socket": "/run/t"}}`, "unix", "/run/t", true},
	} {
		got, _ := mustLoad(t, sources{json: c.json})
		if network, address := got.AdminAddr(); network != c.network || address != c.address || got.AdminIsLoopback() != c.loopback {
			t.Errorf("%s: %s %s, loopback %t; want %s %s, %t", c.json, network, address, got.AdminIsLoopback(), c.network, c.address, c.loopback)
		}
	}
}
