package server

import (
	"context"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	"sockudo/internal/app"
	"sockudo/internal/cluster"
	"sockudo/internal/cluster/bustest"
	"sockudo/internal/config"
	"sockudo/internal/redisconn"
	"sockudo/internal/servicetest"
)

// connect opens the bus of settings and closes it at the end of the test.
func connect(t *testing.T, edit func(*config.Adapter)) cluster.Bus {
	t.Helper()
	cfg := config.Default()
	edit(&cfg.Adapter)
	bus, closeBus, err := openBus(t.Context(), cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if bus == nil {
		t.Fatal("there is no bus")
	}
	t.Cleanup(func() {
		if err := closeBus(); err != nil {
			t.Error(err)
		}
	})
	return bus
}

// meet lets two buses of the same settings exchange a message.
func meet(t *testing.T, edit func(*config.Adapter)) {
	t.Helper()
	a, b := bustest.Start(t, connect(t, edit)), bustest.Start(t, connect(t, edit))
	topic := "sockudo:" + t.TempDir()
	b.Hear(topic)
	a.Say(topic, "hello")
	if got := b.Got(topic, 1); string(got[0]) != "hello" {
		t.Errorf("got %q, want hello", got[0])
	}
}

func url(e redisconn.Endpoint, userinfo string) config.URL {
	return config.URL("redis://" + userinfo + e.Addrs[0])
}

func nodes(addrs []string) (nodes []config.SentinelNode) {
	for _, addr := range addrs {
		nodes = append(nodes, config.SentinelNode{Host: config.URL(addr)})
	}
	return nodes
}

func TestEveryDriverReachesItsBroker(t *testing.T) {
	redis := servicetest.RedisEndpoint(t)
	for name, edit := range map[string]func(*config.Adapter){
		"redis": func(a *config.Adapter) {
			a.Driver, a.Redis.Pub.URL = "redis", url(redis, "")
		},
		"redis with credentials": func(a *config.Adapter) {
			a.Driver, a.Redis.Pub.URL = "redis", url(redis, "")
			a.Redis.Pub.Username, a.Redis.Pub.Password = servicetest.User, servicetest.Password
		},
		"redis with TLS and another connection to subscribe": func(a *config.Adapter) {
			a.Driver, a.Redis.Sub.URL = "redis", url(redis, "")
			a.Redis.Pub.URL = config.URL(servicetest.Env(t, servicetest.RedisTLS))
		},
		"sentinels": func(a *config.Adapter) {
			e := servicetest.SentinelEndpoint(t)
			a.Driver = "redis"
			a.Redis.Pub.Sentinel.MasterName, a.Redis.Pub.Sentinel.Hosts = e.Master, nodes(e.Addrs)
		},
		"redis-cluster": func(a *config.Adapter) {
			a.Driver = "redis-cluster"
			for _, addr := range servicetest.RedisClusterEndpoint(t).Addrs {
				a.Cluster.Nodes = append(a.Cluster.Nodes, config.URL("redis://"+addr))
			}
		},
		"nats": func(a *config.Adapter) {
			a.Driver, a.NATS.Servers = "nats", urls(servicetest.Env(t, servicetest.NATS))
		},
	} {
		t.Run(name, func(t *testing.T) { meet(t, edit) })
	}
}

func urls(list string) (urls []config.URL) {
	for s := range strings.SplitSeq(list, ",") {
		urls = append(urls, config.URL(s))
	}
	return urls
}

func TestCredentialsReachNATS(t *testing.T) {
	const secret = "geheim"
	s := servicetest.Start(t, servicetest.Options{Lines: `authorization { user: sockudo, password: ` + secret + ` }`}, "nats")
	settings := func(a *config.Adapter) {
		a.Driver, a.NATS.Servers = "nats", urls(s.Env(t, servicetest.NATS))
		a.NATS.Username, a.NATS.Password = "sockudo", secret
	}
	meet(t, settings)

	for name, spoil := range map[string]func(*config.AdapterNATS){
		"wrong password":   func(n *config.AdapterNATS) { n.Password = app.Secret(secret + secret) },
		"no password":      func(n *config.AdapterNATS) { n.Password = "" },
		"a token in place": func(n *config.AdapterNATS) { n.Username, n.Token = "", secret+secret },
		"credentials in URL": func(n *config.AdapterNATS) {
			n.Password, n.Servers = "", []config.URL{"nats://u:" + secret + "@127.0.0.1:1"}
		},
	} {
		cfg := config.Default()
		settings(&cfg.Adapter)
		spoil(&cfg.Adapter.NATS)
		_, _, err := openBusWithin(t.Context(), 100*time.Millisecond, cfg, slog.New(slog.DiscardHandler))
		if err == nil {
			t.Errorf("%s: connected", name)
		} else if strings.Contains(err.Error(), secret) {
			t.Errorf("%s: the error repeats a secret: %v", name, err)
		}
	}
}

func TestALocalNodeHasNoBus(t *testing.T) {
	bus, closeBus, err := openBus(t.Context(), config.Default(), slog.New(slog.DiscardHandler))
	if bus != nil || err != nil {
		t.Fatalf("bus = %v, err = %v; want neither", bus, err)
	}
	if err := closeBus(); err != nil {
		t.Error(err)
	}
}

// nobody is an address where nobody listens.
func nobody(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ln.Close() }()
	return ln.Addr().String()
}

// silent is an address where nobody answers.
func silent(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	return ln.Addr().String()
}

func TestAStartWithoutBrokerEnds(t *testing.T) {
	for where, addr := range map[string]string{"nobody": nobody(t), "silent": silent(t)} {
		for _, driver := range []string{"redis", "redis-cluster", "nats"} {
			t.Run(driver+" "+where, func(t *testing.T) {
				cfg := config.Default()
				a := &cfg.Adapter
				a.Driver = driver
				a.Redis.Pub.URL = config.URL("redis://:geheim@" + addr)
				a.Cluster.Nodes = []config.URL{a.Redis.Pub.URL}
				a.NATS.Servers = []config.URL{config.URL("nats://u:geheim@" + addr)}
				var log strings.Builder
				start := time.Now()
				_, _, err := openBusWithin(t.Context(), time.Second, cfg, slog.New(slog.NewTextHandler(&log, nil)))
				if err == nil {
					t.Fatal("connected to nobody")
				}
				if took := time.Since(start); took > 10*time.Second {
					t.Errorf("gave up after %v, want soon after 1s", took)
				}
				if text := err.Error() + log.String(); strings.Contains(text, "geheim") || !strings.Contains(text, addr) {
					t.Errorf("said %s, want the address and no password", text)
				}

				a.FallbackToLocal = true
				bus, closeBus, err := openBusWithin(t.Context(), 10*time.Millisecond, cfg, slog.New(slog.DiscardHandler))
				if bus != nil || err != nil {
					t.Fatalf("with fallback_to_local: bus = %v, err = %v; want neither", bus, err)
				}
				_ = closeBus()

				// Who stops the start wants no node at all.
				ctx, cancel := context.WithCancel(t.Context())
				cancel()
				if _, _, err := openBus(ctx, cfg, slog.New(slog.DiscardHandler)); err == nil {
					t.Error("a start that was stopped went on alone")
				}
			})
		}
	}
}

func TestAStartWaitsForTheBroker(t *testing.T) {
	proxy := servicetest.NewProxy(t, servicetest.RedisEndpoint(t).Addrs[0])
	proxy.Refuse()
	cfg := config.Default()
	cfg.Adapter.Driver, cfg.Adapter.Redis.Pub.URL = "redis", config.URL("redis://"+proxy.Addr())
	refused := make(chan struct{}, 100)
	opened := make(chan error, 1)
	go func() {
		_, closeBus, err := openBus(t.Context(), cfg, slog.New(slog.NewTextHandler(notify(refused), nil)))
		if err == nil {
			err = closeBus()
		}
		opened <- err
	}()
	<-refused
	proxy.Accept(t)
	if err := <-opened; err != nil {
		t.Error(err)
	}
}

type notify chan struct{}

func (n notify) Write(p []byte) (int, error) { n <- struct{}{}; return len(p), nil }
