// Package directory is who is where in the whole cluster: one partition per
// node, the sum of those of the peers, and the differences between two states of
// it. It is pure state: it sends nothing, waits for nothing and has no clock.
//
// Own facts are set and the view is read by any number of goroutines. Drain,
// Snapshot and what changes the peers' partitions belong to one goroutine at a
// time, the one that replicates.
//
// Locks: shard.mu → Directory.mu. Both are leaves for everybody else: nothing
// outside of the package is called under them.
package directory

import (
	"strings"
	"sync"
	"sync/atomic"

	"github.com/cespare/xxhash/v2"
)

// shards is how many parts an app's channels are spread over, so that facts of
// different channels seldom meet at a lock.
const shards = 16

// A Directory is the own partition and those of the peers.
type Directory struct {
	apps    sync.Map      // id → *space
	changed chan struct{} // has room for one

	watched atomic.Bool

	mu          sync.Mutex // guards what follows
	dirty       []*shard   // with own changes to drain, each once
	transitions []Transition

	// Owned by the one who replicates.
	seq    uint64
	digest uint64
	sizes  Sizes
	peers  map[string]*partition
	slots  []bool // in use
}

// New returns an empty directory.
func New() *Directory {
	return &Directory{changed: make(chan struct{}, 1), peers: map[string]*partition{}}
}

// A Transition is a change of the sum of all partitions, the own one included:
// of the subscriptions to a channel, or of the connections of a member.
type Transition struct {
	App, Channel  string
	User          string // "": the channel
	Info          string // of a member who is there
	Before, After int
}

// A space is what is known of one app.
type space struct {
	app    string
	shards [shards]shard
}

type shard struct {
	space *space

	mu       sync.RWMutex // guards what follows
	own      map[string]*ownChannel
	ownUsers map[string]*ownValue
	channels map[string]*channel // of the peers
	users    map[string]*sum     // of the peers
	// Only in the first shard of an app.
	ownSockets ownValue
	sockets    sum

	queue []ownKey // what changed in the own partition and was not drained
}

// An ownValue is a fact of the own partition, and the one that peers were told.
type ownValue struct {
	n, told  int32
	queued   bool
	info     string
	toldInfo string
}

type ownChannel struct {
	ownValue
	members map[string]*ownValue
}

type ownKey struct {
	kind    Kind
	channel string
	user    string
}

// A channel is the sum of what the peers have of one.
type channel struct {
	sum
	members map[string]*sum // those with a connection
}

func (d *Directory) space(app string) *space {
	if s, ok := d.apps.Load(app); ok {
		return s.(*space)
	}
	s := &space{app: strings.Clone(app)}
	for i := range s.shards {
		s.shards[i].space = s
	}
	known, _ := d.apps.LoadOrStore(s.app, s)
	return known.(*space)
}

func (s *space) shard(name string) *shard { return &s.shards[xxhash.Sum64String(name)%shards] }

// lookup returns where a name of an app is kept, or nil when the app is unknown.
func (d *Directory) lookup(app, name string) *shard {
	s, ok := d.apps.Load(app)
	if !ok {
		return nil
	}
	return s.(*space).shard(name)
}

// Changed has an element when there may be something to drain or to take.
func (d *Directory) Changed() <-chan struct{} { return d.changed }

func (d *Directory) wake() {
	select {
	case d.changed <- struct{}{}:
	default:
	}
}

// Watch makes transitions be recorded from now on.
func (d *Directory) Watch() { d.watched.Store(true) }

// Transitions returns what was recorded since the last call, those of one
// channel in the order they happened.
func (d *Directory) Transitions() []Transition {
	d.mu.Lock()
	defer d.mu.Unlock()
	t := d.transitions
	d.transitions = nil
	return t
}

// record notes a change of the sum. The caller holds the lock of the channel's
// shard, which gives the order.
func (d *Directory) record(t Transition) {
	if t.Before == t.After || !d.watched.Load() {
		return
	}
	d.mu.Lock()
	d.transitions = append(d.transitions, t)
	d.mu.Unlock()
	d.wake()
}
