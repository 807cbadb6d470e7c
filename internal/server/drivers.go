package server

import (
	"errors"
	"fmt"

	"sockudo/internal/config"
)

// notBuilt says that a setting asks for something that this version cannot do.
func notBuilt(key, value string) error {
	return &config.Error{Problems: []config.Notice{{Key: key, Text: fmt.Sprintf("%q is not built into this version of sockudo", value)}}}
}

// Check finds what New would refuse in settings that are right by themselves:
// what this version does not have, and certificates that cannot be used.
func Check(cfg *config.Config) []config.Notice {
	var found []config.Notice
	if joined, ok := checkBuilt(cfg).(interface{ Unwrap() []error }); ok {
		for _, err := range joined.Unwrap() {
			if e, ok := errors.AsType[*config.Error](err); ok {
				found = append(found, e.Problems...)
			}
		}
	}
	if len(found) == 0 && cfg.SSL.Enabled {
		if _, err := tlsConfig(cfg); err != nil {
			found = append(found, config.Notice{Key: "ssl.enabled", Text: err.Error()})
		}
	}
	return found
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
	refuse("app_manager.driver", cfg.AppManager.Driver, "memory", "mysql", "pgsql", "dynamodb")
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
