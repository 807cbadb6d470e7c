package app

import (
	"context"
	"errors"
	"time"
)

// List lists the apps of the store and keeps as many as fit.
func (c *Cached) List(ctx context.Context, yield func(*App) bool) error {
	changes := c.changes.Load()
	kept := 0
	return c.store.List(ctx, func(a *App) bool {
		if kept < c.opts.Capacity {
			kept++
			c.fillUnchecked(ctx, a, changes) // a question for each would be too many
		}
		return yield(a)
	})
}

// Create adds an app to the store.
func (c *Cached) Create(ctx context.Context, a *App) error {
	return c.change(ctx, a.ID, a, func() error { return c.store.Create(ctx, a) })
}

// Update replaces an app of the store.
func (c *Cached) Update(ctx context.Context, was, next *App) error {
	return c.change(ctx, next.ID, next, func() error { return c.store.Update(ctx, was, next) })
}

// Upsert adds or replaces an app of the store.
func (c *Cached) Upsert(ctx context.Context, a *App) error {
	return c.change(ctx, a.ID, a, func() error { return c.store.Upsert(ctx, a) })
}

// Delete removes an app from the store.
func (c *Cached) Delete(ctx context.Context, id string) error {
	return c.change(ctx, id, nil, func() error { return c.store.Delete(ctx, id) })
}

// SetSecrets replaces the secrets of an app of the store.
func (c *Cached) SetSecrets(ctx context.Context, was, next *App) error {
	return c.change(ctx, next.ID, nil, func() error { return c.store.SetSecrets(ctx, was, next) })
}

// Forget makes the next look-up of an app ask the store, because another node
// has changed it there.
func (c *Cached) Forget(ctx context.Context, id string) {
	c.changes.Add(1)
	known := c.ids.get(id, time.Now())
	c.ids.delete(id)
	c.unknownID.delete(id)
	c.unknownKey.clear() // any of them may be its key now
	c.uncache(ctx, c.byID(), id)
	if known != nil {
		c.keys.delete(known.value.Key)
		c.uncache(ctx, c.byKey(), known.value.Key)
	}
}

// Ping asks the store.
func (c *Cached) Ping(ctx context.Context) error { return c.store.Ping(ctx) }

// Any asks the store.
func (c *Cached) Any(ctx context.Context) (bool, error) { return c.store.Any(ctx) }

// change makes a change of one app and drops what was known of it before, also
// under a key that it no longer has. next is the app after it, nil if that is
// not known.
func (c *Cached) change(ctx context.Context, id string, next *App, edit func() error) error {
	before := c.before(ctx, id)
	changes := c.changes.Load()
	if err := edit(); err != nil {
		if errors.Is(err, ErrUnavailable) || errors.Is(err, ErrChanged) {
			c.invalidate(ctx, id, before, next) // it may have happened nevertheless; what is known is outdated
		}
		return err
	}
	// With another change at the same time nobody knows which one was the last.
	if now := c.invalidate(ctx, id, before, next); next != nil && now == changes+1 {
		own := *next
		Prepare(&own, c.defaults)
		c.fill(ctx, &own, now)
	}
	return nil
}

// before returns what the store and this process know of an app; their keys
// may differ.
func (c *Cached) before(ctx context.Context, id string) []*App {
	var known []*App
	if e := c.ids.get(id, time.Now()); e != nil {
		known = append(known, e.value)
	}
	if !ValidName(id) {
		return known
	}
	if a, err := c.store.ByID(ctx, id); err == nil {
		known = append(known, a)
	}
	return known
}

// invalidate returns how many changes there have been with this one.
func (c *Cached) invalidate(ctx context.Context, id string, before []*App, next *App) uint64 {
	// From here on no lookup leaves behind what it read earlier.
	changes := c.changes.Add(1)
	// The caches must follow the store also when the caller has gone.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), c.opts.Timeout)
	defer cancel()
	for _, a := range before {
		c.keys.delete(a.Key)
		c.uncache(ctx, c.byKey(), a.Key)
	}
	c.ids.delete(id)
	c.uncache(ctx, c.byID(), id)
	c.unknownID.delete(id)
	if next != nil {
		c.unknownKey.delete(next.Key)
	}
	return changes
}
