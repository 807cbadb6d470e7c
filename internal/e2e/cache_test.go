package e2e

import (
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"sockudo/internal/config"
	"sockudo/internal/pushertest"
	"sockudo/internal/redisconn"
	"sockudo/internal/servicetest"
)

// cachedIn makes the settings keep last events in the Redis at e.
func cachedIn(t *testing.T, cfg *config.Config, e redisconn.Endpoint) {
	t.Helper()
	prefix := "e2e:" + t.TempDir() // of all servers of this test
	cfg.Cache.Redis.Prefix = &prefix
	cfg.Cache.Driver = "redis"
	r := &cfg.Database.Redis
	for _, addr := range e.Addrs {
		host, text, err := net.SplitHostPort(addr)
		if err != nil {
			t.Fatal(err)
		}
		n, err := strconv.ParseUint(text, 10, 16)
		if err != nil {
			t.Fatal(err)
		}
		switch {
		case e.Cluster:
			cfg.Cache.Driver = "redis-cluster"
			r.ClusterNodes = append(r.ClusterNodes, config.ClusterNode{Host: config.URL(host), Port: uint16(n)})
		case e.Master != "":
			r.Sentinels = append(r.Sentinels, config.SentinelNode{Host: config.URL(host), Port: uint16(n)})
			r.Name = e.Master
		default:
			r.Host, r.Port = config.URL(host), uint16(n)
		}
	}
	r.Username, r.Password, r.DB = e.Username, config.Secret(e.Password), uint32(e.DB)
}

func up(t *testing.T, addr string) (status int, word string) {
	t.Helper()
	resp, err := http.Get("http://" + addr + "/up")
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	return resp.StatusCode, resp.Header.Get("X-Health-Check")
}

func wantUp(t *testing.T, addr, word string) {
	t.Helper()
	eventually(t, "/up says "+word, func() bool {
		status, got := up(t, addr)
		if status != http.StatusOK {
			t.Fatalf("/up answers %d %s: a cache is not worth a node", status, got)
		}
		return got == word
	})
}

func wantReplay(t *testing.T, addr, channel, data string) {
	t.Helper()
	c := pushertest.Dial(t, addr, plain)
	c.Subscribe(channel)
	if got := c.Expect("e", channel).Text(t); got != data {
		t.Errorf("%s replays %q, want %q", channel, got, data)
	}
	c.Cut()
}

func wantMiss(t *testing.T, addr, channel string) {
	t.Helper()
	c := pushertest.Dial(t, addr, plain)
	began := time.Now()
	c.Subscribe(channel)
	c.Expect("pusher:cache_miss", channel)
	if took := time.Since(began); took > 4*time.Second {
		t.Errorf("the miss of %s took %v", channel, took)
	}
	c.Cut()
}

func TestLastEventsSurviveARestart(t *testing.T) {
	for name, endpoint := range map[string]func(testing.TB) redisconn.Endpoint{
		"redis": servicetest.RedisEndpoint, "sentinel": servicetest.SentinelEndpoint, "cluster": servicetest.RedisClusterEndpoint,
	} {
		t.Run(name, func(t *testing.T) {
			edit := func(cfg *config.Config) { cachedIn(t, cfg, endpoint(t)) }
			// The same folder, and so the same prefix, for both servers.
			prefix := ""
			once := func(cfg *config.Config) {
				edit(cfg)
				if prefix == "" {
					prefix = *cfg.Cache.Redis.Prefix
				}
				cfg.Cache.Redis.Prefix = &prefix
			}
			first := serve(t, once)
			api := pushertest.NewAPI(t, first.Addr, plain)
			for i := range 20 { // on all nodes of a cluster
				api.Trigger(fmt.Sprint("cache-", i), "e", fmt.Sprint("data ", i))
			}
			api.Trigger("private-cache-x", "e", "private")
			wantUp(t, first.Addr, "OK")
			if err := first.Stop(); err != nil {
				t.Fatal(err)
			}
			second := serve(t, once)
			for i := range 20 {
				wantReplay(t, second.Addr, fmt.Sprint("cache-", i), fmt.Sprint("data ", i))
			}
			wantReplay(t, second.Addr, "private-cache-x", "private")
			wantMiss(t, second.Addr, "cache-never")
			got := pushertest.NewAPI(t, second.Addr, plain).Get("/channels/cache-7", "info", "cache")
			if got.Expect(http.StatusOK); !strings.Contains(got.Body, "data 7") {
				t.Errorf("the API tells %s", got.Body)
			}
		})
	}
}

func TestTheCacheGoesDownAndComesBack(t *testing.T) {
	e := servicetest.RedisEndpoint(t)
	p := servicetest.NewProxy(t, e.Addrs[0])
	e.Addrs = []string{p.Addr()}
	s := serve(t, func(cfg *config.Config) { cachedIn(t, cfg, e) })
	api := pushertest.NewAPI(t, s.Addr, plain)
	for _, fault := range []struct {
		name       string
		down, mend func()
	}{
		{"the server refuses", p.Refuse, func() { p.Accept(t) }},
		{"the network swallows everything", p.Hold, p.Release},
	} {
		t.Run(fault.name, func(t *testing.T) {
			wantUp(t, s.Addr, "OK")
			api.Trigger("cache-old", "e", "old")
			api.Trigger("cache-kept", "e", "kept")
			wantReplay(t, s.Addr, "cache-old", "old")
			live := pushertest.Dial(t, s.Addr, plain)
			live.Subscribe("cache-old")
			live.Expect("e", "cache-old")
			live.Subscribe("public")

			fault.down()
			wantUp(t, s.Addr, "DEGRADED")
			for i := range 5 {
				began := time.Now()
				api.Trigger("cache-old", "e", fmt.Sprint("new ", i))
				api.Trigger("public", "e", fmt.Sprint(i))
				if took := time.Since(began); took > 8*time.Second {
					t.Errorf("two publishes took %v", took)
				}
				if got := live.Expect("e", "cache-old").Text(t); got != fmt.Sprint("new ", i) {
					t.Errorf("a subscriber gets %q, want new %d", got, i)
				}
				live.Expect("e", "public")
			}
			began := time.Now()
			for range 20 {
				wantMiss(t, s.Addr, "cache-kept")
				wantMiss(t, s.Addr, "cache-old")
			}
			if took := time.Since(began); took > 20*time.Second {
				t.Errorf("40 subscriptions without the cache took %v", took)
			}

			fault.mend()
			wantUp(t, s.Addr, "OK")
			eventually(t, "the cache is used again", func() bool {
				api.Trigger("cache-again", "e", "again")
				return strings.Contains(api.Get("/channels/cache-again", "info", "cache").Body, "again")
			})
			wantReplay(t, s.Addr, "cache-again", "again")
			wantReplay(t, s.Addr, "cache-kept", "kept")
			wantMiss(t, s.Addr, "cache-old") // and not the event before the last
			api.Trigger("cache-old", "e", "newest")
			wantReplay(t, s.Addr, "cache-old", "newest")
			live.Cut()
		})
	}
}

func TestMemoryStandsInForACacheThatIsLate(t *testing.T) {
	e := servicetest.RedisEndpoint(t)
	through := e
	p := servicetest.NewProxy(t, e.Addrs[0])
	through.Addrs = []string{p.Addr()}
	var prefix *string
	edit := func(e redisconn.Endpoint) func(*config.Config) {
		return func(cfg *config.Config) {
			cachedIn(t, cfg, e)
			if prefix == nil {
				prefix = cfg.Cache.Redis.Prefix
			}
			cfg.Cache.Redis.Prefix = prefix
		}
	}
	other := serve(t, edit(e))
	pushertest.NewAPI(t, other.Addr, plain).Trigger("cache-a", "e", "before")
	pushertest.NewAPI(t, other.Addr, plain).Trigger("cache-b", "e", "kept")
	p.Refuse()
	s := serve(t, edit(through))
	wantUp(t, s.Addr, "DEGRADED")
	api := pushertest.NewAPI(t, s.Addr, plain)
	wantMiss(t, s.Addr, "cache-a")
	api.Trigger("cache-a", "e", "meanwhile")
	wantReplay(t, s.Addr, "cache-a", "meanwhile")
	p.Accept(t)
	wantUp(t, s.Addr, "OK")
	wantReplay(t, s.Addr, "cache-b", "kept")
	wantMiss(t, s.Addr, "cache-a") // memory is not taken along, and what was older has gone
	api.Trigger("cache-a", "e", "after")
	wantReplay(t, other.Addr, "cache-a", "after")
}
