package cache_test

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"sockudo/internal/cache"
	"sockudo/internal/cache/cachetest"
)

func TestLateContract(t *testing.T) {
	for name, there := range map[string]bool{"in memory": false, "at the server": true} {
		t.Run(name, func(t *testing.T) {
			cachetest.Run(t, func(t *testing.T) cache.Cache {
				l := cache.NewLate(cache.NewMemory(cache.MemoryOptions{}), func(context.Context) (cache.Cache, error) {
					return cache.NewMemory(cache.MemoryOptions{}), nil
				}, slog.New(slog.DiscardHandler))
				if there {
					if err := l.Run(t.Context()); err != nil {
						t.Fatal(err)
					}
					return l
				}
				return struct { // one that is well
					cache.Cache
					cache.Pinger
				}{l, cache.NewMemory(cache.MemoryOptions{})}
			})
		})
	}
}

func TestWhatWasWrittenMeanwhileIsForgottenByTheServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := cache.NewMemory(cache.MemoryOptions{})
		for _, key := range []string{"set", "deleted", "read"} {
			cachetest.Set(t, server, key, []byte("old"), 0)
		}
		opened := 0
		l := cache.NewLate(cache.NewMemory(cache.MemoryOptions{}), func(context.Context) (cache.Cache, error) {
			if opened++; opened < 4 {
				return nil, errors.New("refused")
			}
			return server, nil
		}, slog.New(slog.DiscardHandler))
		if err := l.Ping(t.Context()); err == nil {
			t.Error("memory stands in and all is well")
		}
		go func() { _ = l.Run(t.Context()) }()
		synctest.Wait()
		cachetest.CheckMiss(t, l, "read")
		cachetest.Set(t, l, "set", []byte("new"), time.Hour)
		cachetest.Check(t, l, "set", []byte("new"))
		if err := l.Delete(t.Context(), "deleted"); err != nil {
			t.Error(err)
		}
		time.Sleep(time.Minute)
		if err := l.Ping(t.Context()); err != nil || opened != 4 {
			t.Errorf("%v after %d attempts, want the server after 4", err, opened)
		}
		cachetest.CheckMiss(t, l, "set")
		cachetest.CheckMiss(t, server, "set")
		cachetest.CheckMiss(t, server, "deleted")
		cachetest.Check(t, l, "read", []byte("old"))
		cachetest.Set(t, l, "set", []byte("newer"), 0)
		cachetest.Check(t, server, "set", []byte("newer"))
	})
}

func TestALateCacheEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := cache.NewLate(cache.NewMemory(cache.MemoryOptions{}), func(context.Context) (cache.Cache, error) {
			return nil, errors.New("refused")
		}, slog.New(slog.DiscardHandler))
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Hour, cancel)
		if err := l.Run(ctx); err != nil {
			t.Error(err)
		}
		l.Close()
	})
}
