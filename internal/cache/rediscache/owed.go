package rediscache

import (
	"iter"
	"slices"
	"sync"
)

const (
	maxOwed   = 100_000 // keys; those beyond keep what the server has until it expires
	owedBatch = 500
)

// owed are the keys whose last write failed: the server may have an older
// value, which nobody must get, and is to delete it.
type owed struct {
	settling sync.Mutex // held by the one who deletes

	mu     sync.Mutex // guards what follows
	change uint64     // the writes so far
	keys   map[string]uint64
}

// begin returns the number of a write. Those of one key reach the server in
// the order of their numbers.
func (o *owed) begin() uint64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.change++
	return o.change
}

// end notes how a write ended.
func (o *owed) end(key string, change uint64, ok bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	failed, there := o.keys[key]
	switch {
	case ok && there && failed <= change:
		delete(o.keys, key)
	case !ok && (there || len(o.keys) < maxOwed):
		o.keys[key] = max(failed, change)
	}
}

func (o *owed) has(key string) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	_, there := o.keys[key]
	return there
}

// take reports whether there is something to delete and nobody else does it.
// Who takes gives.
func (o *owed) take() bool {
	o.mu.Lock()
	n := len(o.keys)
	o.mu.Unlock()
	return n > 0 && o.settling.TryLock()
}

func (o *owed) give() { o.settling.Unlock() }

// batches yields the keys that are there now.
func (o *owed) batches() iter.Seq[[]string] {
	o.mu.Lock()
	all := make([]string, 0, len(o.keys))
	for key := range o.keys {
		all = append(all, key)
	}
	o.mu.Unlock()
	return slices.Chunk(all, owedBatch)
}
