package cluster

import (
	"cmp"
	"container/heap"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"sockudo/internal/directory"
)

// The simulation: nodes, each a core with its guard and directory, over a
// broker that loses, delays, doubles and reorders messages and cuts nodes off;
// nodes that die, start again, stand still and leave. Time is a number. All
// chance comes from one seed, so that a seed replays.
//
// Beside it runs the truth: what the sockets of the nodes do. After every step
// of a node, what its subscribers were shown is compared with what it knows; in
// the end everything is compared with the truth.

const (
	simHeartbeat = 2 * time.Second
	simTimeout   = 6 * time.Second
	simTick      = 200 * time.Millisecond
	simApp       = "app"
	simHome      = "presence-home" // each node has one subscriber that stays, its own
)

var (
	simChannels = []string{"x", "presence-1", "presence-2", "presence-3"}
	simUsers    = []string{"ann", "bob", "cid"}
	simEpoch    = time.Unix(1_700_000_000, 0)
)

// A profile is what may go wrong in a simulation.
type profile struct {
	name string
	// Of each message.
	drop, double, reorder float64
	// Of the publishing: the broker takes it but the node learns otherwise, or
	// does not take it.
	fail float64
	// How often things happen, per simulated minute.
	crashes, leaves, joins, pauses, cuts, outages float64
}

// Gentle things cost and double nothing; the others may.
func (p *profile) gentle() bool {
	return p.drop+p.double+p.reorder+p.fail+p.crashes+p.pauses+p.cuts+p.outages == 0
}

var profiles = []profile{
	{name: "calm"},
	{name: "rolling", leaves: 8, joins: 8},
	{name: "lossy", drop: 0.03, fail: 0.03, joins: 2, leaves: 2},
	{name: "disorderly", double: 0.05, reorder: 0.1, joins: 2},
	{name: "deadly", crashes: 6, joins: 8},
	{name: "sleepy", pauses: 6, joins: 1},
	{name: "cut", cuts: 6, joins: 1},
	{name: "outages", outages: 4, joins: 1, fail: 0.05},
	{name: "everything", drop: 0.01, double: 0.01, reorder: 0.02, fail: 0.02, crashes: 2, leaves: 2, joins: 4, pauses: 2, cuts: 2, outages: 1},
}

type event struct {
	at  time.Time
	seq int
	do  func()
}

type events []*event

func (e events) Len() int { return len(e) }
func (e events) Less(i, j int) bool {
	return e[i].at.Before(e[j].at) || e[i].at.Equal(e[j].at) && e[i].seq < e[j].seq
}
func (e events) Swap(i, j int) { e[i], e[j] = e[j], e[i] }
func (e *events) Push(x any)   { *e = append(*e, x.(*event)) }
func (e *events) Pop() any {
	old := *e
	x := old[len(old)-1]
	*e = old[:len(old)-1]
	return x
}

type world struct {
	rng     *rand.Rand
	profile profile
	now     time.Time
	seq     int
	queue   events
	nodes   []*simNode
	made    []string // names of nodes
	down    bool     // the broker
	ended   bool     // nothing goes wrong any more, nothing is changed
	topics  topics
	gentle  bool
	lossy   bool // single messages got lost, late or doubled at some time
	log     []string
	trace   bool
	arrive  map[[2]string]time.Time // last delivery from, to a node and topic

	world   map[thing]int       // what the facts say, by channel or member
	had     map[thing]time.Time // when the connections of a member were others last, at any node
	steps   int
	facts   int
	deaths  []time.Time // of late
	mourned int         // times that subscribers had to be told of a death
	fault   error
	events  int
}

// A simNode is one process.
type simNode struct {
	w     *world
	core  *core
	guard *guard
	dir   *directory.Directory
	id    string
	born  time.Time

	alive   bool
	asleep  bool
	cut     bool
	missed  bool // the bus lost something and will say so
	bare    bool // the broker was restarted, and this node's topics are not subscribed yet
	held    []func()
	busy    bool      // a message for the directory topic is at the broker
	wake    int       // the timer that counts
	faultAt time.Time // when it was last hindered from hearing
	deafAt  time.Time // when it last thought that it hears nothing

	// The truth: what its sockets do.
	subs    map[string]int
	members map[string]map[string]int // channel, user → connections
	users   map[string]int
	sockets int
	changed map[string]time.Time // by channel

	// What its subscribers were shown: user → there, by channel.
	shown   map[string]map[string]bool
	news    map[thing]news       // how often
	emptied map[string]time.Time // when a channel had no subscriber here last
}

// news is how often the subscribers of a node were told of a member.
type news struct{ added, removed int }

func (w *world) after(d time.Duration, do func()) {
	w.seq++
	heap.Push(&w.queue, &event{w.now.Add(d), w.seq, do})
}

func (w *world) chance(p float64) bool { return p > 0 && w.rng.Float64() < p }

func (w *world) between(a, b time.Duration) time.Duration {
	return a + time.Duration(w.rng.Int64N(int64(b-a)+1))
}

func (w *world) note(format string, args ...any) {
	if w.trace {
		w.log = append(w.log, fmt.Sprintf("%9.3f ", w.now.Sub(simEpoch).Seconds())+fmt.Sprintf(format, args...))
	}
}

func (w *world) fail(format string, args ...any) {
	if w.fault == nil {
		w.fault = fmt.Errorf("after %v: %s", w.now.Sub(simEpoch), fmt.Sprintf(format, args...))
		w.note("FAULT %v", w.fault)
	}
}

func newWorld(seed uint64, p profile, trace bool) *world {
	return &world{
		rng: rand.New(rand.NewPCG(seed, 1)), profile: p, gentle: p.gentle(), lossy: p.drop+p.fail+p.reorder+p.double > 0, now: simEpoch, trace: trace,
		topics: newTopics("sim", "sim"), arrive: map[[2]string]time.Time{},
		world: map[thing]int{}, had: map[thing]time.Time{},
	}
}

// traceHandler puts what a node logs into the trace.
func (w *world) logger(id string) *slog.Logger {
	if !w.trace {
		return slog.New(slog.DiscardHandler)
	}
	return slog.New(slog.NewTextHandler(writerFunc(func(b []byte) {
		_, msg, _ := strings.Cut(strings.TrimSpace(string(b)), "level=")
		w.note("%s: %s", id, msg)
	}), &slog.HandlerOptions{Level: slog.LevelDebug}))
}

type writerFunc func([]byte)

func (f writerFunc) Write(b []byte) (int, error) { f(b); return len(b), nil }

// boot starts a process. The same id again is the next process of a node.
func (w *world) boot(id string) *simNode {
	if id == "" {
		id = fmt.Sprintf("n%d", len(w.made)+1)
		w.made = append(w.made, id)
	}
	self := target{id, uint64(w.now.UnixMilli())<<20 | w.rng.Uint64N(1<<20)}
	n := &simNode{
		w: w, id: id, alive: true, born: w.now, dir: directory.New(),
		subs: map[string]int{}, members: map[string]map[string]int{}, users: map[string]int{}, changed: map[string]time.Time{},
		shown: map[string]map[string]bool{}, news: map[thing]news{}, emptied: map[string]time.Time{},
	}
	log := w.logger(id)
	n.guard = newGuard(self, Options{ID: "sim", Prefix: "sim", NodeTimeout: simTimeout}, log)
	n.guard.window = 4096
	n.core = newCore(self, timing{simHeartbeat, simTimeout, 5 * time.Second}, n.dir, log, nil)
	n.core.chargeWanted()
	n.dir.Watch()
	w.nodes = append(w.nodes, n)
	w.note("%s starts, epoch %x", id, self.epoch)
	w.after(w.between(0, 20*time.Millisecond), func() { n.act(func() { n.core.start(w.now) }) })
	w.after(w.between(0, simTick), n.ticks)
	w.after(w.between(0, 2*time.Second), func() { n.act(n.settleHome) })
	return n
}

// settleHome lets the subscriber that stays come.
func (n *simNode) settleHome() {
	if n.w.ended {
		return
	}
	n.join(simHome, n.id)
}

func (n *simNode) ticks() {
	if !n.alive {
		return
	}
	if !n.asleep {
		n.act(func() { n.core.tick(n.w.now) })
	}
	n.w.after(simTick, n.ticks)
}

// act runs a step of a node, or keeps it until the node wakes up.
func (n *simNode) act(do func()) {
	if !n.alive {
		return
	}
	if n.asleep {
		n.held = append(n.held, do)
		return
	}
	do()
	n.settle()
}

// settle does what followed from a step and checks the node.
func (n *simNode) settle() {
	w := n.w
	w.steps++
	out, changes, facts := n.core.effects()
	for _, ch := range changes {
		if ch.Kind == directory.Member {
			n.show(ch.Channel, ch.User)
		}
	}
	for i := range facts {
		w.hear(n, &facts[i])
	}
	for i := range out {
		w.publish(n, &out[i])
	}
	n.poke()
	n.listens()
	if len(changes) > 0 || w.steps%16 == 0 {
		n.check()
	}
}

// poke sends what the core has for the directory topic.
func (n *simNode) poke() {
	w := n.w
	if n.busy || !n.alive || n.asleep {
		return
	}
	out, wait := n.core.next(w.now)
	if out == nil {
		n.wake++
		mine := n.wake
		if wait < time.Minute {
			w.after(wait, func() {
				if mine == n.wake {
					n.act(func() {})
				}
			})
		}
		return
	}
	n.busy = true
	err := w.publish(n, out)
	w.after(w.between(0, 3*time.Millisecond), func() {
		n.act(func() {
			n.busy = false
			n.core.sent(w.now, err)
		})
	})
}

var errSim = errors.New("simulated")

// publish carries a message through the broker.
func (w *world) publish(n *simNode, out *outgoing) error {
	topic := w.topics.directory
	switch out.topic {
	case toNode:
		topic = w.topics.node(out.node)
	case toControl:
		topic = w.topics.control
	case toBeacon:
		topic = w.topics.beacon
	}
	if w.down || n.cut {
		return errSim
	}
	var err error
	if w.chance(w.profile.fail) {
		err = errSim
		if w.chance(0.5) {
			return err
		}
	}
	msg := n.guard.seal(out.kind, out.body, w.now)
	for _, to := range w.nodes {
		if !to.alive || out.topic == toNode && to.id != out.node {
			continue
		}
		if to.cut || to.bare || w.chance(w.profile.drop) {
			w.note("%s -> %s kind %d lost", n.id, to.id, out.kind)
			continue
		}
		times := 1
		if w.chance(w.profile.double) {
			times = 2
		}
		for range times {
			at := w.now.Add(w.between(200*time.Microsecond, 5*time.Millisecond))
			if key := ([2]string{n.id + " " + to.id, topic}); w.chance(w.profile.reorder) {
				at = at.Add(w.between(0, 50*time.Millisecond))
			} else {
				at = max2(at, w.arrive[key])
				w.arrive[key] = at
			}
			w.after(at.Sub(w.now), func() {
				to.act(func() { to.receive(topic, msg) })
			})
		}
	}
	return err
}

func (n *simNode) receive(topic string, msg []byte) {
	w := n.w
	e, why := n.guard.open(msg, w.now)
	switch {
	case why == own:
		n.core.echo(w.now, &e)
	case why != "":
		w.note("%s refuses kind %d of %s: %s", n.id, e.kind, e.node, why)
	default:
		if e.kind != kindBeacon && !n.core.receive(w.now, &e) {
			w.fail("%s cannot read kind %d of %s", n.id, e.kind, e.node)
		}
	}
}

// hear is the world outside, which is told facts.
func (w *world) hear(n *simNode, f *Fact) {
	w.facts++
	what := thing{f.App, f.Channel, f.User}
	before := w.world[what]
	w.note("%s tells: %s %s %s (%d)", n.id, f.Kind, f.Channel, f.User, f.Count)
	twice := false
	switch f.Kind {
	case Occupied, MemberAdded:
		twice = before > 0
		w.world[what] = 1
	case Vacated, MemberRemoved:
		twice = before == 0
		w.world[what] = 0
	}
	if twice && w.gentle {
		w.fail("%s tells %s %s %s a second time", n.id, f.Kind, f.Channel, f.User)
	}
}

// show is the hub of a node: whoever is there, here or at the peers, is shown
// to the subscribers.
func (n *simNode) show(channel, user string) {
	if len(n.shown[channel]) == 0 && n.subs[channel] == 0 {
		return
	}
	there, _ := n.dir.Member(simApp, channel, user)
	is := n.members[channel][user]+there > 0
	if n.shown[channel] == nil {
		n.shown[channel] = map[string]bool{}
	}
	if is == n.shown[channel][user] {
		return
	}
	what := thing{simApp, channel, user}
	told := n.news[what]
	if is {
		n.shown[channel][user] = true
		told.added++
		n.possible(what)
	} else {
		delete(n.shown[channel], user)
		told.removed++
		n.gone(what)
	}
	n.news[what] = told
}

// possible checks that a member who is said to have come is there, or was just
// now. Whoever was there before its node was cut off and has left meanwhile must
// not be shown when the node is back.
func (n *simNode) possible(what thing) {
	w := n.w
	if w.lossy || w.hindered(n, w.now) || w.now.Sub(w.had[what]) < time.Second {
		return
	}
	for _, o := range w.nodes {
		if o.members[what.channel][what.user] > 0 {
			return
		}
	}
	w.fail("%s: subscribers of %s were told that %s came, who was nowhere for %v", n.id, what.channel, what.user, w.now.Sub(w.had[what]))
}

// gone checks that a member who is said to have left is not there: at a node that
// is well all the time a member is never away for a moment.
func (n *simNode) gone(what thing) {
	w := n.w
	if w.lossy || !w.calm(n) || w.now.Sub(w.had[what]) < time.Second {
		return
	}
	for _, o := range w.nodes {
		if o.members[what.channel][what.user] > 0 && w.calm(o) {
			w.fail("%s: subscribers of %s were told that %s left, who is at %s", n.id, what.channel, what.user, o.id)
		}
	}
}

// listens checks that a node knows that it hears: while it thinks that it does
// not, it counts nobody as silent.
func (n *simNode) listens() {
	w := n.w
	if n.core.started.IsZero() || n.core.hears(w.now) {
		return
	}
	n.deafAt = w.now
	if !w.lossy && w.now.Sub(n.born) > 3*time.Second && !w.hindered(n, w.now.Add(-3*time.Second)) {
		w.fail("%s thinks that it hears nothing", n.id)
	}
}

// check compares what a node's subscribers were shown with what the node
// knows: no change may have gone untold.
func (n *simNode) check() {
	w := n.w
	w.places(func(channel string, users []string) {
		if n.subs[channel] == 0 {
			return
		}
		members, shown := n.members[channel], n.shown[channel]
		for _, user := range users {
			there, _ := n.dir.Member(simApp, channel, user)
			if is := members[user]+there > 0; is != shown[user] {
				w.fail("%s: subscribers of %s were shown %v for %s, it is %v", n.id, channel, shown[user], user, is)
			}
		}
	})
}

// change lets a socket of a node do something.
func (n *simNode) change() {
	w := n.w
	channel := simChannels[w.rng.IntN(len(simChannels))]
	user := simUsers[w.rng.IntN(len(simUsers))]
	presence := channel != "x"
	switch w.rng.IntN(10) {
	case 0:
		n.sockets = w.rng.IntN(5)
		n.dir.SetSockets(simApp, n.sockets)
	case 1:
		n.users[user] = w.rng.IntN(3)
		n.dir.SetUser(simApp, user, n.users[user])
	case 2, 3, 4, 5, 6:
		n.join(channel, user)
	default:
		if presence {
			if n.members[channel][user] == 0 {
				return
			}
			n.members[channel][user]--
			n.dir.SetMember(simApp, channel, user, fmt.Sprintf(`{"at":%q}`, n.id), n.members[channel][user])
		} else if n.subs[channel] == 0 {
			return
		}
		n.subs[channel]--
		n.dir.SetChannel(simApp, channel, n.subs[channel])
		if presence {
			n.show(channel, user)
		}
		if n.subs[channel] == 0 {
			delete(n.shown, channel)
			n.emptied[channel] = w.now
		}
		w.note("%s: %s leaves %s", n.id, user, channel)
	}
	w.had[thing{simApp, channel, user}] = w.now
	n.settle()
	w.promise(n, channel, user)
}

// join lets a socket subscribe.
func (n *simNode) join(channel, user string) {
	w := n.w
	n.subs[channel]++
	if n.subs[channel] == 1 && channel != "x" {
		n.shown[channel], n.emptied[channel] = map[string]bool{}, w.now
		n.dir.Members(simApp, channel, func(u, _ string, _ int) bool {
			n.shown[channel][u] = true
			return true
		})
	}
	n.dir.SetChannel(simApp, channel, n.subs[channel])
	if channel != "x" {
		if n.members[channel] == nil {
			n.members[channel] = map[string]int{}
		}
		n.members[channel][user]++
		n.dir.SetMember(simApp, channel, user, fmt.Sprintf(`{"at":%q}`, n.id), n.members[channel][user])
		w.had[thing{simApp, channel, user}] = w.now
		n.show(channel, user)
	}
	w.note("%s: %s joins %s", n.id, user, channel)
}

// places are all channels with the members that they may have.
func (w *world) places(visit func(channel string, users []string)) {
	for _, channel := range simChannels {
		visit(channel, simUsers)
	}
	visit(simHome, w.made)
}

// promise checks 100 ms later that everybody sees a change, unless something
// went wrong in the meantime or shortly before.
func (w *world) promise(n *simNode, channel, user string) {
	if w.lossy {
		return
	}
	at := w.now
	subs, conns := n.subs[channel], n.members[channel][user]
	n.changed[channel] = at
	w.after(100*time.Millisecond, func() {
		if !n.alive || n.changed[channel] != at || w.hindered(n, at) {
			return
		}
		for _, o := range w.nodes {
			if o == n || !o.alive || w.hindered(o, at) {
				continue
			}
			p := o.core.peers[n.id]
			if p == nil || !p.held || p.transfer != nil {
				if w.calm(n) && w.calm(o) && at.Sub(n.born) > 3*time.Second && at.Sub(o.born) > 3*time.Second {
					w.fail("%s does not know %s", o.id, n.id)
				}
				continue
			}
			sees := map[directory.Kind]int{}
			o.dir.Entries(n.id, func(e directory.Entry) {
				if e.Channel == channel && (e.Kind == directory.Channel || e.Kind == directory.Member && e.User == user) {
					sees[e.Kind] = e.Value
				}
			})
			if got := sees[directory.Member]; got != conns {
				w.fail("%s sees %d connections of %s on %s at %s after 100 ms, it is %d", o.id, got, user, channel, n.id, conns)
			}
			if got := sees[directory.Channel]; got != subs {
				w.fail("%s sees %d subscriptions to %s at %s after 100 ms, it is %d", o.id, got, channel, n.id, subs)
			}
		}
	})
}

// hindered reports whether a node could not hear or speak since shortly before t.
func (w *world) hindered(n *simNode, t time.Time) bool {
	return w.down || n.asleep || n.cut || n.missed || n.faultAt.After(t.Add(-time.Second))
}

// calm reports whether a node was well for so long that everybody knows it.
func (w *world) calm(n *simNode) bool {
	return !w.hindered(n, w.now.Add(-2*simTimeout))
}

// die ends a process at once.
func (n *simNode) die() {
	w := n.w
	w.note("%s dies", n.id)
	n.alive = false
	w.nodes = slices.DeleteFunc(w.nodes, func(o *simNode) bool { return o == n })
	at, epoch := w.now, n.core.self.epoch
	missed := w.mourners(n)
	// Whoever hears must have noticed a second after the timeout.
	w.after(simTimeout+time.Second, func() {
		for _, o := range w.nodes {
			if w.hindered(o, at) || o.born.After(at) || w.lossy && o.deafAt.After(at.Add(-simTimeout)) {
				continue
			}
			if p := o.core.peers[n.id]; p != nil && p.epoch == epoch {
				w.fail("%s still has %s, which died %v ago", o.id, n.id, w.now.Sub(at))
			}
			for _, m := range missed {
				if m.node != o || w.had[m.what].After(at) || o.emptied[m.what.channel].After(at) {
					continue
				}
				w.mourned++
				if got := o.news[m.what]; got.removed != m.before.removed+1 || got.added != m.before.added {
					w.fail("%s: subscribers of %s were told %d times that %s left and %d times that it came since %s died %v ago",
						o.id, m.what.channel, got.removed-m.before.removed, m.what.user, got.added-m.before.added, n.id, w.now.Sub(at))
				}
			}
		}
	})
	if w.chance(0.5) {
		w.after(w.between(100*time.Millisecond, 2*simTimeout), func() {
			if !w.ended {
				w.boot(n.id)
			}
		})
	}
}

// A mourner is a node whose subscribers must be told that a member left, exactly
// once, because the only node that had it died.
type mourner struct {
	node   *simNode
	what   thing
	before news
}

// mourners returns who must be told of the death of a node. It is off the list
// already.
func (w *world) mourners(dead *simNode) (all []mourner) {
	for _, o := range w.nodes {
		if !o.knows(dead) || slices.ContainsFunc(w.nodes, func(m *simNode) bool { return m != o && !o.knows(m) }) {
			continue
		}
		for channel, members := range dead.members {
			for user, conns := range members {
				alone := !slices.ContainsFunc(w.nodes, func(m *simNode) bool { return m.members[channel][user] > 0 })
				if conns > 0 && alone && o.subs[channel] > 0 && o.shown[channel][user] {
					what := thing{simApp, channel, user}
					all = append(all, mourner{o, what, o.news[what]})
				}
			}
		}
	}
	return all
}

// knows reports whether a node has all that another one ever said or would say.
func (n *simNode) knows(o *simNode) bool {
	p := n.core.peers[o.id]
	state, _ := n.dir.Peer(o.id)
	return p != nil && p.epoch == o.core.self.epoch && p.transfer == nil && state.Seq == o.dir.Seq() && !o.dir.Pending()
}

// leave ends a process in order: its sockets go, then it says goodbye.
func (n *simNode) leave() {
	w := n.w
	w.note("%s leaves", n.id)
	for _, channel := range append(slices.Clone(simChannels), simHome) {
		for _, user := range slices.Sorted(maps.Keys(n.members[channel])) {
			if n.members[channel][user] > 0 {
				n.members[channel][user] = 0
				w.had[thing{simApp, channel, user}] = w.now
				n.dir.SetMember(simApp, channel, user, "", 0)
			}
		}
		if n.subs[channel] > 0 {
			n.subs[channel] = 0
			n.dir.SetChannel(simApp, channel, 0)
		}
	}
	clear(n.shown)
	for _, say := range []func(*core, time.Time) []outgoing{(*core).leave, (*core).farewell} {
		rest := say(n.core, w.now)
		_, _, facts := n.core.effects()
		for i := range facts {
			w.hear(n, &facts[i])
		}
		failed := false
		for i := range rest {
			failed = failed || w.publish(n, &rest[i]) != nil
		}
		if failed {
			break
		}
	}
	n.alive = false
	w.nodes = slices.DeleteFunc(w.nodes, func(o *simNode) bool { return o == n })
}

// remembered reports whether a node may die so that others know of it, and of
// those who died before and are not missed yet. What all who knew it took with
// them nobody can tell.
func (w *world) remembered(n *simNode) bool {
	w.deaths = slices.DeleteFunc(w.deaths, func(at time.Time) bool { return w.now.Sub(at) > simTimeout+2*time.Second })
	first := w.now
	if len(w.deaths) > 0 {
		first = w.deaths[0]
	}
	for _, o := range w.nodes {
		if o != n && !w.hindered(o, first) && first.Sub(o.born) > 5*time.Second {
			w.deaths = append(w.deaths, w.now)
			return true
		}
	}
	return false
}

// sleep lets a process stand still.
func (n *simNode) sleep(d time.Duration) {
	w := n.w
	w.note("%s stands still for %v", n.id, d)
	n.asleep, n.faultAt = true, w.now
	w.after(d, func() {
		if !n.alive {
			return
		}
		w.note("%s goes on", n.id)
		n.asleep, n.faultAt = false, w.now
		held := n.held
		n.held = nil
		if w.chance(0.3) && len(held) > 0 {
			// The broker has given it up.
			n.act(func() { n.core.lost(w.now) })
			w.after(w.between(10*time.Millisecond, time.Second), func() { n.act(func() { n.core.regained(w.now) }) })
			keep := w.rng.IntN(len(held))
			held = held[:keep]
			if n.busy {
				n.busy = false
				n.core.sent(w.now, errSim)
			}
		}
		for _, do := range held {
			n.act(do)
		}
	})
}

// sever cuts a node off from the broker. The bus notices, or not if it is short.
func (n *simNode) sever(d time.Duration) {
	w := n.w
	w.note("%s is cut off for %v", n.id, d)
	n.cut, n.missed = true, true
	n.faultAt = w.now
	noticed := d > 2*time.Second || w.chance(0.7)
	if noticed {
		w.after(min(d, w.between(0, 2*time.Second)), func() { n.act(func() { n.core.lost(w.now) }) })
	}
	w.after(d, func() {
		w.note("%s is connected again", n.id)
		n.cut = false
		n.faultAt = w.now
		w.after(w.between(time.Millisecond, 300*time.Millisecond), func() {
			n.missed = false
			n.faultAt = w.now
			if noticed {
				n.act(func() { n.core.regained(w.now) })
			}
		})
	})
}

// outage stops the broker.
func (w *world) outage(d time.Duration) {
	w.note("the broker is down for %v", d)
	w.down = true
	for _, n := range w.nodes {
		n.faultAt, n.bare = w.now, true
		w.after(w.between(0, time.Second), func() { n.act(func() { n.core.lost(w.now) }) })
	}
	w.after(max(d, time.Second), func() {
		w.note("the broker is back")
		w.down = false
		for _, n := range w.nodes {
			n.faultAt = w.now
			w.after(w.between(time.Millisecond, 500*time.Millisecond), func() {
				n.faultAt, n.bare = w.now, false
				n.act(func() { n.core.regained(w.now) })
			})
		}
	})
}

// disturb lets things go wrong as often as the profile says.
func (w *world) disturb() {
	if w.ended {
		return
	}
	const every = 100 * time.Millisecond
	per := func(rate float64) bool { return w.chance(rate * every.Minutes()) }
	pick := func() *simNode {
		n := w.nodes[w.rng.IntN(len(w.nodes))]
		if n.asleep || n.cut || n.missed {
			return nil
		}
		return n
	}
	p := &w.profile
	if len(w.nodes) > 2 && per(p.crashes) {
		if n := pick(); n != nil && w.remembered(n) {
			n.die()
		}
	}
	if len(w.nodes) > 2 && per(p.leaves) {
		if n := pick(); n != nil && w.now.Sub(n.born) > 5*time.Second {
			n.leave()
		}
	}
	if len(w.nodes) < 6 && per(p.joins) {
		w.boot("")
	}
	if per(p.pauses) {
		if n := pick(); n != nil {
			n.sleep(w.between(100*time.Millisecond, 3*simTimeout))
		}
	}
	if !w.down && per(p.cuts) {
		if n := pick(); n != nil {
			n.sever(w.between(50*time.Millisecond, 3*simTimeout))
		}
	}
	if !w.down && per(p.outages) {
		w.outage(w.between(100*time.Millisecond, 2*simTimeout))
	}
	w.after(every, w.disturb)
}

// publishing lets a node publish an event that everybody wants: if it may, all
// peers that the broker reaches must get it, also just after the broker is back.
func (w *world) publishing() {
	if w.ended {
		return
	}
	n := w.nodes[w.rng.IntN(len(w.nodes))]
	if !w.down && !n.asleep && !n.cut && !n.missed && n.core.losses > 0 && n.core.attended() && w.now.Sub(n.core.restored) < listenTimeout {
		for _, o := range w.nodes {
			if p := n.core.peers[o.id]; p != nil && p.target == o.core.self && o.bare && !o.asleep && !o.cut && !o.missed {
				w.fail("%s publishes, and %s does not hear", n.id, o.id)
			}
		}
	}
	w.after(w.between(time.Millisecond, 100*time.Millisecond), w.publishing)
}

// live lets sockets come and go.
func (w *world) live() {
	if w.ended {
		return
	}
	n := w.nodes[w.rng.IntN(len(w.nodes))]
	if !n.asleep {
		n.change()
	}
	w.after(w.between(time.Millisecond, 200*time.Millisecond), w.live)
}

// run goes on until a moment, or until something is wrong.
func (w *world) run(until time.Time) {
	for w.fault == nil && len(w.queue) > 0 && !w.queue[0].at.After(until) {
		e := heap.Pop(&w.queue).(*event)
		w.now = e.at
		w.events++
		e.do()
	}
	w.now = until
}

// simulate runs a seed: a while in which things go wrong, then quiet, then
// everything must be as it is.
func simulate(seed uint64, length time.Duration, trace bool) *world {
	w := newWorld(seed, profiles[seed%uint64(len(profiles))], trace)
	w.note("profile %s", w.profile.name)
	for range 2 + w.rng.IntN(3) {
		w.boot("")
	}
	w.after(w.between(0, 3*time.Second), w.live)
	w.after(4*time.Second, w.disturb)
	if profiles[seed%uint64(len(profiles))].outages > 0 {
		w.after(4*time.Second, w.publishing)
	}
	w.run(simEpoch.Add(length))
	// Quiet: whatever began ends, then there is time to find out and to heal.
	w.ended = true
	w.profile = profile{name: w.profile.name, crashes: w.profile.crashes, drop: 0, pauses: w.profile.pauses, cuts: w.profile.cuts, outages: w.profile.outages, reorder: w.profile.reorder}
	w.run(w.now.Add(3*simTimeout + 2*simTimeout + 3*simHeartbeat))
	if w.fault == nil {
		w.compare()
	}
	return w
}

// compare holds the views of all nodes, and what the world was told, against
// the truth.
func (w *world) compare() {
	truth := map[thing]int{}
	ids := map[string]*simNode{}
	for _, n := range w.nodes {
		ids[n.id] = n
		for channel, subs := range n.subs {
			truth[thing{simApp, channel, ""}] += subs
		}
		for channel, members := range n.members {
			for user, conns := range members {
				truth[thing{simApp, channel, user}] += conns
			}
		}
	}
	for _, n := range w.nodes {
		for id, p := range n.core.peers {
			o := ids[id]
			if o == nil || o.core.self.epoch != p.epoch {
				w.fail("%s still has %s", n.id, id)
				continue
			}
			state, _ := n.dir.Peer(id)
			if state.Digest != o.dir.Digest() || state.Seq != o.dir.Seq() || n.dir.RecountPeer(id) != o.dir.Recount() || !p.held || p.transfer != nil || p.differ != 0 {
				w.fail("%s has %s at %d with digest %x, it is at %d with %x", n.id, id, state.Seq, state.Digest, o.dir.Seq(), o.dir.Digest())
			}
		}
		for id := range ids {
			if id != n.id && n.core.peers[id] == nil {
				w.fail("%s does not know %s", n.id, id)
			}
		}
		if n2, n := n, len(n.core.charge.open); n > 0 {
			w.fail("%d things are open in the end at %s: %+v", n, n2.id, n2.core.charge.open)
		}
		if err := n.core.ready(w.now); err != nil {
			w.fail("%s is not ready: %v", n.id, err)
		}
		if n.core.charge.state != inCharge {
			w.fail("%s is not in charge", n.id)
		}
		if !slices.Equal(n.core.charge.owners, slices.Sorted(maps.Keys(ids))) {
			w.fail("%s thinks the owners are %v", n.id, n.core.charge.owners)
		}
		w.places(func(channel string, users []string) {
			own := n.subs[channel]
			if got := own + n.dir.Subscriptions(simApp, channel); got != truth[thing{simApp, channel, ""}] {
				w.fail("%s sees %d subscriptions to %s, there are %d", n.id, got, channel, truth[thing{simApp, channel, ""}])
			}
			for _, user := range users {
				there, _ := n.dir.Member(simApp, channel, user)
				if got := n.members[channel][user] + there; got != truth[thing{simApp, channel, user}] {
					w.fail("%s sees %d connections of %s on %s, there are %d", n.id, got, user, channel, truth[thing{simApp, channel, user}])
				}
			}
		})
		sockets, users := 0, map[string]int{}
		for _, o := range w.nodes {
			if o != n {
				sockets += o.sockets
				for u, c := range o.users {
					users[u] += c
				}
			}
		}
		if got := n.dir.Sockets(simApp); got != sockets {
			w.fail("%s sees %d sockets, there are %d", n.id, got, sockets)
		}
		for _, u := range simUsers {
			if got := n.dir.User(simApp, u); got != users[u] {
				w.fail("%s sees %d connections of the user %s, there are %d", n.id, got, u, users[u])
			}
		}
	}
	all := map[thing]bool{}
	for what := range truth {
		all[what] = true
	}
	for what := range w.world {
		all[what] = true
	}
	for _, what := range slices.SortedFunc(maps.Keys(all), func(a, b thing) int {
		return cmp.Compare(a.channel+" "+a.user, b.channel+" "+b.user)
	}) {
		if (truth[what] > 0) != (w.world[what] > 0) {
			w.fail("the world was told %v for %s %s, the truth is %d", w.world[what] > 0, what.channel, what.user, truth[what])
		}
	}
}
