package bench

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// The scenarios in which members come and go.
var (
	churn = &Scenario{
		Name:  "churn",
		Short: "Joining and leaving a large channel while it is published to",
		Long: `Publish to a channel, first for a --duration alone and then for another one while --joiners
connections join and leave it, --joins times a second each. Shows how long a
join takes, and what the coming and going does to everybody else.`,
		Example: `  sockudo bench churn --serve -n 15000 -r 20 --joins 1000
  sockudo bench churn --url http://127.0.0.1:6001 --app 1 --key KEY --secret SECRET --pid 4711 -n 2000`,
		Count:    "subscribers that stay",
		flags:    []string{"subscribers", "kind", "rate", "payload", "http", "joins", "joiners", "probes"},
		defaults: func(o *Options) { o.Subscribers, o.Joins, o.Joiners = 5000, 1000, 500 },
		files:    func(o *Options) int { return o.Subscribers + o.Joiners + o.HTTP + 2 },
		run:      func(ctx context.Context, m *measurement) error { return m.churn(ctx) },
	}
	presence = &Scenario{
		Name:  "presence",
		Short: "Members that join and leave a presence channel",
		Long: `Members watch a presence channel while --joiners others join and leave it, each time as a
new user, --joins times a second each. Every member_added and member_removed is
followed to every member that stays.`,
		Example: `  sockudo bench presence --serve -n 500 --joins 50
  sockudo bench presence --url http://127.0.0.1:6001 --app 1 --key KEY --secret SECRET -n 90 --joiners 10 --joins 20`,
		Count:    "members that stay",
		flags:    []string{"subscribers", "joins", "joiners"},
		defaults: func(o *Options) { o.Subscribers, o.Joins, o.Joiners, o.Kind = 500, 20, 50, "presence" },
		files:    func(o *Options) int { return o.Subscribers + o.Joiners },
		run:      func(ctx context.Context, m *measurement) error { return m.presence(ctx) },
	}
)

// A mingling is a number of connections that join and leave a channel.
type mingling struct {
	crowd   *crowd
	channel string
	all     []*client
	joins   atomic.Int64
	skipped atomic.Int64 // joins that were due while the one before had no answer

	// prepare and parted are told, if set, before a client joins and leaves.
	prepare func(c *client, i int, due int64)
	parted  func(c *client, i int, due int64)
}

// mingle connects those that will join and leave.
func (m *measurement) mingle(ctx context.Context, channel string) (*mingling, error) {
	g := &mingling{crowd: m.crowd, channel: channel}
	for range m.opts.Joiners {
		g.all = append(g.all, m.crowd.newClient("", true))
	}
	if err := m.crowd.gather(ctx, g.all, 0, m.progress); err != nil {
		return nil, err
	}
	for _, c := range g.all {
		c.lane.mu.Lock()
		c.channel, c.member = channel, memberData(c.id)
		c.lane.mu.Unlock()
	}
	m.crowd.onJoin = g.joined
	return g, nil
}

// joined notes the answer to a join; the lane is held.
func (g *mingling) joined(c *client, now int64) {
	if w := c.lane.at(c.asked); w != nil {
		w.join.add(now - c.asked)
	}
	c.asked = 0
	g.settle(c)
	g.joins.Add(1)
}

// settle counts what a client has missed since it joined, and begins anew; the
// lane is held.
func (g *mingling) settle(c *client) {
	for i := range c.tracks {
		t := &c.tracks[i]
		if len(t.skipped) > 0 {
			c.lane.gaps += uint64(t.gaps(g.crowd.streams[c.streams+i].refusals()))
		}
		*t = track{next: unseen}
	}
}

// run lets members come and go from a moment until another one. Half of them
// are inside at a time.
func (g *mingling) run(ctx context.Context, rate float64, from, to int64) error {
	pace, err := newPacer(g.crowd.clock)
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, pace.close)
	defer stop()
	defer pace.close()
	n := len(g.all)
	for i := 0; ; i++ {
		due := from + int64(float64(i)/rate*float64(time.Second))
		if due >= to || !pace.until(due) {
			return nil
		}
		g.join(i%n, due)
		g.leave((i+n-n/2)%n, due)
	}
}

func (g *mingling) join(i int, due int64) {
	c := g.all[i]
	c.lane.mu.Lock()
	defer c.lane.mu.Unlock()
	switch {
	case c.link == nil:
	case c.asked != 0 || c.inside:
		g.skipped.Add(1)
	default:
		if g.prepare != nil {
			g.prepare(c, i, due)
		}
		c.inside = true
		c.subscribe(due)
	}
}

func (g *mingling) leave(i int, due int64) {
	c := g.all[i]
	c.lane.mu.Lock()
	defer c.lane.mu.Unlock()
	if c.link == nil || !c.inside {
		return
	}
	c.inside = false
	if g.parted != nil {
		g.parted(c, i, due)
	}
	c.unsubscribe()
}

// addJoins adds what joining was like.
func (m *measurement) addJoins(g *mingling, w *window, seconds float64) {
	m.add("joins_per_s", "joins", PerSec, float64(w.join.n)/seconds)
	m.addHist(&w.join, "join", "join", 0.5, 0.9, 0.99, 1)
	if n := g.skipped.Load(); n > 0 {
		m.warn("%d joins were left out: the one before had not been answered", n)
	}
}

// churn publishes, first alone and then while others come and go.
func (m *measurement) churn(ctx context.Context) error {
	o, cr := m.opts, m.crowd
	if err := cr.gather(ctx, m.enroll(), 0, m.progress); err != nil {
		return err
	}
	g, err := m.mingle(ctx, channelName(o.Kind, 0))
	if err != nil {
		return err
	}
	for _, c := range g.all {
		c.lane.mu.Lock()
		c.tracks = make([]track, len(cr.streams))
		g.settle(c)
		c.lane.mu.Unlock()
	}
	pub, stopProbes, err := m.prepare(ctx)
	if err != nil {
		return err
	}
	defer stopProbes()
	start := cr.clock.now() + int64(50*time.Millisecond)
	alone := &window{from: start + int64(o.Warmup)}
	alone.to = alone.from + int64(o.Duration)
	churning := alone.to + int64(o.Warmup)
	mixed := &window{from: churning + int64(o.Warmup)}
	mixed.to = mixed.from + int64(o.Duration)
	ctx, cancel := context.WithCancel(ctx)
	var work sync.WaitGroup
	work.Go(func() {
		if err := g.run(ctx, o.Joins, churning, mixed.to); err != nil {
			cr.fail(err)
		}
	})
	defer work.Wait()
	defer cancel()
	merged, marks, err := m.publishAll(ctx, pub, start, []*window{alone, mixed})
	if err != nil {
		return err
	}
	stopProbes()
	work.Wait()
	m.drain(ctx)
	merged()
	m.add("connections", "subscribers that stay", Count, float64(len(cr.clients)))
	m.addJoins(g, mixed, o.Duration.Seconds())
	m.addHist(&alone.latency, "alone_latency", "latency without joins", 0.5, 0.99, 1)
	m.addHist(&alone.last, "alone_last", "last receiver without joins", 0.5, 0.99)
	m.addHist(&alone.answer, "alone_answer", "API answer without joins", 0.5, 0.99)
	m.addMessages(pub, mixed, marks[2], marks[3])
	gaps := 0.0
	for _, c := range g.all {
		c.lane.mu.Lock()
		g.settle(c)
		c.lane.mu.Unlock()
	}
	for _, l := range cr.lanes {
		l.mu.Lock()
		gaps += float64(l.gaps)
		l.mu.Unlock()
	}
	m.add("joiners_lost", "lost by joiners between two others", Count, gaps)
	if m.measured() {
		used, wall := marks[1].server.since(marks[0].server), marks[1].at-marks[0].at
		m.add("alone_server_pct", "server CPU without joins", Percent, 100*float64(used.cpu)/float64(wall))
	}
	return nil
}

// presence lets members come and go and follows the news of it to those that
// stay. Each joiner is a stream: even numbers are its joins, odd ones its
// leaves.
func (m *measurement) presence(ctx context.Context) error {
	o, cr := m.opts, m.crowd
	cr.plain = false
	name := channelName("presence", 0)
	all := make([]*client, o.Subscribers)
	for i := range all {
		all[i] = cr.newClient(name, false)
		all[i].member = memberData(i)
		all[i].tracks = make([]track, o.Joiners)
	}
	for i := range o.Joiners {
		cr.streams = append(cr.streams, newStream(i, name, i%len(cr.targets), o.Subscribers, slotsOf(o.Joiners)))
	}
	cr.onEvent = func(c *client, event string, s stamp, now int64) {
		switch event {
		case "pusher_internal:member_removed":
			s.seq++
			if s.stream < len(cr.streams) {
				s.at, _ = cr.streams[s.stream].due(uint32(s.seq))
			}
		case "pusher_internal:member_added":
		default:
			return
		}
		cr.message(c, s, now)
	}
	if err := cr.gather(ctx, all, 0, m.progress); err != nil {
		return err
	}
	g, err := m.mingle(ctx, name)
	if err != nil {
		return err
	}
	for _, c := range g.all {
		c.node = c.id % len(cr.targets)
	}
	g.prepare = func(c *client, i int, due int64) {
		s := stamp{i, int(cr.streams[i].begin(due)), due}
		cr.inFlight.Add(1)
		var id [stampBytes]byte
		s.put(id[:])
		c.member = fmt.Sprintf(`{"user_id":"%s"}`, id)
	}
	g.parted = func(_ *client, i int, due int64) {
		cr.streams[i].begin(due)
		cr.inFlight.Add(1)
	}
	start := cr.clock.now() + int64(50*time.Millisecond)
	w := &window{from: start + int64(o.Warmup), to: start + int64(o.Warmup+o.Duration)}
	for _, l := range cr.lanes {
		l.mu.Lock()
		l.windows = []*window{{from: w.from, to: w.to}}
		l.mu.Unlock()
	}
	ctx, cancel := context.WithCancel(ctx)
	var work sync.WaitGroup
	work.Go(func() {
		if err := g.run(ctx, o.Joins, start, w.to); err != nil {
			cr.fail(err)
		}
	})
	defer work.Wait()
	defer cancel()
	var marks []mark
	for _, edge := range []int64{w.from, w.to} {
		if err := m.wait(ctx, edge, "measuring"); err != nil {
			return err
		}
		k, err := m.mark()
		if err != nil {
			return err
		}
		marks = append(marks, k)
	}
	work.Wait()
	m.drain(ctx)
	for _, l := range cr.lanes {
		l.mu.Lock()
		w.merge(l.windows[0])
		l.mu.Unlock()
	}
	from, to := marks[0], marks[1]
	t, foreign := cr.tallies()
	m.add("connections", "members that stay", Count, float64(len(all)))
	m.addJoins(g, w, o.Duration.Seconds())
	m.addTally(t, foreign)
	delivered := float64(to.delivered - from.delivered)
	m.add("delivered_per_s", "deliveries", PerSec, delivered/time.Duration(to.at-from.at).Seconds())
	m.addHist(&w.latency, "latency", "latency", 0.5, 0.9, 0.99, 0.999, 1)
	m.addHist(&w.last, "last", "last member", 0.5, 0.99, 1)
	m.addCosts(from, to, delivered, "message")
	return nil
}
