package app

import (
	"hash/maphash"
	"maps"
	"sync"
	"sync/atomic"
	"time"
)

// A table is a bounded map whose readers take no lock: each shard is a map
// that is never changed, only replaced. With 10,000 entries a replacement
// copies 160 of them, which is little next to the query that led to it.
type table[V any] struct {
	capacity int // per shard
	seed     maphash.Seed
	shards   [shards]shard[V]
}

const shards = 64

type shard[V any] struct {
	mu      sync.Mutex // held by writers
	entries atomic.Pointer[map[string]*entry[V]]
}

type entry[V any] struct {
	value V
	until time.Time    // fresh before
	stale time.Time    // to be used before, if nothing newer can be had
	used  atomic.Int64 // seconds of the clock at the last use
}

func newTable[V any](capacity int) *table[V] {
	t := &table[V]{capacity: max(1, (capacity+shards-1)/shards), seed: maphash.MakeSeed()}
	for i := range t.shards {
		t.shards[i].entries.Store(&map[string]*entry[V]{})
	}
	return t
}

func (t *table[V]) shard(name string) *shard[V] {
	return &t.shards[maphash.String(t.seed, name)%shards]
}

// get returns an entry, fresh or not, or nil.
func (t *table[V]) get(name string, now time.Time) *entry[V] {
	e := (*t.shard(name).entries.Load())[name]
	if e != nil {
		// Not at every use: readers on other processors share the line.
		if s := now.Unix(); e.used.Load() != s {
			e.used.Store(s)
		}
	}
	return e
}

// put sets an entry; a full shard forgets the one that was not used for the
// longest time.
func (t *table[V]) put(name string, value V, now, until, stale time.Time) {
	e := &entry[V]{value: value, until: until, stale: stale}
	e.used.Store(now.Unix())
	s := t.shard(name)
	s.mu.Lock()
	defer s.mu.Unlock()
	next := maps.Clone(*s.entries.Load())
	if next[name] == nil && len(next) >= t.capacity {
		delete(next, oldest(next))
	}
	next[name] = e
	s.entries.Store(&next)
}

func oldest[V any](entries map[string]*entry[V]) string {
	var name string
	var used int64
	for n, e := range entries {
		if u := e.used.Load(); name == "" || u < used {
			name, used = n, u
		}
	}
	return name
}

func (t *table[V]) delete(name string) {
	s := t.shard(name)
	s.mu.Lock()
	defer s.mu.Unlock()
	old := *s.entries.Load()
	if old[name] == nil {
		return
	}
	next := maps.Clone(old)
	delete(next, name)
	s.entries.Store(&next)
}

func (t *table[V]) clear() {
	for i := range t.shards {
		s := &t.shards[i]
		s.mu.Lock()
		s.entries.Store(&map[string]*entry[V]{})
		s.mu.Unlock()
	}
}

// len counts all entries.
func (t *table[V]) len() int {
	n := 0
	for i := range t.shards {
		n += len(*t.shards[i].entries.Load())
	}
	return n
}
