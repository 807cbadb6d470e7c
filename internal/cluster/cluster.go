package cluster

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/maphash"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"sockudo/internal/backoff"
	"sockudo/internal/directory"
	"sockudo/internal/metrics"
)

// Options are the parts of a cluster that have a default.
type Options struct {
	// Prefix begins every topic, so that clusters can share a broker; "": "sockudo".
	Prefix string
	// PrefixSetting is what the operator calls Prefix, for messages.
	PrefixSetting string
	// ID names the cluster. Nodes refuse what comes from a cluster of another
	// name; "": "default".
	ID string
	// Secret, if not empty, signs every envelope; what is not signed with it is refused.
	Secret []byte
	// NodeID names this node in the cluster, unique among those that live; "": by chance.
	NodeID string

	HeartbeatInterval time.Duration // 0: 10 s
	NodeTimeout       time.Duration // silence after which a node counts as dead; 0: 30 s
	Linger            time.Duration // how long a topic is kept after its last Unwant; 0: 5 s
	JoinTimeout       time.Duration // how long Ready waits for the partitions of silent peers; 0: 10 s

	Driver  string           // of the bus, for metrics
	Log     *slog.Logger     // nil: nothing is logged
	Metrics *metrics.Metrics // nil: nothing is counted
}

// A Topic is a channel of an app.
type Topic struct {
	App, Channel string
}

// A Cluster is the other nodes as this one sees them. Methods that take no
// context never wait.
type Cluster struct {
	bus       Bus
	opts      Options
	log       *slog.Logger
	metrics   *metrics.Metrics
	topics    topics
	self      target
	ownTopic  string
	dir       *directory.Directory
	guard     *guard
	interests *interests
	gate      gate
	keeper    keeper
	invalid   error

	wakeLoop chan struct{} // the loop has something to do
	wakeNext chan struct{} // there is something for the directory topic
	wakeOut  chan struct{} // there is something in outbox
	running  atomic.Bool

	mu   sync.Mutex // guards core
	core *core

	boxMu  sync.Mutex // guards what follows
	inbox  []arrival
	boxed  int // bytes in inbox
	outbox []outgoing

	auditMu sync.Mutex // one audit at a time
	local   Local
	witness Witness
	truth   Truth
	hearer  Hearer
}

// arrival is something for the loop to do.
type arrival struct {
	what arrivalKind
	env  envelope
}

type arrivalKind uint8

const (
	arrived arrivalKind = iota
	cameBack
	busLost
	busRestored
	subscribed
)

const (
	// maxBoxed bounds what waits for the loop, and maxOut what waits for the bus.
	// What is beyond is dropped, which heals like a loss at the broker.
	maxBoxed = 128 << 20
	maxOut   = 1 << 14
	// publishTimeout bounds one message of the cluster to itself.
	publishTimeout = 5 * time.Second
	// goodbyeTimeout bounds what is still said at the end.
	goodbyeTimeout = 2 * time.Second
)

// New returns a cluster over bus. It does nothing before Run.
func New(bus Bus, opts Options) *Cluster {
	if opts.Prefix == "" {
		opts.Prefix = "sockudo"
	}
	if opts.ID == "" {
		opts.ID = "default"
	}
	if opts.NodeID == "" {
		opts.NodeID = hex.EncodeToString(random(8))
	}
	if opts.HeartbeatInterval == 0 {
		opts.HeartbeatInterval = 10 * time.Second
	}
	if opts.NodeTimeout == 0 {
		opts.NodeTimeout = 30 * time.Second
	}
	if opts.Linger == 0 {
		opts.Linger = 5 * time.Second
	}
	if opts.JoinTimeout == 0 {
		opts.JoinTimeout = 10 * time.Second
	}
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	log := opts.Log.With("component", "cluster")
	self := target{opts.NodeID, newEpoch(time.Now())}
	c := &Cluster{
		bus: bus, opts: opts, log: log, metrics: opts.Metrics,
		topics:    newTopics(opts.Prefix, opts.ID),
		self:      self,
		dir:       directory.New(),
		interests: newInterests(bus, opts.Linger),
		wakeLoop:  make(chan struct{}, 1),
		wakeNext:  make(chan struct{}, 1),
		wakeOut:   make(chan struct{}, 1),
	}
	c.ownTopic = c.topics.node(self.node)
	c.guard = newGuard(self, opts, log)
	c.core = newCore(self, timing{opts.HeartbeatInterval, opts.NodeTimeout, opts.JoinTimeout}, c.dir, log, opts.Metrics)
	c.core.refusals = c.guard.refusals
	c.core.recall = c.keeper.since
	switch {
	case len(opts.ID) > maxName:
		c.invalid = fmt.Errorf("cluster: id %q is %d bytes long, at most %d are allowed", opts.ID, len(opts.ID), maxName)
	case len(opts.NodeID) > maxName:
		c.invalid = fmt.Errorf("cluster: node id %q is %d bytes long, at most %d are allowed", opts.NodeID, len(opts.NodeID), maxName)
	case len(c.ownTopic) > MaxTopic || len(c.topics.channel("", "")) > MaxTopic-2*sha256Hex:
		c.invalid = fmt.Errorf("cluster: prefix %q and id %q are too long, at most %d bytes are allowed", opts.Prefix, opts.ID, MaxTopic-2*sha256Hex)
	case opts.NodeTimeout < 2*opts.HeartbeatInterval:
		c.invalid = fmt.Errorf("cluster: node timeout %v must be at least twice the heartbeat interval %v", opts.NodeTimeout, opts.HeartbeatInterval)
	}
	return c
}

const sha256Hex = 64

func random(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails
	return b
}

// newEpoch returns a number that grows with time and that no other process has.
func newEpoch(now time.Time) uint64 {
	return uint64(now.UnixMilli())<<20 | uint64(binary.BigEndian.Uint32(random(4)))>>12
}

func newGuard(self target, opts Options, log *slog.Logger) *guard {
	setting := opts.PrefixSetting
	if setting == "" {
		setting = "prefix"
	}
	return &guard{
		sealer: sealer{secret: opts.Secret}, cluster: opts.ID, node: self.node, epoch: self.epoch,
		window: windowBits, seed: maphash.MakeSeed(), timeout: opts.NodeTimeout, log: log, metrics: opts.Metrics,
		sources: map[string]*source{}, logged: map[string]bool{},
		context: []any{"cluster", opts.ID, "prefix", opts.Prefix, "setting", setting},
	}
}

// Run takes part in the cluster until ctx is done, then says goodbye. It may be
// called once. Its error says what is wrong with the options, or is the bus's.
func (c *Cluster) Run(ctx context.Context, local Local) error {
	if c.invalid != nil {
		return c.invalid
	}
	c.local = local
	c.witness, _ = local.(Witness)
	c.truth, _ = local.(Truth)
	c.hearer, _ = local.(Hearer)
	if c.witness != nil {
		c.dir.Watch()
		c.mu.Lock()
		c.core.chargeWanted()
		c.mu.Unlock()
	}
	// The bus outlives everything else, for the goodbye.
	busCtx, stopBus := context.WithCancel(context.WithoutCancel(ctx))
	defer stopBus()
	busErr := make(chan error, 1)
	go func() { busErr <- c.bus.Run(busCtx, busEvents{c}) }()

	ctx, stop := context.WithCancel(ctx)
	defer stop()
	c.interests.begin(ctx)
	c.running.Store(true)
	var wg sync.WaitGroup
	for _, run := range []func(context.Context){c.subscribe, c.loop, c.sendDirectory, c.sendRest, c.sweep} {
		wg.Go(func() { run(ctx) })
	}
	c.log.Info("joining the cluster", "node_id", c.self.node, "cluster", c.opts.ID, "prefix", c.opts.Prefix)

	var err error
	stopped := false
	select {
	case <-ctx.Done():
	case err = <-busErr:
		stopped = true
		if err == nil {
			err = errors.New("cluster: the bus stopped")
		}
	}
	stop()
	wg.Wait()
	if !stopped {
		c.goodbye(busCtx)
	}
	c.running.Store(false)
	c.interests.end()
	if !stopped {
		stopBus()
		err = <-busErr
	}
	return err
}

// busEvents takes what the bus delivers.
type busEvents struct{ c *Cluster }

// Message judges an envelope and passes it on: events of channels at once, the
// rest to the loop.
func (e busEvents) Message(topic string, msg []byte) { e.c.message(topic, msg, time.Now()) }

// Lost passes it on to the loop.
func (e busEvents) Lost() {
	e.c.gate.lose()
	e.c.guard.hold(time.Now(), false)
	e.c.gap()
	e.c.post(arrival{what: busLost})
}

// Restored passes it on to the loop.
func (e busEvents) Restored() {
	e.c.gate.restore()
	e.c.guard.hold(time.Now(), true)
	e.c.gap()
	e.c.post(arrival{what: busRestored})
}

func (c *Cluster) gap() {
	if c.hearer != nil {
		c.hearer.Gap()
	}
}

func (c *Cluster) message(topic string, msg []byte, now time.Time) {
	env, why := c.guard.open(msg, now)
	if why != "" && why != own {
		return
	}
	switch {
	case why != own:
		c.take(topic, &env, now)
	case env.kind == kindBroadcast:
	case topic != c.topicOf(env.kind):
		c.guard.refuse(refusedMisrouted, &env)
	case env.kind == kindHeartbeat || env.kind == kindCanary:
		c.post(arrival{cameBack, env})
	}
}

// take takes an envelope of a peer.
func (c *Cluster) take(topic string, env *envelope, now time.Time) {
	switch {
	case env.kind == kindBroadcast:
		c.event(c.guard.pass, topic, env, now)
	case topic != c.topicOf(env.kind):
		c.guard.refuse(refusedMisrouted, env)
	case env.kind == kindTerminate:
		c.series().RequestReceived()
		if m, ok := readTerminate(env.body); ok {
			c.local.Terminate(m.app, m.user, m.code, m.message)
		} else {
			c.guard.refuse(refusedMalformed, env)
		}
	case env.kind == kindApp:
		c.series().RequestReceived()
		c.local.AppChanged(string(env.body))
	case env.kind == kindBeacon:
	case env.kind == kindAgain:
		c.series().RequestReceived()
		c.again(env, now)
	default:
		c.series().RequestReceived()
		if env.kind == kindListens {
			c.complete(env)
		}
		c.post(arrival{arrived, *env})
	}
}

// topicOf returns the topic on which envelopes of a kind reach this node.
func (c *Cluster) topicOf(k kind) string {
	switch k {
	case kindTerminate, kindApp, kindAsk:
		return c.topics.control
	case kindBatch, kindHeartbeat, kindTold, kindGoodbye:
		return c.topics.directory
	case kindBeacon:
		return c.topics.beacon
	default:
		return c.ownTopic
	}
}

func (c *Cluster) series() *metrics.App { return c.metrics.App(metrics.Cluster) }

func (c *Cluster) deliver(topic string, env *envelope) {
	it := c.interests.find(topic)
	if it == nil {
		return // it was just left
	}
	app, channel, except, at, payload, ok := readBroadcast(env.body)
	if !ok {
		c.guard.refuse(refusedMalformed, env)
		return
	}
	if it.app != string(app) || it.channel != string(channel) {
		c.guard.refuse(refusedMisrouted, env)
		return
	}
	c.metrics.App(it.app).RequestReceived()
	c.local.Deliver(it.app, it.channel, payload, string(except), at)
}

func (c *Cluster) post(a arrival) {
	c.boxMu.Lock()
	if c.boxed += len(a.env.body); c.boxed > maxBoxed && a.what == arrived {
		c.boxed -= len(a.env.body)
		c.boxMu.Unlock()
		return
	}
	c.inbox = append(c.inbox, a)
	c.boxMu.Unlock()
	wake(c.wakeLoop)
}

func wake(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

// subscribe subscribes the topics of the node itself, until that succeeds.
func (c *Cluster) subscribe(ctx context.Context) {
	err := backoff.Retry(ctx, backoff.Policy{Max: 2 * time.Second}, func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, publishTimeout)
		defer cancel()
		for _, topic := range []string{c.topics.directory, c.topics.control, c.ownTopic, c.topics.beacon} {
			if err := c.bus.Subscribe(ctx, topic); err != nil {
				return err
			}
		}
		return nil
	}, func(err error, pause time.Duration) {
		c.log.Warn("topics of the cluster cannot be subscribed, trying again", "after", pause, "err", err)
	})
	if err == nil {
		c.post(arrival{what: subscribed})
	}
}

// do changes the core. What follows from it for this node is left to the loop,
// so that it is told in order.
func (c *Cluster) do(f func(k *core)) {
	c.mu.Lock()
	f(c.core)
	out := c.core.out
	c.core.out = nil
	told := len(c.core.changes)+len(c.core.facts) > 0
	c.unlock()
	c.enqueue(out)
	if told {
		wake(c.wakeLoop)
	}
	wake(c.wakeNext)
}

// step changes the core and does what follows from it. Only the loop calls it.
func (c *Cluster) step(f func(k *core)) {
	c.mu.Lock()
	f(c.core)
	out, changes, facts := c.core.effects()
	c.unlock()
	c.enqueue(out)
	for i := range changes {
		switch ch := &changes[i]; ch.Kind {
		case directory.Channel:
			c.local.ChannelChanged(ch.App, ch.Channel)
		case directory.Member:
			c.local.MemberChanged(ch.App, ch.Channel, ch.User)
		case directory.User:
			c.local.UserChanged(ch.App, ch.User)
		}
	}
	if c.witness != nil {
		for _, f := range facts {
			c.witness.Witness(f)
		}
	}
}

// unlock ends a change of the core.
func (c *Cluster) unlock() {
	losses, attended := c.core.losses, c.gate.shut.Load() && c.core.attended()
	c.mu.Unlock()
	if attended {
		c.gate.open(losses)
	}
}

func (c *Cluster) enqueue(out []outgoing) {
	if len(out) == 0 {
		return
	}
	c.boxMu.Lock()
	room := max(0, maxOut-len(c.outbox))
	c.outbox = append(c.outbox, out[:min(len(out), room)]...)
	c.boxMu.Unlock()
	wake(c.wakeOut)
}

// loop feeds the core with what arrives and with the time.
func (c *Cluster) loop(ctx context.Context) {
	every := max(10*time.Millisecond, min(250*time.Millisecond, c.opts.NodeTimeout/20))
	tick := time.NewTicker(every)
	defer tick.Stop()
	sweepAt := time.Now().Add(truthInterval)
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			now := time.Now()
			c.step(func(k *core) { k.tick(now) })
			for _, s := range c.guard.overdue(now) {
				c.guard.release(s, c.deliver)
			}
			if !c.gate.shut.Load() {
				c.keeper.forget(now)
			}
			if now.After(sweepAt) {
				sweepAt = now.Add(truthInterval)
				c.compareTruth()
				c.guard.forget(now)
				c.step(func(k *core) { k.send(toBeacon, "", kindBeacon, nil) })
			}
		case <-c.wakeLoop:
			c.step(func(*core) {}) // what others changed
		case <-c.dir.Changed():
			c.step(func(k *core) { k.absorb(time.Now()) })
		}
		c.drainInbox()
		c.compareIfAsked()
		wake(c.wakeNext)
	}
}

func (c *Cluster) drainInbox() {
	c.boxMu.Lock()
	inbox := c.inbox
	c.inbox, c.boxed = nil, 0
	c.boxMu.Unlock()
	for i := range inbox {
		a := &inbox[i]
		now := time.Now()
		c.step(func(k *core) {
			switch a.what {
			case arrived:
				if !k.receive(now, &a.env) {
					c.guard.refuse(refusedMalformed, &a.env)
				}
			case cameBack:
				k.echo(now, &a.env)
			case busLost:
				k.lost(now)
			case busRestored:
				if !k.started.IsZero() && !k.connected {
					c.metrics.BusReconnected(c.opts.Driver)
				}
				k.regained(now)
			case subscribed:
				k.start(now)
			}
		})
		inbox[i] = arrival{}
	}
}

// sendDirectory sends on the directory topic, one message after the other.
func (c *Cluster) sendDirectory(ctx context.Context) {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		var out *outgoing
		var wait time.Duration
		c.mu.Lock()
		out, wait = c.core.next(time.Now())
		c.mu.Unlock()
		if out == nil {
			timer.Reset(wait)
			select {
			case <-ctx.Done():
				return
			case <-timer.C:
			case <-c.wakeNext:
			}
			continue
		}
		err := c.publish(ctx, out)
		if ctx.Err() != nil {
			return
		}
		c.do(func(k *core) { k.sent(time.Now(), err) })
		if err != nil {
			c.log.Warn("changes could not be published, trying again", "err", err)
		}
	}
}

// sendRest sends what is in the outbox, one message after the other.
func (c *Cluster) sendRest(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-c.wakeOut:
		}
		c.boxMu.Lock()
		outbox := c.outbox
		c.outbox = nil
		c.boxMu.Unlock()
		for i := range outbox {
			if err := c.publish(ctx, &outbox[i]); err != nil {
				c.log.Debug("message to nodes could not be published", "err", err)
			}
			if ctx.Err() != nil {
				return
			}
		}
	}
}

// publish seals a message and hands it to the bus.
func (c *Cluster) publish(ctx context.Context, out *outgoing) error {
	topic := c.topics.directory
	switch out.topic {
	case toControl:
		topic = c.topics.control
	case toNode:
		topic = c.topics.node(out.node)
	case toBeacon:
		topic = c.topics.beacon
	}
	ctx, cancel := context.WithTimeout(ctx, publishTimeout)
	defer cancel()
	return c.bus.Publish(ctx, topic, c.guard.seal(out.kind, out.body, time.Now()))
}

func (c *Cluster) sweep(ctx context.Context) {
	tick := time.NewTicker(max(10*time.Millisecond, min(time.Second, c.opts.Linger/4)))
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			c.interests.sweep(ctx, now)
		}
	}
}

// goodbye tells the rest of the changes, what this node told last, and that it
// leaves.
func (c *Cluster) goodbye(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, goodbyeTimeout)
	defer cancel()
	for _, say := range []func(*core, time.Time) []outgoing{(*core).leave, (*core).farewell} {
		var rest []outgoing
		heard := true
		c.step(func(k *core) { rest, heard = say(k, time.Now()), k.connected })
		if !heard && len(rest) > 0 {
			c.log.Warn("the broker is lost, the others will notice the silence")
			return
		}
		for i := range rest {
			if err := c.publish(ctx, &rest[i]); err != nil {
				c.log.Warn("could not say goodbye, the others will notice the silence", "err", err)
				return
			}
		}
	}
}
