package bench

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	// The floor program is this one.
	if len(os.Args) == 4 && os.Args[1] == "bench" && os.Args[2] == "floor-server" {
		if err := ServeFloor(context.Background(), os.Args[3]); err != nil {
			panic(err)
		}
		return
	}
	goleak.VerifyTestMain(m)
}

func TestEveryFaultIsCounted(t *testing.T) {
	faults := func(receiver, n int) fault {
		switch k := receiver*7 + n; {
		case k%11 == 0:
			return drop
		case k%13 == 0:
			return double
		case k%17 == 0:
			return hold
		}
		return none
	}
	for _, streams := range []bool{false, true} {
		for _, s := range []*Scenario{fanout, many, chat} {
			f := newFake(t)
			f.mu.Lock()
			f.faults = faults
			f.mu.Unlock()
			o := f.options(s)
			o.Subscribers, o.Rate, o.Stream, o.Drain = 12, 300, streams, 2*time.Second
			if s == many {
				o.Channels, o.HTTP = 4, 3
			}
			r, _ := run(t, s, o)
			f.mu.Lock()
			sent, doubled, late := f.sent, f.counts[double], f.late
			f.mu.Unlock()
			if sent < 12*50 {
				t.Errorf("%s: only %d deliveries", s.Name, sent)
			}
			if doubled == 0 || late == 0 || f.never() == 0 {
				t.Errorf("%s: not every fault was there", s.Name)
			}
			r.wants(t, map[string]int{"expected": sent, "lost": f.never(), "duplicated": doubled, "refused": 0})
			// A held message is late only if the next one of its own stream came first.
			if got := r.must(t, "reordered"); got > late || s != chat && got != late {
				t.Errorf("%s: reordered is %d of %d", s.Name, got, late)
			}
		}
	}
}

func TestFaultlessServerIsFaultless(t *testing.T) {
	f := newFake(t)
	o := f.options(fanout)
	o.Subscribers, o.Rate, o.Probes = 20, 200, 50
	r, _ := run(t, fanout, o)
	r.wants(t, map[string]int{"expected": f.publishes() * 20, "lost": 0, "duplicated": 0, "reordered": 0, "refused": 0, "published": f.publishes()})
	for _, key := range []string{"latency_p99_ms", "last_p50_ms", "answer_p99_ms", "query_p50_ms", "ping_p50_ms", "delivered_per_s", "generator_pct"} {
		if _, ok := r.value(key); !ok {
			t.Errorf("%s was not measured", key)
		}
	}
	if !warned(r, "--pid") {
		t.Errorf("nothing is said of the missing --pid: %q", r.Warnings)
	}
}

func TestRefusedMessagesAreNotExpected(t *testing.T) {
	f := newFake(t)
	f.mu.Lock()
	f.status = func(n int) (int, bool) {
		switch {
		case n%5 == 0:
			return http.StatusServiceUnavailable, false
		case n%7 == 0:
			return http.StatusServiceUnavailable, true // it lies
		}
		return http.StatusOK, true
	}
	f.mu.Unlock()
	o := f.options(fanout)
	o.Subscribers, o.Rate, o.HTTP = 6, 300, 2
	r, _ := run(t, fanout, o)
	refused, lies := 0, 0
	for n := range f.publishes() {
		if status, deliver := f.status(n); status != http.StatusOK {
			refused++
			if deliver {
				lies++
			}
		}
	}
	r.wants(t, map[string]int{"refused": refused, "expected": (f.publishes() - refused) * 6, "lost": 0, "unexpected": lies * 6})
	if !warned(r, "503") {
		t.Errorf("nothing is said of the answers: %q", r.Warnings)
	}
}

// A server that stands still cannot hide it: what should have been sent
// meanwhile waits as long.
func TestLatencyIsFromTheScheduledMoment(t *testing.T) {
	f := newFake(t)
	f.mu.Lock()
	f.pause = 250 * time.Millisecond
	f.mu.Unlock()
	o := f.options(fanout)
	o.Subscribers, o.Rate, o.Warmup, o.Duration = 3, 100, 0, 600*time.Millisecond
	r, _ := run(t, fanout, o)
	top, _ := r.value("latency_max_ms")
	middle, _ := r.value("latency_p90_ms")
	if top < 250 || middle < 100 {
		t.Errorf("latency p90 %v ms, max %v ms with a server that stood still for 250 ms", middle, top)
	}
	r.wants(t, map[string]int{"lost": 0, "published": 60})
}

func TestForeignMessagesAreTold(t *testing.T) {
	f := newFake(t)
	var unknown, tooNew [stampBytes]byte
	stamp{stream: 4711}.put(unknown[:])
	stamp{stream: 0, seq: 1 << 20}.put(tooNew[:])
	for _, extra := range [][]byte{unknown[:], tooNew[:]} {
		f.mu.Lock()
		f.extra, f.accepted = string(extra), 0
		f.mu.Unlock()
		o := f.options(fanout)
		o.Subscribers, o.Rate = 2, 200
		r, _ := run(t, fanout, o)
		if r.must(t, "lost") != 0 || !warned(r, "2 messages came that this run did not send") {
			t.Errorf("%q", r.Warnings)
		}
	}
}

func TestSaturationKeepsSoManyOnTheirWay(t *testing.T) {
	f := newFake(t)
	o := f.options(fanout)
	o.Subscribers, o.Rate, o.InFlight, o.HTTP = 5, 0, 8, 2
	r, _ := run(t, fanout, o)
	r.wants(t, map[string]int{"lost": 0, "reordered": 0, "published": f.publishes()})
	if f.publishes() < 20 {
		t.Errorf("only %d messages", f.publishes())
	}
}

func TestPestsLoadTheServerAndAreNoReceivers(t *testing.T) {
	f := newFake(t)
	o := f.options(fanout)
	o.Subscribers, o.Floods, o.Drips = 3, 1, 1
	r, _ := run(t, fanout, o)
	r.wants(t, map[string]int{"lost": 0, "connections": 3})
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.sockets) != 5 {
		t.Errorf("%d connections, want 5", len(f.sockets))
	}
}

func TestPublishCountsAnswers(t *testing.T) {
	f := newFake(t)
	o := f.options(publish)
	r, _ := run(t, publish, o)
	r.wants(t, map[string]int{"refused": 0, "published": f.publishes()})
	if v, _ := r.value("requests_per_s"); v < 10 {
		t.Errorf("%v requests per second", v)
	}
}

// Some servers close connections that are idle, or after so many requests.
func TestConnectionThatTheServerClosedIsMadeAgain(t *testing.T) {
	f := newFake(t)
	f.Config.SetKeepAlivesEnabled(false)
	o := f.options(fanout)
	o.Subscribers, o.Rate, o.Duration = 3, 8, time.Second // slow: what is sent before the end is seen has no answer
	r, _ := run(t, fanout, o)
	if n := r.must(t, "published"); n != f.publishes() || n < 8 {
		t.Errorf("%d published, %d came", n, f.publishes())
	}
	r.wants(t, map[string]int{"lost": 0, "refused": 0})
}

func TestAPIThatGoesAwayEndsTheRun(t *testing.T) {
	f := newFake(t)
	f.mu.Lock()
	f.status = func(n int) (int, bool) {
		if n >= 5 {
			panic(http.ErrAbortHandler)
		}
		return http.StatusOK, true
	}
	f.mu.Unlock()
	o := f.options(fanout)
	o.Subscribers, o.Rate = 3, 100
	_, err := Measure(t.Context(), fanout, o, nil, false)
	if err == nil || !strings.Contains(err.Error(), "the API does not answer") {
		t.Errorf("%v", err)
	}
}

func TestManyConnectionsComeFromManyAddresses(t *testing.T) {
	local := []*target{{addr: netip.MustParseAddrPort("127.0.0.1:6001")}}
	remote := []*target{{addr: netip.MustParseAddrPort("192.0.2.1:6001")}}
	for _, c := range []struct {
		want, connections int
		to                []*target
		first, last       string
	}{
		{0, 10_000, local, "invalid IP", "invalid IP"},
		{0, 60_000, local, "127.0.0.1", "127.0.0.5"},
		{4, 10, local, "127.0.0.1", "127.0.0.4"},
		{0, 60_000, remote, "invalid IP", "invalid IP"},
	} {
		all := sources(c.want, c.connections, c.to)
		if all[0].String() != c.first || all[len(all)-1].String() != c.last {
			t.Errorf("%d connections: %v", c.connections, all)
		}
	}
	if runtime.GOOS != "linux" {
		return // only 127.0.0.1 is there by itself
	}
	f := newFake(t)
	o := f.options(fanout)
	o.Subscribers, o.Sources = 8, 4
	r, _ := run(t, fanout, o)
	r.wants(t, map[string]int{"lost": 0})
	f.mu.Lock()
	defer f.mu.Unlock()
	from := map[string]bool{}
	for _, s := range f.sockets {
		host, _, _ := net.SplitHostPort(s.nc.RemoteAddr().String())
		from[host] = true
	}
	if len(from) != 4 {
		t.Errorf("connections came from %v", from)
	}
}

func TestFailuresSayWhatIsWrong(t *testing.T) {
	f := newFake(t)
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = closed.Close()
	for _, c := range []struct {
		name string
		edit func(*Options)
		want []string
	}{
		{"server down", func(o *Options) { o.URLs = []string{"http://" + closed.Addr().String()} }, []string{closed.Addr().String(), "connection refused"}},
		{"wrong key", func(o *Options) { o.Key = "other" }, []string{"404", "no such app"}},
		{"wrong secret", func(o *Options) { o.Secret = "other" }, []string{"401", "Invalid signature"}},
		{"wrong secret of a private channel", func(o *Options) { o.Secret, o.Kind = "other", "private" }, []string{"private-bench-0", "AuthError"}},
		{"too many connections", func(o *Options) { o.Subscribers = 3_000_000 }, []string{"RLIMIT_NOFILE", "3000003", "ulimit -n"}},
		{"no such process", func(o *Options) { o.PIDs = []int{1 << 30} }, []string{"--pid 1073741824"}},
	} {
		o := f.options(fanout)
		o.Subscribers = 3
		c.edit(&o)
		_, err := Measure(t.Context(), fanout, o, nil, false)
		if err == nil {
			t.Errorf("%s: no error", c.name)
			continue
		}
		for _, text := range append(c.want, "") {
			if !strings.Contains(err.Error(), text) {
				t.Errorf("%s: %q lacks %q", c.name, err, text)
			}
		}
		if strings.Contains(err.Error(), f.app.secret) {
			t.Errorf("%s: the error tells the secret: %v", c.name, err)
		}
	}
}

func TestServerThatDoesNotStartIsShown(t *testing.T) {
	o := fanout.Defaults()
	o.URLs, o.AppID, o.Key, o.Secret = []string{"http://127.0.0.1:1"}, "a", "b", "c"
	o.Exec = `sh -c 'echo "no such setting"; exit 3'`
	_, err := Measure(t.Context(), fanout, o, nil, false)
	if err == nil || !strings.Contains(err.Error(), "no such setting") {
		t.Errorf("%v", err)
	}
}

func TestConnectCountsFailures(t *testing.T) {
	f := newFake(t)
	o := f.options(connectStorm)
	o.Subscribers, o.Channels = 30, 5
	r, _ := run(t, connectStorm, o)
	r.wants(t, map[string]int{"connections": 30, "failed": 0})
	o.Key, o.ConnectRate = "other", 200
	r, _ = run(t, connectStorm, o)
	r.wants(t, map[string]int{"connections": 0, "failed": 30})
	if !warned(r, "30 times") || !warned(r, "no such app") {
		t.Errorf("%q", r.Warnings)
	}
}

func TestConnectionsThatEndAreTold(t *testing.T) {
	f := newFake(t)
	f.mu.Lock()
	f.status = func(n int) (int, bool) {
		if n == 20 {
			_ = f.sockets[1].nc.Close()
		}
		return http.StatusOK, true
	}
	f.mu.Unlock()
	o := f.options(fanout)
	o.Subscribers, o.Rate, o.Drain = 3, 200, 100*time.Millisecond
	r, _ := run(t, fanout, o)
	if r.must(t, "disconnected") != 1 || r.must(t, "lost") < 10 || !warned(r, "a connection ended") {
		t.Errorf("disconnected %d, lost %d, %q", r.must(t, "disconnected"), r.must(t, "lost"), r.Warnings)
	}
}

func TestOptionsThatCannotBeMeant(t *testing.T) {
	for _, c := range []struct {
		s    *Scenario
		edit func(*Options)
		want string
	}{
		{fanout, func(o *Options) { o.URLs = nil }, "--url"},
		{fanout, func(o *Options) { o.Serve = true }, "--url"},
		{fanout, func(o *Options) { o.Serve, o.Floor, o.URLs = true, true, nil }, "exclude each other"},
		{fanout, func(o *Options) { o.Exec, o.URLs = "x", nil }, "--url"},
		{chat, func(o *Options) { o.Floor, o.URLs = true, nil }, "not for chat"},
		{fanout, func(o *Options) { o.Key = "" }, "--key"},
		{fanout, func(o *Options) { o.Payload = 17 }, "at least 18"},
		{fanout, func(o *Options) { o.Subscribers = 0 }, "--subscribers is 0"},
		{fanout, func(o *Options) { o.Source = "ftp" }, `"ftp"`},
		{fanout, func(o *Options) { o.Kind = "secret" }, `"secret"`},
		{fanout, func(o *Options) { o.Source = "client" }, "private"},
		{fanout, func(o *Options) { o.Source, o.Kind, o.Senders = "client", "private", 1001 }, "1001"},
		{fanout, func(o *Options) { o.Rate = 0 }, "--in-flight"},
		{fanout, func(o *Options) { o.Rate = -1 }, "negative"},
		{fanout, func(o *Options) { o.Duration = 0 }, "--duration"},
		{fanout, func(o *Options) { o.Handshakes = 0 }, "--handshakes"},
		{fanout, func(o *Options) { o.Repeat = 0 }, "--repeat"},
		{fanout, func(o *Options) { o.Cases = []string{"a"} }, "NAME: FLAGS"},
		{fanout, func(o *Options) { o.Cases = []string{"a.b: "} }, "a.b"},
		{fanout, func(o *Options) { o.Cases = []string{"a: --rate 1", "a: --rate 2"} }, "twice"},
		{fanout, func(o *Options) { o.Cases = []string{"a: --joins 1"} }, "--joins"},
		{fanout, func(o *Options) { o.Cases = []string{"a: --rate 'x"} }, "not closed"},
		{fanout, func(o *Options) { o.Cases = []string{"a: more"} }, `"more"`},
		{fanout, func(o *Options) { o.Cases = []string{"a: --cpu 1"} }, "--cpu"},
		{fanout, func(o *Options) { o.Cases = []string{"a: --payload 1"} }, "at least 18"},
		{fanout, func(o *Options) { o.Require = []string{"lost"} }, "no comparison"},
		{fanout, func(o *Options) { o.Require = []string{"lost<=x"} }, "no number"},
		{fanout, func(o *Options) { o.Require = []string{"lost<=1*"} }, "a name is missing"},
		{publish, func(o *Options) { o.HTTP = 0 }, "--http is 0"},
	} {
		o := c.s.Defaults()
		o.URLs, o.AppID, o.Key, o.Secret = []string{"http://127.0.0.1:1"}, "a", "b", "c"
		c.edit(&o)
		_, err := Measure(t.Context(), c.s, o, nil, false)
		if _, ok := errors.AsType[*UsageError](err); !ok || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v, want a usage error with %q", err, c.want)
		}
	}
}
