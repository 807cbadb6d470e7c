package natsbus_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"sockudo/internal/cluster"
	"sockudo/internal/cluster/bustest"
	"sockudo/internal/cluster/natsbus"
	"sockudo/internal/servicetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const timeout = time.Second // of a server, in faults

func open(t testing.TB, opts natsbus.Options) *natsbus.Bus {
	t.Helper()
	opts.Log = slog.New(slog.NewTextHandler(t.Output(), nil))
	b, err := natsbus.Open(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	return b
}

func list(servers string) []string { return strings.Split(servers, ",") }

func TestContract(t *testing.T) {
	t.Parallel()
	bustest.Run(t, func(t *testing.T) cluster.Bus {
		return open(t, natsbus.Options{Servers: list(servicetest.Env(t, servicetest.NATS))})
	})
}

func TestContractWithTLSAndAToken(t *testing.T) {
	t.Parallel()
	s := servicetest.Start(t, servicetest.Options{Lines: `
		authorization { token: geheim }
		tls { cert_file: "@DIR@/tls/server.crt", key_file: "@DIR@/tls/server.key" }
	`}, "nats")
	pem, err := os.ReadFile(s.Env(t, servicetest.CA))
	if err != nil {
		t.Fatal(err)
	}
	opts := natsbus.Options{
		Servers: list(strings.ReplaceAll(s.Env(t, servicetest.NATS), "nats://", "tls://")),
		Token:   "geheim",
		TLS:     &tls.Config{RootCAs: x509.NewCertPool()},
	}
	opts.TLS.RootCAs.AppendCertsFromPEM(pem)
	bustest.Run(t, func(t *testing.T) cluster.Bus { return open(t, opts) })

	opts.TLS = nil // nobody knows the authority
	if _, err := natsbus.Open(t.Context(), opts); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("err = %v, want that the certificate is not trusted", err)
	}
}

// every calls f for all servers of a group of NATS servers.
func every(f func(server string)) {
	for i := range 3 {
		f(fmt.Sprint("nats", i+1))
	}
}

func TestFaults(t *testing.T) {
	t.Parallel()
	s := servicetest.Start(t, servicetest.Options{}, "nats")
	var proxies []*servicetest.Proxy
	var through []string
	for _, server := range list(s.Env(t, servicetest.NATS)) {
		p := servicetest.NewProxy(t, strings.TrimPrefix(server, "nats://"))
		proxies, through = append(proxies, p), append(through, "nats://"+p.Addr())
	}
	cuts := 0
	bustest.Faults(t, bustest.Broker{
		Connect: func(t *testing.T) cluster.Bus { return open(t, natsbus.Options{Servers: through, Timeout: timeout}) },
		Cut: func(t *testing.T) {
			if cuts++; cuts > 1 { // it knows the servers' own addresses by now
				every(func(name string) { s.Kill(t, name); s.Restart(t, name) })
				return
			}
			for _, p := range proxies {
				p.Cut()
			}
		},
		Crash:   func(t *testing.T) { every(func(name string) { s.Kill(t, name) }) },
		Recover: func(t *testing.T) { every(func(name string) { s.Restart(t, name) }) },
		Freeze:  func(t *testing.T) { every(func(name string) { s.Pause(t, name) }) },
		Thaw:    func(t *testing.T) { every(func(name string) { s.Resume(t, name) }) },
	})
}

// Where one server of three dies, the rest goes on.
func TestADeadServerIsLeftForAnother(t *testing.T) {
	t.Parallel()
	s := servicetest.Start(t, servicetest.Options{}, "nats")
	var nodes []*bustest.Node
	for _, server := range list(s.Env(t, servicetest.NATS)) {
		// Each begins at another server and finds the rest by itself.
		nodes = append(nodes, bustest.Start(t, open(t, natsbus.Options{Servers: []string{server}, Timeout: timeout})))
	}
	topic := "natsbus:" + t.TempDir()
	for _, n := range nodes {
		n.Hear(topic)
	}
	s.Kill(t, "nats2")
	nodes[1].AwaitLoss(0)
	for _, n := range nodes {
		n.AwaitRestored()
	}
	for i, n := range nodes {
		msg := fmt.Sprint("from ", i)
		bustest.Retry(t, func(ctx context.Context) error { return n.Publish(ctx, topic, []byte(msg)) })
		for _, to := range nodes {
			if got := to.Got(topic, i+1); string(got[i]) != msg {
				t.Errorf("got %q, want %q", got[i], msg)
			}
		}
	}
}

func TestTooLargeAMessageNamesTheLimit(t *testing.T) {
	t.Parallel()
	s := servicetest.Start(t, servicetest.Options{Lines: "max_payload: 4096"}, "nats")
	n := bustest.Start(t, open(t, natsbus.Options{Servers: list(s.Env(t, servicetest.NATS))}))
	topic := "natsbus:" + t.TempDir()
	n.Hear(topic)
	err := n.Publish(t.Context(), topic, make([]byte, 4097))
	if err == nil || !strings.Contains(err.Error(), "4097") || !strings.Contains(err.Error(), "max_payload of the server is 4096") {
		t.Errorf("err = %v, want size and limit", err)
	}
	n.Say(topic, strings.Repeat("x", 4096)) // nothing else is harmed
	n.Got(topic, 1)
}

func TestSlowHandlingLosesNothingThatFits(t *testing.T) {
	t.Parallel()
	servers := list(servicetest.Env(t, servicetest.NATS))
	a := bustest.Start(t, open(t, natsbus.Options{Servers: servers}))
	slow := &slowEvents{hold: make(chan struct{}), got: make(chan int, 1)}
	b := open(t, natsbus.Options{Servers: servers})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- b.Run(ctx, slow) }()
	topic := "natsbus:" + t.TempDir()
	if err := b.Subscribe(t.Context(), topic); err != nil {
		t.Fatal(err)
	}
	// More than the queue of a topic takes, while nothing is handled.
	const messages = 20_000
	slow.want = messages
	msg := strings.Repeat("x", 100)
	a.Flood(topic, msg, messages)
	close(slow.hold)
	if got := <-slow.got; got != messages {
		t.Errorf("got %d messages, want %d", got, messages)
	}
	cancel()
	if err := <-ended; err != nil || slow.lost != 0 {
		t.Errorf("Run = %v, lost %d times; want neither", err, slow.lost)
	}
}

type slowEvents struct {
	hold  chan struct{}
	want  int
	count int
	lost  int
	got   chan int
}

func (s *slowEvents) Message(string, []byte) {
	<-s.hold
	if s.count++; s.count == s.want {
		s.got <- s.count
	}
}
func (s *slowEvents) Lost()     { s.lost++ }
func (s *slowEvents) Restored() {}

func BenchmarkBus(b *testing.B) {
	servers := list(servicetest.Env(b, servicetest.NATS))
	bustest.Benchmark(b, func(b *testing.B) cluster.Bus { return open(b, natsbus.Options{Servers: servers}) })
}
