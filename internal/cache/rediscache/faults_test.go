package rediscache

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sockudo/internal/cache"
	"sockudo/internal/cache/cachetest"
	"sockudo/internal/redisconn"
	"sockudo/internal/servicetest"
)

const (
	callTimeout = time.Second
	// slack is how much later than its bound a call may return on a busy machine.
	slack = 3 * time.Second
)

// underLoad calls fault while others use the cache. Whatever happens, nobody
// waits long, and nobody gets a value that is not the last one of its key.
func underLoad(t *testing.T, c *Cache, fault func()) { load(t, c, true, fault) }

// load is underLoad; exact says that the server loses nothing that it confirmed.
func load(t *testing.T, c *Cache, exact bool, fault func()) {
	t.Helper()
	var wg sync.WaitGroup
	var stop atomic.Bool
	var good, bad atomic.Int64
	call := func(what string, f func() error) error {
		start := time.Now()
		err := f()
		if took := time.Since(start); took > callTimeout+slack {
			t.Errorf("%s took %v, want at most %v", what, took, callTimeout)
		}
		if err == nil || errors.Is(err, cache.ErrMiss) {
			good.Add(1)
		} else {
			bad.Add(1)
			cachetest.Pause(t, time.Millisecond)
		}
		return err
	}
	for w := range 8 {
		wg.Go(func() {
			key := fmt.Sprintf("load-%d", w) // nobody else writes it
			for i := 0; !stop.Load(); i++ {
				value := fmt.Sprint(i)
				err := call("set", func() error { return c.Set(t.Context(), key, []byte(value), time.Hour) })
				// Kept or not, an older one must not come back.
				var got []byte
				err = errors.Join(err, call("get", func() (err error) { got, _, err = c.Get(t.Context(), key); return err }))
				if exact && got != nil && string(got) != value {
					t.Errorf("get = %s after %s was set (%v)", got, value, err)
				}
			}
		})
	}
	for good.Load() < 100 && !t.Failed() {
		cachetest.Pause(t, time.Millisecond)
	}
	fault()
	stop.Store(true)
	wg.Wait()
	t.Logf("%d calls worked, %d did not", good.Load(), bad.Load())
}

// wantDown waits until calls fail and checks that they then fail at once.
func wantDown(t *testing.T, c *Cache) {
	t.Helper()
	cachetest.Until(t, "calls fail", func() bool {
		_, _, err := c.Get(t.Context(), "k")
		return err != nil && !errors.Is(err, cache.ErrMiss)
	})
	start := time.Now()
	const calls = 300
	for range calls {
		if _, _, err := c.Get(t.Context(), "k"); !errors.Is(err, cache.ErrDown) || errors.Is(err, cache.ErrMiss) {
			t.Fatalf("err = %v, want %v", err, cache.ErrDown)
		}
	}
	if took := time.Since(start); took > calls*callTimeout/10 {
		t.Errorf("%d calls of a cache that is down took %v", calls, took)
	}
	start = time.Now()
	if err := c.Ping(t.Context()); err == nil {
		t.Error("it says that it is well")
	}
	if took := time.Since(start); took > callTimeout+slack {
		t.Errorf("ping took %v, want %v", took, callTimeout)
	}
}

func recovers(t *testing.T, c *Cache) {
	t.Helper()
	for i := range 50 { // on all nodes of a cluster
		key := fmt.Sprint("recovered-", i)
		cachetest.Until(t, "the cache works again", func() bool { return c.Set(t.Context(), key, []byte("v"), time.Hour) == nil })
		cachetest.Until(t, "and keeps values", func() bool {
			got, _, err := c.Get(t.Context(), key)
			return err == nil && string(got) == "v"
		})
	}
	cachetest.Until(t, "it is well", func() bool { return c.Ping(t.Context()) == nil })
}

func TestFaultsOfTheNetwork(t *testing.T) {
	e := servicetest.RedisEndpoint(t)
	p := servicetest.NewProxy(t, e.Addrs[0])
	e.Addrs = []string{p.Addr()}
	var log lines
	c := open(t, e, Options{Timeout: callTimeout, Log: log.logger()})
	t.Run("connections_are_cut", func(t *testing.T) {
		underLoad(t, c, func() {
			for range 20 {
				p.Cut()
				cachetest.Pause(t, 20*time.Millisecond)
			}
		})
		recovers(t, c)
	})
	t.Run("the_server_refuses", func(t *testing.T) {
		underLoad(t, c, func() {
			p.Refuse()
			wantDown(t, c)
			p.Accept(t)
		})
		recovers(t, c)
	})
	t.Run("the_network_swallows_everything", func(t *testing.T) {
		underLoad(t, c, func() {
			p.Hold()
			wantDown(t, c)
			p.Release()
		})
		recovers(t, c)
	})
	t.Run("many_callers_at_a_silent_server", func(t *testing.T) {
		p.Hold()
		var wg sync.WaitGroup
		start := time.Now()
		for range 5000 { // more than the library holds in time
			wg.Go(func() {
				if _, _, err := c.Get(t.Context(), "k"); !errors.Is(err, cache.ErrDown) {
					t.Errorf("err = %v, want %v", err, cache.ErrDown)
				}
			})
		}
		wg.Wait()
		if took := time.Since(start); took > callTimeout+slack {
			t.Errorf("the last of 5000 callers gave up after %v, want %v", took, callTimeout)
		}
		p.Release()
		recovers(t, c)
	})
	if n := strings.Count(log.String(), "level=WARN"); n == 0 || n > 100 {
		t.Errorf("%d warnings, want a few:\n%.2000s", n, log.String())
	}
	if !strings.Contains(log.String(), "cache answers again") {
		t.Errorf("that it recovers is not told:\n%s", log.String())
	}
}

// A value that could not be replaced must not outlive the attempt.
func TestAnOldValueDoesNotComeBack(t *testing.T) {
	e := servicetest.RedisEndpoint(t)
	p := servicetest.NewProxy(t, e.Addrs[0])
	through := e
	through.Addrs = []string{p.Addr()}
	prefix := "rediscache:" + t.TempDir()
	c := open(t, through, Options{Prefix: prefix, Timeout: callTimeout})
	other := open(t, e, Options{Prefix: prefix})
	const keys = 700 // more than one batch
	for i := range keys {
		cachetest.Set(t, c, fmt.Sprint("k", i), []byte("old"), time.Hour)
	}
	cachetest.Set(t, c, "untouched", []byte("old"), time.Hour)
	p.Refuse()
	for i := range keys {
		key := fmt.Sprint("k", i)
		if i%2 == 0 {
			if err := c.Set(t.Context(), key, []byte("new"), time.Hour); !errors.Is(err, cache.ErrDown) {
				t.Fatalf("set: err = %v, want %v", err, cache.ErrDown)
			}
		} else if err := c.Delete(t.Context(), key); !errors.Is(err, cache.ErrDown) {
			t.Fatalf("delete: err = %v, want %v", err, cache.ErrDown)
		}
	}
	p.Accept(t)
	cachetest.Until(t, "the cache answers", func() bool {
		got, _, err := c.Get(t.Context(), "k0")
		if err == nil {
			t.Fatalf("an old value is back: %s", got)
		}
		return errors.Is(err, cache.ErrMiss)
	})
	for i := range keys {
		cachetest.CheckMiss(t, c, fmt.Sprint("k", i))
		cachetest.CheckMiss(t, other, fmt.Sprint("k", i))
	}
	cachetest.Check(t, other, "untouched", []byte("old"))
	cachetest.Set(t, c, "k0", []byte("newer"), time.Hour)
	cachetest.Check(t, other, "k0", []byte("newer"))
}

func TestAServerThatEndsAndComesBack(t *testing.T) {
	group := servicetest.Start(t, servicetest.Options{}, "redis")
	e := group.Redis(t)
	c := open(t, e, Options{Timeout: callTimeout})
	for _, end := range []struct {
		how  string
		call func(testing.TB, string)
	}{{"killed", group.Kill}, {"stopped", group.Stop}} {
		t.Run("it_is_"+end.how+"_under_load", func(t *testing.T) {
			underLoad(t, c, func() {
				end.call(t, "redis")
				wantDown(t, c)
				group.Restart(t, "redis")
			})
			recovers(t, c)
		})
	}
	t.Run("it_is_frozen", func(t *testing.T) {
		underLoad(t, c, func() {
			group.Pause(t, "redis")
			wantDown(t, c)
			group.Resume(t, "redis")
		})
		recovers(t, c)
	})
	t.Run("its_memory_is_full", func(t *testing.T) { fullMemory(t, c, e) })
}

func fullMemory(t *testing.T, c *Cache, e redisconn.Endpoint) {
	client := raw(t, e)
	cachetest.Set(t, c, "before", []byte("v"), time.Hour)
	cachetest.Set(t, c, "replaced", []byte("old"), time.Hour)
	do(t, client, "CONFIG", "SET", "maxmemory-policy", "noeviction")
	do(t, client, "CONFIG", "SET", "maxmemory", "1")
	for range 20 {
		err := c.Set(t.Context(), "replaced", []byte("new"), time.Hour)
		if err == nil || !strings.Contains(err.Error(), "OOM") || errors.Is(err, cache.ErrDown) {
			t.Fatalf("set: err = %v, want the answer of the server", err)
		}
	}
	cachetest.Check(t, c, "before", []byte("v")) // and reading goes on
	cachetest.CheckMiss(t, c, "replaced")
	if err := c.Ping(t.Context()); err != nil {
		t.Error(err)
	}
	do(t, client, "CONFIG", "SET", "maxmemory", "0")
	recovers(t, c)
}

func TestSentinelFailover(t *testing.T) {
	const password = "geheim"
	group := servicetest.Start(t, servicetest.Options{Password: password}, "sentinel")
	var log lines
	c := open(t, group.Sentinel(t, password), Options{Timeout: callTimeout, Log: log.logger()})
	t.Run("a_replica_is_read-only", func(t *testing.T) { readOnly(t, group, password) })
	t.Run("the_master_is_killed_under_load", func(t *testing.T) {
		load(t, c, false, func() { // replication is behind
			group.Kill(t, "master")
			wantDown(t, c)
			recovers(t, c) // at the replica, which is promoted
		})
	})
	if strings.Contains(log.String(), password) {
		t.Errorf("the log has the password:\n%s", log.String())
	}
}

func readOnly(t *testing.T, group *servicetest.Services, password string) {
	master := open(t, group.Sentinel(t, password), Options{Prefix: "ro"})
	cachetest.Set(t, master, "k", []byte("v"), time.Hour)
	cachetest.Set(t, master, "replaced", []byte("old"), time.Hour)
	sentinels := group.Sentinel(t, password)
	sentinels.Master, sentinels.Addrs = "", sentinels.Addrs[:1]
	sentinels.Password = sentinels.SentinelPassword
	fields, err := raw(t, sentinels).Do(t.Context(), raw(t, sentinels).B().Arbitrary("SENTINEL", "REPLICAS", "mymaster").Build()).ToArray()
	if err != nil || len(fields) != 1 {
		t.Fatalf("%d replicas, %v; want one", len(fields), err)
	}
	replica, err := fields[0].AsStrMap()
	if err != nil {
		t.Fatal(err)
	}
	c := open(t, redisconn.Endpoint{Addrs: []string{replica["ip"] + ":" + replica["port"]}, Password: password}, Options{Prefix: "ro"})
	cachetest.Until(t, "the replica has the values", func() bool {
		_, _, err := c.Get(t.Context(), "replaced")
		return err == nil
	})
	for range 20 {
		err := c.Set(t.Context(), "replaced", []byte("new"), time.Hour)
		if err == nil || !strings.Contains(err.Error(), "READONLY") || errors.Is(err, cache.ErrDown) {
			t.Fatalf("set: err = %v, want the answer of the server", err)
		}
	}
	cachetest.Check(t, c, "k", []byte("v"))
	if got, _, err := c.Get(t.Context(), "replaced"); err == nil {
		t.Errorf("get = %q, want no value: it should have been replaced", got)
	}
}

func TestANodeOfAClusterEnds(t *testing.T) {
	group := servicetest.Start(t, servicetest.Options{}, "cluster")
	e := group.Cluster(t)
	for _, node := range e.Addrs { // so that the others go on without it
		do(t, raw(t, redisconn.Endpoint{Addrs: []string{node}}), "CONFIG", "SET", "cluster-require-full-coverage", "no")
	}
	for _, fault := range []struct {
		how  string
		stop func(testing.TB, string)
		mend func(testing.TB, string)
	}{{"killed", group.Kill, group.Restart}, {"frozen", group.Pause, group.Resume}} {
		t.Run("it_is_"+fault.how, func(t *testing.T) {
			c := open(t, e, Options{Timeout: callTimeout})
			recovers(t, c)
			fault.stop(t, "node2")
			cachetest.Until(t, "it is not well", func() bool { return c.Ping(t.Context()) != nil })
			const keys = 300
			start := time.Now()
			bad := 0
			for i := range keys {
				if err := c.Set(t.Context(), fmt.Sprint("k", i), []byte("v"), time.Hour); err != nil {
					bad++
				}
			}
			took := time.Since(start)
			t.Logf("%d of %d writes failed, within %v", bad, keys, took)
			if bad == 0 || bad > keys/2 {
				t.Errorf("%d of %d writes failed, want about a third: the others go on", bad, keys)
			}
			// Not each of the hundred that fail waits, nor each part of the slots.
			if took > 30*callTimeout {
				t.Errorf("%d writes took %v", keys, took)
			}
			fault.mend(t, "node2")
			recovers(t, c)
		})
	}
}
