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
// them, because one that still misses some keeps silent. A peer that does not
// answer for long is as one that is cut off alone, which nobody can know of.

// listenTimeout is how long peers are waited for.
const listenTimeout = 5 * time.Second

// A listen asks whether a node hears, or answers that it does.
type listen struct {
	to   target
	loss uint64 // of the one who asks
}

func (m *listen) append(b []byte) []byte {
	b = m.to.append(b)
	return binary.AppendUvarint(b, m.loss)
}

func readListen(b []byte) (m listen, ok bool) {
	r := reader{b: b}
	m = listen{to: r.target(), loss: r.uvarint()}
	return m, r.end()
}

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
	k.losses++
	for _, p := range k.peers {
		p.unsure = true
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
			k.askPeer(p)
		}
	}
}

func (k *core) askPeer(p *peer) {
	k.series.RequestSent()
	m := listen{p.target, k.losses}
	k.send(toNode, p.node, kindListen, m.append(nil))
}

// askedToListen answers, if this node hears.
func (k *core) askedToListen(from target, m *listen) {
	if k.connected {
		answer := listen{from, m.loss}
		k.send(toNode, from.node, kindListens, answer.append(nil))
	}
}

// listens takes the answer of a peer.
func (k *core) listens(from target, m *listen) {
	if p := k.peers[from.node]; p != nil && p.target == from && k.connected && m.loss == k.losses {
		p.unsure = false
		k.series.ResponseReceived()
	}
}
