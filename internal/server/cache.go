package server

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"sockudo/internal/backoff"
	"sockudo/internal/cache"
	"sockudo/internal/cache/rediscache"
	"sockudo/internal/config"
)

// cachePatience is how long a start waits for the server of the cache before
// it goes on without (configuration section 14.2).
const cachePatience = 5 * time.Second

// openCache returns the cache of the settings and what must run as long as it
// is used. Close what run has ended with closeCache.
func openCache(ctx context.Context, cfg *config.Config, log *slog.Logger) (c cache.Cache, run func(context.Context) error, err error) {
	idle := func(context.Context) error { return nil }
	switch cfg.Cache.Driver {
	case "none":
		return cache.None{}, idle, nil
	case "memory":
		m := memoryCache(cfg)
		return m, func(ctx context.Context) error { return m.Run(ctx, cfg.Cache.Memory.CleanupInterval.Duration()) }, nil
	}
	open, err := redisCache(cfg, log)
	if err != nil {
		return nil, nil, err
	}
	patient, cancel := context.WithTimeout(ctx, cachePatience)
	defer cancel()
	err = backoff.Retry(patient, backoff.Policy{Max: time.Second}, func(ctx context.Context) (err error) {
		c, err = open(ctx)
		return err
	}, nil)
	switch {
	case err == nil:
		return c, idle, nil
	case ctx.Err() != nil:
		return nil, nil, err
	}
	log.Error("cache is not reached, memory stands in and the server goes on trying", "component", "cache", "driver", cfg.Cache.Driver, "err", err)
	late := cache.NewLate(memoryCache(cfg), open, log)
	return late, late.Run, nil
}

// openSharedCache returns the cache in Redis that the settings name, without
// anything that stands in for it. Close it with closeCache.
func openSharedCache(ctx context.Context, cfg *config.Config, log *slog.Logger) (cache.Cache, error) {
	open, err := redisCache(cfg, log)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, cachePatience)
	defer cancel()
	return open(ctx)
}

// redisCache returns what connects to the Redis of the cache.
func redisCache(cfg *config.Config, log *slog.Logger) (func(ctx context.Context) (cache.Cache, error), error) {
	e, err := cfg.CacheRedisEndpoint()
	if err != nil {
		return nil, fmt.Errorf("cache: %w", err)
	}
	return func(ctx context.Context) (cache.Cache, error) {
		c, err := rediscache.Open(ctx, redisEndpoint(e), rediscache.Options{Prefix: cfg.CachePrefix(), Log: log})
		if err != nil {
			return nil, err // and no nil pointer that is a cache
		}
		return c, nil
	}, nil
}

func closeCache(c cache.Cache) {
	if c, ok := c.(interface{ Close() }); ok {
		c.Close()
	}
}

func memoryCache(cfg *config.Config) *cache.Memory {
	return cache.NewMemory(cache.MemoryOptions{
		TTL:      cfg.Cache.Memory.TTL.Duration(),
		Capacity: int(min(cfg.Cache.Memory.MaxCapacity, 1<<31)),
	})
}
