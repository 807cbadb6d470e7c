package cache

import (
	"container/list"
	"context"
	"sync"
	"time"
)

// MemoryOptions are the parts of a memory cache that have a default.
type MemoryOptions struct {
	TTL      time.Duration // of entries set without one; 0: they do not expire
	Capacity int           // entries; 0: 10,000
}

// A Memory cache keeps values in this process. When it is full, the value that
// was not used for the longest time makes room.
type Memory struct {
	ttl      time.Duration
	capacity int

	mu      sync.Mutex // guards what follows
	entries map[string]*list.Element
	used    *list.List // of *entry, the last used first
}

type entry struct {
	key     string
	value   []byte
	expires time.Time // zero: never
}

// NewMemory returns an empty cache.
func NewMemory(opts MemoryOptions) *Memory {
	if opts.Capacity <= 0 {
		opts.Capacity = 10_000
	}
	return &Memory{ttl: opts.TTL, capacity: opts.Capacity, entries: map[string]*list.Element{}, used: list.New()}
}

// Get returns a value that has not expired.
func (m *Memory) Get(_ context.Context, key string) ([]byte, time.Duration, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	el := m.entries[key]
	if el == nil {
		return nil, 0, ErrMiss
	}
	e := el.Value.(*entry)
	if e.expires.IsZero() {
		m.used.MoveToFront(el)
		return e.value, 0, nil
	}
	left := time.Until(e.expires)
	if left <= 0 {
		m.drop(el)
		return nil, 0, ErrMiss
	}
	m.used.MoveToFront(el)
	return e.value, left, nil
}

// Set keeps a value.
func (m *Memory) Set(_ context.Context, key string, value []byte, ttl time.Duration) error {
	if ttl == 0 {
		ttl = m.ttl
	}
	e := &entry{key: key, value: value}
	if ttl > 0 {
		e.expires = time.Now().Add(ttl)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if el := m.entries[key]; el != nil {
		el.Value = e
		m.used.MoveToFront(el)
		return nil
	}
	if m.used.Len() >= m.capacity {
		m.drop(m.used.Back())
	}
	m.entries[key] = m.used.PushFront(e)
	return nil
}

// Delete forgets a value.
func (m *Memory) Delete(_ context.Context, key string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if el := m.entries[key]; el != nil {
		m.drop(el)
	}
	return nil
}

// Ping returns nil.
func (m *Memory) Ping(context.Context) error { return nil }

// Len returns how many values are kept, expired ones included until they are swept.
func (m *Memory) Len() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.used.Len()
}

// Sweep forgets all values that have expired by now.
func (m *Memory) Sweep(now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, el := range m.entries {
		if e := el.Value.(*entry); !e.expires.IsZero() && !now.Before(e.expires) {
			m.drop(el)
		}
	}
}

// Run sweeps every interval until ctx is done.
func (m *Memory) Run(ctx context.Context, interval time.Duration) error {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case now := <-tick.C:
			m.Sweep(now)
		}
	}
}

func (m *Memory) drop(el *list.Element) {
	m.used.Remove(el)
	delete(m.entries, el.Value.(*entry).key)
}
