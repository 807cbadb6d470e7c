package config

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// both returns the same settings as JSON and as TOML file.
func both(json, toml string) []sources { return []sources{{json: json}, {toml: toml}} }

func TestJSONAndTOMLMeanTheSame(t *testing.T) {
	for _, s := range both(`{
		"port": 7001, "debug": true, "adapter": {"driver": "nats", "nats": {"servers": ["nats://a", "nats://b"]}},
		"database": {"redis": {"sentinels": [{"host": "s1"}, {"host": "s2", "port": 1}]}},
		"http_api": {"accept_traffic": {"memory_threshold": 0.5}}
	}`, `
		port = 7_001 # comment
		debug = true
		database.redis.sentinels = [{host = "s1"}, {host = "s2", port = 0x1}]
		[adapter]
		driver = 'nats'
		nats.servers = [
			"nats://a", # one
			"nats://b",
		]
		[http_api.accept_traffic]
		memory_threshold = 5e-1
	`) {
		c, r := mustLoad(t, s)
		if len(r.Warnings) > 0 {
			t.Errorf("warnings:\n%s", warnings(r))
		}
		if c.Port != 7001 || !c.Debug || c.Adapter.Driver != "nats" || c.HTTPAPI.AcceptTraffic.MemoryThreshold != 0.5 {
			t.Errorf("%+v", c)
		}
		if d := cmp.Diff([]URL{"nats://a", "nats://b"}, c.Adapter.NATS.Servers); d != "" {
			t.Error(d)
		}
		if d := cmp.Diff([]SentinelNode{{"s1", 26379}, {"s2", 1}}, c.Database.Redis.Sentinels); d != "" {
			t.Error(d)
		}
	}
}

func TestEveryProblemOfAFileIsNamedWithLineAndKey(t *testing.T) {
	got := problems(t, sources{json: `{
  "port": 70000,
  "debug": "maybe",
  "host": 5,
  "adapter": {
    "driver": "kafka",
    "nats": {"servers": "nats://a", "nodes_number": -1}
  },
  "cache": [],
  "unix_socket": {"permission_mode": 660},
  "database": {"redis": {"sentinels": [{"host": "ok"},
    {"host": "h", "port": "x"}]}},
  "cleanup": {"worker_threads": 0},
  "activity_timeout": 0,
  "ssl": {"enabled": true, "cert_path": "c.pem"}
}`})
	want := []string{
		"config.json:2: port: expected an integer from 0 to 65535, got \"70000\"",
		"config.json:3: debug: expected true or false, got the string \"maybe\"",
		"config.json:4: host: expected a string, got the number 5",
		"config.json:6: adapter.driver: expected one of local, redis, redis-cluster, nats, got \"kafka\"",
		"config.json:7: adapter.nats.servers: expected a list, got the string \"nats://a\"",
		"config.json:7: adapter.nats.nodes_number: expected an integer from 0 to 4294967295, got \"-1\"",
		"config.json:9: cache: expected an object, got a list",
		"config.json:10: unix_socket.permission_mode: expected octal digits in quotes such as \"660\", got the number 660",
		"config.json:12: database.redis.sentinels[1].port: expected an integer from 0 to 65535, got \"x\"",
		"config.json:13: cleanup.worker_threads: expected \"auto\" or a number of at least 1, got \"0\"",
		"config.json:14: activity_timeout: must be at least 1, got 0",
		"ssl.key_path: must not be empty while ssl.enabled is true",
	}
	// What only validation finds stands at its key's own source; a key that
	// was not set has none and comes first.
	want = append(want[len(want)-1:], want[:len(want)-1]...)
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func TestTOMLProblemsHaveLinesToo(t *testing.T) {
	got := problems(t, sources{toml: `
port = 70000
[adapter]
driver = "kafka"

[[app_manager.array.apps]]
id = "a"
key = "k"

[[app_manager.array.apps]]
id = "b"
key = "k2"
secret = "s"
allowed_origins = [
  "https://ok.example",
  "https://",
]
`})
	want := []string{
		"config.toml:2: port: expected an integer from 0 to 65535, got \"70000\"",
		"config.toml:4: adapter.driver: expected one of local, redis, redis-cluster, nats, got \"kafka\"",
		"config.toml:6: app_manager.array.apps[0].secret: must not be empty or missing",
		"config.toml:16: app_manager.array.apps[1].allowed_origins[1]: origin pattern \"https://\": has no host after ://",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func TestBrokenFilesAreRefusedWithTheLine(t *testing.T) {
	deep := strings.Repeat(`{"a":`, 1000) + "1" + strings.Repeat("}", 1000)
	for name, c := range map[string]struct {
		s    sources
		want string
	}{
		"empty json":          {sources{json: " \n"}, "config.json:2: the document ends too early"},
		"cut json":            {sources{json: "{\n\"port\": 1,\n"}, "config.json:3: the document ends too early"},
		"comment":             {sources{json: "{\n// x\n\"port\": 1}"}, "config.json:2: JSON has no comments"},
		"trailing comma":      {sources{json: "{\"port\": 1,\n}"}, "config.json:2: JSON allows no comma before '}'"},
		"trailing comma list": {sources{json: "{\"cors\": {\"origin\": [\"a\",\n]}}"}, "config.json:2: JSON allows no comma before ']'"},
		"two documents":       {sources{json: "{}\n{}"}, "config.json:2: unexpected '{' after the end of the document"},
		"list":                {sources{json: "[]"}, "config.json:1: expected an object, got a list"},
		"duplicate":           {sources{json: "{\"port\": 1,\n\"debug\": true,\n\"port\": 2}"}, "config.json:3: port: given twice, first in line 1"},
		"duplicate below":     {sources{json: "{\"ssl\": {\"enabled\": true,\n\"enabled\": false}}"}, "config.json:2: enabled: given twice, first in line 1"},
		"no utf-8":            {sources{json: "{\n\"host\": \"\xff\"}"}, "config.json:2: is not UTF-8 text"},
		"utf-16":              {sources{json: "\xff\xfe{\x00}\x00"}, "config.json:1: is not UTF-8 text"},
		"deep json":           {sources{json: deep}, "config.json:1: nested deeper than 64 levels"},
		"deep toml":           {sources{toml: "a = " + strings.Repeat("[", 1000) + strings.Repeat("]", 1000)}, "config.toml:1: nested deeper than 64 levels"},
		"deep toml key":       {sources{toml: strings.Repeat("a.", 1000) + "a = 1"}, "config.toml:1: nested deeper than 64 levels"},
		"toml duplicate":      {sources{toml: "port = 1\nport = 2"}, "config.toml:2: port: given twice, first in line 1"},
		"toml table twice":    {sources{toml: "[ssl]\nenabled = true\n[ssl]\n"}, "config.toml:3: "},
		"toml value as table": {sources{toml: "port = 1\n[port.x]\n"}, "config.toml:2: port: is no table, see line 1"},
		"toml syntax":         {sources{toml: "port = 1\nhost = nope\n"}, "config.toml:2: "},
		"bad literal":         {sources{json: "{\"port\":\n tru}"}, "config.json:2: "},
	} {
		t.Run(name, func(t *testing.T) {
			got := problems(t, c.s)
			if len(got) != 1 || !strings.HasPrefix(got[0], c.want) {
				t.Errorf("got  %q\nwant %q", got, c.want)
			}
		})
	}
}

func TestNumbersAndBooleansMayBeStrings(t *testing.T) {
	c, _ := mustLoad(t, sources{json: `{"port": "7001", "debug": "True", "max_connections": "12",
		"queue": {"sqs": {"visibility_timeout": "7"}}, "adapter": {"nats": {"nodes_number": "3"}},
		"cleanup": {"worker_threads": "2"}, "http_api": {"accept_traffic": {"memory_threshold": "0.25"}}}`})
	if c.Port != 7001 || !c.Debug || c.MaxConnections != 12 || c.Queue.SQS.VisibilityTimeout != 7 ||
		*c.Adapter.NATS.NodesNumber != 3 || c.Cleanup.WorkerThreads != 2 || c.HTTPAPI.AcceptTraffic.MemoryThreshold != 0.25 {
		t.Errorf("%+v", c)
	}
	for _, bad := range []string{`"1.5"`, `""`, `"0x10"`, `1.5`, `1e3`, `"1,000"`, `true`, `[]`, `99999999999999999999`} {
		problems(t, sources{json: fmt.Sprintf(`{"port": %s}`, bad)})
	}
}

func TestNullMeansAbsentUnlessItHasAMeaning(t *testing.T) {
	c, r := mustLoad(t, sources{json: `{"port": null, "ssl": null, "logging": null, "cors": {"origin": null},
		"cache": {"redis": {"prefix": null}}, "queue": {"redis": {"prefix": null}}, "rate_limiter": {"redis": null}}`})
	if c.Port != 6001 || !c.Logging.ColorsEnabled || len(c.CORS.Origin) != 1 || len(r.Warnings) > 0 {
		t.Errorf("%+v %s", c, warnings(r))
	}
	if c.CachePrefix() != "sockudo:cache:" || c.QueuePrefix() != "sockudo_queue:" || c.RateLimiterPrefix() != "sockudo_rl:" {
		t.Errorf("prefixes %q %q %q", c.CachePrefix(), c.QueuePrefix(), c.RateLimiterPrefix())
	}
}

func TestObjectWithoutPrefixHasNone(t *testing.T) {
	c, _ := mustLoad(t, sources{json: `{"cache": {"redis": {}}, "queue": {"redis": {}}, "rate_limiter": {"redis": {"cluster_mode": false}},
		"database": {"redis": {"key_prefix": "p:"}}}`})
	if c.CachePrefix() != "p:cache:" || c.QueuePrefix() != "sockudo_queue:" || c.RateLimiterPrefix() != "p:rl_http:" {
		t.Errorf("prefixes %q %q %q", c.CachePrefix(), c.QueuePrefix(), c.RateLimiterPrefix())
	}
	c, _ = mustLoad(t, sources{json: `{"cache": {"redis": {}}}`, env: map[string]string{"CACHE_REDIS_PREFIX": "x"}})
	if c.CachePrefix() != "x" {
		t.Errorf("prefix %q", c.CachePrefix())
	}
}

func TestPartialRateLimitIsCompletedFromItsOwnDefaults(t *testing.T) {
	c, _ := mustLoad(t, sources{json: `{"rate_limiter": {"api_rate_limit": {"trust_hops": 2}, "websocket_rate_limit": {"max_requests": 7}}}`})
	if d := cmp.Diff(RateLimit{60, 60, "default", 2}, c.RateLimiter.API); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff(RateLimit{7, 60, "default", 0}, c.RateLimiter.WebSocket); d != "" {
		t.Error(d)
	}
	c, _ = mustLoad(t, sources{json: `{"rate_limiter": {"enabled": true}}`})
	if d := cmp.Diff(Default().RateLimiter.API, c.RateLimiter.API); d != "" {
		t.Error(d)
	}
}

func TestUnknownKeyIsAWarningWithTheNearestName(t *testing.T) {
	for key, want := range map[string]string{
		`"prot": 1`:                                 "config.json:1: prot: unknown key, ignored; did you mean port?",
		`"shutdownGracePeriod": 1`:                  "config.json:1: shutdownGracePeriod: unknown key, ignored; did you mean shutdown_grace_period?",
		`"adapter": {"drivr": "nats"}`:              "config.json:1: adapter.drivr: unknown key, ignored; did you mean adapter.driver?",
		`"zzzzzz": {"a": 1}`:                        "config.json:1: zzzzzz: unknown key, ignored",
		`"database": {"redis": {"sentinel": null}}`: "config.json:1: database.redis.sentinel: unknown key, ignored; did you mean database.redis.sentinels?",
		`"app_manager": {"array": {"apps": [{"id":"a","key":"k","secret":"s","max_conections":1}]}}`: "config.json:1: app_manager.array.apps[0].max_conections: unknown key, ignored; did you mean app_manager.array.apps[0].max_connections?",
	} {
		opts := sources{json: "{" + key + "}"}.options(t)
		_, r, err := Load(opts)
		if err != nil {
			t.Errorf("%s: %v", key, err)
			continue
		}
		if got := strings.TrimPrefix(warnings(r), opts.Dir+"/"); got != want+"\n" {
			t.Errorf("%s:\n got %s\nwant %s", key, got, want)
		}
	}
	_, r := mustLoad(t, sources{json: `{"history": {"enabled": true}, "adapter": {"nats": {"discovery_x": 1}}}`})
	if len(r.Warnings) > 0 || len(r.Infos) != 2 {
		t.Errorf("keys of newer versions: warnings %q, infos %v", warnings(r), r.Infos)
	}
}

func TestOtherNamesOfKeysAreAccepted(t *testing.T) {
	c, r := mustLoad(t, sources{json: `{"database": {"dynamodb": {"endpoint": "http://e", "access_key": "a", "secret_key": "s",
		"profile_name": "p"}}}`})
	want := DynamoDB{"us-east-1", "sockudo-applications", "http://e", "a", "s", "p"}
	if c.Database.DynamoDB != want || len(r.Warnings) > 0 {
		t.Errorf("%+v\n%s", c.Database.DynamoDB, warnings(r))
	}
	c, r = mustLoad(t, sources{json: `{"database": {"dynamodb": {"endpoint": "http://e", "endpoint_url": "http://f"}}}`})
	if c.Database.DynamoDB.EndpointURL != "http://f" || !strings.Contains(warnings(r), "endpoint: ignored, because endpoint_url is given too") {
		t.Errorf("%+v\n%s", c.Database.DynamoDB, warnings(r))
	}
}

func TestByteOrderMarkIsSkipped(t *testing.T) {
	for _, s := range both("\ufeff{\"port\": 7001}", "\ufeffport = 7001") {
		if c, _ := mustLoad(t, s); c.Port != 7001 {
			t.Errorf("port %d", c.Port)
		}
	}
}

func TestVariablesAreSubstituted(t *testing.T) {
	env := map[string]string{"P": "7001", "PASS": `a"b\c` + "\n'", "EMPTY": "", "ORIGINS": "[\"https://a\",\n\"https://b\"]"}
	for _, s := range []sources{
		{json: `{"port": ${P}, "host": "${H:-1.2.3.4}", "mode": "${EMPTY}", "database": {"redis": {"password": "${PASS}"}},
			"instance": {"process_id": "${not.a.name} $P ${} ${EMPTY:-x}"},
			"cors": {"origin": ${ORIGINS}}}`, env: env},
		{toml: `
			# ${UNKNOWN} in a comment
			port = ${P} # ${UNKNOWN}
			host = '${H:-1.2.3.4}'
			mode = "${EMPTY}"
			database.redis.password = """${PASS}"""
			instance.process_id = "${not.a.name} $P ${} ${EMPTY:-x}"
			cors.origin = ${ORIGINS}
		`, env: env},
	} {
		c, _ := mustLoad(t, s)
		if c.Port != 7001 || c.Host != "1.2.3.4" || c.Mode != "" || c.Database.Redis.Password.Reveal() != env["PASS"] {
			t.Errorf("%+v %q", c, c.Database.Redis.Password.Reveal())
		}
		if c.Instance.ProcessID != "${not.a.name} $P ${} x" || len(c.CORS.Origin) != 2 {
			t.Errorf("%q %q", c.Instance.ProcessID, c.CORS.Origin)
		}
	}
}

func TestUnresolvedVariableIsFatal(t *testing.T) {
	got := problems(t, sources{json: "{\n\"host\": \"${NOPE}\",\n\"mode\": \"${NOPE2}\"}"})
	want := []string{
		"config.json:2: ${NOPE}: the environment has no such variable and there is no default",
		"config.json:3: ${NOPE2}: the environment has no such variable and there is no default",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	got = problems(t, sources{toml: "host = '${Q}'", env: map[string]string{"Q": "it's"}})
	if len(got) != 1 || !strings.Contains(got[0], "does not fit between single quotes") {
		t.Error(got)
	}
}

func TestHugeFilesAreRefused(t *testing.T) {
	opts := sources{json: "{}"}.options(t)
	if err := os.Truncate(opts.Path, maxFileBytes+1); err != nil {
		t.Fatal(err)
	}
	if _, _, err := Load(opts); err == nil || !strings.Contains(err.Error(), "larger than 32 MiB") {
		t.Errorf("error %v", err)
	}
}

func TestFloodOfProblemsIsBounded(t *testing.T) {
	apps := strings.Repeat(`{"id":"a"},`, 5000)
	_, r, err := Load(sources{json: `{"app_manager":{"array":{"apps":[` + strings.TrimSuffix(apps, ",") + `]}},` +
		manyKeys(5000) + `"port": 1}`}.options(t))
	e, ok := err.(*Error)
	if !ok || len(e.Problems) != maxNotices || e.More != 2*5000-maxNotices {
		t.Fatalf("%d problems and %d more (%T)", len(e.Problems), e.More, err)
	}
	if len(r.Warnings) != maxNotices {
		t.Errorf("%d warnings", len(r.Warnings))
	}
}

func manyKeys(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, `"unknown_%d": 1,`, i)
	}
	return b.String()
}
