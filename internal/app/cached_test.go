package app

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// outside is a store on a server: it counts what it is asked and can fail or
// wait.
type outside struct {
	*Memory
	mu    sync.Mutex // guards what follows
	asked int
	err   error
	hold  chan struct{} // not nil: lookups wait, after they have read
	edits chan struct{} // not nil: changes wait
}

func newOutside(apps ...*App) *outside {
	s := &outside{Memory: NewMemory(StandardDefaults())}
	for _, a := range apps {
		if err := s.Memory.Create(context.Background(), a); err != nil {
			panic(err)
		}
	}
	return s
}

func (s *outside) answer(ctx context.Context, find func() (*App, error)) (*App, error) {
	s.mu.Lock()
	s.asked++
	err, hold := s.err, s.hold
	s.mu.Unlock()
	a, found := find()
	if hold != nil {
		select {
		case <-hold:
		case <-ctx.Done():
			return nil, fmt.Errorf("%w: %w", ErrUnavailable, ctx.Err())
		}
	}
	if err != nil {
		return nil, err
	}
	return a, found
}

func (s *outside) ByID(ctx context.Context, id string) (*App, error) {
	return s.answer(ctx, func() (*App, error) { return s.Memory.ByID(ctx, id) })
}

func (s *outside) ByKey(ctx context.Context, key string) (*App, error) {
	return s.answer(ctx, func() (*App, error) { return s.Memory.ByKey(ctx, key) })
}

func (s *outside) Update(ctx context.Context, was, next *App) error {
	if s.edits != nil {
		<-s.edits
	}
	return s.Memory.Update(ctx, was, next)
}

func (s *outside) set(err error, hold chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err, s.hold = err, hold
}

// times returns how often the store was asked since the last call.
func (s *outside) times() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.asked
	s.asked = 0
	return n
}

// shared is a cache on a server.
type shared struct {
	mu     sync.Mutex // guards what follows
	values map[string][]byte
	until  map[string]time.Time
	err    error
}

var errMiss = errors.New("miss")

func newShared() *shared { return &shared{values: map[string][]byte{}, until: map[string]time.Time{}} }

func (c *shared) Get(_ context.Context, key string) ([]byte, time.Duration, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return nil, 0, c.err
	}
	v, ok := c.values[key]
	if !ok || !time.Now().Before(c.until[key]) {
		return nil, 0, errMiss
	}
	return v, time.Until(c.until[key]), nil
}

func (c *shared) Set(_ context.Context, key string, value []byte, ttl time.Duration) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return c.err
	}
	c.values[key], c.until[key] = value, time.Now().Add(ttl)
	return nil
}

func (c *shared) Delete(_ context.Context, key string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return c.err
	}
	delete(c.values, key)
	return nil
}

func (c *shared) fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.err = err
}

func (c *shared) has(keys ...string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, k := range keys {
		if _, ok := c.values[k]; !ok {
			return false
		}
	}
	return true
}

func simple(name string) *App {
	return &App{ID: name, Key: name + "-key", Secret: Secret("geheim-" + name), Enabled: true}
}

func cached(s Backend, c Cache) *Cached {
	return NewCached(s, StandardDefaults(), CachedOptions{Cache: c, TTL: 300 * time.Second, NegativeTTL: 5 * time.Second})
}

func find1(t *testing.T, s Store, key string) *App {
	t.Helper()
	a, err := s.ByKey(t.Context(), key)
	if err != nil {
		t.Fatalf("%s: %v", key, err)
	}
	return a
}

func wantErr(t *testing.T, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: err = %v, want %v", what, err, want)
	}
}

func wantAsked(t *testing.T, s *outside, want int, when string) {
	t.Helper()
	if got := s.times(); got != want {
		t.Errorf("%s: the store was asked %d times, want %d", when, got, want)
	}
}

func TestAKnownAppIsLookedUpInTheProcessThenTheCacheThenTheStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, shared := newOutside(simple("a")), newShared()
		c := cached(s, shared)
		find1(t, c, "a-key")
		wantAsked(t, s, 2, "first lookup, and whether what was shared is still so")
		if !shared.has("app:id:a", "app:key:a-key") {
			t.Error("the shared cache was not filled")
		}
		shared.fail(errors.New("must not be asked"))
		if _, err := c.ByID(t.Context(), "a"); err != nil {
			t.Error(err)
		}
		wantAsked(t, s, 0, "the other name of a known app")
		shared.fail(nil)

		time.Sleep(5 * time.Second)
		find1(t, c, "a-key")
		wantAsked(t, s, 0, "after the in-process time")
		time.Sleep(300 * time.Second)
		find1(t, c, "a-key")
		wantAsked(t, s, 2, "after the time of the cache")

		find1(t, cached(s, shared), "a-key")
		wantAsked(t, s, 0, "on another node")
	})
}

func TestOneLookupPerNameAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newOutside(simple("a"), simple("b"))
		hold := make(chan struct{})
		s.set(nil, hold)
		c := cached(s, newShared())
		var wg sync.WaitGroup
		for i := range 200 {
			wg.Go(func() {
				if a, err := c.ByKey(t.Context(), []string{"a-key", "b-key"}[i%2]); err != nil || a.ID != "ab"[i%2:i%2+1] {
					t.Errorf("got %v, %v", a, err)
				}
			})
		}
		synctest.Wait()
		wantAsked(t, s, 2, "200 callers of two apps")
		close(hold)
		wg.Wait()
	})
}

func TestAnUnknownKeyIsAskedForOnceInAWhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newOutside()
		c := cached(s, newShared())
		for range 100 {
			_, err := c.ByKey(t.Context(), "a-key")
			wantErr(t, "unknown key", err, ErrNotFound)
		}
		wantAsked(t, s, 1, "100 lookups of an unknown key")
		time.Sleep(5 * time.Second)
		_, err := c.ByKey(t.Context(), "a-key")
		wantErr(t, "unknown key", err, ErrNotFound)
		wantAsked(t, s, 1, "after the negative time")

		if err := c.Create(t.Context(), simple("a")); err != nil {
			t.Fatal(err)
		}
		find1(t, c, "a-key") // although it was unknown a moment ago
	})
}

func TestUnknownKeysAreNotRememberedIfThatIsOff(t *testing.T) {
	s := newOutside()
	c := NewCached(s, StandardDefaults(), CachedOptions{})
	for range 3 {
		_, err := c.ByKey(t.Context(), "nobody")
		wantErr(t, "unknown key", err, ErrNotFound)
	}
	wantAsked(t, s, 3, "three lookups")
}

func TestManyUnknownKeysTakeBoundedMemory(t *testing.T) {
	s := newOutside()
	c := cached(s, nil)
	for i := range 3 * negatives {
		if _, err := c.ByKey(t.Context(), fmt.Sprintf("guess-%d", i)); !errors.Is(err, ErrNotFound) {
			t.Fatal(err)
		}
	}
	if n := c.unknownKey.len(); n > negatives+shards || n < negatives/2 {
		t.Errorf("%d unknown keys are kept, want at most %d", n, negatives)
	}
}

func TestKnownAppsTakeBoundedMemoryAndTheUsedOnesStay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newOutside()
		c := NewCached(s, StandardDefaults(), CachedOptions{Capacity: 640})
		for i := range 2000 {
			if err := s.Memory.Create(t.Context(), simple(fmt.Sprint(i))); err != nil {
				t.Fatal(err)
			}
		}
		for i := range 2000 {
			find1(t, c, fmt.Sprintf("%d-key", i))
			find1(t, c, "7-key")
			time.Sleep(time.Second / 100)
		}
		if n := c.keys.len(); n > 640 {
			t.Errorf("%d apps are kept, want at most 640", n)
		}
		s.times()
		s.set(ErrUnavailable, nil)
		find1(t, c, "7-key")
	})
}

func TestNamesThatNoStoreHoldsAreNotAskedFor(t *testing.T) {
	s := newOutside()
	c := cached(s, newShared())
	for _, name := range []string{"", "\xff", "a\x00", strings.Repeat("x", 256)} {
		_, err := c.ByKey(t.Context(), name)
		wantErr(t, "by key", err, ErrNotFound)
		_, err = c.ByID(t.Context(), name)
		wantErr(t, "by id", err, ErrNotFound)
	}
	wantAsked(t, s, 0, "impossible names")
}

func TestARotatedKeyIsGoneAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, shared := newOutside(simple("a")), newShared()
		c, other := cached(s, shared), cached(s, shared)
		find1(t, c, "a-key")
		find1(t, other, "a-key")
		rotated := simple("a")
		rotated.Key = "new-key"
		if err := c.Update(t.Context(), nil, rotated); err != nil {
			t.Fatal(err)
		}
		_, err := c.ByKey(t.Context(), "a-key")
		wantErr(t, "the old key", err, ErrNotFound)
		find1(t, c, "new-key")
		if shared.has("app:key:a-key") || !shared.has("app:id:a", "app:key:new-key") {
			t.Error("the shared cache still has the old key, or not the new one")
		}
		find1(t, other, "new-key")
		time.Sleep(5 * time.Second)
		_, err = other.ByKey(t.Context(), "a-key")
		wantErr(t, "the old key on another node, after 5s", err, ErrNotFound)
	})
}

func TestAForgottenAppIsAskedForAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newOutside(simple("a"))
		c, other := cached(s, newShared()), cached(s, newShared()) // each with a cache of its own
		find1(t, other, "a-key")
		_, err := other.ByKey(t.Context(), "new-key")
		wantErr(t, "the new key", err, ErrNotFound)
		rotated := simple("a")
		rotated.Key = "new-key"
		if err := c.Update(t.Context(), nil, rotated); err != nil {
			t.Fatal(err)
		}
		other.Forget(t.Context(), "a")
		find1(t, other, "new-key")
		_, err = other.ByKey(t.Context(), "a-key")
		wantErr(t, "the old key", err, ErrNotFound)
	})
}

func TestAKeyRotatedBehindOurBackIsDroppedWhenSeen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, shared := newOutside(simple("a")), newShared()
		c := cached(s, shared)
		find1(t, c, "a-key")
		rotated := simple("a")
		rotated.Key = "new-key"
		if err := s.Memory.Update(t.Context(), nil, rotated); err != nil {
			t.Fatal(err)
		}
		if err := shared.Delete(t.Context(), "app:id:a"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Second)
		if _, err := c.ByID(t.Context(), "a"); err != nil {
			t.Fatal(err)
		}
		if shared.has("app:key:a-key") {
			t.Error("the shared cache still has the old key")
		}
		_, err := c.ByKey(t.Context(), "a-key")
		wantErr(t, "the old key", err, ErrNotFound)
	})
}

func TestChangesAreSeenOnEveryNodeAfterFiveSeconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, shared := newOutside(simple("a"), simple("b")), newShared()
		nodes := []*Cached{cached(s, shared), cached(s, shared), cached(s, shared)}
		for _, n := range nodes {
			find1(t, n, "a-key")
			find1(t, n, "b-key")
		}
		off := simple("a")
		off.Enabled = false
		if err := nodes[0].Update(t.Context(), nil, off); err != nil {
			t.Fatal(err)
		}
		if err := nodes[0].SetSecrets(t.Context(), nil, &App{ID: "b", Secret: "newer", PreviousSecret: "older"}); err != nil {
			t.Fatal(err)
		}
		if a := find1(t, nodes[0], "a-key"); a.Enabled {
			t.Error("the node that changed the app does not see it")
		}
		time.Sleep(5 * time.Second)
		for i, n := range nodes {
			if a := find1(t, n, "a-key"); a.Enabled {
				t.Errorf("node %d does not see the change", i)
			}
			if b := find1(t, n, "b-key"); b.Secret != "newer" || b.PreviousSecret != "older" {
				t.Errorf("node %d does not see the new secrets", i)
			}
		}
		if err := nodes[2].Delete(t.Context(), "a"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Second)
		for i, n := range nodes {
			_, err := n.ByKey(t.Context(), "a-key")
			wantErr(t, fmt.Sprintf("deleted app on node %d", i), err, ErrNotFound)
		}
	})
}

func TestKnownAppsGoOnWhileTheStoreIsDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, shared := newOutside(simple("a"), simple("b")), newShared()
		c := cached(s, shared)
		find1(t, c, "a-key")
		s.times()
		s.set(fmt.Errorf("connection refused: %w", ErrUnavailable), nil)
		for range 60 * 60 { // an hour: both caches have expired
			find1(t, c, "a-key")
			_, err := c.ByKey(t.Context(), "b-key")
			wantErr(t, "an app that was never seen", err, ErrUnavailable)
			if errors.Is(err, ErrNotFound) {
				t.Fatal("an app that was never seen is unknown")
			}
			time.Sleep(time.Second)
		}
		if asked := s.times(); asked > 60*60/3 {
			t.Errorf("the store that is down was asked %d times in an hour", asked)
		}
		s.set(nil, nil)
		time.Sleep(6 * time.Second)
		find1(t, c, "b-key")

		s.set(ErrUnavailable, nil)
		time.Sleep(defaultStale + time.Minute)
		_, err := c.ByKey(t.Context(), "a-key")
		wantErr(t, "after a day without the store", err, ErrUnavailable)
	})
}

func TestAStoreThatHangsHoldsNobodyLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newOutside(simple("a"), simple("b"))
		c := cached(s, newShared())
		s.set(nil, make(chan struct{}))
		start := time.Now()
		_, err := c.ByKey(t.Context(), "b-key")
		wantErr(t, "first lookup", err, ErrUnavailable)
		if got := time.Since(start); got != defaultTimeout {
			t.Errorf("the first lookup took %v, want %v", got, defaultTimeout)
		}
		start = time.Now()
		for range 1000 {
			_, err := c.ByKey(t.Context(), "a-key")
			wantErr(t, "lookup", err, ErrUnavailable)
		}
		if got := time.Since(start); got != 0 {
			t.Errorf("the next 1000 lookups took %v, want none", got)
		}
	})
}

func TestAnyErrorOfTheStoreIsUnavailableAndNeverUnknown(t *testing.T) {
	s := newOutside(simple("a"))
	c := cached(s, nil)
	s.set(errors.New("syntax error"), nil)
	_, err := c.ByKey(t.Context(), "a-key")
	wantErr(t, "lookup", err, ErrUnavailable)
	if errors.Is(err, ErrNotFound) {
		t.Error("it says that the app is unknown")
	}
}

func TestALookupLeavesNothingBehindThatAChangeHasOutdated(t *testing.T) {
	for _, change := range []struct {
		name string
		make func(t *testing.T, c *Cached) error
		want error
	}{
		{"update", func(t *testing.T, c *Cached) error {
			a := simple("a")
			a.Secret = "geheim-newer"
			return c.Update(t.Context(), nil, a)
		}, nil},
		{"delete", func(t *testing.T, c *Cached) error { return c.Delete(t.Context(), "a") }, ErrNotFound},
		{"update by another process", func(t *testing.T, c *Cached) error {
			a := simple("a")
			a.Secret = "geheim-newer"
			return cached(c.store, c.opts.Cache).Update(t.Context(), nil, a)
		}, nil},
		{"delete by another process", func(t *testing.T, c *Cached) error {
			return cached(c.store, c.opts.Cache).Delete(t.Context(), "a")
		}, ErrNotFound},
	} {
		t.Run(change.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, shared := newOutside(simple("a")), newShared()
				c := cached(s, shared)
				hold := make(chan struct{})
				s.set(nil, hold)
				done := make(chan struct{})
				go func() {
					defer close(done)
					if _, err := c.ByKey(t.Context(), "a-key"); err != nil {
						t.Error(err)
					}
				}()
				synctest.Wait() // it has read the old app
				s.set(nil, nil)
				if err := change.make(t, c); err != nil {
					t.Fatal(err)
				}
				close(hold)
				<-done
				for _, n := range []*Cached{c, cached(s, shared)} {
					a, err := n.ByKey(t.Context(), "a-key")
					if !errors.Is(err, change.want) || err == nil && a.Secret != "geheim-newer" {
						t.Errorf("after the change: %v, %v", a, err)
					}
				}
			})
		})
	}
}

func TestAMissThatACreateHasOutdatedIsNotRemembered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newOutside()
		c := cached(s, newShared())
		hold := make(chan struct{})
		s.set(nil, hold)
		done := make(chan struct{})
		go func() {
			defer close(done)
			_, err := c.ByKey(t.Context(), "a-key")
			wantErr(t, "before", err, ErrNotFound)
		}()
		synctest.Wait()
		s.set(nil, nil)
		if err := c.Create(t.Context(), simple("a")); err != nil {
			t.Fatal(err)
		}
		close(hold)
		<-done
		find1(t, c, "a-key")
	})
}

func TestAWriterThatWaitsHoldsUpNoReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newOutside(simple("a"), simple("b"))
		c := cached(s, newShared())
		find1(t, c, "a-key")
		s.edits = make(chan struct{})
		done := make(chan struct{})
		go func() {
			defer close(done)
			if err := c.Update(t.Context(), nil, simple("a")); err != nil {
				t.Error(err)
			}
		}()
		synctest.Wait() // the writer waits for the store
		find1(t, c, "a-key")
		find1(t, c, "b-key")
		close(s.edits)
		<-done
	})
}

func TestABadRecordInTheCacheIsReadAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, shared := newOutside(simple("a"), simple("b")), newShared()
		var log bytes.Buffer
		c := NewCached(s, StandardDefaults(), CachedOptions{
			Cache: shared, TTL: time.Minute, Log: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug})),
		})
		for _, bad := range []string{
			"", "geheim", "null", "[]", "{}", `{"id":"a","key":"a-key","secret":""}`,
			`{"id":"a","key":"a-key","secret":"geheim","allowed_origins":"geheim"}`, // would admit nobody
			string(MarshalRecord(simple("b"))),                                      // of another app
			strings.Replace(string(MarshalRecord(simple("a"))), "a-key", "A-KEY", 1),
		} {
			if err := shared.Set(t.Context(), "app:key:a-key", []byte(bad), time.Minute); err != nil {
				t.Fatal(err)
			}
			if a := find1(t, c, "a-key"); a.ID != "a" || a.Origins != nil {
				t.Errorf("with %q in the cache: got %v", bad, a)
			}
			wantAsked(t, s, 2, "with "+bad)
			if got, _, err := shared.Get(t.Context(), "app:key:a-key"); err != nil || string(got) != string(MarshalRecord(simple("a"))) {
				t.Errorf("%q was not overwritten", bad)
			}
			time.Sleep(5 * time.Second)
		}
		if strings.Contains(log.String(), "geheim") {
			t.Errorf("the log has a secret:\n%s", log.String())
		}
	})
}

func TestWithTheCacheDownTheStoreServes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, shared := newOutside(simple("a")), newShared()
		shared.fail(errors.New("down"))
		c := cached(s, shared)
		for range 3 {
			find1(t, c, "a-key")
			time.Sleep(6 * time.Second)
		}
		wantAsked(t, s, 3, "three lookups")
		if err := c.Update(t.Context(), nil, simple("a")); err != nil {
			t.Errorf("an update fails with the cache: %v", err)
		}
		shared.fail(nil)
		find1(t, c, "a-key")
	})
}

func TestAWaiterMayLeaveAndTheLookupGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newOutside(simple("a"))
		hold := make(chan struct{})
		s.set(nil, hold)
		c := cached(s, nil)
		first, cancelFirst := context.WithCancel(t.Context())
		second, cancelSecond := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() {
			if _, err := c.ByKey(first, "a-key"); err != nil {
				t.Errorf("who looks for others too: %v", err)
			}
		})
		synctest.Wait()
		wg.Go(func() {
			_, err := c.ByKey(second, "a-key")
			wantErr(t, "who left", err, ErrUnavailable)
			wantErr(t, "who left", err, context.Canceled)
		})
		wg.Go(func() { find1(t, c, "a-key") })
		synctest.Wait()
		cancelFirst()
		cancelSecond()
		synctest.Wait()
		close(hold)
		wg.Wait()
	})
}

func TestAPanicInTheStoreBlocksNobody(t *testing.T) {
	var f flights
	func() {
		defer func() { _ = recover() }()
		_, _ = f.do(t.Context(), "a", func(context.Context) (*App, error) { panic("bug") })
	}()
	want := simple("a")
	if got, err := f.do(t.Context(), "a", func(context.Context) (*App, error) { return want, nil }); got != want || err != nil {
		t.Errorf("after a panic: %v, %v", got, err)
	}
}

func TestListingFillsTheCache(t *testing.T) {
	s, shared := newOutside(simple("a"), simple("b")), newShared()
	c := cached(s, shared)
	n := 0
	if err := c.List(t.Context(), func(*App) bool { n++; return true }); err != nil || n != 2 {
		t.Fatalf("listed %d, %v", n, err)
	}
	find1(t, c, "a-key")
	find1(t, c, "b-key")
	wantAsked(t, s, 0, "after a listing")
	if !shared.has("app:id:a", "app:key:b-key") {
		t.Error("the shared cache was not filled")
	}
}

func TestSecretsPrintAsStars(t *testing.T) {
	a := full()
	var log bytes.Buffer
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "secret", a.Secret, "secrets", a.Secrets())
	for _, s := range []string{fmt.Sprintf("%v %+v %#v %s %q", a, a, *a, a.Secret, a.Secret), log.String()} {
		if strings.Contains(s, "full-secret") || strings.Contains(s, "older-secret") {
			t.Errorf("printed a secret: %s", s)
		}
	}
}

func BenchmarkCachedLookup(b *testing.B) {
	const apps = 10_000
	s := newOutside()
	keys := make([]string, apps)
	for i := range keys {
		a := simple(fmt.Sprintf("app-%d", i))
		keys[i] = a.Key
		if err := s.Memory.Create(b.Context(), a); err != nil {
			b.Fatal(err)
		}
	}
	for name, store := range map[string]Store{"memory": s.Memory, "cached": cached(s, nil)} {
		b.Run(name, func(b *testing.B) {
			for _, k := range keys {
				if _, err := store.ByKey(b.Context(), k); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for i := 0; pb.Next(); i++ {
					if _, err := store.ByKey(context.Background(), keys[i%apps]); err != nil {
						b.Error(err)
					}
				}
			})
		})
	}
}
