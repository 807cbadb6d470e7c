package app

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"
)

// A Memory store keeps apps in this process. Looking up takes no lock.
type Memory struct {
	defaults Defaults

	mu   sync.Mutex // held by writers
	ids  sync.Map   // of *App by id
	keys sync.Map   // of *App by key
	n    int
}

// NewMemory returns an empty store whose apps inherit the limits of d.
func NewMemory(d Defaults) *Memory { return &Memory{defaults: d} }

// ByID returns an app or ErrNotFound.
func (m *Memory) ByID(_ context.Context, id string) (*App, error) { return find(&m.ids, id) }

// ByKey returns an app or ErrNotFound.
func (m *Memory) ByKey(_ context.Context, key string) (*App, error) { return find(&m.keys, key) }

func find(apps *sync.Map, name string) (*App, error) {
	a, ok := apps.Load(name)
	if !ok {
		return nil, ErrNotFound
	}
	return a.(*App), nil
}

// List yields all apps in order of id.
func (m *Memory) List(_ context.Context, yield func(*App) bool) error {
	var all []*App
	for _, a := range m.ids.Range {
		all = append(all, a.(*App))
	}
	slices.SortFunc(all, func(a, b *App) int { return cmp.Compare(a.ID, b.ID) })
	for _, a := range all {
		if !yield(a) {
			break
		}
	}
	return nil
}

// Create adds an app; ErrExists when its id or key is taken.
func (m *Memory) Create(_ context.Context, a *App) error {
	return m.put(a, func(old *App) error {
		if old != nil {
			return ErrExists
		}
		return nil
	})
}

// Update replaces an app; see Editor.
func (m *Memory) Update(_ context.Context, was, next *App) error {
	return m.put(next, func(old *App) error {
		switch {
		case old == nil:
			return ErrNotFound
		case was != nil && !Same(was, old):
			return ErrChanged
		}
		return nil
	})
}

// Upsert adds or replaces an app; ErrExists when its key is another app's.
func (m *Memory) Upsert(_ context.Context, a *App) error {
	return m.put(a, func(*App) error { return nil })
}

// put stores a unless it is not valid, its key is another app's, or may
// returns an error for the app that has its id now, nil if there is none.
func (m *Memory) put(a *App, may func(old *App) error) error {
	if err := Validate(a); err != nil {
		return err
	}
	own := *a
	Prepare(&own, m.defaults)
	m.mu.Lock()
	defer m.mu.Unlock()
	old, _ := find(&m.ids, a.ID)
	if err := may(old); err != nil {
		return err
	}
	if other, _ := find(&m.keys, a.Key); other != nil && other.ID != a.ID {
		return ErrExists
	}
	if old == nil {
		m.n++
	}
	m.ids.Store(own.ID, &own)
	m.keys.Store(own.Key, &own)
	if old != nil && old.Key != own.Key {
		m.keys.Delete(old.Key)
	}
	return nil
}

// Delete removes an app; ErrNotFound when it is not there.
func (m *Memory) Delete(_ context.Context, id string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	old, err := find(&m.ids, id)
	if err != nil {
		return err
	}
	m.ids.Delete(id)
	m.keys.Delete(old.Key)
	m.n--
	return nil
}

// SetSecrets replaces the secrets of an app; see Editor.
func (m *Memory) SetSecrets(_ context.Context, was, next *App) error {
	if err := ValidateSecrets(next.Secret, next.PreviousSecret); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	old, err := find(&m.ids, next.ID)
	switch {
	case err != nil:
		return err
	case was != nil && !SameSecrets(was, old):
		return ErrChanged
	}
	own := *old
	own.Secret, own.PreviousSecret, own.PreviousUntil = next.Secret, next.PreviousSecret, next.PreviousUntil
	if own.PreviousSecret == "" {
		own.PreviousUntil = time.Time{}
	}
	m.ids.Store(own.ID, &own)
	m.keys.Store(own.Key, &own)
	return nil
}

// Ping returns nil: memory is always there.
func (m *Memory) Ping(context.Context) error { return nil }

// Any reports whether there is an app.
func (m *Memory) Any(context.Context) (bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.n > 0, nil
}
