package bench

import (
	"context"
	"runtime"
	"slices"
	"sync"
	"time"
)

// The scenarios in which messages go to channels with many subscribers.
var (
	fanout = &Scenario{
		Name:  "fanout",
		Short: "One channel with many subscribers",
		Long: `Publish to the subscribers of one channel and follow every message to each of them.
With --rate 0 and --in-flight N the server is kept saturated: N messages are on
their way at any time.`,
		Example: `  sockudo bench fanout --url http://127.0.0.1:6001 --app 1 --key KEY --secret SECRET --pid 4711
  sockudo bench fanout --serve --server-cpu 0 --cpu 1 -n 1000 -r 20 --repeat 5
  sockudo bench fanout --server-cpu 0 --cpu 1 --case 'floor: --floor' --case 'ours: --serve' \
      --require 'ours.server_us_per_message<=1.4*floor'`,
		Count: "subscribers of each channel",
		flags: []string{"subscribers", "channels", "senders", "kind", "source", "rate", "in-flight", "payload", "http", "probes", "floods", "drips"},
		files: broadcastFiles,
		run:   func(ctx context.Context, m *measurement) error { return m.broadcast(ctx) },
	}
	many = &Scenario{
		Name:  "many",
		Short: "Many channels with a few subscribers each",
		Long:  `Publish to many channels in turn.`,
		Example: `  sockudo bench many --serve --channels 1000 -n 10 -r 500
  sockudo bench many --url http://127.0.0.1:6001 --app 1 --key KEY --secret SECRET --channels 5000 -n 1 -r 2000 --http 4`,
		Count:    "subscribers of each channel",
		flags:    fanout.flags,
		defaults: func(o *Options) { o.Channels, o.Subscribers, o.Rate = 200, 10, 200 },
		files:    broadcastFiles,
		run:      func(ctx context.Context, m *measurement) error { return m.broadcast(ctx) },
	}
	chat = &Scenario{
		Name:  "chat",
		Short: "Members of private channels that send client events to each other",
		Long: `Every member sends client events, --rate in all; each goes to all other members. With
--source http the same number of messages is published through the API instead,
to compare.`,
		Example: `  sockudo bench chat --serve -n 100 -r 100
  sockudo bench chat -n 100 -r 200 --case 'http: --serve --source http' --case 'chat: --serve'`,
		Count: "members of each channel, all of whom send",
		flags: []string{"subscribers", "channels", "kind", "source", "rate", "in-flight", "payload", "http", "probes"},
		defaults: func(o *Options) {
			o.Subscribers, o.Kind, o.Source, o.Rate = 100, "private", sourceClient, 100
		},
		files: broadcastFiles,
		run: func(ctx context.Context, m *measurement) error {
			m.opts.Senders = m.opts.Subscribers
			return m.broadcast(ctx)
		},
	}
	cluster = &Scenario{
		Name:  "cluster",
		Short: "Subscribers and publishers spread over the nodes of a cluster",
		Long: `As fanout, over several URLs: subscribers connect to them in turn, and each publishing
connection belongs to one of them. What is published through another node than
that of the subscriber is shown on its own.

With --broker the way through the broker alone is measured in the same run: 50
times a second, between two publishes, a message of the same size is published
on one connection and read from another one (with NATS from the same one). Shown
is also how much later than that the last receiver of a message has it, at the
median: beyond_broker_p50_ms.`,
		Example: `  sockudo bench cluster --url http://10.0.0.1:6001 --url http://10.0.0.2:6001 --app 1 --key KEY --secret SECRET
  sockudo bench cluster --serve --nodes 2 --serve-env ADAPTER_DRIVER=redis --serve-env REDIS_URL=redis://127.0.0.1:6379 \
      -n 100 -r 100 --broker redis://127.0.0.1:6379 --require 'beyond_broker_p50_ms<=2'`,
		Count:    "subscribers of each channel, over all nodes",
		flags:    append(slices.Clone(fanout.flags), "broker"),
		defaults: func(o *Options) { o.HTTP, o.Nodes = 2, 2 },
		files:    broadcastFiles,
		run: func(ctx context.Context, m *measurement) error {
			m.opts.HTTP = max(m.opts.HTTP, len(m.server.urls))
			return m.broadcast(ctx)
		},
	}
)

func broadcastFiles(o *Options) int {
	return o.Channels*o.Subscribers + o.HTTP + o.Floods + o.Drips + 2
}

// slotsOf returns how many messages of each of n streams are followed to the
// last receiver at a time.
func slotsOf(n int) int {
	size := 1 << 14
	for size > 64 && n*size > 1<<20 {
		size /= 2
	}
	return size
}

// enroll makes the clients and streams of all channels.
func (m *measurement) enroll() []*client {
	o, cr := m.opts, m.crowd
	perChannel := max(1, o.HTTP/o.Channels) // streams
	receivers := o.Subscribers
	if o.Source == sourceClient {
		perChannel, receivers = o.Senders, o.Subscribers-1
	}
	total := perChannel * o.Channels
	all := make([]*client, 0, o.Channels*o.Subscribers)
	for ch := range o.Channels {
		name := channelName(o.Kind, ch)
		first := len(cr.streams)
		for i := range o.Subscribers {
			c := cr.newClient(name, false)
			c.streams, c.tracks = first, make([]track, perChannel)
			c.member = memberData(c.id)
			if o.Source == sourceClient && i < o.Senders {
				s := newStream(first+i, name, c.node, receivers, slotsOf(total))
				s.own = c
				cr.streams = append(cr.streams, s)
			}
			all = append(all, c)
		}
		for i := range perChannel {
			if o.Source == sourceClient {
				break
			}
			id := first + i
			cr.streams = append(cr.streams, newStream(id, name, id%o.HTTP%len(cr.targets), receivers, slotsOf(total)))
		}
	}
	return all
}

// broadcast connects everybody, publishes, and accounts for every message.
func (m *measurement) broadcast(ctx context.Context) error {
	o, cr := m.opts, m.crowd
	began := cr.clock.now()
	if err := cr.gather(ctx, m.enroll(), 0, m.progress); err != nil {
		return err
	}
	connected := time.Duration(cr.clock.now() - began)
	pub, stopProbes, err := m.prepare(ctx)
	if err != nil {
		return err
	}
	defer stopProbes()
	stopPests, err := m.startPests(ctx)
	if err != nil {
		return err
	}
	defer stopPests()

	start := cr.clock.now() + int64(50*time.Millisecond)
	w := &window{from: start + int64(o.Warmup), to: start + int64(o.Warmup+o.Duration)}
	probe, err := m.probeBroker(ctx, w)
	if err != nil {
		return err
	}
	defer probe.stop()
	merged, marks, err := m.publishAll(ctx, pub, start, []*window{w})
	if err != nil {
		return err
	}
	stopProbes()
	probe.stop()
	m.drain(ctx)
	m.add("connections", "connections", Count, float64(len(cr.clients)))
	m.add("connect_s", "all connected after", Seconds, connected.Seconds())
	m.addMessages(pub, merged()[0], marks[0], marks[1])
	m.addBroker(probe, w)
	return nil
}

// prepare makes what publishes, and begins to probe.
func (m *measurement) prepare(ctx context.Context) (pub *publisher, stopProbes func(), err error) {
	if m.opts.Source == sourceHTTP {
		m.crowd.openAPI(m.opts.HTTP)
	}
	if pub, err = newPublisher(m.crowd); err != nil {
		return nil, nil, err
	}
	if stopProbes, err = m.startProbes(ctx); err != nil {
		pub.pace.close()
		return nil, nil, err
	}
	runtime.GC() // what connecting has left
	return pub, stopProbes, nil
}

// publishAll publishes from start to the end of the last window and marks the
// edges of all windows. merged returns the windows over all lanes.
func (m *measurement) publishAll(ctx context.Context, pub *publisher, start int64, windows []*window) (merged func() []*window, marks []mark, err error) {
	cr := m.crowd
	everywhere := []*lane{pub.lag}
	for _, l := range cr.lanes {
		l.mu.Lock()
		l.windows = nil
		for _, w := range windows {
			l.windows = append(l.windows, &window{from: w.from, to: w.to})
		}
		l.mu.Unlock()
		everywhere = append(everywhere, l)
	}
	pub.lag.windows = windows
	ctx, cancel := context.WithCancel(ctx)
	var work sync.WaitGroup
	work.Go(func() { pub.run(ctx, start, windows[len(windows)-1].to) })
	defer work.Wait()
	defer cancel()
	for _, w := range windows {
		for _, edge := range []int64{w.from, w.to} {
			what := "warming up"
			if edge == w.to {
				what = "measuring"
			}
			if err := m.wait(ctx, edge, what); err != nil {
				return nil, nil, err
			}
			k, err := m.mark()
			if err != nil {
				return nil, nil, err
			}
			marks = append(marks, k)
		}
	}
	work.Wait()
	return func() []*window {
		for _, l := range everywhere[1:] {
			l.mu.Lock()
			for i, w := range l.windows {
				windows[i].merge(w)
			}
			l.mu.Unlock()
		}
		return windows
	}, marks, nil
}

// drain waits until everything that was sent has arrived, or nothing has come
// for a fifth of the time that it may take.
func (m *measurement) drain(ctx context.Context) {
	cr := m.crowd
	end := time.Now().Add(m.opts.Drain)
	last, quiet := uint64(0), time.Now()
	for time.Now().Before(end) {
		open := 0
		for _, a := range cr.apis {
			open += a.waiting()
		}
		var expected uint64
		for _, s := range cr.streams {
			expected += uint64(int(s.sent.Load())-len(s.refusals())) * uint64(s.receive)
		}
		_, counted := cr.sum()
		if open == 0 && counted >= expected {
			return
		}
		if counted != last {
			last, quiet = counted, time.Now()
		}
		if time.Since(quiet) > m.opts.Drain/5 {
			return
		}
		m.progress.say("waiting for what is on its way: %s deliveries", grouped(float64(expected-counted)))
		if rest(ctx, 10*time.Millisecond) != nil {
			return
		}
	}
}

// addMessages adds what became of the messages.
func (m *measurement) addMessages(pub *publisher, w *window, from, to mark) {
	cr := m.crowd
	t, foreign := cr.tallies()
	seconds := time.Duration(to.at - from.at).Seconds()
	delivered := float64(to.delivered - from.delivered)
	refused := 0
	for _, s := range cr.streams {
		refused += len(s.refusals())
	}
	m.add("published", "messages published, with the warm-up", Count, float64(pub.sent))
	m.add("refused", "refused by the API", Count, float64(refused))
	m.addTally(t, foreign)
	m.add("delivered_per_s", "deliveries", PerSec, delivered/seconds)
	m.addHist(&w.latency, "latency", "latency", 0.5, 0.9, 0.99, 0.999, 1)
	if len(cr.targets) > 1 {
		m.addHist(&w.remote, "remote", "latency from another node", 0.5, 0.99, 1)
	}
	m.addHist(&w.last, "last", "last receiver", 0.5, 0.99, 1)
	m.addHist(&w.answer, "answer", "API answer", 0.5, 0.99, 1)
	m.addHist(&w.query, "query", "API query meanwhile", 0.5, 0.99, 1)
	m.addHist(&w.ping, "ping", "ping meanwhile", 0.5, 0.99, 1)
	m.addCosts(from, to, delivered, "message")
	m.addLag(w)
}

// addTally adds what became of every message.
func (m *measurement) addTally(t tally, foreign int) {
	m.add("expected", "deliveries expected", Count, float64(t.Expected))
	m.add("lost", "lost", Count, float64(t.Lost))
	m.add("duplicated", "duplicated", Count, float64(t.Duplicated))
	m.add("reordered", "out of order", Count, float64(t.Reordered))
	if t.Unexpected > 0 {
		m.add("unexpected", "refused and delivered all the same", Count, float64(t.Unexpected))
	}
	if foreign > 0 {
		m.warn("%d messages came that this run did not send: somebody else uses the channel", foreign)
	}
}

// addLag adds how late the generator was, and warns if that matters.
func (m *measurement) addLag(w *window) {
	if m.opts.Rate == 0 || w.lag.n == 0 {
		return
	}
	lag := w.lag.quantile(0.99)
	m.add("generator_lag_p99_ms", "generator late by p99", Millis, millis(lag))
	interval := time.Duration(float64(time.Second) / m.opts.Rate)
	if lag > 2*time.Millisecond && (lag > w.latency.quantile(0.5)/4 || lag > interval) {
		m.warn("the generator sent its messages up to %v late (p99): latencies contain that, and messages that leave together cost a server less", lag.Round(10*time.Microsecond))
	}
}

// startProbes begins to ask and ping, if that is wanted. The returned function
// ends it and may be called twice.
func (m *measurement) startProbes(ctx context.Context) (stop func(), err error) {
	o, cr := m.opts, m.crowd
	if o.Probes == 0 || cr.raw {
		return func() {}, nil
	}
	c := cr.newClient("", true)
	if err := cr.gather(ctx, []*client{c}, 0, m.progress); err != nil {
		return nil, err
	}
	a := cr.openAPI(1)[0]
	cr.apis = cr.apis[:len(cr.apis)-1] // not to publish through
	ctx, cancel := context.WithCancel(ctx)
	var work sync.WaitGroup
	work.Go(func() {
		if err := cr.probe(ctx, a, c, o.Probes, channelName(o.Kind, 0)); err != nil {
			cr.fail(err)
		}
	})
	return func() {
		cancel()
		work.Wait()
		a.end()
	}, nil
}
