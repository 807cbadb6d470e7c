package server

import (
	"errors"
	"fmt"

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
	refuse("app_manager.driver", cfg.AppManager.Driver, "memory")
	if !cfg.Queue.Implied { // by a Redis that is there for something else
		refuse("queue.driver", cfg.Queue.Driver, "memory", "none")
	}
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
