package rediscache

import "sync"

const (
	maxOwed   = 100_000 // keys; those beyond keep what the server has until it expires
	owedBatch = 500
)

// owed are the keys whose last write failed: the server may have an older
// value, which nobody must get, and is to delete it.
type owed struct {
	most     int        // keys
	settling sync.Mutex // held by the one who deletes

	mu       sync.Mutex        // guards what follows
	change   uint64            // the writes so far
	failed   map[string]uint64 // the newest write of a key, which failed
	going    map[string]int    // writes that go on
	deleting map[string]bool   // keys that are being deleted
	round    chan struct{}     // closed when that is done
}

func (o *owed) init(most int) {
	o.most, o.failed, o.going = most, map[string]uint64{}, map[string]int{}
}

// begin returns the number of a write, which ends with end. Those of one key
// reach the server in the order of their numbers. A write that begins while
// its key is being deleted waits, or it would be deleted too.
func (o *owed) begin(key string) uint64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	for o.deleting[key] {
		round := o.round
		o.mu.Unlock()
		<-round
		o.mu.Lock()
	}
	o.change++
	o.going[key]++
	return o.change
}

func (o *owed) end(key string, change uint64, ok bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.going[key]--; o.going[key] == 0 {
		delete(o.going, key)
	}
	failed, there := o.failed[key]
	switch {
	case ok && there && failed < change:
		delete(o.failed, key)
	case !ok && (there || len(o.failed) < o.most):
		o.failed[key] = max(failed, change)
	}
}

func (o *owed) has(key string) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	_, there := o.failed[key]
	return there
}

// take reports whether there is something to delete and nobody else does it.
// Who takes gives.
func (o *owed) take() bool {
	o.mu.Lock()
	n := len(o.failed)
	o.mu.Unlock()
	return n > 0 && o.settling.TryLock()
}

func (o *owed) give() { o.settling.Unlock() }

// batch returns keys to delete; settled must follow. Those that are being
// written are left out: if that works, nothing is owed.
func (o *owed) batch() []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	var keys []string
	o.deleting, o.round = map[string]bool{}, make(chan struct{})
	for key := range o.failed {
		if len(keys) == owedBatch {
			break
		}
		if o.going[key] == 0 {
			keys = append(keys, key)
			o.deleting[key] = true
		}
	}
	return keys
}

// settled ends a batch; these of its keys were deleted.
func (o *owed) settled(deleted []string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, key := range deleted {
		delete(o.failed, key)
	}
	o.deleting = nil
	close(o.round)
}
