package cluster

import (
	"context"
	"encoding/binary"
	"errors"
	"sync"
	"sync/atomic"
	"time"
)

// holdFor is how long events are held when the broker was lost, and again when it
// is back. Later ones are refused at once.
const holdFor = time.Second

var errDeaf = errors.New("cluster: the broker was lost, and not all nodes are known to hear it again")

// A gate holds events back after the broker was lost, until the peers are known
// to have their topics again: the broker would take the events, and bring them to
// nobody. It is shut by whom the bus tells, at once, and opened by the loop.
type gate struct {
	shut atomic.Bool

	mu     sync.Mutex // guards what follows
	losses uint64
	opened chan struct{} // closed when it opens; nil: it is open
	until  time.Time     // events are held; then they are refused
}

// lose shuts the gate.
func (g *gate) lose() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.losses++
	g.until = time.Now().Add(holdFor)
	if g.opened == nil {
		g.opened = make(chan struct{})
		g.shut.Store(true)
	}
}

// restore holds events again for a while.
func (g *gate) restore() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.until = time.Now().Add(holdFor)
}

// count returns how often the broker was lost.
func (g *gate) count() uint64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.losses
}

// open opens the gate, unless there was a loss beyond those that the caller
// knows of.
func (g *gate) open(losses uint64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.opened != nil && losses == g.losses {
		close(g.opened)
		g.opened = nil
		g.shut.Store(false)
	}
}

// pass returns when the gate is open, or why not.
func (g *gate) pass(ctx context.Context) error {
	if !g.shut.Load() {
		return nil
	}
	g.mu.Lock()
	opened, left := g.opened, time.Until(g.until)
	g.mu.Unlock()
	switch {
	case opened == nil:
		return nil
	case left <= 0:
		return errDeaf
	}
	timer := time.NewTimer(left)
	defer timer.Stop()
	select {
	case <-opened:
		return nil
	case <-timer.C:
		return errDeaf
	case <-ctx.Done():
		return errDeaf
	}
}

// --- which peers hear --------------------------------------------------------------

// When the bus was lost here, it may have been lost at the peers. Each is asked,
// on its own topic, until it answers: then its topics are subscribed again, all of
// them, because one that still misses some keeps silent. Before it answers it says
// again what the one who asks may have missed. That one then says again what
// the peer may have missed, and waits until it has that. A peer that does not
// answer for long is as one that is cut off alone, which nobody can know of.

// listenTimeout is how long peers are waited for.
const listenTimeout = 5 * time.Second

// A listen asks whether a node hears, or answers that it does, and the same about
// what was said again.
type listen struct {
	to   target
	loss uint64        // of the one who asks
	age  time.Duration // since when it may have missed something, and others what it said
}

func (m *listen) append(b []byte) []byte {
	b = m.to.append(b)
	b = binary.AppendUvarint(b, m.loss)
	return binary.AppendUvarint(b, uint64(m.age.Milliseconds()))
}

func readListen(b []byte) (m listen, ok bool) {
	r := reader{b: b}
	m = listen{to: r.target(), loss: r.uvarint()}
	ms := r.uvarint()
	m.age = time.Duration(min(ms, maxAge)) * time.Millisecond
	return m, r.end()
}

const maxAge = 1000 * 60 * 60 // in milliseconds

// attended reports whether all peers that live are known to hear.
func (k *core) attended() bool {
	for _, p := range k.peers {
		if p.unsure {
			return false
		}
	}
	return k.connected || len(k.peers) == 0
}

// doubtPeers notes that the bus was lost.
func (k *core) doubtPeers() {
	if k.attended() || k.proven.IsZero() {
		k.proven = k.canary.echo
	}
	k.losses++
	for _, p := range k.peers {
		p.unsure, p.hears = true, false
	}
}

// askPeers asks those of whom it is not known whether they hear.
func (k *core) askPeers(now time.Time) {
	if !k.connected {
		return
	}
	for _, p := range k.inOrder() {
		switch {
		case !p.unsure:
		case now.Sub(k.restored) >= listenTimeout:
			p.unsure = false
			k.log.Warn("the broker is back, but this node does not answer; it may miss events", "node_id", p.node)
		default:
			k.askPeer(now, p)
		}
	}
}

func (k *core) askPeer(now time.Time, p *peer) {
	k.series.RequestSent()
	m := listen{p.target, k.losses, k.unproven(now)}
	question := kindListen
	if p.hears {
		question = kindThatIsAll
	}
	k.send(toNode, p.node, question, m.append(nil))
}

// askedToListen answers a peer, if this node hears.
func (k *core) askedToListen(now time.Time, q kind, from target, m *listen) {
	if !k.connected {
		return
	}
	answer := listen{to: from, loss: m.loss}
	if q == kindThatIsAll {
		k.send(toNode, from.node, kindHave, answer.append(nil))
		return
	}
	k.sayAgain(now, from.node, m.age)
	k.send(toNode, from.node, kindListens, answer.append(nil))
}

// unproven is since when what was said may not have arrived.
func (k *core) unproven(now time.Time) time.Duration {
	return min(now.Sub(k.proven), maxAge*time.Millisecond) + recallMargin
}

// sayAgain says again to a peer what it may have missed.
func (k *core) sayAgain(now time.Time, node string, age time.Duration) {
	if k.recall == nil {
		return
	}
	for _, body := range k.recall(now, age, func(of Topic) bool { return everywhere(of.Channel) || k.dir.PeerHas(node, of.App, of.Channel) }) {
		k.send(toNode, node, kindAgain, body)
	}
}

// listens takes the answer of a peer.
func (k *core) listens(now time.Time, answer kind, from target, m *listen) {
	p := k.peers[from.node]
	if p == nil || p.target != from || !k.connected || m.loss != k.losses || !p.unsure {
		return
	}
	k.series.ResponseReceived()
	switch {
	case answer == kindHave:
		p.unsure = false
	case !p.hears:
		p.hears = true
		k.sayAgain(now, p.node, k.unproven(now))
		k.askPeer(now, p)
	}
}
