// Package bench loads servers of the Pusher protocol and measures them: how long
// messages take, what became of each of them, and what the server spent on it.
//
// A run starts or finds its server, connects a crowd of clients, publishes on
// schedule whether or not earlier messages have arrived, and counts every
// delivery. Latency is from the moment at which a message should have been
// sent. Nothing of the server's packages for connections is used, so that a
// fault there cannot hide itself.
//
// # Ownership
//
// Every connection belongs to a lane, whose mu is held while its peer is told
// of something; on Linux a lane is an event loop. Publishers send through links
// from goroutines of their own. Lock order: lane.mu → api.mu → the link's mu;
// crowd.mu and stream.mu are leaves.
package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"runtime/debug"
	"slices"
	"time"

	"github.com/spf13/pflag"
)

// A Scenario is a kind of load.
type Scenario struct {
	Name    string
	Short   string
	Long    string
	Example string
	Count   string // what --subscribers are

	flags    []string // those that it knows of the ones that not all have
	env      []string // for a server that --serve starts
	defaults func(*Options)
	files    func(*Options) int // connections
	run      func(ctx context.Context, m *measurement) error
}

func (s *Scenario) uses(flag string) bool { return slices.Contains(s.flags, flag) }

// Defaults returns the options of the scenario without flags.
func (s *Scenario) Defaults() Options {
	o := Defaults()
	if s.defaults != nil {
		s.defaults(&o)
	}
	return o
}

// Scenarios returns all kinds of load.
func Scenarios() []*Scenario {
	return []*Scenario{fanout, many, chat, cluster, churn, connectStorm, idle, presence, publish}
}

// A measurement is one run of one variant.
type measurement struct {
	Run

	opts     *Options
	server   *server
	crowd    *crowd
	progress *progress
}

// Measure runs all cases of a scenario in turn and checks what is required.
// log gets the progress; live says that its last line can be overwritten.
func Measure(ctx context.Context, s *Scenario, o Options, log io.Writer, live bool) (*Report, error) {
	variants, required, err := o.plan(s)
	if err != nil {
		return nil, &UsageError{err.Error()}
	}
	if o.CPU != "" {
		if err := bindSelf(o.CPU); err != nil {
			return nil, fmt.Errorf("--cpu: %w", err)
		}
	}
	rep := &Report{Scenario: s.Name, Began: time.Now(), System: thisSystem(), Repeat: o.Repeat}
	for _, v := range variants {
		rep.Cases = append(rep.Cases, &Case{Name: v.name, Flags: changed(s, &v.opts)})
	}
	for round := range o.Repeat {
		for i, v := range variants {
			if round+i > 0 {
				if err := rest(ctx, o.Pause); err != nil {
					return nil, err
				}
			}
			title := v.name
			if o.Repeat > 1 {
				title = fmt.Sprintf("%s %d/%d", v.name, round+1, o.Repeat)
			}
			p := &progress{w: log, live: live, title: title}
			run, err := measure(ctx, s, v.opts, p)
			if err != nil {
				if len(variants)*o.Repeat == 1 {
					return nil, err
				}
				return nil, fmt.Errorf("%s: %w", title, err)
			}
			rep.Cases[i].Runs = append(rep.Cases[i].Runs, *run)
		}
	}
	for _, r := range required {
		rep.Checks = append(rep.Checks, r.check(rep)...)
	}
	return rep, nil
}

// secretFlags are not shown, flags of all cases together not repeated.
var secretFlags = map[string]bool{"secret": true, "serve-env": true, "broker": true}

// changed returns the flags that differ from the scenario's defaults.
func changed(s *Scenario, o *Options) map[string]string {
	was, now := s.Defaults(), *o
	before, after := pflag.NewFlagSet("", pflag.ContinueOnError), pflag.NewFlagSet("", pflag.ContinueOnError)
	was.Flags(before, s)
	now.Flags(after, s)
	out := map[string]string{}
	after.VisitAll(func(f *pflag.Flag) {
		if value := f.Value.String(); value != before.Lookup(f.Name).Value.String() && !secretFlags[f.Name] {
			out[f.Name] = value
		}
	})
	return out
}

func rest(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(d):
		return nil
	}
}

// measure does one run.
func measure(ctx context.Context, s *Scenario, o Options, p *progress) (*Run, error) {
	if o.Lanes == 0 {
		o.Lanes = runtime.GOMAXPROCS(0)
	}
	if o.Serve {
		o.Env = append(slices.Clone(s.env), o.Env...)
	}
	p.say("starting")
	srv, err := o.openServer(ctx)
	if err != nil {
		return nil, err
	}
	defer srv.close()
	if len(srv.pids) > 0 && canMeasure {
		if _, err := readAll(srv.pids); err != nil {
			return nil, err
		}
	}
	cr, err := newCrowd(ctx, &o, srv, s.files(&o))
	if err != nil {
		return nil, err
	}
	defer cr.shut()
	m := &measurement{opts: &o, server: srv, crowd: cr, progress: p}
	defer debug.SetGCPercent(debug.SetGCPercent(400)) // our own pauses are not the server's latency
	err = s.run(ctx, m)
	if died := srv.died(); died != nil {
		return nil, died
	}
	if err = errors.Join(cr.failed(), err); err != nil {
		return nil, err
	}
	m.finish()
	return &m.Run, nil
}

// pidNote says why there are no numbers of the server.
func (m *measurement) pidNote() {
	switch {
	case len(m.server.pids) == 0:
		m.warn("no --pid: CPU and memory of the server were not measured")
	case !canMeasure:
		m.warn("CPU and memory of other processes can be read on Linux only")
	}
}

// measured reports whether the server's processes can be looked at.
func (m *measurement) measured() bool { return canMeasure && len(m.server.pids) > 0 }

// finish adds what every scenario tells.
func (m *measurement) finish() {
	m.pidNote()
	cr := m.crowd
	if n := cr.leavers.Load(); n > 0 {
		m.add("disconnected", "connections that ended meanwhile", Count, float64(n))
	}
	cr.mu.Lock()
	defer cr.mu.Unlock()
	for text, n := range cr.complaints {
		m.warn("%d times: %s", n, text)
	}
	slices.Sort(m.Warnings)
	m.progress.done("%s", m.summary())
}

// summary is the line that stays after a run.
func (m *measurement) summary() string {
	text := "done"
	for _, key := range []string{"delivered_per_s", "requests_per_s", "connects_per_s", "joins_per_s", "latency_p50_ms", "latency_p99_ms", "lost", "server_us_per_message", "server_us_per_request", "server_us_per_connection", "rss_kib_per_connection"} {
		for _, metric := range m.Metrics {
			if metric.Key == key {
				text += ", " + metric.Label + " " + metric.Unit.format(metric.Value)
			}
		}
	}
	return text
}

// A mark is the state of everything at a moment.
type mark struct {
	at        int64
	server    usage
	own       usage
	delivered uint64
	answered  int64
	busy      int64
}

func (m *measurement) mark() (mark, error) {
	k := mark{own: ownUsage(), answered: m.crowd.answered.Load(), busy: m.crowd.busy()}
	k.delivered, _ = m.crowd.sum()
	if m.measured() {
		var err error
		if k.server, err = readAll(m.server.pids); err != nil {
			return k, err
		}
	}
	k.at = m.crowd.clock.now()
	return k, nil
}

// wait waits for a moment of the crowd's clock, and shows what goes on.
func (m *measurement) wait(ctx context.Context, moment int64, what string) error {
	last, _ := m.crowd.sum()
	at := m.crowd.clock.now()
	for {
		if err := errors.Join(m.crowd.failed(), m.server.died()); err != nil {
			return err
		}
		now := m.crowd.clock.now()
		left := time.Duration(moment - now)
		if left <= 0 {
			return nil
		}
		if now-at > int64(time.Second)/2 {
			delivered, _ := m.crowd.sum()
			m.progress.say("%s, %v left, %s deliveries/s", what, left.Round(time.Second), grouped(float64(delivered-last)*1e9/float64(now-at)))
			last, at = delivered, now
		}
		if err := rest(ctx, min(left, 100*time.Millisecond)); err != nil {
			return err
		}
	}
}

// addCosts adds what server and generator spent between two marks on n things.
func (m *measurement) addCosts(from, to mark, n float64, thing string) {
	wall := time.Duration(to.at - from.at)
	share := func(d time.Duration) float64 { return 100 * float64(d) / float64(wall) }
	own := to.own.since(from.own)
	if m.measured() {
		used := to.server.since(from.server)
		if n > 0 {
			m.add("server_us_per_"+thing, "server CPU per "+thing, Micros, micros(used.cpu)/n)
		}
		m.add("server_pct", "server CPU", Percent, share(used.cpu))
		m.add("server_user_pct", "server CPU, user", Percent, share(used.user))
		m.add("server_sys_pct", "server CPU, system", Percent, share(used.sys))
		m.add("server_rss_mib", "server RSS", Megabyte, float64(to.server.rss)/(1<<20))
	}
	if n > 0 && own.cpu > 0 {
		m.add("generator_us_per_"+thing, "generator CPU per "+thing, Micros, micros(own.cpu)/n)
	}
	procs := float64(runtime.GOMAXPROCS(0))
	m.add("generator_pct", "generator CPU", Percent, share(own.cpu))
	busy := 100 * float64(to.busy-from.busy) / float64(wall)
	switch {
	case share(own.cpu) > 90*procs:
		m.warn("the generator used %.0f %% of its %.0f CPUs: it is part of what was measured", share(own.cpu)/procs, procs)
	case busy > 85:
		m.warn("the busiest event loop of the generator was at work %.0f %% of the time: latencies are partly its own", busy)
	}
}
