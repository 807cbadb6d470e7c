package cluster

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
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

// Local is this node as the cluster sees it. Deliver, Terminate and AppChanged
// are called by one goroutine at a time per topic, the rest by one goroutine at
// a time; none must wait long. No lock of the cluster is held during a call.
type Local interface {
	// Deliver hands over an event that a peer broadcast: the ready payload of a
	// text frame for all subscribers but the socket with the id exceptSocket.
	Deliver(app, channel string, payload []byte, exceptSocket string, at time.Time)

	// ChannelChanged, MemberChanged and UserChanged say that what the peers have
	// of it changed; the new values are read from the Cluster, as often as
	// wanted. The same change may be told twice.
	ChannelChanged(app, channel string)
	MemberChanged(app, channel, user string)
	UserChanged(app, user string)

	// Terminate closes the connections of a signed-in user.
	Terminate(app, user string, code int, message string)
	// AppChanged forgets what is remembered of an app's settings.
	AppChanged(app string)
}

// A Witness is a Local that wants to know what comes into being and ends in the
// whole cluster. Every fact is told to the witness of one node, the one that is
// responsible for the channel: at least once, and twice only around a node's
// death. The calls come from one goroutine and must return soon.
type Witness interface {
	Witness(Fact)
}

// A Truth is a Local that can tell all own facts anew, so that an audit can
// compare them with those that were set.
type Truth interface {
	Truth(tell func(directory.Entry))
}

// A Hearer is a Local that wants to know that broadcasts may have passed it by:
// Gap is called when the broker is lost, from when on some may, and when it is
// back, until when some may have.
type Hearer interface {
	Gap()
}

// A Fact is a change of the whole cluster's view of a channel.
type Fact struct {
	Kind    FactKind
	App     string
	Channel string
	User    string // of MemberAdded and MemberRemoved
	Info    string // user_info as JSON, of MemberAdded
	Count   int    // subscriptions in the whole cluster, of the others
}

// FactKind says what changed.
type FactKind uint8

// The kinds of facts.
const (
	Occupied          FactKind = iota + 1 // the first subscription in the cluster
	Vacated                               // the last one is gone
	MemberAdded                           // a user's first connection
	MemberRemoved                         // the last one is gone
	SubscriptionCount                     // the number of subscriptions is another one
)

// String returns the name of a kind.
func (k FactKind) String() string {
	names := [...]string{Occupied: "occupied", Vacated: "vacated", MemberAdded: "member added", MemberRemoved: "member removed", SubscriptionCount: "subscription count"}
	if int(k) < len(names) && names[k] != "" {
		return names[k]
	}
	return fmt.Sprintf("fact %d", uint8(k))
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
		window: windowBits, timeout: opts.NodeTimeout, log: log, metrics: opts.Metrics,
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
	e.c.gap()
	e.c.post(arrival{what: busLost})
}

// Restored passes it on to the loop.
func (e busEvents) Restored() {
	e.c.gate.restore()
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
	if env.kind == kindBroadcast {
		if why != own {
			c.deliver(topic, &env)
		}
		return
	}
	if topic != c.topicOf(env.kind) {
		c.guard.refuse(refusedMisrouted, &env)
		return
	}
	switch {
	case why == own:
		if env.kind == kindHeartbeat || env.kind == kindCanary {
			c.post(arrival{cameBack, env})
		}
	case env.kind == kindTerminate:
		c.series().RequestReceived()
		if m, ok := readTerminate(env.body); ok {
			c.local.Terminate(m.app, m.user, m.code, m.message)
		} else {
			c.guard.refuse(refusedMalformed, &env)
		}
	case env.kind == kindApp:
		c.series().RequestReceived()
		c.local.AppChanged(string(env.body))
	case env.kind == kindBeacon:
	default:
		c.series().RequestReceived()
		c.post(arrival{arrived, env})
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

// NodeID returns the name of this node.
func (c *Cluster) NodeID() string { return c.opts.NodeID }

// SetChannel tells how many subscriptions this node's sockets have to a
// channel now; 0 stands for none left. It is cheap and takes only a leaf lock;
// calls for one channel must come in the order of what happened.
func (c *Cluster) SetChannel(app, channel string, subscriptions int) {
	c.dir.SetChannel(app, channel, subscriptions)
}

// SetMember tells how many of this node's sockets are connections of a member
// of a presence channel, as SetChannel does. If the peers have the member
// already, info is best theirs: it is what all have shown so far.
func (c *Cluster) SetMember(app, channel, user, info string, conns int) {
	c.dir.SetMember(app, channel, user, info, conns)
}

// SetSockets tells how many of an app's sockets are open at this node, those
// that count for its quota.
func (c *Cluster) SetSockets(app string, n int) { c.dir.SetSockets(app, n) }

// SetUser tells how many of this node's sockets are signed in as a user.
func (c *Cluster) SetUser(app, user string, conns int) { c.dir.SetUser(app, user, conns) }

// Subscriptions returns how many subscriptions to a channel the peers have.
func (c *Cluster) Subscriptions(app, channel string) int { return c.dir.Subscriptions(app, channel) }

// Member returns how many connections of a member of a presence channel the
// peers have, and its user_info if there are any. Nodes with the same view
// return the same user_info.
func (c *Cluster) Member(app, channel, user string) (conns int, info string) {
	return c.dir.Member(app, channel, user)
}

// Members yields the members of a presence channel that the peers have, in no
// order. Nothing is locked while yield runs.
func (c *Cluster) Members(app, channel string, yield func(user, info string, conns int) bool) {
	c.dir.Members(app, channel, yield)
}

// Channels yields the channels with a name that begins with prefix and that
// the peers have subscriptions to. Users are those of the peers. Nothing is
// locked while yield runs.
func (c *Cluster) Channels(app, prefix string, yield func(channel string, subscriptions, users int) bool) {
	c.dir.Channels(app, prefix, yield)
}

// Sockets returns how many sockets of an app the peers have.
func (c *Cluster) Sockets(app string) int { return c.dir.Sockets(app) }

// User returns how many connections of a signed-in user the peers have.
func (c *Cluster) User(app, user string) int { return c.dir.User(app, user) }

// Responsible reports whether this node is the one that tells its witness what
// happens to a channel. Without a witness it never is.
func (c *Cluster) Responsible(app, channel string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.core.charge.state == inCharge && c.core.owner(app, channel) == c.self.node
}

// Interested reports whether the topic of a channel is subscribed and
// acknowledged, so that no Want has to wait.
func (c *Cluster) Interested(t Topic) bool {
	return c.interests.has(c.topics.channel(t.App, t.Channel))
}

// Want subscribes to what the peers broadcast on a channel and returns once
// the broker has acknowledged it; with an error nothing is wanted. Wants are
// counted, and each is ended by one Unwant.
func (c *Cluster) Want(ctx context.Context, app, channel string) error {
	return c.interests.want(ctx, app, channel, c.topics.channel(app, channel))
}

// TryWant is a Want that does not wait: it reports whether the topic is
// acknowledged already, and then it is wanted.
func (c *Cluster) TryWant(app, channel string) bool {
	return c.interests.tryWant(c.topics.channel(app, channel))
}

// Unwant ends a Want. The topic is kept for a while, in case it is wanted again.
func (c *Cluster) Unwant(app, channel string) {
	c.interests.unwant(c.topics.channel(app, channel))
}

// Broadcast hands the payload of a text frame to the peers that want the
// channel, for all subscribers there but the socket with the id exceptSocket.
// An error says that they may not get it. at is when the event was published.
// After the broker was lost it waits a moment for the peers to hear it again.
func (c *Cluster) Broadcast(ctx context.Context, app, channel string, payload []byte, exceptSocket string, at time.Time) error {
	if err := c.gate.pass(ctx); err != nil {
		c.metrics.BusDropped(c.opts.Driver)
		return fmt.Errorf("cluster: broadcast on channel %s: %w", channel, err)
	}
	m := broadcast{app: app, channel: channel, except: exceptSocket, at: at, payload: payload}
	b := c.guard.header(c.guard.envelope(kindBroadcast, nil, time.Now()), m.size())
	if err := c.bus.Publish(ctx, c.topics.channel(app, channel), c.guard.finish(m.append(b))); err != nil {
		c.metrics.BusDropped(c.opts.Driver)
		return fmt.Errorf("cluster: broadcast on channel %s: %w", channel, err)
	}
	c.metrics.App(app).RequestSent()
	return nil
}

// Terminate closes the connections of a signed-in user at the peers.
func (c *Cluster) Terminate(ctx context.Context, app, user string, code int, message string) error {
	m := terminate{app, user, code, message}
	if err := c.gate.pass(ctx); err != nil {
		return fmt.Errorf("cluster: terminate user %s: %w", user, err)
	}
	if err := c.bus.Publish(ctx, c.topics.control, c.guard.seal(kindTerminate, m.append(nil), time.Now())); err != nil {
		return fmt.Errorf("cluster: terminate user %s: %w", user, err)
	}
	c.series().RequestSent()
	return nil
}

// AppChanged tells the peers that an app is not what it was.
func (c *Cluster) AppChanged(ctx context.Context, appID string) error {
	if err := c.gate.pass(ctx); err != nil {
		return fmt.Errorf("cluster: app %s changed: %w", appID, err)
	}
	if err := c.bus.Publish(ctx, c.topics.control, c.guard.seal(kindApp, []byte(appID), time.Now())); err != nil {
		return fmt.Errorf("cluster: app %s changed: %w", appID, err)
	}
	c.series().RequestSent()
	return nil
}

// Ready returns nil while the broker passes on what this node says and what
// its peers had when it joined is known; otherwise it says what is wrong.
func (c *Cluster) Ready() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.core.ready(time.Now())
}
