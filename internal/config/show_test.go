package config

import (
	"bytes"
	"encoding/json"
	"fmt"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// secretive has the word geheim wherever a secret can be.
const secretive = `{
  "adapter": {"redis": {"redis_pub_options": {"url": "redis://u:geheim@h", "password": "geheim", "sentinel": {"password": "geheim", "hosts": [{"host": "rediss://x:geheim@s"}]}}},
    "cluster": {"nodes": ["redis://:geheim@c"]},
    "nats": {"servers": ["nats://u:geheim@n"], "username": "u", "password": "geheim", "token": "geheim"}},
  "cache": {"redis": {"url_override": "unix:///p?pass=geheim"}},
  "queue": {"redis": {"url_override": "redis://geheim@h"}, "redis_cluster": {"nodes": ["redis://:geheim@q"]}},
  "rate_limiter": {"redis": {"url_override": "redis://u:geheim%2f@h/1"}},
  "ssl": {"passphrase": "geheim"},
  "database": {
    "mysql": {"password": "geheim"}, "postgres": {"password": "geheim"}, "scylladb": {"password": "geheim"},
    "redis": {"host": "rediss://u:geheim@h", "password": "geheim", "sentinel_password": "geheim", "sentinels": [{"host": "redis://:geheim@s"}],
      "cluster_nodes": [{"host": "redis://:geheim@c"}]},
    "dynamodb": {"aws_access_key_id": "AKID", "aws_secret_access_key": "geheim", "endpoint_url": "http://u:geheim@d"}},
  "app_manager": {"array": {"apps": [{"id": "demo", "key": "demo-key", "secret": "geheim", "previous_secret": "geheim",
    "max_connections": 7, "webhooks": [{"url": "https://u:geheim@h/x?token=geheim", "event_types": ["member_added"],
      "headers": {"Authorization": "Bearer geheim"}, "filter": {"channel_prefix": "p-"}}]}]}}
}`

func TestShowNamesValueAndSourceOfEverySetting(t *testing.T) {
	c, r := mustLoad(t, sources{json: secretive, env: map[string]string{"PORT": "7001"}, flags: []Flag{{"--debug", "debug", "true"}}})
	var b bytes.Buffer
	if err := c.Show(&b, r, false); err != nil {
		t.Fatal(err)
	}
	squeezed := regexp.MustCompile(` +`).ReplaceAllString(b.String(), " ")
	for _, want := range []string{
		`port = 7001 # env PORT`, `debug = true # flag --debug`, `host = "0.0.0.0" # default`,
		`ssl.passphrase = "***" # ` + r.File + `:8`,
		`adapter.redis.redis_pub_options.url = "redis://***@h" # ` + r.File + `:2`,
		`adapter.nats.servers = ["nats://***@n"] # ` + r.File + `:4`,
		`cache.redis.url_override = "unix:///p?pass=***" # `,
		`database.redis.sentinel_password = "***"`,
		`app_manager.array.apps[id=demo].secret = "***" # ` + r.File + `:14`,
		`app_manager.array.apps[id=demo].max_connections = 7 # `,
		`app_manager.array.apps[id=demo].max_event_batch_size = null # `,
		`unix_socket.permission_mode = "660" # default`, `cleanup.worker_threads = "auto" # default`,
		`queue.driver = "redis" # default`,
		`"headers":{"Authorization":"***"}`,
	} {
		if !strings.Contains(squeezed, want) {
			t.Errorf("no %q in\n%s", want, squeezed)
		}
	}
	for key := range Default().leaves() {
		if key != "app_manager.array.apps" && !strings.Contains(squeezed, "\n"+key+" = ") && !strings.HasPrefix(squeezed, key+" = ") {
			t.Errorf("%s is not shown", key)
		}
	}
}

func TestShowWritesJSON(t *testing.T) {
	c, r := mustLoad(t, sources{json: secretive})
	var b bytes.Buffer
	if err := c.Show(&b, r, true); err != nil {
		t.Fatal(err)
	}
	var doc struct {
		File     string
		Settings map[string]struct {
			Value  any
			Source string
		}
	}
	if err := json.Unmarshal(b.Bytes(), &doc); err != nil {
		t.Fatal(err)
	}
	if doc.File != r.File || doc.Settings["port"].Value != 6001.0 || doc.Settings["port"].Source != "default" ||
		doc.Settings["app_manager.array.apps[id=demo].key"].Value != "demo-key" {
		t.Errorf("%+v", doc)
	}
}

func TestNoOutputHoldsASecret(t *testing.T) {
	c, r := mustLoad(t, sources{json: secretive})
	var b bytes.Buffer
	for _, asJSON := range []bool{false, true} {
		if err := c.Show(&b, r, asJSON); err != nil {
			t.Fatal(err)
		}
	}
	fmt.Fprintf(&b, "%v %+v %#v", c.Adapter, c.Database, c.SSL)
	fmt.Fprint(&b, r.Infos, r.Warnings)
	// Wrong types and wrong values in every place must not be repeated either.
	for _, text := range []string{
		strings.ReplaceAll(secretive, `"redis://u:geheim@h"`, `"http://u:geheim@h"`),
		strings.ReplaceAll(secretive, `"unix:///p?pass=geheim"`, `"unix://geheim"`),
		strings.ReplaceAll(secretive, `"redis://geheim@h"`, `"redis://u:geheim@h:0"`),
		strings.ReplaceAll(secretive, `"host": "rediss://u:geheim@h"`, `"host": "rediss://u:geheim@h h"`),
		strings.ReplaceAll(secretive, `"passphrase": "geheim"`, `"passphrase": ["geheim"]`),
		strings.ReplaceAll(secretive, `"token": "geheim"`, `"token": 4711`),
		strings.ReplaceAll(secretive, `"secret": "geheim"`, `"secret": {"geheim": 1}`),
	} {
		_, _, err := load("f.json", []byte(text), nil)
		if err == nil {
			t.Error("a broken file loads")
		}
		fmt.Fprintln(&b, err)
	}
	for _, secret := range []string{"geheim", "4711"} {
		if at := strings.Index(b.String(), secret); at >= 0 {
			t.Errorf("secret shown: …%s", b.String()[max(0, at-80):at+10])
		}
	}
}

func TestCheckSaysWhatIsWrongOrThatAllIsWell(t *testing.T) {
	dir := t.TempDir()
	good, bad := filepath.Join(dir, "good.json"), filepath.Join(dir, "bad.toml")
	write(t, good, `{"prot": 1}`)
	write(t, bad, "port = 1\n[ssl]\nenabled = 3\n")
	var b bytes.Buffer
	if err := check(&b, LoadOptions{Path: good, Env: noEnv}, nil); err != nil {
		t.Error(err)
	}
	want := "warning: " + good + ":1: prot: unknown key, ignored; did you mean port?\nok: " + good + "\n"
	if b.String() != want {
		t.Errorf("got %q, want %q", b.String(), want)
	}
	b.Reset()
	if err := check(&b, LoadOptions{Path: bad, Env: noEnv}, nil); err == nil {
		t.Error("no error")
	}
	if want := "error: " + bad + ":3: ssl.enabled: expected true or false, got the number 3\n"; b.String() != want {
		t.Errorf("got %q, want %q", b.String(), want)
	}
	b.Reset()
	if err := check(&b, LoadOptions{Path: filepath.Join(dir, "none"), Env: noEnv}, nil); err == nil || !strings.HasPrefix(b.String(), "error: ") {
		t.Errorf("missing file: %v, %q", err, b.String())
	}
	b.Reset()
	if err := check(&b, LoadOptions{Dir: dir, Env: noEnv}, nil); err != nil || b.String() != "ok: no file, defaults and environment\n" {
		t.Errorf("no file: %v, %q", err, b.String())
	}
	b.Reset()
	further := func(cfg *Config) []Notice {
		return []Notice{{Key: "prot", Text: "is odd"}, {Key: "port", Text: "is " + fmt.Sprint(cfg.Port)}}
	}
	write(t, good, "{\n\"port\": 5}")
	if err := check(&b, LoadOptions{Path: good, Env: noEnv}, further); err == nil || b.String() != "error: prot: is odd\nerror: "+good+":2: port: is 5\n" {
		t.Errorf("what the server finds: %v, %q", err, b.String())
	}
}

func noEnv(string) (string, bool) { return "", false }
