package cluster

import (
	"log/slog"
	"slices"
	"time"

	"sockudo/internal/directory"
	"sockudo/internal/metrics"
)

const (
	// gather is how long changes of the own partition wait for others, so that
	// they travel in one batch.
	gather = 10 * time.Millisecond
	// messageLimit is about how large batches and parts get. NATS takes 1 MiB.
	messageLimit = 64 << 10
	// settle is how long a node that just joined waits for those that it does not
	// know yet, and how long one that wants to be responsible waits for the rest.
	settle = time.Second
	// retry is the pause before what the broker did not take is sent again.
	retry = 200 * time.Millisecond
	// canaryInterval is the pause between two proofs that the broker passes on
	// what this node says, and canaryTimeout when one of them counts as lost.
	canaryInterval = time.Second
	canaryTimeout  = 5 * time.Second
	// pause is a gap between two looks at the clock after which this process, and
	// not its peers, was silent.
	pause = 2 * time.Second
)

// A core is what one node thinks of the others: who lives, what their
// partitions are, and who is responsible for what. It does no I/O and starts no
// goroutine: it is told what arrived and what time it is, and says what to send
// and to tell. Its owner calls it under one lock.
type core struct {
	self    target
	timing  timing
	dir     *directory.Directory
	log     *slog.Logger
	metrics *metrics.Metrics
	series  *metrics.App // of what nodes tell each other about themselves

	peers map[string]*peer

	// What must be done by the owner, until taken.
	out     []outgoing
	changes []directory.Change
	facts   []Fact

	// The clock and the connection.
	started   time.Time // when the topics were subscribed first; zero: not yet
	last      time.Time // the last look at the clock
	connected bool
	restored  time.Time // when it last became so
	losses    uint64    // how often it was not
	proven    time.Time // what was said until then has arrived for sure, though the bus was lost
	deaf      time.Time // since when nothing is heard; zero: it is
	hellos    int       // said since the start
	joined    bool      // the partitions of those who lived at the start are held
	snapshot  *snapshot

	// The directory topic: one message at a time.
	unsaid   []directory.Transition // that are published with it
	sending  *outgoing              // the broker has not taken it yet
	again    time.Time              // when to try again
	gathered time.Time              // when the changes that wait are sent; zero: none wait
	beatAt   time.Time              // when the next heartbeat is due
	beatSeq  uint64                 // what the last one said
	hello    bool                   // the next one asks
	recount  bool                   // the next one counts anew
	beatSent time.Time              // the first heartbeat that has not come back; zero: none
	echoed   bool                   // a heartbeat came back since the topics were subscribed

	canary canary
	charge charge
	audit  audit

	// recall returns what was published within a time, as far as it is wanted.
	recall   func(now time.Time, age time.Duration, wanted func(Topic) bool) [][]byte // nil: nothing
	refusals func() map[string]int64                                                  // nil: unknown
	crowded  bool
	resyncs  int64
	ids      uint64 // of transfers
}

// timing are the settings of a core.
type timing struct {
	heartbeat time.Duration
	timeout   time.Duration // of silence
	join      time.Duration // bound of the wait for partitions
}

// outgoing is a message for the bus.
type outgoing struct {
	topic topicKind
	node  string // of toNode
	kind  kind
	body  []byte
}

type topicKind uint8

const (
	toDirectory topicKind = iota + 1
	toControl
	toNode
	toBeacon
)

// A peer is another node that lives, as far as this one knows.
type peer struct {
	target
	since   time.Time     // first heard
	silence time.Duration // heard nothing for so long, while this node could hear
	heard   time.Time
	delay   time.Duration // of its last heartbeat by both clocks
	beat    heartbeat     // its last one
	held    bool          // its partition was known whole
	matched time.Time     // when digests were last the same
	differ  int           // entries that were found to differ last
	unsure  bool          // whether it hears since the bus was lost, and has what was said before
	hears   bool          // it does

	transfer *transfer
	later    map[uint64]directory.Batch // not applied, or kept during a transfer, by first number
	size     int                        // bytes of later

	claim   uint64    // with which it counts as an owner of channels; 0: it does not
	telling bool      // it is in charge of them
	told    uint64    // messages with its records, as far as they came
	whole   time.Time // since when none of them was missed; zero: unknown
}

func newCore(self target, t timing, dir *directory.Directory, log *slog.Logger, m *metrics.Metrics) *core {
	k := &core{self: self, timing: t, dir: dir, log: log, metrics: m, series: m.App(metrics.Cluster), peers: map[string]*peer{}}
	k.canary.sent = map[uint64]time.Time{}
	return k
}

// start begins to take part: the topics are subscribed.
func (k *core) start(now time.Time) {
	k.started, k.restored, k.last = now, now, now
	k.connected = true
	k.canary.next = now
	k.canary.echo = now
	k.hellos = 1
	k.sayHello(now)
	k.send(toBeacon, "", kindBeacon, nil)
}

// lost notes that messages may be missing from now on.
func (k *core) lost(now time.Time) {
	k.look(now)
	k.doubtPeers()
	k.connected = false
}

// regained notes that every topic is subscribed again. Everybody is asked what
// was missed.
func (k *core) regained(now time.Time) {
	k.look(now)
	if k.started.IsZero() || k.connected {
		return
	}
	k.connected, k.restored = true, now
	k.beatSent = time.Time{}
	k.again = now
	k.sayHello(now)
	k.askPeers(now)
}

func (k *core) sayHello(now time.Time) {
	k.hello = true
	k.beatAt = now
}

func (k *core) send(topic topicKind, node string, kd kind, body []byte) {
	k.out = append(k.out, outgoing{topic, node, kd, body})
}

// hears reports whether silence of peers means anything: the broker passes on
// what this node says.
func (k *core) hears(now time.Time) bool {
	return k.connected && now.Sub(k.canary.echo) <= canaryTimeout &&
		(k.beatSent.IsZero() || now.Sub(k.beatSent) <= canaryTimeout)
}

// look takes the time. A long gap means that this process stood still: whoever
// seems silent since then may have spoken.
func (k *core) look(now time.Time) {
	if k.started.IsZero() {
		return
	}
	gap := now.Sub(k.last)
	k.last = max2(k.last, now)
	if gap < 0 {
		return
	}
	if gap > pause {
		k.log.Warn("this process stood still", "for", gap)
		if k.deaf.IsZero() {
			k.deaf = now.Add(-gap)
		}
		k.canary.hold(gap)
		k.sayHello(now)
		gap = 0
	}
	if k.hears(now) {
		for _, p := range k.peers {
			p.silence += gap
		}
	} else if k.deaf.IsZero() {
		k.deaf = now
	}
	k.chargeDeaf(now)
	if k.hears(now) {
		k.deaf = time.Time{}
	}
}

func max2(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// tick does what is due. It is called several times per second.
func (k *core) tick(now time.Time) {
	if k.started.IsZero() {
		return
	}
	k.look(now)
	for _, p := range k.inOrder() {
		if p.silence >= k.timing.timeout {
			k.log.Warn("node is silent, dropped", "node_id", p.node, "for", p.silence)
			k.drop(now, p)
		}
	}
	if k.canary.due(now, k.series) {
		k.series.RequestSent()
		k.send(toNode, k.self.node, kindCanary, k.canary.next64())
		k.canary.remember(now)
	}
	for _, p := range k.inOrder() {
		k.pursue(now, p)
	}
	if !k.beatSent.IsZero() && now.Sub(k.beatSent) > canaryTimeout/2 && k.beatAt.Sub(now) > settle {
		k.beatAt = now // nobody may have heard the last one
	}
	k.askPeers(now)
	if k.snapshot != nil && now.Sub(k.snapshot.used) > snapshotKept {
		k.snapshot = nil
	}
	if !k.joined {
		k.join(now)
	}
	k.absorb(now)
	k.chargeTick(now)
	k.auditTick(now)
}

// join ends the beginning: once the own hello came back, whoever lives had the
// time to answer, and all who did are known.
func (k *core) join(now time.Time) {
	if now.Sub(k.started) < k.timing.join {
		if now.Sub(k.started) >= time.Duration(k.hellos)*settle/3 {
			k.hellos++
			k.sayHello(now) // those before may have been lost
		}
		if !k.echoed || now.Sub(k.started) < settle {
			return
		}
		for _, p := range k.peers {
			if !p.held {
				return
			}
		}
	}
	k.joined = true
	k.chargeJoined(now)
}

// inOrder returns the peers by name, so that what happens does not depend on
// the order of a map.
func (k *core) inOrder() []*peer {
	all := make([]*peer, 0, len(k.peers))
	for _, p := range k.peers {
		all = append(all, p)
	}
	slices.SortFunc(all, func(a, b *peer) int {
		if a.node < b.node {
			return -1
		}
		return 1
	})
	return all
}

// receive takes an envelope that the guard let pass. It reports whether its
// body was one.
func (k *core) receive(now time.Time, e *envelope) bool {
	if k.started.IsZero() {
		return true
	}
	k.look(now)
	ok := k.dispatch(now, e)
	k.absorb(now)
	return ok
}

func (k *core) dispatch(now time.Time, e *envelope) bool {
	from := target{e.node, e.epoch}
	switch e.kind {
	case kindBatch:
		b, ok := readBatch(e.body)
		if !ok {
			return false
		}
		if p := k.peer(now, from); p != nil {
			k.batch(now, p, b)
		}
	case kindHeartbeat:
		b, ok := readHeartbeat(e.body)
		if !ok {
			return false
		}
		if p := k.peer(now, from); p != nil {
			p.delay = now.Sub(e.sent)
			k.heartbeat(now, p, b)
		}
	case kindTold:
		m, ok := readToldList(e.body)
		if !ok {
			return false
		}
		if p := k.peer(now, from); p != nil {
			k.hearTold(now, p, &m)
		}
	case kindGoodbye:
		m, ok := readGoodbye(e.body)
		if !ok {
			return false
		}
		if p := k.peers[e.node]; p != nil && p.epoch == e.epoch {
			k.log.Info("node has left", "node_id", p.node)
			k.absorb(now)
			k.counted(now, p, m.told)
			k.chargeVouch(now, p)
			k.drop(now, p)
		}
	case kindRequest:
		m, ok := readRequest(e.body)
		if !ok {
			return false
		}
		if m.to == k.self {
			k.provide(now, from, &m)
		}
	case kindPart:
		m, ok := readPart(e.body)
		if !ok {
			return false
		}
		if p := k.peers[e.node]; p != nil && p.target == from && m.to == k.self {
			k.part(now, p, &m)
		}
	case kindRemind:
		m, ok := readToldList(e.body)
		if !ok || len(m.ages) != len(m.stamps) {
			return false
		}
		if m.to == k.self {
			k.reminded(now, from, &m)
		}
	case kindSure:
		m, ok := readToldList(e.body)
		if !ok {
			return false
		}
		if m.to == k.self {
			k.assured(&m)
		}
	case kindListen, kindListens, kindThatIsAll, kindHave:
		m, ok := readListen(e.body)
		if !ok {
			return false
		}
		switch {
		case m.to != k.self:
		case e.kind == kindListen, e.kind == kindThatIsAll:
			k.askedToListen(now, e.kind, from, &m)
		default:
			k.listens(now, e.kind, from, &m)
		}
	case kindReport:
		return k.report(from, e.body)
	case kindAsk:
		return k.asked(now, from, e.body)
	}
	return true
}

// echo takes an envelope of this node that came back.
func (k *core) echo(now time.Time, e *envelope) {
	if k.started.IsZero() {
		return
	}
	switch e.kind {
	case kindHeartbeat:
		k.beatSent = time.Time{}
		k.echoed = true
	case kindCanary:
		if k.canary.returned(now, e.body, k.series) {
			k.series.ResponseReceived()
		}
	}
	k.look(now)
}

// peer returns a node that said something, and makes it when it is new.
func (k *core) peer(now time.Time, from target) *peer {
	p := k.peers[from.node]
	if p != nil && p.epoch != from.epoch {
		// The guard lets only newer ones pass.
		k.log.Info("node was started anew", "node_id", p.node)
		k.drop(now, p)
		p = nil
	}
	if p == nil {
		if !k.dir.Add(from.node) {
			if !k.crowded {
				k.crowded = true
				k.log.Error("too many nodes", "node_id", from.node, "limit", directory.MaxPeers)
			}
			return nil
		}
		p = &peer{target: from, since: now, later: map[uint64]directory.Batch{}}
		p.unsure = k.losses > 0 && now.Sub(k.restored) < listenTimeout
		k.peers[from.node] = p
		k.metrics.ClusterNodes(len(k.peers) + 1)
		k.log.Info("node appeared", "node_id", p.node)
	}
	p.silence, p.heard = 0, now
	return p
}

// drop forgets a node and its partition.
func (k *core) drop(now time.Time, p *peer) {
	k.absorb(now) // what it was responsible for until now
	if p.transfer != nil {
		k.series.Resolved(now.Sub(p.transfer.begun), false)
	}
	delete(k.peers, p.node)
	k.chargeDrop(now, p)
	k.changes = append(k.changes, k.dir.Drop(p.node)...)
	k.absorb(now)
	k.metrics.ClusterNodes(len(k.peers) + 1)
}

// missing is the reason for fetching the partition of a peer when changes are
// missing.
func (p *peer) missing() string {
	if p.held {
		return "gap"
	}
	return "join"
}

// batch takes changes of a peer's partition.
func (k *core) batch(now time.Time, p *peer, b directory.Batch) {
	state, _ := k.dir.Peer(p.node)
	if b.Last() <= state.Seq && p.transfer == nil {
		return
	}
	fresh := state.Seq == 0 && b.First == 1 // all that it ever said
	if b.First > state.Seq+1 || p.transfer != nil {
		k.keep(p, b)
	}
	if b.First > state.Seq+1 {
		k.fetch(now, p, p.missing(), b.First-1)
		return
	}
	if !k.apply(now, p, b) {
		return
	}
	if fresh {
		k.hold(now, p)
	}
	k.applyLater(now, p)
}

func (k *core) apply(now time.Time, p *peer, b directory.Batch) bool {
	changes, err := k.dir.Apply(p.node, b)
	if err != nil {
		k.log.Error("changes of a node cannot be applied", "node_id", p.node, "err", err)
		p.forget(b.First)
		k.fetch(now, p, "broken", b.Last())
		return false
	}
	k.changes = append(k.changes, changes...)
	return true
}

// maxLater bounds what is kept of one peer while its partition is fetched.
const maxLater = 32 << 20

func (k *core) keep(p *peer, b directory.Batch) {
	if _, ok := p.later[b.First]; ok {
		return
	}
	if p.size += len(b.Entries); p.size > maxLater {
		// Too much came while waiting; a snapshot that has it all is waited for.
		p.forgetAll()
		p.size = len(b.Entries)
		if p.transfer != nil {
			p.transfer.need = max(p.transfer.need, b.First-1)
		}
	}
	p.later[b.First] = b
}

func (p *peer) forget(first uint64) {
	if b, ok := p.later[first]; ok {
		p.size -= len(b.Entries)
		delete(p.later, first)
	}
}

func (p *peer) forgetAll() {
	clear(p.later)
	p.size = 0
}

// applyLater applies what was kept because something before it was missing,
// as far as nothing is missing any more.
func (k *core) applyLater(now time.Time, p *peer) {
	for progress := true; progress; {
		progress = false
		state, _ := k.dir.Peer(p.node)
		for _, b := range p.later {
			if b.First <= state.Seq+1 && b.Last() > state.Seq {
				if !k.apply(now, p, b) {
					return
				}
				progress = true
				break
			}
		}
	}
	state, _ := k.dir.Peer(p.node)
	missing := false
	for _, b := range p.later {
		missing = missing || b.Last() > state.Seq
	}
	if t := p.transfer; t != nil && t.reason == "gap" && !missing && state.Seq >= t.need && p.held {
		k.healed(now, p)
	}
}

// healed ends a transfer that is not needed any more.
func (k *core) healed(now time.Time, p *peer) {
	k.series.Resolved(now.Sub(p.transfer.begun), true)
	p.transfer = nil
	p.forgetAll()
}

// hold notes that the partition of a peer is known whole.
func (k *core) hold(now time.Time, p *peer) {
	if !p.held {
		p.held = true
		k.chargeBeat(now, p)
	}
}

// heartbeat compares what a peer says of its partition with what is known.
func (k *core) heartbeat(now time.Time, p *peer, b heartbeat) {
	p.beat = b
	k.counted(now, p, b.told)
	if b.sent {
		k.chargeVouch(now, p)
	}
	state, _ := k.dir.Peer(p.node)
	digest := state.Digest
	if b.recount && b.seq == state.Seq {
		digest = k.dir.RecountPeer(p.node)
	}
	switch {
	case b.seq > state.Seq:
		k.fetch(now, p, p.missing(), b.seq)
	case b.seq < state.Seq:
		// Overtaken by changes; the next one tells.
	case b.digest != digest:
		k.log.Error("what is known of a node is not what it says, fetched anew", "node_id", p.node, "seq", b.seq)
		p.differ = max(p.differ, 1)
		k.fetch(now, p, "digest", b.seq)
	default:
		p.matched, p.differ = now, 0
		if p.transfer != nil {
			k.healed(now, p)
		}
		k.hold(now, p)
	}
	k.chargeBeat(now, p)
	if b.hello && p.unsure && k.connected {
		k.askPeer(now, p) // it is back
	}
	if b.hello && k.beatAt.After(now.Add(helloDelay)) {
		k.beatAt = now.Add(helloDelay)
	}
}

// helloDelay gathers the answers to those who ask at the same time.
const helloDelay = 20 * time.Millisecond

// next returns what to send on the directory topic now, or else how long
// there is nothing to send. sent must be called before the next call.
func (k *core) next(now time.Time) (*outgoing, time.Duration) {
	const idle = time.Hour
	if k.started.IsZero() || !k.connected {
		return nil, idle
	}
	k.look(now)
	if k.sending != nil {
		if now.Before(k.again) {
			return nil, k.again.Sub(now)
		}
		if k.hello {
			k.enlarge()
		}
		return k.sending, 0
	}
	switch {
	case !k.dir.Pending():
	case k.hello:
		// Those who forgot this node fetch what it has said: they would show who
		// has left meanwhile.
		k.gathered = now
	case k.gathered.IsZero():
		k.gathered = now.Add(gather)
	}
	if !k.gathered.IsZero() && !now.Before(k.gathered) {
		k.gathered = time.Time{}
		if out := k.drain(); out != nil {
			return out, 0
		}
		k.say(now)
	}
	if !now.Before(k.beatAt) {
		k.charge.sendAt = now // a heartbeat says that there are no more
	}
	if out := k.drainRecords(now); out != nil {
		k.sending = out
		return out, 0
	}
	if !now.Before(k.beatAt) {
		return k.beat(now), 0
	}
	wait := k.beatAt.Sub(now)
	if len(k.charge.unsent) > 0 {
		wait = min(wait, k.charge.sendAt.Sub(now))
	}
	if !k.gathered.IsZero() {
		wait = min(wait, k.gathered.Sub(now))
	}
	return nil, max(wait, time.Millisecond)
}

func (k *core) drain() *outgoing {
	if k.charge.wanted {
		// What caused these is drained now or was before.
		k.unsaid = append(k.unsaid, k.dir.Transitions()...)
	}
	b := k.dir.Drain(messageLimit)
	if b.N == 0 {
		return nil
	}
	k.sending = &outgoing{topic: toDirectory, kind: kindBatch, body: appendBatch(nil, b)}
	return k.sending
}

// enlarge adds what has changed since to a batch that the broker has not taken:
// those who forgot this node fetch its partition as soon as they hear it, and
// would show who has left meanwhile.
func (k *core) enlarge() {
	if k.sending.kind != kindBatch {
		return
	}
	all, _ := readBatch(k.sending.body)
	for k.dir.Pending() && len(all.Entries) < 4*messageLimit {
		more := k.dir.Drain(messageLimit)
		all.N += more.N
		all.Entries = append(slices.Clip(all.Entries), more.Entries...)
	}
	if k.charge.wanted {
		k.unsaid = append(k.unsaid, k.dir.Transitions()...)
	}
	k.sending = &outgoing{topic: toDirectory, kind: kindBatch, body: appendBatch(nil, all)}
}

func (k *core) beat(now time.Time) *outgoing {
	m := heartbeat{
		hello: k.hello, recount: k.recount, seq: k.dir.Seq(), digest: k.dir.Digest(), sizes: k.dir.Sizes(),
		claim: k.claimToTell(), telling: k.charge.state == inCharge, told: k.charge.told, sent: len(k.charge.unsent) == 0,
	}
	if k.recount {
		m.digest = k.dir.Recount()
	}
	k.hello, k.recount = false, false
	k.beatSeq = m.seq
	k.beatAt = now.Add(k.timing.heartbeat)
	if k.beatSent.IsZero() {
		k.beatSent = now
	}
	k.sending = &outgoing{topic: toDirectory, kind: kindHeartbeat, body: m.append(nil)}
	return k.sending
}

// say takes the transitions that waited for the broker to take their causes.
func (k *core) say(now time.Time) {
	unsaid := k.unsaid
	k.unsaid = nil
	k.take(now, unsaid)
}

// sent says whether the broker took what next returned. Changes are sent until
// it does, so that their order is kept; a heartbeat is made anew.
func (k *core) sent(now time.Time, err error) {
	out := k.sending
	if out == nil {
		return
	}
	if err == nil {
		k.sending = nil
		if out.kind == kindBatch {
			k.say(now)
		}
		k.series.RequestSent()
		if k.beatSeq != k.dir.Seq() && k.beatAt.After(now.Add(settle)) {
			k.beatAt = now.Add(settle) // lets the others know if they missed something
		}
		return
	}
	k.again = now.Add(retry)
	if out.kind == kindHeartbeat {
		m, _ := readHeartbeat(out.body)
		k.hello, k.recount = k.hello || m.hello, k.recount || m.recount
		k.sending = nil
		k.beatAt = k.again
	}
}

// effects returns what is to be sent and told, and forgets it.
func (k *core) effects() (out []outgoing, changes []directory.Change, facts []Fact) {
	out, changes, facts = k.out, k.changes, k.facts
	k.out, k.changes, k.facts = nil, nil, nil
	return out, changes, facts
}

// leave returns what is left to publish: the own changes that were not. After
// that, farewell has to be called.
func (k *core) leave(now time.Time) []outgoing {
	if k.started.IsZero() {
		return nil
	}
	k.look(now)
	var out []outgoing
	if k.sending != nil {
		out = append(out, *k.sending)
	}
	for k.dir.Pending() {
		if b := k.drain(); b != nil {
			out = append(out, *b)
		}
	}
	k.sending = nil
	return out
}

// farewell tells what follows from the last changes, which are published, and
// returns what this node told, for its heirs, and its goodbye.
func (k *core) farewell(now time.Time) []outgoing {
	var out []outgoing
	k.say(now)
	k.absorb(now)
	k.bequeath(now)
	for k.charge.sendAt = now; len(k.charge.unsent) > 0; {
		if o := k.drainRecords(now); o != nil {
			out = append(out, *o)
		}
	}
	m := goodbye{told: k.charge.told}
	return append(out, outgoing{topic: toDirectory, kind: kindGoodbye, body: m.append(nil)})
}
