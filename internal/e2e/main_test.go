// Package e2e tests whole servers from outside: the conformance checklist of
// the protocol, official clients, hostile clients, leaks and stopping.
package e2e

import (
	"fmt"
	"log/slog"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"sockudo/internal/config"
	"sockudo/internal/pushertest"
	"sockudo/internal/servertest"
)

// groups are the groups of the checklist that this version can be tested for,
// with their first and last items. N is about webhooks, O about the HTTP
// fallback.
var groups = []struct {
	letter      string
	first, last int
}{
	{"A", 1, 30}, {"B", 31, 58}, {"C", 59, 82}, {"D", 83, 99}, {"E", 100, 131}, {"F", 132, 150}, {"G", 151, 167},
	{"H", 168, 173}, {"I", 174, 194}, {"J", 195, 219}, {"K", 220, 245}, {"L", 246, 264}, {"M", 265, 274}, {"P", 324, 337},
}

// elsewhere are items whose test is in another package, and where.
var elsewhere = map[int]string{
	99: "internal/sign: TestVectorsOfTheProtocol",
}

// untested are items that cannot be tested yet, and why.
var untested = map[int]string{
	332: "there are no webhooks yet that the Go library could validate",
}

// remarks are what is missing in the tests of items that count as passed.
var remarks = map[int]string{
	331: "the Go and Node libraries are tested, the PHP library is not: its registry could not be reached when the test was written",
	334: "what webhooks will report is tested at their seam, in internal/node: TestEveryOrderOfJoinsAndLeavesAtThreeNodes",
}

var (
	passedMu sync.Mutex
	passed   = map[int]bool{}
)

// items books the numbers of the checklist that a test stands for, if it passes.
func items(t *testing.T, numbers ...int) {
	t.Helper()
	t.Cleanup(func() {
		if t.Failed() || t.Skipped() {
			return
		}
		passedMu.Lock()
		defer passedMu.Unlock()
		for _, n := range numbers {
			passed[n] = true
		}
	})
}

func TestMain(m *testing.M) {
	code := m.Run()
	_ = os.RemoveAll(built.dir)
	if os.Getenv("SOCKUDO_TEST_SERVICES") != "" || slices.Contains(os.Args, "-test.v=true") {
		if missing := report(); len(missing) > 0 && code == 0 && os.Getenv("SOCKUDO_TEST_SERVICES") != "" {
			fmt.Printf("FAIL: items of the checklist without a passed test: %v\n", missing)
			code = 1
		}
	}
	os.Exit(code)
}

// report prints how much of the checklist ran and passed.
func report() (missing []int) {
	passes, total := 0, 0
	var parts []string
	for _, g := range groups {
		n := 0
		for i := g.first; i <= g.last; i++ {
			_, there := elsewhere[i]
			_, cannot := untested[i]
			switch {
			case passed[i] || there:
				n++
			case !cannot:
				missing = append(missing, i)
			}
		}
		size := g.last - g.first + 1
		parts = append(parts, fmt.Sprintf("%s %d/%d", g.letter, n, size))
		passes, total = passes+n, total+size
	}
	fmt.Printf("conformance: %d of %d items of groups A to M and P passed (%s)\n", passes, total, strings.Join(parts, ", "))
	for _, list := range []struct {
		format string
		items  map[int]string
	}{{"item %d is tested in %s", elsewhere}, {"item %d: %s", remarks}, {"item %d is not tested: %s", untested}} {
		for _, n := range slices.Sorted(maps.Keys(list.items)) {
			fmt.Printf("conformance: "+list.format+"\n", n, list.items[n])
		}
	}
	return missing
}

// The apps of servertest.Profile as clients know them.
func appNamed(name string) pushertest.App {
	return pushertest.App{ID: name + "-id", Key: name + "-key", Secret: name + "-secret"}
}

var (
	appB  = appNamed("app")
	plain = appNamed("plain")
	appC  = appNamed("other")
)

// profile adds the apps of the profile to settings.
func profile(edit func(*config.Config)) func(*config.Config) {
	return func(cfg *config.Config) {
		cfg.AppManager.Array.Apps = servertest.Profile()
		if edit != nil {
			edit(cfg)
		}
	}
}

// serve starts a server with the apps of the profile.
func serve(t testing.TB, edit func(*config.Config)) *servertest.Server {
	t.Helper()
	return servertest.Start(t, profile(edit))
}

// serveCluster starts nodes with the apps of the profile that share a broker in
// memory.
func serveCluster(t testing.TB, nodes int, edit func(*config.Config)) servertest.Cluster {
	t.Helper()
	return servertest.StartCluster(t, nodes, profile(edit))
}

// settler returns what waits until each node knows what the others have done:
// until their views agree, and an event of each node has reached a client of
// every node, behind all that was broadcast before.
func settler(t *testing.T, c servertest.Cluster) func(testing.TB) {
	t.Helper()
	app := appNamed("nosignin")
	var probes []*pushertest.Client
	var apis []*pushertest.API
	for _, addr := range c.Addrs() {
		probe := pushertest.Dial(t, addr, app, pushertest.Options{Timeout: servertest.Patience})
		probe.Subscribe("settle")
		probes = append(probes, probe)
		apis = append(apis, pushertest.NewAPI(t, addr, app))
	}
	return func(t testing.TB) {
		t.Helper()
		c.Settle(t)
		for _, api := range apis {
			api.Trigger("settle", "e", "")
		}
		for _, probe := range probes {
			for range apis {
				probe.Expect("e", "settle")
			}
		}
	}
}

func discard() *slog.Logger { return slog.New(slog.DiscardHandler) }
