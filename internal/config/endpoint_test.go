package config

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var sameSecret = cmp.Comparer(func(a, b Secret) bool { return a == b })

func TestNodesBecomeURLs(t *testing.T) {
	for _, c := range []struct{ host, want string }{
		{"h", "redis://h:7000"},
		{" h ", "redis://h:7000"},
		{"h:7001", "redis://h:7001"},
		{"redis://h", "redis://h:7000"},
		{"redis://h:1", "redis://h:1"},
		{"rediss://u:p@h", "rediss://u:p@h:7000"},
		{"[::1]", "redis://[::1]:7000"},
		{"[::1]:1", "redis://[::1]:1"},
		{"::1", "redis://[::1]:7000"},
		{"rediss://[::1]", "rediss://[::1]:7000"},
		{"unix:///run/redis.sock", "unix:///run/redis.sock"},
	} {
		got, err := NodeURL(c.host, 7000)
		if err != nil || string(got) != c.want {
			t.Errorf("NodeURL(%q) = %q, %v; want %q", c.host, string(got), err, c.want)
		}
	}
	for _, bad := range []string{"", " ", "redis://", "http://h", "h:x", "h:99999", "unix://h/x", "redis://h/x"} {
		if got, err := NodeURL(bad, 7000); err == nil {
			t.Errorf("NodeURL(%q) = %q, want an error", bad, string(got))
		}
	}
}

func TestRedisURLs(t *testing.T) {
	for raw, want := range map[string]RedisEndpoint{
		"redis://h":                    {Network: "tcp", Addrs: []string{"h:6379"}},
		"redis://u:p%40@h:1/3":         {Network: "tcp", Addrs: []string{"h:1"}, Username: "u", Password: "p@", DB: 3},
		"redis://:p@h/":                {Network: "tcp", Addrs: []string{"h:6379"}, Password: "p"},
		"rediss://h":                   {Network: "tcp", Addrs: []string{"h:6379"}, TLS: true},
		"rediss://h:2/0#insecure":      {Network: "tcp", Addrs: []string{"h:2"}, TLS: true, Insecure: true},
		"redis://[::1]:2":              {Network: "tcp", Addrs: []string{"[::1]:2"}},
		"unix:///s":                    {Network: "unix", Addrs: []string{"/s"}},
		"unix:///s?db=2&user=u&pass=p": {Network: "unix", Addrs: []string{"/s"}, DB: 2, Username: "u", Password: "p"},
	} {
		got, err := parseRedisURL(URL(raw))
		if d := cmp.Diff(want, got, sameSecret); d != "" || err != nil {
			t.Errorf("%s: %v %s", raw, err, d)
		}
	}
}

func TestComponentsChooseTheirRedis(t *testing.T) {
	const common = `"database": {"redis": {"host": "common", "port": 1, "db": 2, "username": "u", "password": "p"%s}}`
	watched := strings.Replace(common, "%s", `, "sentinels": [{"host": "s1"}, {"host": "s2:5"}], "sentinel_password": "sp", "name": "m"`, 1)
	plain := strings.Replace(common, "%s", "", 1)
	for _, c := range []struct {
		name, json string
		want       RedisEndpoint
	}{
		{"own url", `"cache": {"driver": "redis", "redis": {"url_override": "redis://own"}}, ` + watched,
			RedisEndpoint{Network: "tcp", Addrs: []string{"own:6379"}, From: "cache.redis.url_override"}},
		{"sentinel", `"cache": {"driver": "redis"}, ` + watched,
			RedisEndpoint{Network: "tcp", Addrs: []string{"s1:26379", "s2:5"}, Master: "m", SentinelPassword: "sp",
				Username: "u", Password: "p", DB: 2, From: "database.redis.sentinels"}},
		{"common", `"cache": {"driver": "redis"}, ` + plain,
			RedisEndpoint{Network: "tcp", Addrs: []string{"common:1"}, Username: "u", Password: "p", DB: 2, From: "database.redis"}},
		{"cluster", `"cache": {"driver": "redis-cluster"}, "database": {"redis": {"password": "p", "cluster_nodes": [{"host": "a"}, {"host": "rediss://b"}]}}`,
			RedisEndpoint{Network: "tcp", Addrs: []string{"a:7000", "b:7000"}, Cluster: true, TLS: true, Password: "p", From: "database.redis.cluster_nodes"}},
		{"host with scheme", `"cache": {"driver": "redis"}, "database": {"redis": {"host": "rediss://x:y@h"}}`,
			RedisEndpoint{Network: "tcp", Addrs: []string{"h:6379"}, TLS: true, Username: "x", Password: "y", From: "database.redis"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg, _ := mustLoad(t, sources{json: "{" + c.json + "}"})
			got, err := cfg.CacheRedisEndpoint()
			if d := cmp.Diff(c.want, got, sameSecret); d != "" || err != nil {
				t.Errorf("%v %s", err, d)
			}
		})
	}
}

func TestAdapterHasSettingsOfItsOwn(t *testing.T) {
	c, _ := mustLoad(t, sources{json: `{"adapter": {"driver": "redis", "redis": {
		"redis_pub_options": {"password": "own", "db": 0, "sentinel": {"master_name": "m2", "hosts": [{"host": "s"}], "password": "sp"}},
		"redis_sub_options": {"url": "redis://sub"}}},
		"database": {"redis": {"password": "common", "db": 4}}}`})
	pub, sub, err := c.AdapterRedisEndpoints()
	if err != nil {
		t.Fatal(err)
	}
	want := RedisEndpoint{Network: "tcp", Addrs: []string{"s:26379"}, Master: "m2", SentinelPassword: "sp", Password: "own",
		From: "adapter.redis.redis_pub_options.sentinel.hosts"}
	if d := cmp.Diff(want, pub, sameSecret); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff(RedisEndpoint{Network: "tcp", Addrs: []string{"sub:6379"}, From: "adapter.redis.redis_sub_options.url"}, sub, sameSecret); d != "" {
		t.Error(d)
	}
	c, _ = mustLoad(t, sources{json: `{"adapter": {"driver": "redis"}, "database": {"redis": {"password": "common"}}}`})
	pub, sub, err = c.AdapterRedisEndpoints()
	if err != nil || pub.Password != "common" || pub.Addrs[0] != "127.0.0.1:6379" || sub.Password != "common" {
		t.Errorf("%+v %+v %v", pub, sub, err)
	}
	c, _ = mustLoad(t, sources{json: `{"adapter": {"driver": "redis-cluster", "cluster": {"nodes": ["a:1", "redis://b:2"]}}}`})
	if pub, _, err = c.AdapterRedisEndpoints(); err != nil || !pub.Cluster || strings.Join(pub.Addrs, " ") != "a:1 b:2" {
		t.Errorf("%+v %v", pub, err)
	}
}

func TestQueueAndLimiterChooseTheirRedis(t *testing.T) {
	c, _ := mustLoad(t, sources{env: map[string]string{"REDIS_URL": "redis://r", "QUEUE_DRIVER": "redis", "RATE_LIMITER_DRIVER": "redis"}})
	q, err := c.QueueRedisEndpoint()
	if err != nil || q.Addrs[0] != "r:6379" {
		t.Errorf("%+v %v", q, err)
	}
	l, err := c.RateLimiterRedisEndpoint()
	if err != nil || l.Addrs[0] != "r:6379" {
		t.Errorf("%+v %v", l, err)
	}
	c, _ = mustLoad(t, sources{env: map[string]string{"REDIS_CLUSTER_NODES": "a:1,b:2", "QUEUE_DRIVER": "redis-cluster", "RATE_LIMITER_DRIVER": "redis-cluster"}})
	q, err = c.QueueRedisEndpoint()
	if err != nil || !q.Cluster || len(q.Addrs) != 2 {
		t.Errorf("%+v %v", q, err)
	}
	if l, err = c.RateLimiterRedisEndpoint(); err != nil || !l.Cluster || l.Addrs[1] != "b:2" {
		t.Errorf("%+v %v", l, err)
	}
}
