package cluster

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"sockudo/internal/directory"
)

const (
	// maxParts bounds a partition that is fetched: 64 GiB.
	maxParts = 1 << 20
	// partWindow is how many parts are on their way at once, so that a broker's
	// buffers hold them.
	partWindow = 8
	// partTimeout is the silence after which parts are asked for again.
	partTimeout = time.Second
	// snapshotKept is how long the parts of the own partition are kept for peers
	// that ask for the rest, or for the same.
	snapshotKept = 30 * time.Second
)

// A snapshot is the own partition, cut into parts.
type snapshot struct {
	seq, digest uint64
	parts       [][]byte
	used        time.Time
}

// A transfer fetches the partition of a peer.
type transfer struct {
	id     uint64
	reason string
	need   uint64
	begun  time.Time
	asked  time.Time // or heard, last
	tries  int       // since something was heard

	// Of the snapshot that is being fetched; total is -1 before anything came.
	seq    uint64
	digest uint64
	total  int
	parts  [][]byte
	prefix int // parts from the first on without a gap
	upTo   int // parts that were asked for
}

// fetch asks a peer for its partition as of need or later.
func (k *core) fetch(now time.Time, p *peer, reason string, need uint64) {
	if t := p.transfer; t != nil {
		if need > t.need && t.total < 0 {
			t.need = need // nothing came yet, so what comes may as well be newer
		}
		return
	}
	k.ids++
	p.transfer = &transfer{id: k.ids, reason: reason, need: need, begun: now, total: -1}
	if reason != "join" {
		k.resyncs++
	}
	k.metrics.ClusterResync(reason)
	k.ask(now, p)
}

// ask sends a request for the parts that are missing.
func (k *core) ask(now time.Time, p *peer) {
	t := p.transfer
	t.asked = now
	m := request{to: p.target, id: t.id, need: t.need}
	if t.total >= 0 {
		m.seq, m.from = t.seq, t.prefix
	}
	t.upTo = m.from + partWindow
	k.series.RequestSent()
	k.send(toNode, p.node, kindRequest, m.append(nil))
}

// pursue asks again when nothing came.
func (k *core) pursue(now time.Time, p *peer) {
	t := p.transfer
	if t == nil || !k.connected {
		return
	}
	if now.Sub(t.asked) >= partTimeout<<min(t.tries, 3) {
		t.tries++
		k.ask(now, p)
	}
}

// provide answers a request for the own partition.
func (k *core) provide(now time.Time, to target, m *request) {
	s := k.snapshot
	if s == nil || s.seq < m.need {
		if m.need > k.dir.Seq() {
			return // it knows more of this node than the node itself
		}
		s = &snapshot{seq: k.dir.Seq(), digest: k.dir.Digest(), parts: k.dir.Snapshot(messageLimit)}
		k.snapshot = s
	}
	s.used = now
	from := m.from
	if from == 0 && len(k.charge.open) > 0 {
		k.confide(now, to)
	}
	if m.seq != s.seq {
		from = 0 // what it has is of another snapshot
	}
	total := len(s.parts)
	if total == 0 {
		k.sendPart(to, &part{to: to, id: m.id, seq: s.seq, digest: s.digest})
		return
	}
	for i := from; i < min(from+partWindow, total); i++ {
		k.sendPart(to, &part{to: to, id: m.id, seq: s.seq, digest: s.digest, index: i, total: total, entries: s.parts[i]})
	}
}

func (k *core) sendPart(to target, m *part) {
	k.send(toNode, to.node, kindPart, m.append(nil))
}

// part takes a piece of a peer's partition.
func (k *core) part(now time.Time, p *peer, m *part) {
	t := p.transfer
	if t == nil || t.id != m.id || m.seq < t.need {
		return
	}
	p.silence, p.heard = 0, now
	if t.total < 0 || t.seq != m.seq {
		if t.total >= 0 && m.seq < t.seq {
			return // of a snapshot that was given up
		}
		t.seq, t.digest, t.total, t.prefix = m.seq, m.digest, m.total, 0
		t.parts = make([][]byte, m.total)
		t.upTo = partWindow
	}
	if m.total != t.total {
		return
	}
	t.asked, t.tries = now, 0
	if m.total > 0 {
		if m.entries == nil {
			m.entries = []byte{}
		}
		t.parts[m.index] = m.entries
	}
	for t.prefix < t.total && t.parts[t.prefix] != nil {
		t.prefix++
	}
	switch {
	case t.prefix == t.total:
		k.series.ResponseReceived()
		k.replace(now, p)
	case t.prefix >= t.upTo:
		k.ask(now, p)
	}
}

// replace puts the partition that was fetched in the place of what was known.
func (k *core) replace(now time.Time, p *peer) {
	t := p.transfer
	state, _ := k.dir.Peer(p.node)
	later, last := k.following(p, t.seq)
	if last < state.Seq {
		// The view is ahead of what came, because what was missing arrived after
		// all and was not kept. Going back would let users look gone.
		if t.reason == "gap" && p.held {
			k.healed(now, p)
			return
		}
		t.need, t.total = state.Seq, -1
		k.ask(now, p)
		return
	}
	k.absorb(now)
	changes, err := k.dir.Replace(p.node, t.seq, t.parts, later)
	if err != nil {
		k.log.Error("the partition of a node is broken, fetched anew", "node_id", p.node, "err", err)
		t.total, t.tries = -1, 3
		t.asked = now
		p.forgetAll()
		t.need = max(t.need, p.beat.seq)
		return
	}
	k.changes = append(k.changes, changes...)
	if !k.joined && !p.held {
		k.chargeLoaded(now)
	}
	if t.reason == "digest" {
		p.differ = len(changes)
	}
	k.series.Resolved(now.Sub(t.begun), true)
	p.transfer = nil
	after := uint64(0)
	for first, b := range p.later {
		if b.Last() <= last {
			p.forget(first)
		} else if after == 0 || first < after {
			after = first
		}
	}
	k.hold(now, p)
	if after > 0 {
		k.fetch(now, p, "gap", after-1)
	}
}

// following returns the batches that were kept and continue a snapshot without
// a gap, and the number of the last change that is then known.
func (k *core) following(p *peer, seq uint64) (later []directory.Batch, last uint64) {
	last = seq
	kept := slices.SortedFunc(maps.Values(p.later), func(a, b directory.Batch) int { return cmp.Compare(a.First, b.First) })
	for _, b := range kept {
		if b.First > last+1 {
			break
		}
		if b.Last() > last {
			later = append(later, b)
			last = b.Last()
		}
	}
	return later, last
}
