package cache

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"sockudo/internal/backoff"
)

// errLate says that the cache is still the one in memory.
var errLate = errors.New("cache: its server could not be reached since the start, memory stands in")

// maxTouched bounds the keys that a Late cache remembers. Those beyond keep
// what the server has until it expires.
const maxTouched = 100_000

// A Late cache is in memory until the server of the one that it stands in for
// can be reached for the first time, and is that one from then on. What memory
// has is not taken along: of what was written meanwhile, the server forgets
// its older values.
type Late struct {
	memory *Memory
	open   func(ctx context.Context) (Cache, error)
	log    *slog.Logger
	opened atomic.Pointer[Cache]

	mu      sync.Mutex // guards what follows
	touched map[string]bool
}

// NewLate returns a cache that is m until Run has made the real one with open.
func NewLate(m *Memory, open func(ctx context.Context) (Cache, error), log *slog.Logger) *Late {
	return &Late{memory: m, open: open, log: log.With("component", "cache"), touched: map[string]bool{}}
}

// Run tries to reach the server until it can or ctx is done.
func (l *Late) Run(ctx context.Context) error {
	err := backoff.Retry(ctx, backoff.Policy{First: 100 * time.Millisecond, Max: 5 * time.Second}, func(ctx context.Context) error {
		c, err := l.open(ctx)
		if err != nil {
			return err
		}
		return l.switchTo(ctx, c)
	}, func(err error, _ time.Duration) { l.log.Debug("cache not reached", "err", err) })
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// switchTo makes c the cache.
func (l *Late) switchTo(ctx context.Context, c Cache) error {
	if err := l.forget(ctx, c); err != nil {
		if closer, ok := c.(interface{ Close() }); ok {
			closer.Close()
		}
		return err
	}
	l.opened.Store(&c)
	l.log.Info("cache is reached, memory no longer stands in")
	if err := l.forget(ctx, c); err != nil { // what was touched meanwhile
		l.log.Warn("older values not removed from the cache", "err", err)
	}
	return nil
}

// forget deletes in c what was written here.
func (l *Late) forget(ctx context.Context, c Cache) error {
	l.mu.Lock()
	touched := l.touched
	l.touched = map[string]bool{}
	l.mu.Unlock()
	for key := range touched {
		if err := c.Delete(ctx, key); err != nil {
			l.mu.Lock()
			for key := range touched {
				l.touched[key] = true
			}
			l.mu.Unlock()
			return err
		}
	}
	return nil
}

// now returns the cache to use. changed is the key that is about to be
// written, or "".
func (l *Late) now(changed string) Cache {
	if c := l.opened.Load(); c != nil {
		return *c
	}
	if changed != "" {
		l.mu.Lock()
		if len(l.touched) < maxTouched {
			l.touched[changed] = true
		}
		l.mu.Unlock()
	}
	return l.memory
}

// Reached reports whether the server's cache is in use, and not memory.
func (l *Late) Reached() bool { return l.opened.Load() != nil }

// Get returns a value; see Cache.
func (l *Late) Get(ctx context.Context, key string) ([]byte, time.Duration, error) {
	return l.now("").Get(ctx, key)
}

// Set keeps a value; see Cache.
func (l *Late) Set(ctx context.Context, key string, value []byte, ttl time.Duration) error {
	return l.now(key).Set(ctx, key, value, ttl)
}

// Delete forgets a value; see Cache.
func (l *Late) Delete(ctx context.Context, key string) error { return l.now(key).Delete(ctx, key) }

// Ping asks the server, and fails as long as there is none.
func (l *Late) Ping(ctx context.Context) error {
	c := l.opened.Load()
	if c == nil {
		return errLate
	}
	if p, ok := (*c).(Pinger); ok {
		return p.Ping(ctx)
	}
	return nil
}

// Close closes the server's cache if there is one.
func (l *Late) Close() {
	if c := l.opened.Load(); c != nil {
		if closer, ok := (*c).(interface{ Close() }); ok {
			closer.Close()
		}
	}
}
