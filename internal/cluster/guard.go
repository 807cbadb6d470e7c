package cluster

import (
	"fmt"
	"hash/maphash"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"sockudo/internal/metrics"
)

// A refusal says why an envelope was not taken; "" stands for taken. The words
// are values of a metric's label.
type refusal string

const (
	refusedMalformed refusal = "malformed" // no envelope, cut off, or a body that is none
	refusedVersion   refusal = "version"   // of a version or kind that this one does not know
	refusedCluster   refusal = "cluster"   // of another cluster
	refusedUnsigned  refusal = "unsigned"  // without a signature
	refusedSigned    refusal = "signed"    // with one, but this node has no secret
	refusedSignature refusal = "signature" // with a wrong one
	refusedStale     refusal = "stale"     // signed, but sent too long ago or in the future
	refusedReplayed  refusal = "replayed"  // seen before
	refusedEpoch     refusal = "epoch"     // of a process that has been followed by another, or has left
	refusedMisrouted refusal = "misrouted" // on a topic where it does not belong
	refusedCrowd     refusal = "crowd"     // of one node more than there may be

	// Two are no reason to complain: a bus returns what its node published, and on
	// other topics something may be slower than the goodbye, or than the same that
	// was said again.
	own  refusal = "own"
	late refusal = "late"
)

// advice tells the operator what to do about a refusal.
var advice = map[refusal]string{
	refusedMalformed: "something that is no sockudo node of this version publishes on the topics of this cluster; give the cluster a prefix of its own",
	refusedVersion:   "a node of another version is in this cluster; run the same version everywhere",
	refusedCluster:   "another cluster uses the same prefix on this broker; give each cluster a prefix of its own",
	refusedUnsigned:  "a node without a secret uses the same prefix on this broker; give all nodes of a cluster the same secret and other clusters another prefix",
	refusedSigned:    "a node with a secret uses the same prefix on this broker; give all nodes of a cluster the same secret and other clusters another prefix",
	refusedSignature: "a node with another secret uses the same prefix on this broker, or somebody forges; give all nodes of a cluster the same secret and other clusters another prefix",
	refusedStale:     "the clocks of the nodes differ by minutes, or somebody replays; set the clocks by NTP",
	refusedReplayed:  "the broker delivered an envelope twice, or somebody replays",
	refusedEpoch:     "a process that has been replaced or has left is still heard; no two processes may have the same node id",
	refusedMisrouted: "an envelope came on a topic where it does not belong; somebody else publishes on the topics of this cluster",
	refusedCrowd:     "more nodes than a cluster may have were heard",
}

const (
	// freshness bounds the age of what is signed, and how long the numbers of a
	// silent source are remembered: older replays are too old.
	freshness = 5 * time.Minute
	// maxSources bounds the nodes that are remembered.
	maxSources = 8192
	// maxLogged bounds the sources that were complained about.
	maxLogged = 256
	// windowBits is by how much the numbers of one sender may overtake each
	// other on different topics before they look like replays: 128 KiB per node.
	windowBits = 1 << 20
)

// A guard seals what this node sends and judges what it receives.
type guard struct {
	sealer
	cluster string
	node    string
	epoch   uint64
	window  uint64 // bits
	timeout time.Duration
	numbers atomic.Uint64
	log     *slog.Logger
	metrics *metrics.Metrics
	context []any // attributes for the log: what to change

	seed maphash.Seed // of recent events

	refused sync.Map // refusal → *atomic.Int64

	mu      sync.RWMutex // guards what follows
	sources map[string]*source
	logged  map[string]bool
}

// A source is what was heard of one node.
type source struct {
	mu    sync.Mutex // guards what follows
	epoch uint64
	heard time.Time
	left  uint64 // number of its goodbye; 0: not said
	seen  window // empty again some time after the goodbye

	again  time.Time // when it last said again what may have been missed
	recent []recent  // a ring
	oldest int       // in recent

	holding      bool   // its events wait
	holds        uint64 // how often they had to
	heldAt       time.Time
	back         bool // the broker is
	waiting      []held
	waitingBytes int
	waitsAt      time.Time // the first of waiting
	releasing    bool
}

// seal makes the envelope of a body.
func (g *guard) seal(k kind, body []byte, now time.Time) []byte {
	return g.sealer.seal(g.envelope(k, body, now))
}

func (g *guard) envelope(k kind, body []byte, now time.Time) *envelope {
	return &envelope{kind: k, cluster: g.cluster, node: g.node, epoch: g.epoch, number: g.numbers.Add(1), sent: now, body: body}
}

// open returns an envelope that is to be trusted as far as its sender is. What
// this node sent itself comes back as own.
func (g *guard) open(msg []byte, now time.Time) (envelope, refusal) {
	e, why := g.examine(msg, now)
	if why != "" && why != own && why != late {
		g.refuse(why, &e)
	}
	return e, why
}

// examine does that without a complaint.
func (g *guard) examine(msg []byte, now time.Time) (envelope, refusal) {
	e, why := g.sealer.open(msg)
	if e.node != "" && e.cluster != g.cluster {
		why = refusedCluster // whatever else is wrong follows from that
	}
	if why == "" && len(g.secret) > 0 {
		if age := now.Sub(e.sent); age > freshness || age < -freshness {
			why = refusedStale
		}
	}
	if why == "" {
		why = g.judge(&e, now)
	}
	return e, why
}

func (g *guard) judge(e *envelope, now time.Time) refusal {
	if e.node == g.node {
		if e.epoch == g.epoch {
			return own
		}
		return refusedEpoch
	}
	g.mu.RLock()
	s := g.sources[e.node]
	g.mu.RUnlock()
	if s == nil {
		if s = g.source(e.node, e.epoch, now); s == nil {
			return refusedCrowd
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case e.epoch > s.epoch, e.epoch < s.epoch && now.Sub(s.heard) > g.timeout:
		// Epochs grow with time. One that is older comes from a process whose
		// clock was set back, if the one after it has long been silent.
		s.epoch, s.left, s.seen, s.recent, s.oldest = e.epoch, 0, window{}, nil, 0
	case e.epoch < s.epoch, s.left != 0 && (e.number > s.left || s.seen.bits == nil):
		return refusedEpoch
	}
	if !s.seen.add(e.number, g.window) {
		if now.Sub(s.again) < g.timeout {
			return late
		}
		return refusedReplayed
	}
	e.from = s
	switch {
	case s.left == 0:
		s.heard = now
		if e.kind == kindGoodbye {
			s.left = e.number
		}
	case !e.kind.deed():
		return late // what it had is gone
	}
	return ""
}

func (g *guard) hash(topic string) uint64 { return maphash.String(g.seed, topic) }

func (g *guard) source(node string, epoch uint64, now time.Time) *source {
	g.mu.Lock()
	defer g.mu.Unlock()
	if s := g.sources[node]; s != nil {
		return s
	}
	if len(g.sources) >= maxSources {
		return nil
	}
	s := &source{epoch: epoch, heard: now}
	g.sources[node] = s
	return s
}

// forget drops sources that were silent for so long that nothing of theirs
// would be taken.
func (g *guard) forget(now time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for node, s := range g.sources {
		s.mu.Lock()
		silent := now.Sub(s.heard)
		if s.left != 0 && silent > g.timeout {
			s.seen = window{} // nothing of it is taken any more
		}
		old := silent > max(2*freshness, 2*g.timeout)
		s.mu.Unlock()
		if old {
			delete(g.sources, node)
		}
	}
}

// refuse counts an envelope that is not taken and complains once per source.
func (g *guard) refuse(why refusal, e *envelope) {
	n, ok := g.refused.Load(why)
	if !ok {
		n, _ = g.refused.LoadOrStore(why, new(atomic.Int64))
	}
	n.(*atomic.Int64).Add(1)
	g.metrics.ClusterRefused(string(why))
	key := fmt.Sprintf("%s %q %q", why, e.cluster, e.node)
	g.mu.RLock()
	known := g.logged[key] || len(g.logged) > maxLogged
	g.mu.RUnlock()
	if known {
		return
	}
	g.mu.Lock()
	known = g.logged[key] || len(g.logged) > maxLogged
	g.logged[key] = true
	last := len(g.logged) > maxLogged
	g.mu.Unlock()
	if known {
		return
	}
	if last {
		g.log.Error("envelopes of too many sources refused, others will not be logged")
		return
	}
	g.log.Error("envelope refused", append([]any{
		"reason", string(why), "advice", advice[why], "from_cluster", printable(e.cluster), "from_node", printable(e.node),
	}, g.context...)...)
}

// printable keeps what a stranger calls itself from disturbing the log.
func printable(s string) string {
	for _, c := range s {
		if c < ' ' || c > '~' {
			return fmt.Sprintf("%q", s)
		}
	}
	return s
}

// Refusals returns how many envelopes were refused, by reason.
func (g *guard) refusals() map[string]int64 {
	all := map[string]int64{}
	g.refused.Range(func(why, n any) bool {
		all[string(why.(refusal))] = n.(*atomic.Int64).Load()
		return true
	})
	return all
}

// A window remembers which of a sender's numbers were seen. They need not come
// in order: topics overtake each other.
type window struct {
	top  uint64
	bits []uint64
}

// add reports whether n was not seen before and can still be told from those
// that were. size is the number of bits, a power of two and at least 64.
func (w *window) add(n, size uint64) bool {
	if w.bits == nil {
		w.bits = make([]uint64, size/64)
		w.top = n
		w.set(n, size)
		return true
	}
	if n > w.top {
		if n-w.top >= size {
			clear(w.bits)
		} else {
			w.clear(w.top+1, n, size)
		}
		w.top = n
		w.set(n, size)
		return true
	}
	if w.top-n >= size || w.bits[n%size/64]&(1<<(n%64)) != 0 {
		return false
	}
	w.set(n, size)
	return true
}

func (w *window) set(n, size uint64) { w.bits[n%size/64] |= 1 << (n % 64) }

// clear forgets the numbers from first to last, less than size of them.
func (w *window) clear(first, last, size uint64) {
	for n := first; n <= last; {
		if n%64 == 0 && last-n >= 63 {
			w.bits[n%size/64] = 0
			n += 64
			continue
		}
		w.bits[n%size/64] &^= 1 << (n % 64)
		n++
	}
}
