package app

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
)

// A Memory store keeps apps in this process. Looking up takes no lock.
type Memory struct {
	defaults Defaults
	mu       sync.Mutex // held by writers
	apps     atomic.Pointer[memoryApps]
}

type memoryApps struct {
	byID  map[string]*App
	byKey map[string]*App
}

// NewMemory returns an empty store whose apps inherit the limits of d.
func NewMemory(d Defaults) *Memory {
	m := &Memory{defaults: d}
	m.apps.Store(&memoryApps{})
	return m
}

// ByID returns an app or ErrNotFound.
func (m *Memory) ByID(_ context.Context, id string) (*App, error) {
	return found(m.apps.Load().byID[id])
}

// ByKey returns an app or ErrNotFound.
func (m *Memory) ByKey(_ context.Context, key string) (*App, error) {
	return found(m.apps.Load().byKey[key])
}

func found(a *App) (*App, error) {
	if a == nil {
		return nil, ErrNotFound
	}
	return a, nil
}

// List yields all apps in order of id.
func (m *Memory) List(_ context.Context, yield func(*App) bool) error {
	all := slices.SortedFunc(maps.Values(m.apps.Load().byID), func(a, b *App) int { return cmp.Compare(a.ID, b.ID) })
	for _, a := range all {
		if !yield(a) {
			break
		}
	}
	return nil
}

// Create adds an app; ErrExists when its id or key is taken.
func (m *Memory) Create(_ context.Context, a *App) error {
	return m.change(func(next *memoryApps) error {
		if next.byID[a.ID] != nil || next.byKey[a.Key] != nil {
			return ErrExists
		}
		m.put(next, a)
		return nil
	})
}

// Update replaces an app; ErrNotFound when it is not there and ErrExists when
// its new key is another app's.
func (m *Memory) Update(_ context.Context, a *App) error {
	return m.change(func(next *memoryApps) error {
		if next.byID[a.ID] == nil {
			return ErrNotFound
		}
		return m.replace(next, a)
	})
}

// Upsert adds or replaces an app; ErrExists when its key is another app's.
func (m *Memory) Upsert(_ context.Context, a *App) error {
	return m.change(func(next *memoryApps) error { return m.replace(next, a) })
}

// Delete removes an app; ErrNotFound when it is not there.
func (m *Memory) Delete(_ context.Context, id string) error {
	return m.change(func(next *memoryApps) error {
		old := next.byID[id]
		if old == nil {
			return ErrNotFound
		}
		delete(next.byID, id)
		delete(next.byKey, old.Key)
		return nil
	})
}

// Ping returns nil: memory is always there.
func (m *Memory) Ping(context.Context) error { return nil }

// Any reports whether there is an app.
func (m *Memory) Any(context.Context) (bool, error) { return len(m.apps.Load().byID) > 0, nil }

func (m *Memory) replace(next *memoryApps, a *App) error {
	if other := next.byKey[a.Key]; other != nil && other.ID != a.ID {
		return ErrExists
	}
	if old := next.byID[a.ID]; old != nil {
		delete(next.byKey, old.Key)
	}
	m.put(next, a)
	return nil
}

func (m *Memory) put(next *memoryApps, a *App) {
	own := *a
	Prepare(&own, m.defaults)
	next.byID[own.ID], next.byKey[own.Key] = &own, &own
}

// change lets edit work on a copy that readers see only when it succeeded.
func (m *Memory) change(edit func(next *memoryApps) error) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	old := m.apps.Load()
	next := &memoryApps{byID: map[string]*App{}, byKey: map[string]*App{}}
	maps.Copy(next.byID, old.byID)
	maps.Copy(next.byKey, old.byKey)
	if err := edit(next); err != nil {
		return err
	}
	m.apps.Store(next)
	return nil
}
