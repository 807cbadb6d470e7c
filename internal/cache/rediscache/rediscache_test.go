package rediscache

import (
	"context"
	"errors"
	"log/slog"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"sockudo/internal/cache"
	"sockudo/internal/cache/cachetest"
	"sockudo/internal/redisconn"
	"sockudo/internal/servicetest"
)

func TestMain(m *testing.M) { servicetest.VerifyNoLeaks(m) }

// patient is for tests that are not about time on a machine that may be busy.
const patient = 20 * time.Second

func open(t testing.TB, e redisconn.Endpoint, opts Options) *Cache {
	t.Helper()
	if opts.Timeout == 0 {
		opts.Timeout = patient
	}
	if opts.Prefix == "" {
		opts.Prefix = "rediscache:" + t.TempDir() // new in every run
	}
	c, err := Open(t.Context(), e, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// raw is a client beside the cache.
func raw(t testing.TB, e redisconn.Endpoint) rueidis.Client {
	t.Helper()
	c, err := redisconn.Dial(t.Context(), redisconn.Options(e))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func do(t testing.TB, c rueidis.Client, words ...string) rueidis.RedisResult {
	t.Helper()
	r := c.Do(t.Context(), c.B().Arbitrary(words...).Build())
	if err := r.Error(); err != nil && !rueidis.IsRedisNil(err) {
		t.Fatalf("%s: %v", words[0], err)
	}
	return r
}

func tlsEndpoint(t *testing.T) redisconn.Endpoint {
	t.Helper()
	e, err := redisconn.Parse(servicetest.Env(t, servicetest.RedisTLS))
	if err != nil {
		t.Fatal(err)
	}
	e.Username, e.Password, e.DB = servicetest.User, servicetest.Password, 5
	return e
}

func TestContract(t *testing.T) {
	for name, endpoint := range map[string]func(*testing.T) redisconn.Endpoint{
		"one_server":                  func(t *testing.T) redisconn.Endpoint { return servicetest.RedisEndpoint(t) },
		"with_TLS,_user_and_database": tlsEndpoint,
		"the_master_of_sentinels":     func(t *testing.T) redisconn.Endpoint { return servicetest.SentinelEndpoint(t) },
		"a_cluster_of_three_masters":  func(t *testing.T) redisconn.Endpoint { return servicetest.RedisClusterEndpoint(t) },
	} {
		t.Run(name, func(t *testing.T) {
			cachetest.Run(t, func(t *testing.T) cache.Cache { return open(t, endpoint(t), Options{}) })
		})
	}
}

func TestNamesAndTypesAreThoseOfSockudo(t *testing.T) {
	e := servicetest.RedisEndpoint(t)
	client := raw(t, e)
	prefix := "t" + url.PathEscape(t.TempDir()) + "sockudo_cache:"
	c := open(t, e, Options{Prefix: prefix})
	cachetest.Set(t, c, "app:demo:channel:cache-x:cache_miss", []byte("v"), time.Hour)
	cachetest.Set(t, c, "app:id:demo", []byte("w"), 0)
	for key, want := range map[string]struct {
		value string
		ttl   int64
	}{
		prefix + ":app:demo:channel:cache-x:cache_miss": {"v", 3600},
		prefix + ":app:id:demo":                         {"w", -1},
	} {
		if got, err := do(t, client, "GET", key).ToString(); got != want.value || err != nil {
			t.Errorf("%s = %q, %v; want %q", key, got, err, want.value)
		}
		if kind, err := do(t, client, "TYPE", key).ToString(); kind != "string" || err != nil {
			t.Errorf("%s is a %s, %v", key, kind, err)
		}
		if ttl, err := do(t, client, "TTL", key).AsInt64(); err != nil || ttl > want.ttl || ttl < want.ttl-600 {
			t.Errorf("%s expires in %d s, %v; want %d", key, ttl, err, want.ttl)
		}
	}
	// What Sockudo wrote is read.
	do(t, client, "SETEX", prefix+":app:key:demo-key", "300", `{"id":"demo"}`)
	cachetest.Check(t, c, "app:key:demo-key", []byte(`{"id":"demo"}`))
}

func TestCachesOfOneServerShareByPrefix(t *testing.T) {
	e := servicetest.RedisEndpoint(t)
	prefix := "rediscache:" + t.TempDir()
	a, same, other := open(t, e, Options{Prefix: prefix}), open(t, e, Options{Prefix: prefix}), open(t, e, Options{Prefix: prefix + "2"})
	cachetest.Set(t, a, "k", []byte("v"), 0)
	cachetest.Check(t, same, "k", []byte("v"))
	cachetest.CheckMiss(t, other, "k")
	a.Close()
	cachetest.Check(t, same, "k", []byte("v")) // nothing is cleaned up
}

// lines collects a log.
type lines struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func (l *lines) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(l, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

func TestOpenNamesTheServerAndNoCredentials(t *testing.T) {
	e := tlsEndpoint(t)
	e.Password = "wrong-geheim"
	var log lines
	_, err := Open(t.Context(), e, Options{Log: log.logger()})
	if err == nil || !strings.Contains(err.Error(), e.Addrs[0]) || !strings.Contains(err.Error(), "WRONGPASS") {
		t.Errorf("err = %v, want the server and its refusal", err)
	}
	for _, secret := range []string{"geheim", servicetest.Password} {
		if strings.Contains(err.Error(), secret) || strings.Contains(log.String(), secret) {
			t.Errorf("a secret is told: %v\n%s", err, log.String())
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := Open(ctx, redisconn.Endpoint{Addrs: []string{"127.0.0.1:1"}}, Options{}); err == nil {
		t.Error("connected to nobody")
	}
}

func TestAnUnknownCommandDoesNotTellItsArguments(t *testing.T) {
	c := raw(t, servicetest.RedisEndpoint(t))
	err := c.Do(t.Context(), c.B().Arbitrary("NOSUCH", "key", "geheim").Build()).Error()
	if err == nil || !strings.Contains(err.Error(), "geheim") {
		t.Fatalf("err = %v, and this test is about one with arguments", err)
	}
	if got := wrap("set", err).Error(); strings.Contains(got, "geheim") || !strings.Contains(got, "unknown command") {
		t.Errorf("told %q", got)
	}
}

func TestACallerThatGivesUpSaysNothingOfTheServer(t *testing.T) {
	c := open(t, servicetest.RedisEndpoint(t), Options{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for range 10 {
		_, _, err := c.Get(ctx, "k")
		if !errors.Is(err, context.Canceled) || errors.Is(err, cache.ErrMiss) || errors.Is(err, cache.ErrDown) {
			t.Fatalf("err = %v, want %v", err, context.Canceled)
		}
	}
	cachetest.CheckMiss(t, c, "k")
}
