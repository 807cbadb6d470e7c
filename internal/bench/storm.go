package bench

import (
	"bytes"
	"context"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"time"
)

// The scenarios about connections.
var (
	connectStorm = &Scenario{
		Name:  "connect",
		Short: "Many connections at once",
		Long: `Connect, upgrade, and subscribe, as fast as --handshakes allows or at --connect-rate, and
count what each connection costs. What fails is counted and does not end the run.`,
		Example: `  sockudo bench connect --serve --server-cpu 0 --cpu 1 -n 15000
  sockudo bench connect --url http://127.0.0.1:6001 --app 1 --key KEY --secret SECRET -n 5000 --connect-rate 500`,
		Count:    "connections",
		flags:    []string{"subscribers", "channels", "kind", "connect-rate"},
		defaults: func(o *Options) { o.Channels, o.Subscribers = 100, 10_000 },
		files:    func(o *Options) int { return o.Subscribers },
		run:      func(ctx context.Context, m *measurement) error { return m.storm(ctx) },
	}
	idle = &Scenario{
		Name:  "idle",
		Short: "Many connections that do nothing",
		Long: `Hold connections with one subscription each and measure what they cost: memory, the CPU
of keeping them, and with --serve the server's garbage collections. Choose a
--duration above the server's activity timeout (120 s), so that pings are part
of it, and the collection that Go forces every two minutes.`,
		Example: `  sockudo bench idle --serve -n 18000 -d 150s
  sockudo bench idle --url http://127.0.0.1:6001 --app 1 --key KEY --secret SECRET --pid 4711 -n 10000`,
		Count:    "connections",
		flags:    []string{"subscribers", "channels", "kind", "connect-rate"},
		env:      []string{"GODEBUG=gctrace=1"},
		defaults: func(o *Options) { o.Channels, o.Subscribers, o.Duration = 100, 10_000, 30*time.Second },
		files:    func(o *Options) int { return o.Subscribers },
		run:      func(ctx context.Context, m *measurement) error { return m.idle(ctx) },
	}
)

// spread makes the clients of a storm, each in one of the channels.
func (m *measurement) spread() []*client {
	all := make([]*client, m.opts.Subscribers)
	for i := range all {
		all[i] = m.crowd.newClient(channelName(m.opts.Kind, i%m.opts.Channels), false)
		all[i].member = memberData(i)
	}
	return all
}

// storm connects and measures that.
func (m *measurement) storm(ctx context.Context) error {
	cr := m.crowd
	cr.strict = false
	all := m.spread()
	from, err := m.mark()
	if err != nil {
		return err
	}
	if err := cr.gather(ctx, all, m.opts.ConnectRate, m.progress); err != nil {
		return err
	}
	to, err := m.mark()
	if err != nil {
		return err
	}
	var opened, joined hist
	for _, l := range cr.lanes {
		l.mu.Lock()
		opened.merge(&l.opened)
		joined.merge(&l.joined)
		l.mu.Unlock()
	}
	made := float64(cr.arrivals.Load())
	seconds := time.Duration(to.at - from.at).Seconds()
	m.add("connections", "connected and subscribed", Count, made)
	m.add("failed", "refused or lost", Count, float64(cr.failures.Load()+cr.leavers.Load()))
	m.add("connects_per_s", "connections", PerSec, made/seconds)
	m.addHist(&opened, "established", "connection_established", 0.5, 0.99, 1)
	m.addHist(&joined, "subscribed", "subscribed", 0.5, 0.99, 1)
	m.addCosts(from, to, made, "connection")
	if m.measured() && made > 0 {
		m.add("rss_kib_per_connection", "server RSS per connection, just connected", Kilobyte, float64(to.server.rss-from.server.rss)/1024/made)
	}
	return nil
}

// idle connects, waits, and measures the waiting.
func (m *measurement) idle(ctx context.Context) error {
	cr := m.crowd
	empty, err := m.mark()
	if err != nil {
		return err
	}
	if err := cr.gather(ctx, m.spread(), m.opts.ConnectRate, m.progress); err != nil {
		return err
	}
	full, err := m.mark()
	if err != nil {
		return err
	}
	runtime.GC()
	if err := m.wait(ctx, full.at+int64(m.opts.Warmup), "settling"); err != nil {
		return err
	}
	from, err := m.mark()
	if err != nil {
		return err
	}
	before := lastCollection(m.server.output())
	if err := m.wait(ctx, from.at+int64(m.opts.Duration), "holding "+grouped(float64(len(cr.clients)))); err != nil {
		return err
	}
	to, err := m.mark()
	if err != nil {
		return err
	}
	n := float64(len(cr.clients))
	m.add("connections", "connections", Count, n)
	if m.measured() {
		perConnection := func(k mark) float64 { return float64(k.server.rss-empty.server.rss) / 1024 / n }
		m.add("rss_kib_per_connection", "server RSS per connection", Kilobyte, perConnection(to))
		m.add("rss_kib_per_connection_at_first", "the same, just connected", Kilobyte, perConnection(full))
		m.add("rss_empty_mib", "server RSS without connections", Megabyte, float64(empty.server.rss)/(1<<20))
	}
	m.addCosts(from, to, 0, "")
	m.addCollections(collections(m.server.output()), before)
	return nil
}

// A collection is one of Go's garbage collections.
type collection struct {
	number int
	wall   float64 // ms
	pauses [2]float64
}

var traceLine = regexp.MustCompile(`(?m)^gc (\d+) @[0-9.]+s \d+%: ([0-9.]+)\+([0-9.]+)\+([0-9.]+) ms clock`)

// collections reads the lines that GODEBUG=gctrace=1 makes.
func collections(output string) []collection {
	var all []collection
	for _, found := range traceLine.FindAllSubmatch([]byte(output), -1) {
		number := func(i int) float64 { v, _ := strconv.ParseFloat(string(bytes.TrimSpace(found[i])), 64); return v }
		first, middle, last := number(2), number(3), number(4)
		all = append(all, collection{int(number(1)), first + middle + last, [2]float64{first, last}})
	}
	return all
}

func lastCollection(output string) int {
	all := collections(output)
	if len(all) == 0 {
		return 0
	}
	return all[len(all)-1].number
}

// addCollections adds those behind a number.
func (m *measurement) addCollections(all []collection, before int) {
	var walls []float64
	pause := 0.0
	for _, c := range all {
		if c.number > before {
			walls = append(walls, c.wall)
			pause = max(pause, c.pauses[0], c.pauses[1])
		}
	}
	if len(all) == 0 {
		return
	}
	n := len(walls)
	m.add("gc_count", "garbage collections meanwhile", Count, float64(n))
	if n > 0 {
		slices.Sort(walls)
		m.add("gc_wall_p50_ms", "median of them", Millis, walls[(n-1)/2])
		m.add("gc_wall_max_ms", "longest of them", Millis, walls[n-1])
		m.add("gc_pause_max_ms", "longest pause of them", Millis, pause)
	}
}
