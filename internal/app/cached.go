package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"sockudo/internal/backoff"
)

// A Cache keeps the records of apps for all nodes; package cache has them. An
// error of Get stands for a miss.
type Cache interface {
	Get(ctx context.Context, key string) (value []byte, ttl time.Duration, err error)
	Set(ctx context.Context, key string, value []byte, ttl time.Duration) error
	Delete(ctx context.Context, key string) error
}

// A Backend is a store with everything that Cached passes on.
type Backend interface {
	Store
	Editor
	Pinger
}

// CachedOptions are the parts of a caching store that have a default.
type CachedOptions struct {
	// Cache is shared with other nodes; nil: there is none. It holds secrets.
	Cache Cache
	TTL   time.Duration // of what is in Cache; 0: its own default
	// Local is how long this process uses an app without asking the cache, and
	// so how late it sees what another node changed; 0: 5 s, the longest that
	// is allowed.
	Local       time.Duration
	NegativeTTL time.Duration // how long an unknown id or key is remembered; 0: not at all
	Capacity    int           // apps that this process keeps; 0: 20,000
	// Stale is how long an app goes on working when neither cache nor store
	// can be asked; 0: 24 h.
	Stale   time.Duration
	Timeout time.Duration // of one lookup with all its parts; 0: 3 s
	Log     *slog.Logger  // nil: nothing is logged
}

const (
	defaultLocal    = 5 * time.Second
	defaultCapacity = 20_000
	defaultStale    = 24 * time.Hour
	defaultTimeout  = 3 * time.Second
	staleFor        = time.Second // how long an app is used before the store is asked again that was down
	negatives       = 10_000      // ids, and as many keys, that are known not to exist
)

// Cached is a store in front of another. Known apps are found in this process
// without a lock, then in the shared cache, then in the store, by one caller
// per id or key at a time. An app that could not be read again because the
// store is down goes on working; a new one is ErrUnavailable at once.
//
// Locks: none is held while the cache or the store is asked.
type Cached struct {
	store    Backend
	defaults Defaults
	opts     CachedOptions
	log      *slog.Logger

	ids, keys             *table[*App]
	unknownID, unknownKey *table[struct{}]
	flights               flights
	breaker               *backoff.Breaker
	// changes counts what was changed through this store. A lookup that began
	// before a change must not leave behind what it found.
	changes atomic.Uint64
}

// NewCached returns a caching store in front of store, whose apps inherit the
// limits of d.
func NewCached(store Backend, d Defaults, opts CachedOptions) *Cached {
	if opts.Local <= 0 || opts.Local > defaultLocal {
		opts.Local = defaultLocal
	}
	if opts.Capacity <= 0 {
		opts.Capacity = defaultCapacity
	}
	if opts.Stale <= 0 {
		opts.Stale = defaultStale
	}
	if opts.Timeout <= 0 {
		opts.Timeout = defaultTimeout
	}
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	return &Cached{
		store: store, defaults: d, opts: opts, log: opts.Log.With("component", "apps"),
		ids: newTable[*App](opts.Capacity), keys: newTable[*App](opts.Capacity),
		unknownID: newTable[struct{}](negatives), unknownKey: newTable[struct{}](negatives),
		breaker: backoff.NewBreaker(backoff.Policy{First: 250 * time.Millisecond, Max: 5 * time.Second}, opts.Timeout),
	}
}

// by is one of the two ways to look up an app.
type by struct {
	prefix  string // of the keys in the cache
	known   *table[*App]
	unknown *table[struct{}]
	find    func(ctx context.Context, name string) (*App, error)
	name    func(a *App) string
}

func (c *Cached) byID() by {
	return by{"app:id:", c.ids, c.unknownID, c.store.ByID, func(a *App) string { return a.ID }}
}

func (c *Cached) byKey() by {
	return by{"app:key:", c.keys, c.unknownKey, c.store.ByKey, func(a *App) string { return a.Key }}
}

// ByID returns an app; see Store.
func (c *Cached) ByID(ctx context.Context, id string) (*App, error) {
	now := time.Now()
	if e := c.ids.get(id, now); e != nil && now.Before(e.until) {
		return e.value, nil
	}
	return c.look(ctx, c.byID(), id, now)
}

// ByKey returns an app; see Store.
func (c *Cached) ByKey(ctx context.Context, key string) (*App, error) {
	now := time.Now()
	if e := c.keys.get(key, now); e != nil && now.Before(e.until) {
		return e.value, nil
	}
	return c.look(ctx, c.byKey(), key, now)
}

func (c *Cached) look(ctx context.Context, way by, name string, now time.Time) (*App, error) {
	if !ValidName(name) {
		return nil, ErrNotFound
	}
	if e := way.unknown.get(name, now); e != nil && now.Before(e.until) {
		return nil, ErrNotFound
	}
	return c.flights.do(ctx, way.prefix+name, func(ctx context.Context) (*App, error) {
		ctx, cancel := context.WithTimeout(ctx, c.opts.Timeout)
		defer cancel()
		// Whoever came before may just have found it.
		if e := way.known.get(name, now); e != nil && now.Before(e.until) {
			return e.value, nil
		}
		changes := c.changes.Load()
		if a := c.fromCache(ctx, way, name); a != nil {
			c.keep(a, changes)
			return a, nil
		}
		return c.fromStore(ctx, way, name, changes)
	})
}

// fromCache returns an app of the shared cache, nil if it has none that can be used.
func (c *Cached) fromCache(ctx context.Context, way by, name string) *App {
	if c.opts.Cache == nil {
		return nil
	}
	raw, _, err := c.opts.Cache.Get(ctx, way.prefix+name)
	if err != nil {
		return nil
	}
	a, problems, err := UnmarshalRecord(raw)
	if err != nil || a == nil || len(problems) > 0 || way.name(a) != name {
		c.log.Warn("cached app is malformed, reading it again", "cache_key", way.prefix+name)
		return nil
	}
	for _, err := range Prepare(a, c.defaults) {
		c.log.Debug("origin left out", "app_id", a.ID, "err", err) // the store has warned of it
	}
	return a
}

func (c *Cached) fromStore(ctx context.Context, way by, name string, changes uint64) (*App, error) {
	ticket, ok := c.breaker.Allow()
	if !ok {
		return c.stale(way, name, ErrUnavailable)
	}
	a, err := way.find(ctx, name)
	switch {
	case err == nil:
		c.answered()
		c.loaded(way, a)
		c.fill(ctx, a, changes)
		return a, nil
	case errors.Is(err, ErrNotFound):
		c.answered()
		c.forget(ctx, way, name, changes)
		return nil, ErrNotFound
	}
	if c.breaker.Failed(ticket) {
		c.log.Error("app store does not answer; known apps go on working", "err", err)
	}
	if !errors.Is(err, ErrUnavailable) {
		err = fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return c.stale(way, name, err)
}

func (c *Cached) answered() {
	if c.breaker.Answered() {
		c.log.Info("app store answers again")
	}
}

func (c *Cached) loaded(way by, a *App) {
	if way.known.get(way.name(a), time.Now()) == nil {
		c.log.Debug("app loaded", "app_id", a.ID, "limits", a.Limits)
	}
}

// stale returns what was known of an app before the store went down, else err.
func (c *Cached) stale(way by, name string, err error) (*App, error) {
	now := time.Now()
	e := way.known.get(name, now)
	if e == nil || !now.Before(e.stale) {
		return nil, err
	}
	way.known.put(name, e.value, now, now.Add(staleFor), e.stale)
	return e.value, nil
}

// fill puts an app that the store had into the shared cache and this process.
//
// Another process may have changed the app after it was read, and removed it
// from the cache before it was shared: all nodes would use it for as long as
// the cache keeps it. So the store is asked once more. Whoever changes the app
// after that removes it after that too.
func (c *Cached) fill(ctx context.Context, a *App, changes uint64) {
	if !c.fillUnchecked(ctx, a, changes) {
		return
	}
	if now, err := c.store.ByID(ctx, a.ID); err != nil || !Same(a, now) {
		c.drop(ctx, a)
	}
}

// fillUnchecked reports whether the shared cache has the app now.
func (c *Cached) fillUnchecked(ctx context.Context, a *App, changes uint64) (shared bool) {
	c.dropOldKey(ctx, a)
	shared = c.share(ctx, a)
	c.keep(a, changes)
	if c.changes.Load() != changes {
		c.unshare(ctx, a)
		return false
	}
	return shared
}

// dropOldKey forgets the key under which this process knew an app, if it has
// another one now.
func (c *Cached) dropOldKey(ctx context.Context, a *App) {
	if e := c.ids.get(a.ID, time.Now()); e != nil && e.value.Key != a.Key {
		c.keys.delete(e.value.Key)
		c.uncache(ctx, c.byKey(), e.value.Key)
	}
}

// keep lets this process find a.
func (c *Cached) keep(a *App, changes uint64) {
	now := time.Now()
	until := now.Add(c.opts.Local)
	stale := until.Add(c.opts.Stale)
	c.ids.put(a.ID, a, now, until, stale)
	c.keys.put(a.Key, a, now, until, stale)
	c.unknownID.delete(a.ID)
	c.unknownKey.delete(a.Key)
	if c.changes.Load() != changes {
		c.ids.delete(a.ID)
		c.keys.delete(a.Key)
	}
}

// forget notes that there is no such app (any more).
func (c *Cached) forget(ctx context.Context, way by, name string, changes uint64) {
	now := time.Now()
	if e := way.known.get(name, now); e != nil {
		c.drop(ctx, e.value)
	}
	if c.opts.NegativeTTL > 0 {
		way.unknown.put(name, struct{}{}, now, now.Add(c.opts.NegativeTTL), time.Time{})
		if c.changes.Load() != changes { // it may have been created meanwhile
			way.unknown.delete(name)
		}
	}
}

// drop removes an app from this process and from the shared cache.
func (c *Cached) drop(ctx context.Context, a *App) {
	c.ids.delete(a.ID)
	c.keys.delete(a.Key)
	c.unshare(ctx, a)
}

// share reports whether the shared cache has the app now, under one of its names at least.
func (c *Cached) share(ctx context.Context, a *App) bool {
	if c.opts.Cache == nil {
		return false
	}
	record, shared := MarshalRecord(a), false
	for _, way := range []by{c.byID(), c.byKey()} {
		if err := c.opts.Cache.Set(ctx, way.prefix+way.name(a), record, c.opts.TTL); err != nil {
			c.log.Debug("app not cached", "app_id", a.ID, "err", err)
			return shared
		}
		shared = true
	}
	return shared
}

func (c *Cached) unshare(ctx context.Context, a *App) {
	c.uncache(ctx, c.byID(), a.ID)
	c.uncache(ctx, c.byKey(), a.Key)
}

func (c *Cached) uncache(ctx context.Context, way by, name string) {
	if c.opts.Cache == nil {
		return
	}
	if err := c.opts.Cache.Delete(ctx, way.prefix+name); err != nil {
		// Other nodes may go on using the old record until it expires.
		c.log.Warn("app not removed from the cache", "cache_key", way.prefix+name, "err", err)
	}
}
