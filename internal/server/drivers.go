package server

import (
	"errors"
	"fmt"

	"sockudo/internal/cache"
	"sockudo/internal/config"
)

// notBuilt says that a setting asks for something that this version cannot do.
func notBuilt(key, value string) error {
	return fmt.Errorf("%s: %q is not built into this version of sockudo", key, value)
}

// checkBuilt refuses settings whose drivers this version does not have, all at
// once, rather than to run without what they promise.
func checkBuilt(cfg *config.Config) error {
	var errs []error
	refuse := func(key, value string, built ...string) {
		for _, b := range built {
			if value == b {
				return
			}
		}
		errs = append(errs, notBuilt(key, value))
	}
	refuse("adapter.driver", cfg.Adapter.Driver, "local")
	refuse("app_manager.driver", cfg.AppManager.Driver, "memory")
	refuse("cache.driver", cfg.Cache.Driver, "memory", "none")
	refuse("queue.driver", cfg.Queue.Driver, "memory", "none")
	if cfg.RateLimiter.Enabled {
		errs = append(errs, notBuilt("rate_limiter.enabled", "true"))
	}
	if cfg.SSL.Enabled && cfg.SSL.RedirectHTTP {
		errs = append(errs, notBuilt("ssl.redirect_http", "true"))
	}
	if cfg.SSL.Enabled && cfg.SSL.Passphrase != "" {
		errs = append(errs, notBuilt("ssl.passphrase", "***"))
	}
	return errors.Join(errs...)
}

func openCache(cfg *config.Config) (cache.Cache, *cache.Memory) {
	if cfg.Cache.Driver == "none" {
		return cache.None{}, nil
	}
	m := cache.NewMemory(cache.MemoryOptions{
		TTL:      cfg.Cache.Memory.TTL.Duration(),
		Capacity: int(min(cfg.Cache.Memory.MaxCapacity, 1<<31)),
	})
	return m, m
}
