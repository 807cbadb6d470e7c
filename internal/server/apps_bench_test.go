package server_test

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"

	"sockudo/internal/app"
	"sockudo/internal/app/apptest"
	"sockudo/internal/cache/rediscache"
	"sockudo/internal/config"
	"sockudo/internal/server"
	"sockudo/internal/servicetest"
)

// BenchmarkLookup is what a connecting client waits for: its app, one of
// 10,000, from each place where it may be found.
func BenchmarkLookup(b *testing.B) {
	const apps = 10_000
	keys := make([]string, apps)
	for i := range keys {
		keys[i] = fmt.Sprintf("app-%d-key", i)
	}
	shared, err := rediscache.Open(b.Context(), servicetest.RedisEndpoint(b), rediscache.Options{Prefix: b.Name() + b.TempDir()})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(shared.Close)
	for _, s := range everyStore(b) {
		cfg := config.Default()
		s.set(b, cfg, s.addr)
		store, err := server.OpenApps(b.Context(), cfg, slog.New(slog.DiscardHandler))
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(store.Close)
		fill(b, store, apps)
		list(b, app.NewCached(store, app.StandardDefaults(), app.CachedOptions{Cache: shared}))
		for _, where := range []struct {
			name  string
			store interface {
				app.Store
				app.Editor
			}
		}{
			{"store", store},
			// It has room for so few apps that it always asks Redis.
			{"redis", app.NewCached(store, app.StandardDefaults(), app.CachedOptions{Cache: shared, Capacity: 1})},
			{"cached", app.NewCached(store, app.StandardDefaults(), app.CachedOptions{})},
		} {
			b.Run(s.driver+"/"+where.name, func(b *testing.B) {
				find := func(key string) {
					if _, err := where.store.ByKey(context.Background(), key); err != nil {
						b.Error(err)
					}
				}
				// In one sweep: a node asks for an app again after 5 s.
				list(b, where.store)
				var worker atomic.Int64
				b.ReportAllocs()
				b.ResetTimer()
				b.RunParallel(func(pb *testing.PB) {
					for i := worker.Add(1) * 7919; pb.Next(); i++ {
						find(keys[i%apps])
					}
				})
			})
		}
	}
}

func list(b *testing.B, store app.Editor) {
	b.Helper()
	if err := store.List(b.Context(), func(*app.App) bool { return true }); err != nil {
		b.Fatal(err)
	}
}

func fill(b *testing.B, store app.Editor, n int) {
	b.Helper()
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			for i := w; i < n; i += 8 {
				if err := store.Create(b.Context(), apptest.Plain(fmt.Sprintf("app-%d", i))); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
}
