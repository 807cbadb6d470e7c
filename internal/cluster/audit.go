package cluster

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"sockudo/internal/directory"
)

// Status is what one node knows of itself and of the others.
type Status struct {
	Node  string `json:"node_id"`
	Epoch string `json:"epoch"` // of the process, hexadecimal
	// Ready is empty when the node is ready, otherwise it says why it is not.
	Ready       string           `json:"not_ready,omitempty"`
	InCharge    bool             `json:"in_charge"` // of the existence events of its share of the channels
	CanaryLagMs float64          `json:"canary_lag_ms"`
	CanaryLost  int64            `json:"canaries_lost"`
	Resyncs     int64            `json:"resyncs"`
	Refused     map[string]int64 `json:"refused,omitempty"` // envelopes, by reason
	Own         Partition        `json:"own"`
	Peers       []PeerStatus     `json:"peers"`
}

// A Partition is the state of what one node told of itself.
type Partition struct {
	Seq    uint64 `json:"seq"`    // of the last change
	Digest string `json:"digest"` // hexadecimal
	directory.Sizes
	// Differences counts the entries that are not what they must be: of the own
	// partition against the node's sockets, of a peer's against what it said.
	Differences int `json:"differences"`
}

// PeerStatus is what a node knows of another one.
type PeerStatus struct {
	Node      string  `json:"node_id"`
	Epoch     string  `json:"epoch"`
	HeardMs   float64 `json:"heard_ms"`   // since it was heard last
	DelayMs   float64 `json:"delay_ms"`   // of its last heartbeat, as far as the clocks agree
	Known     bool    `json:"known"`      // its partition was held whole
	Fetching  bool    `json:"fetching"`   // changes are missing and on their way
	MatchedMs float64 `json:"matched_ms"` // since it was found the same last; -1: never
	InCharge  bool    `json:"in_charge"`
	Partition
}

// A Survey is what all nodes say of themselves and of each other.
type Survey struct {
	Nodes  []Status `json:"nodes"`  // this one first
	Silent []string `json:"silent"` // nodes that did not answer in time
}

// An Audit compares every node's own truth with what every other one knows of
// it.
type Audit struct {
	Differences int `json:"differences"` // entries that differ, over all nodes
	// Disagreements says which node has what wrong of which.
	Disagreements []string `json:"disagreements"`
	// Moving says whose view of whom was not compared entry by entry, because it
	// changed meanwhile. It is empty when the cluster is quiet.
	Moving []string `json:"moving"`
	Survey
}

const (
	// auditPause is the time between the question and the report: heartbeats of
	// all nodes arrive and are compared.
	auditPause = 700 * time.Millisecond
	// auditTimeout bounds the wait for all reports after it, and surveyTimeout
	// that for reports which nothing is done for.
	auditTimeout  = 4 * time.Second
	surveyTimeout = 2 * time.Second
	maxAnswers    = 64
)

// audit is the part of a core that asks and answers.
type audit struct {
	owed    []answer
	id      uint64 // of the own question
	got     map[string]Status
	compare bool // the own partition is to be compared with the sockets
	ownOff  int  // entries of the own partition that are not what the sockets say
}

type answer struct {
	to  target
	id  uint64
	due time.Time
}

// What is asked of all nodes.
const (
	askStatus  = 0 // to report
	askCompare = 1 // to compare what they know with the truth, and report then
)

// question asks all nodes, this one too.
func (k *core) question(now time.Time, what byte) {
	k.ids++
	k.audit.id = k.ids
	k.audit.got = map[string]Status{}
	body := append(binary.AppendUvarint(nil, k.audit.id), what)
	k.send(toControl, "", kindAsk, body)
	k.asked(now, k.self, body)
}

// asked notes a question. The answer to a comparison waits until everybody's
// heartbeat was compared.
func (k *core) asked(now time.Time, from target, body []byte) bool {
	r := reader{b: body}
	id, what := r.uvarint(), r.byte()
	if !r.end() || what > askCompare {
		return false
	}
	due := now
	if what == askCompare {
		due = now.Add(auditPause)
	}
	if len(k.audit.owed) < maxAnswers {
		k.audit.owed = append(k.audit.owed, answer{from, id, due})
	}
	if what == askStatus {
		return true
	}
	k.recount, k.audit.compare = true, true
	if k.beatAt.After(now.Add(helloDelay)) {
		k.beatAt = now.Add(helloDelay)
	}
	return true
}

// auditTick answers what is due.
func (k *core) auditTick(now time.Time) {
	owed := k.audit.owed
	k.audit.owed = nil
	for _, a := range owed {
		if now.Before(a.due) {
			k.audit.owed = append(k.audit.owed, a)
			continue
		}
		r := k.status(now)
		if a.to == k.self {
			if a.id == k.audit.id && k.audit.got != nil {
				k.audit.got[k.self.node] = r
			}
			continue
		}
		b, err := json.Marshal(r)
		if err != nil {
			k.log.Error("report cannot be written", "err", err)
			continue
		}
		k.send(toNode, a.to.node, kindReport, append(binary.AppendUvarint(nil, a.id), b...))
	}
	k.metrics.ClusterDifferences(k.differences())
}

// differences counts the entries that are known to be wrong at this node.
func (k *core) differences() int {
	n := k.audit.ownOff
	for _, p := range k.peers {
		n += p.differ
	}
	return n
}

// report takes the report of a peer.
func (k *core) report(from target, body []byte) bool {
	r := reader{b: body}
	id := r.uvarint()
	var rep Status
	if r.bad || json.Unmarshal(r.b, &rep) != nil || rep.Node != from.node {
		return false
	}
	if id == k.audit.id && k.audit.got != nil && k.peers[from.node] != nil {
		k.audit.got[from.node] = rep
	}
	return true
}

// status is what this node knows at the moment.
func (k *core) status(now time.Time) Status {
	r := Status{
		Node: k.self.node, Epoch: hexadecimal(k.self.epoch), InCharge: k.charge.state == inCharge,
		CanaryLagMs: ms(k.canary.lag), CanaryLost: k.canary.lost, Resyncs: k.resyncs,
		Own: Partition{Seq: k.dir.Seq(), Digest: hexadecimal(k.dir.Digest()), Sizes: k.dir.Sizes(), Differences: k.audit.ownOff},
	}
	if err := k.ready(now); err != nil {
		r.Ready = err.Error()
	}
	if k.refusals != nil {
		r.Refused = k.refusals()
	}
	for _, p := range k.inOrder() {
		state, _ := k.dir.Peer(p.node)
		pr := PeerStatus{
			Node: p.node, Epoch: hexadecimal(p.epoch), HeardMs: ms(now.Sub(p.heard)), DelayMs: ms(p.delay),
			Known: p.held, Fetching: p.transfer != nil, MatchedMs: -1, InCharge: p.claim > 0,
			Partition: Partition{state.Seq, hexadecimal(state.Digest), state.Sizes, p.differ},
		}
		if !p.matched.IsZero() {
			pr.MatchedMs = ms(now.Sub(p.matched))
		}
		r.Peers = append(r.Peers, pr)
	}
	return r
}

func hexadecimal(n uint64) string { return fmt.Sprintf("%016x", n) }

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// survey returns the reports that came. Nodes that are known to live and did
// not report are silent.
func (k *core) survey() Survey {
	s := Survey{Nodes: []Status{}, Silent: []string{}}
	for _, node := range k.living() {
		if r, ok := k.audit.got[node]; ok {
			s.Nodes = append(s.Nodes, r)
		} else {
			s.Silent = append(s.Silent, node)
		}
	}
	return s
}

// living are the nodes that are known to live, this one first.
func (k *core) living() []string {
	nodes := []string{k.self.node}
	for _, p := range k.inOrder() {
		nodes = append(nodes, p.node)
	}
	return nodes
}

// conclude makes an audit of the reports that came.
func (k *core) conclude() Audit {
	a := Audit{Disagreements: []string{}, Moving: []string{}, Survey: k.survey()}
	complain := func(n int, format string, args ...any) {
		a.Differences += n
		a.Disagreements = append(a.Disagreements, fmt.Sprintf(format, args...))
	}
	nodes := k.living()
	for _, r := range a.Nodes {
		node := r.Node
		if r.Own.Differences > 0 {
			complain(r.Own.Differences, "%s: %d entries of its partition are not what its sockets say", node, r.Own.Differences)
		}
		views := map[string]PeerStatus{}
		for _, p := range r.Peers {
			views[p.Node] = p
		}
		for _, other := range nodes {
			truth, reported := k.audit.got[other]
			view, seen := views[other]
			switch {
			case other == node || !reported:
			case !seen || view.Epoch != truth.Epoch:
				complain(max(1, truth.Own.entries()), "%s does not know %s", node, other)
			case view.Differences > 0:
				complain(view.Differences, "%s had %d entries of %s wrong", node, view.Differences, other)
			case view.Seq == truth.Own.Seq && view.Digest != truth.Own.Digest:
				complain(1, "%s has other entries of %s than it has itself", node, other)
			case !view.Known:
				complain(max(1, truth.Own.entries()), "%s does not know the partition of %s yet", node, other)
			case view.Seq != truth.Own.Seq:
				a.Moving = append(a.Moving, fmt.Sprintf("%s has change %d of %s, which is at %d", node, view.Seq, other, truth.Own.Seq))
			}
		}
	}
	return a
}

func (p *Partition) entries() int { return p.Channels + p.Members + p.Users }

// answered reports whether all who live have reported.
func (k *core) answered() bool {
	if k.audit.got == nil || len(k.audit.got) <= len(k.peers) {
		for node := range k.peers {
			if _, ok := k.audit.got[node]; !ok {
				return false
			}
		}
		_, ok := k.audit.got[k.self.node]
		return ok
	}
	return true
}

// EpochTime returns when the process began that has an epoch, by its own clock.
func EpochTime(epoch string) (time.Time, error) {
	n, err := strconv.ParseUint(epoch, 16, 64)
	if err != nil {
		return time.Time{}, fmt.Errorf("cluster: epoch: %w", err)
	}
	return time.UnixMilli(int64(n >> 20)), nil
}
