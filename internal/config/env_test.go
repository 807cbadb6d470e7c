package config

import (
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sockudo/internal/app"
)

func TestEveryVariableSetsItsSetting(t *testing.T) {
	for _, row := range envTable {
		if row.name == "METRICS_DRIVER" {
			continue // its only value is the default, see below
		}
		t.Run(row.name+" "+row.key, func(t *testing.T) {
			set, ok := Default().leaves()[row.key]
			if !ok {
				t.Fatalf("there is no setting %s", row.key)
			}
			text := sample(t, set)
			// queue.driver none and the like must not make others invalid.
			c, r := mustLoad(t, sources{env: map[string]string{row.name: text}, json: `{"adapter": {"cluster": {"nodes": ["c"]}},
				"database": {"redis": {"cluster_nodes": [{"host": "c"}]}}, "admin": {"token": "0123456789abcdef"}, "ssl": {"cert_path": "c", "key_path": "k"}}`})
			if got := r.Source(row.key); got != (Source{Kind: FromEnv, Name: row.name}) {
				t.Errorf("source %v, want the variable; warnings %s", got, warnings(r))
			}
			if reflect.DeepEqual(c.leaves()[row.key].value.Interface(), set.value.Interface()) {
				t.Errorf("%s=%s changed nothing", row.name, text)
			}
			if len(r.Warnings) > 0 {
				t.Errorf("warnings:\n%s", warnings(r))
			}
			if row.alt != (len(r.Infos) > 0 && strings.Contains(r.Infos[0].Text, "did not read")) {
				t.Errorf("alt %v, infos %v", row.alt, r.Infos)
			}
		})
	}
}

// sample returns a text that changes a setting from its default.
func sample(t *testing.T, set leaf) string {
	t.Helper()
	v := set.value
	switch set.key {
	case "admin.unix_socket":
		return "/other"
	case "unix_socket.permission_mode":
		return "600"
	case "cleanup.worker_threads":
		return "3"
	case "adapter.cluster_health.heartbeat_interval_ms":
		return "5000"
	case "cleanup.queue_buffer_size":
		return "60"
	}
	switch {
	case len(set.field.oneof) > 0:
		return strings.ToUpper(set.field.oneof[len(set.field.oneof)-2])
	case strings.Contains(set.key, "redis") && strings.Contains(set.key, "url"), strings.HasSuffix(set.key, "nodes"):
		return "redis://other:1"
	case v.Kind() == reflect.Bool && v.Bool():
		return " Off "
	case v.Kind() == reflect.Bool:
		return "YES"
	case v.Kind() == reflect.String, v.Kind() == reflect.Slice:
		return "other"
	case v.Kind() == reflect.Pointer && v.Type().Elem().Kind() == reflect.String:
		return "other"
	case set.key == "adapter.cluster_health.node_timeout_ms":
		return "60000"
	default:
		return " 9 "
	}
}

func TestUnknownMetricsDriverIsOnlyAWarning(t *testing.T) {
	_, r := mustLoad(t, sources{env: map[string]string{"METRICS_DRIVER": "statsd"}})
	if warnings(r) != "env METRICS_DRIVER: metrics.driver: ignored: expected one of prometheus, got \"statsd\"\n" {
		t.Error(warnings(r))
	}
}

func TestRowsOfASettingStandTogether(t *testing.T) {
	seen := map[string]bool{}
	last := ""
	for _, row := range envTable {
		if row.key != last && seen[row.key] {
			t.Errorf("rows of %s are apart", row.key)
		}
		seen[row.key], last = true, row.key
	}
}

func TestSourcesHaveTheirPrecedence(t *testing.T) {
	file := `{"port": 1, "host": "1.1.1.1", "mode": "m"}`
	env := map[string]string{"PORT": "2", "HOST": "2.2.2.2"}
	opts := sources{json: file, env: env, flags: []Flag{{"--port", "port", "3"}}}.options(t)
	c, r, err := Load(opts)
	if err != nil {
		t.Fatal(err)
	}
	if c.Port != 3 || c.Host != "2.2.2.2" || c.Mode != "m" || c.PathPrefix != "/" {
		t.Errorf("%+v", c)
	}
	for key, want := range map[string]string{
		"port": "flag --port", "host": "env HOST", "mode": opts.Path + ":1", "path_prefix": "default",
	} {
		if got := r.Source(key).String(); got != want {
			t.Errorf("source of %s: %s, want %s", key, got, want)
		}
	}
}

func TestDefaultFilesAreFoundAndReplaced(t *testing.T) {
	opts := sources{}.options(t)
	load := func() *Config {
		t.Helper()
		c, _, err := Load(opts)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	write(t, opts.Dir+"/config/config.json", `{"port": 1, "debug": true}`)
	if c := load(); c.Port != 1 || !c.Debug {
		t.Error("config.json was not read")
	}
	write(t, opts.Dir+"/config/config.toml", `port = 2`)
	if c := load(); c.Port != 2 || c.Debug {
		t.Error("config.toml does not replace config.json")
	}
	opts.Path = opts.Dir + "/mine.json"
	if _, _, err := Load(opts); err == nil || !strings.Contains(err.Error(), "mine.json") {
		t.Errorf("missing file: error %v", err)
	}
	write(t, opts.Path, `{"debug": true}`)
	if c := load(); c.Port != 6001 || !c.Debug {
		t.Error("the named file does not replace the default one")
	}
	opts.Path = ""
	write(t, opts.Dir+"/config/config.toml", `port = `)
	if _, _, err := Load(opts); err == nil {
		t.Error("a broken default file is ignored")
	}
}

func TestBadVariableIsAWarningAndKeepsTheValue(t *testing.T) {
	c, r := mustLoad(t, sources{json: `{"port": 7001}`, env: map[string]string{
		"PORT": "http", "ACTIVITY_TIMEOUT": "-1", "SSL_ENABLED": "maybe", "UNIX_SOCKET_PERMISSION_MODE": "999",
		"CLEANUP_WORKER_THREADS": "many", "DEBUG": "app:*", "DATABASE_POOL_MIN": "", "CORS_ORIGINS": " , ",
		"NATS_SERVERS": "", "SOCKUDO_DEFAULT_APP_MAX_CONNECTIONS": "x",
	}})
	if c.Port != 7001 || c.ActivityTimeout != 120 || c.SSL.Enabled || c.UnixSocket.PermissionMode != 0o660 ||
		c.Cleanup.WorkerThreads != 0 || c.Debug || len(c.CORS.Origin) != 1 || len(c.Adapter.NATS.Servers) != 1 {
		t.Errorf("%+v", c)
	}
	if len(r.Warnings) != 8 {
		t.Errorf("%d warnings:\n%s", len(r.Warnings), warnings(r))
	}
}

func TestUnknownDriverInTheEnvironmentIsFatal(t *testing.T) {
	for _, name := range []string{"ADAPTER_DRIVER", "APP_MANAGER_DRIVER", "CACHE_DRIVER", "QUEUE_DRIVER", "RATE_LIMITER_DRIVER"} {
		got := problems(t, sources{env: map[string]string{name: "kafka"}})
		if len(got) != 1 || !strings.HasPrefix(got[0], "env "+name+": ") {
			t.Errorf("%s: %q", name, got)
		}
	}
	c, _ := mustLoad(t, sources{env: map[string]string{"APP_MANAGER_DRIVER": "PostgreSQL"}})
	if c.AppManager.Driver != "pgsql" {
		t.Errorf("driver %q", c.AppManager.Driver)
	}
}

func TestEmptyVariablesOfTextAreUnset(t *testing.T) {
	c, r := mustLoad(t, sources{json: `{"database": {"redis": {"password": "p"}}}`, env: map[string]string{
		"DATABASE_REDIS_PASSWORD": "", "HOST": "", "REDIS_URL": "", "QUEUE_DRIVER": "", "NATS_TOKEN": "", "QUEUE_REDIS_PREFIX": "",
	}})
	if c.Database.Redis.Password != "p" || c.Host != "0.0.0.0" || c.Queue.Driver != "memory" || c.QueuePrefix() != "sockudo_queue:" {
		t.Errorf("%+v", c)
	}
	if len(r.Warnings)+len(r.Infos) > 0 {
		t.Errorf("%v %v", r.Warnings, r.Infos)
	}
}

func TestOtherNamesCountOnlyIfTheFirstIsUnset(t *testing.T) {
	for _, c := range []struct {
		env  map[string]string
		want string
	}{
		{map[string]string{"ENVIRONMENT": "a", "APP_MODE": "b"}, "a"},
		{map[string]string{"ENVIRONMENT": "", "APP_MODE": "b"}, "b"},
	} {
		if got, _ := mustLoad(t, sources{env: c.env}); got.Mode != c.want {
			t.Errorf("%v: mode %q", c.env, got.Mode)
		}
	}
}

func TestDebugVariableSwitchesOnButNeverOff(t *testing.T) {
	for _, c := range []struct {
		mode, debug string
		want        bool
	}{
		{"false", "true", true}, {"true", "false", true}, {"true", "", true}, {"", "1", true}, {"false", "0", false}, {"", "0", false},
	} {
		env := map[string]string{}
		if c.mode != "" {
			env["DEBUG_MODE"] = c.mode
		}
		if c.debug != "" {
			env["DEBUG"] = c.debug
		}
		if got, _ := mustLoad(t, sources{env: env}); got.Debug != c.want {
			t.Errorf("%+v: %v", c, got.Debug)
		}
	}
}

func TestRedisURLGoesEverywhereButToClusters(t *testing.T) {
	c, _ := mustLoad(t, sources{
		json: `{"rate_limiter": {"redis": {"url_override": "redis://file"}}, "cache": {"redis": {"url_override": "redis://file"}}}`,
		env:  map[string]string{"REDIS_URL": "redis://env", "CACHE_REDIS_URL": "redis://cache"},
	})
	got := []URL{c.Adapter.Redis.Pub.URL, c.Adapter.Redis.Sub.URL, c.Cache.Redis.URLOverride, c.Queue.Redis.URLOverride,
		c.RateLimiter.Redis.URLOverride}
	if d := cmp.Diff([]URL{"redis://env", "redis://env", "redis://cache", "redis://env", "redis://env"}, got); d != "" {
		t.Error(d)
	}
	if c.Queue.Driver != "redis" || c.Queue.RedisCluster.Nodes[0] != "redis://127.0.0.1:6379" {
		t.Errorf("%+v", c.Queue)
	}
}

func TestClusterNodesOfTheEnvironmentGoEverywhere(t *testing.T) {
	c, _ := mustLoad(t, sources{env: map[string]string{"REDIS_CLUSTER_NODES": "a:7001, rediss://b ,,c", "ADAPTER_DRIVER": "redis-cluster"}})
	want := []URL{"redis://a:7001", "rediss://b:6379", "redis://c:6379"}
	if d := cmp.Diff(want, c.Adapter.Cluster.Nodes); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff(want, c.Queue.RedisCluster.Nodes); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff([]ClusterNode{{"a:7001", 7000}, {"rediss://b", 7000}, {"c", 7000}}, c.Database.Redis.ClusterNodes); d != "" {
		t.Error(d)
	}
}

func TestFlagsMustFit(t *testing.T) {
	got := problems(t, sources{flags: []Flag{{"--port", "port", "x"}, {"--what", "what", "1"}, {"--apps", "app_manager.array.apps", "a"}}})
	want := []string{
		`flag --port: port: expected an integer from 0 to 65535, got "x"`,
		"flag --what: what: there is no such setting",
		"flag --apps: app_manager.array.apps: there is no such setting",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func TestAppOfTheEnvironmentIsAppended(t *testing.T) {
	file := `{"app_manager": {"array": {"apps": [{"id": "f", "key": "fk", "secret": "fs"}]}}}`
	env := map[string]string{"SOCKUDO_DEFAULT_APP_ID": "e", "SOCKUDO_DEFAULT_APP_KEY": "ek", "SOCKUDO_DEFAULT_APP_SECRET": "es"}
	c, _ := mustLoad(t, sources{json: file, env: env})
	if len(c.AppManager.Array.Apps) != 2 || c.AppManager.Array.Apps[0].ID != "f" {
		t.Fatalf("%d apps", len(c.AppManager.Array.Apps))
	}
	hundred := uint32(100)
	want := &app.App{
		ID: "e", Key: "ek", Secret: "es", Enabled: true, MaxConnections: 100, MaxClientEventsPerSecond: 100,
		MaxPresenceMembersPerChannel: &hundred, MaxPresenceMemberSizeInKB: &hundred, MaxChannelNameLength: &hundred,
		MaxEventChannelsAtOnce: &hundred, MaxEventNameLength: &hundred, MaxEventPayloadInKB: &hundred, MaxEventBatchSize: &hundred,
		EnableUserAuthentication: new(false), EnableWatchlistEvents: new(false),
	}
	if d := cmp.Diff(want, c.AppManager.Array.Apps[1], cmp.Comparer(func(a, b app.Secret) bool { return a == b })); d != "" {
		t.Error(d)
	}

	env["SOCKUDO_DEFAULT_APP_ID"] = "f"
	env["SOCKUDO_DEFAULT_APP_ALLOWED_ORIGINS"] = "https://a, ,"
	env["SOCKUDO_DEFAULT_APP_MAX_READ_REQUESTS_PER_SECOND"] = "7"
	env["SOCKUDO_ENABLE_CLIENT_MESSAGES"] = "false"
	env["SOCKUDO_DEFAULT_APP_ENABLE_CLIENT_MESSAGES"] = "true"
	c, r := mustLoad(t, sources{json: file, env: env})
	a := c.AppManager.Array.Apps[0]
	if len(c.AppManager.Array.Apps) != 1 || a.Key != "ek" || len(a.AllowedOrigins) != 1 || *a.MaxReadRequestsPerSecond != 7 ||
		!a.EnableClientMessages || !strings.Contains(warnings(r), `app "f" is in the file too`) {
		t.Errorf("%+v\n%s", a, warnings(r))
	}

	env["SOCKUDO_DEFAULT_APP_ALLOWED_ORIGINS"] = "https://"
	if got := problems(t, sources{env: env}); len(got) != 1 || !strings.Contains(got[0], "has no host") {
		t.Error(got)
	}
	env["SOCKUDO_DEFAULT_APP_ENABLED"] = "no"
	if c, _ := mustLoad(t, sources{env: env}); len(c.AppManager.Array.Apps) != 0 {
		t.Error("a disabled app was added")
	}
	_, r = mustLoad(t, sources{env: map[string]string{"SOCKUDO_DEFAULT_APP_ID": "x"}})
	if !strings.Contains(warnings(r), "belong together") {
		t.Error(warnings(r))
	}
}

func FuzzEnvironment(f *testing.F) {
	for _, s := range []string{"1", "-1", " 7 ", "true", "", "99999999999999999999", "a,b", "redis://u:p@h:1/2", "660", "auto", "\x00", "[::1]:x"} {
		f.Add(s, s)
	}
	f.Fuzz(func(t *testing.T, a, b string) {
		i := 0
		c, _, err := Load(LoadOptions{Dir: "/nonexistent", Env: func(string) (string, bool) {
			i++
			if i%2 == 0 {
				return a, true
			}
			return b, true
		}})
		if err == nil {
			if err := c.Validate(); err != nil {
				t.Fatalf("what was loaded is not valid: %v", err)
			}
		}
	})
}
