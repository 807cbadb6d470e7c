package cache_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"sockudo/internal/cache"
	"sockudo/internal/cache/cachetest"
)

func TestMemoryContract(t *testing.T) {
	cachetest.Run(t, func(*testing.T) cache.Cache { return cache.NewMemory(cache.MemoryOptions{}) })
}

func TestMemoryForgetsWhatWasNotUsedForTheLongestTime(t *testing.T) {
	m := cache.NewMemory(cache.MemoryOptions{Capacity: 3})
	for _, key := range []string{"a", "b", "c"} {
		cachetest.Set(t, m, key, []byte(key), 0)
	}
	cachetest.Check(t, m, "a", []byte("a"))      // used
	cachetest.Set(t, m, "b", []byte("again"), 0) // used
	cachetest.Set(t, m, "d", []byte("d"), 0)     // for c
	cachetest.CheckMiss(t, m, "c")
	for key, value := range map[string]string{"a": "a", "b": "again", "d": "d"} {
		cachetest.Check(t, m, key, []byte(value))
	}
	for i := range 10_000 {
		cachetest.Set(t, m, fmt.Sprint(i), nil, time.Hour)
	}
	if n := m.Len(); n != 3 {
		t.Errorf("%d values are kept, want 3", n)
	}
}

func TestMemoryKeepsEveryValueForItsOwnTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := cache.NewMemory(cache.MemoryOptions{TTL: 300 * time.Second})
		cachetest.Set(t, m, "own", []byte("v"), 3600*time.Second)
		cachetest.Set(t, m, "default", []byte("v"), 0)
		time.Sleep(300*time.Second - 1)
		cachetest.Check(t, m, "default", []byte("v"))
		time.Sleep(time.Nanosecond)
		cachetest.CheckMiss(t, m, "default")
		if _, ttl, err := m.Get(t.Context(), "own"); ttl != 3300*time.Second || err != nil {
			t.Errorf("own is kept for %v, %v; want 3300s", ttl, err)
		}
		time.Sleep(3300 * time.Second)
		cachetest.CheckMiss(t, m, "own")
	})
}

func TestMemorySweepsWhatExpired(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := cache.NewMemory(cache.MemoryOptions{})
		go func() { _ = m.Run(t.Context(), time.Minute) }()
		for i := range 100 {
			cachetest.Set(t, m, fmt.Sprint(i), nil, time.Duration(i%2+1)*90*time.Second)
		}
		cachetest.Set(t, m, "for ever", nil, 0)
		for _, want := range []int{101, 51, 1, 1} { // after 1, 2, 3, 4 minutes
			time.Sleep(time.Minute)
			synctest.Wait()
			if n := m.Len(); n != want {
				t.Errorf("%d values are kept, want %d", n, want)
			}
		}
	})
}

func TestNoneKeepsNothing(t *testing.T) {
	c := cache.None{}
	cachetest.Set(t, c, "k", []byte("v"), 0)
	cachetest.CheckMiss(t, c, "k")
	if err := c.Delete(t.Context(), "k"); err != nil {
		t.Error(err)
	}
}
