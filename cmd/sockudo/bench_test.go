package main

import (
	"encoding/json"
	"fmt"
	"net/url"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"sockudo/internal/servicetest"
)

// A measured case, as --json has it.
type measured struct {
	Name     string
	Median   map[string]float64
	Runs     []map[string]float64
	Warnings []string
}

// benchmark runs sockudo bench and returns its cases.
func benchmark(t *testing.T, wantCode int, args ...string) []measured {
	t.Helper()
	args = append([]string{"bench"}, args...)
	args = append(args, "--json", "--warmup", "100ms", "--duration", "300ms", "--pause", "0")
	out, errs, code := finish(t, command(t, args...))
	if code != wantCode {
		t.Fatalf("%v: exit code %d, want %d\n%s%s", args, code, wantCode, out, errs)
	}
	var rep struct{ Cases []measured }
	if err := json.Unmarshal([]byte(out), &rep); err != nil {
		t.Fatalf("%v: %v\n%s", args, err, out)
	}
	return rep.Cases
}

// wants checks that metrics have been measured, and those with a number that
// they are that number.
func (m measured) wants(t *testing.T, keys ...string) {
	t.Helper()
	for _, key := range keys {
		name, text, exact := strings.Cut(key, "=")
		got, ok := m.Median[name]
		if !ok || exact && fmt.Sprint(got) != text {
			t.Errorf("%s: %s is %v, %v, want %q\n%v\n%q", m.Name, name, got, ok, text, m.Median, m.Warnings)
		}
	}
}

func TestBenchMeasuresOurServer(t *testing.T) {
	messages := []string{"lost=0", "duplicated=0", "reordered=0", "latency_p50_ms", "last_p99_ms", "delivered_per_s", "generator_pct"}
	server := []string{"server_rss_mib", "server_user_pct", "server_sys_pct"}
	if runtime.GOOS != "linux" {
		server = nil // other processes cannot be looked at
	}
	for _, c := range []struct {
		args []string
		want []string
	}{
		{[]string{"fanout", "-n", "50", "--probes", "50"}, append(messages, "refused=0", "answer_p50_ms", "query_p50_ms", "ping_p50_ms")},
		{[]string{"fanout", "-n", "50", "--rate", "0", "--in-flight", "16", "--http", "2"}, append(messages, "refused=0")},
		{[]string{"fanout", "-n", "20", "--source", "client", "--kind", "private", "--senders", "2"}, messages},
		{[]string{"fanout", "-n", "20", "--serve-tls"}, messages},
		{[]string{"fanout", "-n", "20", "--goroutines"}, messages},
		{[]string{"many", "--channels", "20", "-n", "3", "--http", "2"}, append(messages, "connections=60")},
		{[]string{"chat", "-n", "10"}, messages},
		{[]string{"chat", "-n", "10", "--source", "http"}, append(messages, "answer_p50_ms")},
		{[]string{"cluster", "--nodes", "1", "-n", "20", "--kind", "presence"}, messages},
		{[]string{"churn", "-n", "300", "--joins", "100", "--joiners", "10"}, append(messages, "joiners_lost=0", "join_p99_ms", "alone_last_p50_ms")},
		{[]string{"presence", "-n", "30", "--joins", "20", "--joiners", "10"}, append(messages, "join_p99_ms")},
		{[]string{"publish"}, []string{"refused=0", "requests_per_s", "answer_p50_ms"}},
		{[]string{"connect", "-n", "200"}, []string{"connections=200", "failed=0", "subscribed_p99_ms", "connects_per_s"}},
		{[]string{"idle", "-n", "200"}, []string{"connections=200"}},
	} {
		cases := benchmark(t, exitOK, append(c.args, "--serve")...)
		if len(cases) != 1 || len(cases[0].Runs) != 1 {
			t.Fatalf("%v: %+v", c.args, cases)
		}
		cases[0].Name = strings.Join(c.args, " ")
		cases[0].wants(t, c.want...)
		cases[0].wants(t, server...)
	}
}

func TestBenchCrossesNodes(t *testing.T) {
	broker := servicetest.Env(t, servicetest.Redis)
	dir := t.TempDir()
	prefix := fmt.Sprintf("bench-%s:", freePort(t))
	write(t, dir, "c.json", fmt.Sprintf(`{
		"adapter": {"driver": "redis", "redis": {"prefix": %q}},
		"app_manager": {"array": {"apps": [{"id": "1", "key": "k", "secret": "a-secret-of-the-test"}]}}}`, prefix))
	cases := benchmark(t, exitOK, "cluster", "-n", "20", "--serve", "--nodes", "2", "--serve-config", filepath.Join(dir, "c.json"), "--serve-env", "REDIS_URL="+broker)
	cases[0].wants(t, "lost=0", "duplicated=0", "reordered=0", "remote_p50_ms", "connections=20")
}

func TestBenchMeasuresTheBroker(t *testing.T) {
	redis := servicetest.Env(t, servicetest.Redis)
	seed, _, _ := strings.Cut(servicetest.Env(t, servicetest.RedisCluster), ",")
	server, _, _ := strings.Cut(servicetest.Env(t, servicetest.NATS), ",")
	host := strings.TrimPrefix(redis, "redis://")
	user := url.UserPassword(servicetest.User, servicetest.Password).String()
	for _, broker := range []string{redis, "redis://" + user + "@" + host, "redis-cluster://" + seed, server} {
		cases := benchmark(t, exitOK, "cluster", "-n", "10", "--serve", "--nodes", "1", "--broker", broker)
		cases[0].wants(t, "lost=0", "broker_p50_ms", "broker_p99_ms", "beyond_broker_p50_ms")
	}
	for broker, want := range map[string]string{
		"redis://" + user + "x@" + host:            "WRONGPASS",
		"rediss://127.0.0.1:6379":                  "redis-cluster",
		"redis://127.0.0.1":                        "redis://HOST:PORT",
		"redis://127.0.0.1:" + freePort(t):         "refused",
		"redis://:" + "in a secret@127.0.0.1:6379": "no URL",
	} {
		_, errs, code := finish(t, command(t, "bench", "cluster", "-n", "10", "--serve", "--nodes", "1", "--broker", broker))
		if code == exitOK || !strings.Contains(errs, want) || strings.Contains(errs, "secret") || strings.Contains(errs, "p%40ss") {
			t.Errorf("%s: %d %s; want %s and no password", broker, code, errs, want)
		}
	}
}

func TestBenchComparesInTurn(t *testing.T) {
	if runtime.GOOS != "linux" {
		out, errs, code := finish(t, command(t, "bench", "fanout", "--floor"))
		if code != exitFatal {
			t.Errorf("%d %s%s", code, out, errs)
		}
		return
	}
	args := []string{"fanout", "-n", "30", "--repeat", "2", "--server-cpu", "0", "--cpu", "0", "--case", "floor: --floor", "--case", "ours: --serve"}
	cases := benchmark(t, exitOK, append(args, "--require", "lost==0", "--require", "ours.server_us_per_message>0.001*floor", "--require", "floor.published>=1")...)
	if len(cases) != 2 || cases[0].Name != "floor" || cases[1].Name != "ours" {
		t.Fatalf("%+v", cases)
	}
	for _, c := range cases {
		c.wants(t, "lost=0", "server_us_per_message", "latency_p50_ms")
		if len(c.Runs) != 2 {
			t.Errorf("%s: %d runs", c.Name, len(c.Runs))
		}
	}
	benchmark(t, exitFatal, append(args, "--require", "ours.lost>0")...)
}

func TestBenchFindsAServerThatRuns(t *testing.T) {
	port := freePort(t)
	r := startServer(t, command(t, "--dev", "--port", port))
	r.until("listening")
	pid := fmt.Sprint(r.Process.Pid)
	args := []string{"fanout", "-n", "10", "--url", "http://127.0.0.1:" + port, "--app", "demo-app", "--key", "demo-key", "--secret", "demo-secret"}
	if runtime.GOOS == "linux" {
		args = append(args, "--pid", pid)
	}
	benchmark(t, exitOK, args...)[0].wants(t, "lost=0")
	// The app of the settings is found by itself.
	benchmark(t, exitOK, "fanout", "-n", "10", "--dev", "--url", "http://127.0.0.1:"+port)[0].wants(t, "lost=0")

	_, errs, code := finish(t, command(t, "bench", "fanout", "-n", "10", "--url", "http://127.0.0.1:"+port, "--app", "demo-app", "--key", "demo-key", "--secret", "wrong-secret"))
	if code != exitFatal || !strings.Contains(errs, "401") || strings.Contains(errs, "wrong-secret") {
		t.Errorf("a wrong secret: %d %s", code, errs)
	}
	r.stop(syscall.SIGTERM)
}

func TestBenchNamesTheLimitOfOpenFiles(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("there is no such limit")
	}
	sh := command(t)
	sh.Path, sh.Args = "/bin/sh", []string{"sh", "-c", `ulimit -n 100; exec "$0" bench idle --serve -n 500`, binary}
	_, errs, code := finish(t, sh)
	for _, text := range []string{"RLIMIT_NOFILE", "100", "500", "ulimit -n"} {
		if code != exitFatal || !strings.Contains(errs, text) {
			t.Errorf("%d, %q is missing: %s", code, text, errs)
		}
	}
}

func TestBenchUsage(t *testing.T) {
	for _, args := range [][]string{
		{"bench", "fanout"},
		{"bench", "fanout", "--nonsense"},
		{"bench", "fanout", "--serve", "--rate", "0"},
		{"bench", "connect", "--serve", "--senders", "3"},
		{"bench", "nothing"},
	} {
		if _, errs, code := finish(t, command(t, args...)); code != exitUsage || errs == "" {
			t.Errorf("%v: exit code %d, %s", args, code, errs)
		}
	}
	out, _, code := finish(t, command(t, "bench", "--help"))
	for _, scenario := range []string{"fanout", "many", "chat", "cluster", "churn", "connect", "idle", "presence", "publish"} {
		if code != exitOK || !strings.Contains(out, "\n  "+scenario+" ") {
			t.Errorf("%s is not in the help", scenario)
		}
		help, _, code := finish(t, command(t, "bench", scenario, "--help"))
		if code != exitOK || !strings.Contains(help, "Examples:") || !strings.Contains(help, "--repeat") {
			t.Errorf("%s: %s", scenario, help)
		}
	}
	if strings.Contains(out, "floor-server") {
		t.Error("the help shows the program behind --floor")
	}
}
