// Package cachetest is the contract test of the caches.
package cachetest

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"sockudo/internal/cache"
)

// Run checks that what open returns keeps the contract of cache.Cache. open
// returns a cache with room for a thousand values that do not expire by
// themselves; all caches of one test that it returns share their values if
// those of the driver do.
func Run(t *testing.T, open func(t *testing.T) cache.Cache) {
	for _, test := range []struct {
		name string
		run  func(t *testing.T, c cache.Cache)
	}{
		{"a value comes back as it was", testValues},
		{"keys are bytes", testKeys},
		{"what was never set is a miss", testMiss},
		{"a new value replaces the old one and its time", testReplace},
		{"a value is kept for its time", testTTL},
		{"a deleted value is gone", testDelete},
		{"many callers at once", testConcurrent},
		{"it is well", testPing},
	} {
		t.Run(strings.ReplaceAll(test.name, " ", "_"), func(t *testing.T) { test.run(t, open(t)) })
	}
}

// Check fails the test unless c has the value.
func Check(t *testing.T, c cache.Cache, key string, want []byte) {
	t.Helper()
	got, _, err := c.Get(t.Context(), key)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("get %.40q = %.40q, %v; want %.40q", key, got, err, want)
	}
}

// CheckMiss fails the test unless c says that it has no value.
func CheckMiss(t *testing.T, c cache.Cache, key string) {
	t.Helper()
	if got, ttl, err := c.Get(t.Context(), key); !errors.Is(err, cache.ErrMiss) || got != nil || ttl != 0 {
		t.Errorf("get %.40q = %.40q, %v, %v; want %v", key, got, ttl, err, cache.ErrMiss)
	}
}

// Set sets a value for ttl and fails the test if it cannot be done.
func Set(t *testing.T, c cache.Cache, key string, value []byte, ttl time.Duration) {
	t.Helper()
	if err := c.Set(t.Context(), key, value, ttl); err != nil {
		t.Fatalf("set %.40q: %v", key, err)
	}
}

func testValues(t *testing.T, c cache.Cache) {
	for i, value := range []string{
		`{"event":"e","channel":"cache-x","data":"{}"}`, "", " ", "\x00\xff\r\n$-1\r\n", "日本😀", strings.Repeat("x", 1<<20),
	} {
		key := fmt.Sprintf("value-%d", i)
		Set(t, c, key, []byte(value), time.Hour)
		Check(t, c, key, []byte(value))
	}
}

func testKeys(t *testing.T, c cache.Cache) {
	keys := []string{
		"k", "K", "k ", " k", "app:id:demo", "app:key:demo", "app:1:channel:cache-x:cache_miss", "{a}b", "{b}b", "a{}b", "*", "?", "[k]",
		"a\nb", "a\x00b", "ключ", "😀", strings.Repeat("k", 1000),
	}
	for i, key := range keys {
		Set(t, c, key, []byte(fmt.Sprint(i)), time.Hour)
	}
	for i, key := range keys {
		Check(t, c, key, []byte(fmt.Sprint(i)))
	}
	CheckMiss(t, c, "k\x00")
	CheckMiss(t, c, "a")
}

func testMiss(t *testing.T, c cache.Cache) {
	CheckMiss(t, c, "never")
	Set(t, c, "other", []byte("v"), 0)
	CheckMiss(t, c, "never")
}

func testReplace(t *testing.T, c cache.Cache) {
	Set(t, c, "k", []byte("one"), time.Hour)
	Set(t, c, "k", []byte("two"), 2*time.Hour)
	Check(t, c, "k", []byte("two"))
	checkTTL(t, c, "k", 2*time.Hour)
	Set(t, c, "k", []byte("three"), 0)
	Check(t, c, "k", []byte("three"))
	checkTTL(t, c, "k", 0)
	Set(t, c, "k", []byte("four"), time.Hour)
	checkTTL(t, c, "k", time.Hour)
}

// checkTTL allows for a machine that is slow, not for another time.
func checkTTL(t *testing.T, c cache.Cache, key string, want time.Duration) {
	t.Helper()
	_, ttl, err := c.Get(t.Context(), key)
	if err != nil || ttl > want || ttl < want-10*time.Minute {
		t.Errorf("%q is kept for %v, %v; want %v", key, ttl, err, want)
	}
}

func testTTL(t *testing.T, c cache.Cache) {
	Set(t, c, "for ever", []byte("v"), 0)
	Set(t, c, "long", []byte("v"), 100*365*24*time.Hour)
	Set(t, c, "short", []byte("v"), 50*time.Millisecond)
	Set(t, c, "shortest", []byte("v"), time.Nanosecond)
	for _, key := range []string{"short", "shortest"} {
		Until(t, key+" expires", func() bool {
			_, _, err := c.Get(t.Context(), key)
			if err != nil && !errors.Is(err, cache.ErrMiss) {
				t.Errorf("get: %v", err)
			}
			return err != nil
		})
		CheckMiss(t, c, key)
		Set(t, c, key, []byte("again"), time.Hour)
		Check(t, c, key, []byte("again"))
	}
	checkTTL(t, c, "for ever", 0)
	Check(t, c, "long", []byte("v"))
}

func testDelete(t *testing.T, c cache.Cache) {
	Set(t, c, "a", []byte("v"), 0)
	Set(t, c, "b", []byte("v"), time.Hour)
	for range 2 { // the second time it is not there, which is no error
		for _, key := range []string{"a", "never"} {
			if err := c.Delete(t.Context(), key); err != nil {
				t.Errorf("delete %q: %v", key, err)
			}
			CheckMiss(t, c, key)
		}
	}
	Check(t, c, "b", []byte("v"))
	Set(t, c, "a", []byte("again"), 0)
	Check(t, c, "a", []byte("again"))
}

// Whoever sets finds what he set, whatever the others do.
func testConcurrent(t *testing.T, c cache.Cache) {
	var wg sync.WaitGroup
	for w := range 32 {
		wg.Go(func() {
			key := fmt.Sprintf("own-%d", w)
			for i := range 50 {
				value := fmt.Append(nil, w, ":", i)
				if err := c.Set(t.Context(), key, value, time.Hour); err != nil {
					t.Errorf("set: %v", err)
				}
				if got, _, err := c.Get(t.Context(), key); err != nil || !bytes.Equal(got, value) {
					t.Errorf("get = %q, %v; want %q", got, err, value)
				}
				if err := c.Set(t.Context(), "shared", value, time.Hour); err != nil {
					t.Errorf("set: %v", err)
				}
				if i%10 == 9 {
					if err := c.Delete(t.Context(), key); err != nil {
						t.Errorf("delete: %v", err)
					}
				}
			}
		})
	}
	wg.Wait()
	got, _, err := c.Get(t.Context(), "shared")
	if err != nil || !bytes.HasSuffix(got, []byte(":49")) {
		t.Errorf("shared = %q, %v; want the last value of somebody", got, err)
	}
}

func testPing(t *testing.T, c cache.Cache) {
	p, ok := c.(cache.Pinger)
	if !ok {
		t.Fatal("cannot be asked")
	}
	if err := p.Ping(t.Context()); err != nil {
		t.Error(err)
	}
}

// Until polls for what a cache or its server does in its own time.
func Until(t *testing.T, what string, done func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !done(); Pause(t, 5*time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("a minute has passed and still not: %s", what)
		}
	}
}

// Pause lets a real server and a real network do something.
func Pause(t *testing.T, d time.Duration) {
	t.Helper()
	timer := time.NewTimer(d)
	defer timer.Stop()
	<-timer.C
}
