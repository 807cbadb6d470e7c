package redisbus_test

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"sockudo/internal/cluster"
	"sockudo/internal/cluster/bustest"
	"sockudo/internal/cluster/redisbus"
	"sockudo/internal/redisconn"
	"sockudo/internal/servicetest"
)

func TestMain(m *testing.M) { servicetest.VerifyNoLeaks(m) }

const timeout = time.Second // of a server, in faults

func open(t testing.TB, e redisconn.Endpoint, timeout time.Duration) *redisbus.Bus {
	t.Helper()
	b, err := redisbus.Open(t.Context(), e, e, redisbus.Options{Timeout: timeout, Log: slog.New(slog.NewTextHandler(t.Output(), nil))})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	return b
}

func TestContract(t *testing.T) {
	for name, e := range map[string]func(testing.TB) redisconn.Endpoint{
		"one server": servicetest.RedisEndpoint,
		"sentinels":  servicetest.SentinelEndpoint,
		"cluster":    servicetest.RedisClusterEndpoint,
		"TLS": func(t testing.TB) redisconn.Endpoint {
			e, err := redisconn.Parse(servicetest.Env(t, servicetest.RedisTLS))
			if err != nil {
				t.Fatal(err)
			}
			return e
		},
		"credentials and database": func(t testing.TB) redisconn.Endpoint {
			e := servicetest.RedisEndpoint(t)
			e.Username, e.Password, e.DB = servicetest.User, servicetest.Password, 3
			return e
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bustest.Run(t, func(t *testing.T) cluster.Bus { return open(t, e(t), 0) })
		})
	}
}

// admin is a client for what operators do.
func admin(t *testing.T, addr string) rueidis.Client {
	t.Helper()
	opt := redisconn.Options(redisconn.Endpoint{Addrs: []string{addr}})
	c, err := redisconn.Dial(context.WithoutCancel(t.Context()), opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func do(t *testing.T, c rueidis.Client, command ...string) rueidis.RedisResult {
	t.Helper()
	r := c.Do(t.Context(), c.B().Arbitrary(command...).Build())
	if err := r.Error(); err != nil {
		t.Fatalf("%s: %v", strings.Join(command, " "), err)
	}
	return r
}

// cut breaks every connection to servers, but not those of the one who asks for it.
func cut(t *testing.T, addrs ...string) {
	t.Helper()
	for _, addr := range addrs {
		c := admin(t, addr)
		for _, kind := range []string{"pubsub", "normal"} {
			do(t, c, "CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes")
		}
	}
}

func TestFaultsOfOneServer(t *testing.T) {
	t.Parallel()
	s := servicetest.Start(t, servicetest.Options{}, "redis")
	proxy := servicetest.NewProxy(t, s.Redis(t).Addrs[0])
	bustest.Faults(t, bustest.Broker{
		Connect: func(t *testing.T) cluster.Bus {
			return open(t, redisconn.Endpoint{Addrs: []string{proxy.Addr()}}, timeout)
		},
		Cut:     func(*testing.T) { proxy.Cut() },
		Crash:   func(t *testing.T) { s.Kill(t, "redis") },
		Recover: func(t *testing.T) { s.Restart(t, "redis") },
		Freeze:  func(t *testing.T) { s.Pause(t, "redis") },
		Thaw:    func(t *testing.T) { s.Resume(t, "redis") },
	})
}

// A network that swallows everything is not told from a server that is frozen,
// except that nobody resumes it.
func TestANetworkThatSwallowsEverythingIsLeft(t *testing.T) {
	t.Parallel()
	proxy := servicetest.NewProxy(t, servicetest.RedisEndpoint(t).Addrs[0])
	n := bustest.Start(t, open(t, redisconn.Endpoint{Addrs: []string{proxy.Addr()}}, timeout))
	topic := "redisbus:" + t.TempDir()
	n.Hear(topic)
	proxy.Hold()
	n.AwaitLoss(0)
	proxy.Cut()
	n.AwaitRestored()
	n.Say(topic, "again")
	n.Got(topic, 1)
}

func TestFaultsOfTheMasterOfSentinels(t *testing.T) {
	t.Parallel()
	s := servicetest.Start(t, servicetest.Options{Password: "geheim"}, "sentinel")
	e := s.Sentinel(t, "geheim")
	bustest.Faults(t, bustest.Broker{
		Connect: func(t *testing.T) cluster.Bus { return open(t, e, timeout) },
		Cut: func(t *testing.T) {
			opt := redisconn.Options(e)
			c, err := redisconn.Dial(t.Context(), opt)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			for _, kind := range []string{"pubsub", "normal"} {
				do(t, c, "CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes")
			}
		},
		Crash:   func(t *testing.T) { s.Kill(t, "master") }, // the replica becomes the master
		Recover: func(t *testing.T) {},
	})
}

func TestFaultsOfACluster(t *testing.T) {
	t.Parallel()
	s := servicetest.Start(t, servicetest.Options{Replicas: true}, "cluster")
	bustest.Faults(t, bustest.Broker{
		Connect: func(t *testing.T) cluster.Bus { return open(t, s.Cluster(t), timeout) },
		Cut:     func(t *testing.T) { cut(t, s.Cluster(t).Addrs...) },
		Freeze:  func(t *testing.T) { s.Pause(t, "node2") },
		Thaw:    func(t *testing.T) { s.Resume(t, "node2") },
		Crash:   func(t *testing.T) { s.Kill(t, "node1") }, // its replica takes over
		Recover: func(t *testing.T) {},
	})
}

// Servers before 7 cannot shard channels; one of those is made by taking the
// commands away.
func TestFaultsOfAClusterThatCannotShard(t *testing.T) {
	t.Parallel()
	s := servicetest.Start(t, servicetest.Options{Lines: "rename-command SPUBLISH \"\"\nrename-command SSUBSCRIBE \"\""}, "cluster")
	b := bustest.Broker{
		Connect: func(t *testing.T) cluster.Bus { return open(t, s.Cluster(t), timeout) },
		Cut:     func(t *testing.T) { cut(t, s.Cluster(t).Addrs...) },
		Crash:   func(t *testing.T) { s.Kill(t, "node3") },
		Recover: func(t *testing.T) { s.Restart(t, "node3") },
	}
	bustest.Run(t, b.Connect)
	bustest.Faults(t, b)
}

func TestTopicsFollowTheirSlots(t *testing.T) {
	t.Parallel()
	s := servicetest.Start(t, servicetest.Options{}, "cluster")
	e := s.Cluster(t)
	a, b := bustest.Start(t, open(t, e, timeout)), bustest.Start(t, open(t, e, timeout))
	topics := []string{"steady"}
	for i := range 300 {
		topics = append(topics, fmt.Sprintf("{moving}:%d", i))
	}
	b.HearAll(topics)

	slot := newMovingSlot(t, e)
	for i := range e.Addrs {
		losses := b.Losses()
		slot.move(t)
		b.AwaitLoss(losses)
		b.AwaitRestored()
		msg := fmt.Sprint("move ", i)
		for _, topic := range topics {
			a.Say(topic, msg)
		}
		for _, topic := range topics {
			if got := b.Got(topic, i+1); string(got[i]) != msg || len(got) != i+1 {
				t.Fatalf("%s got %q after move %d", topic, got, i)
			}
		}
	}
}

// A movingSlot goes from one master of a cluster to the next. Topics that begin
// with {moving} are in it.
type movingSlot struct {
	number  string
	masters []master
	owner   int
}

type master struct {
	rueidis.Client
	id string
}

func newMovingSlot(t *testing.T, e redisconn.Endpoint) *movingSlot {
	t.Helper()
	s := &movingSlot{masters: make([]master, len(e.Addrs))}
	for i, addr := range e.Addrs {
		m := &s.masters[i]
		m.Client = admin(t, addr)
		id, err := do(t, m, "CLUSTER", "MYID").ToString()
		if err != nil {
			t.Fatal(err)
		}
		m.id = id
		if m.Do(t.Context(), m.B().Get().Key("{moving}").Build()).Error() == rueidis.Nil {
			s.owner = i
		}
	}
	number, err := do(t, s.masters[0], "CLUSTER", "KEYSLOT", "moving").AsInt64()
	if err != nil {
		t.Fatal(err)
	}
	s.number = fmt.Sprint(number)
	return s
}

func (s *movingSlot) move(t *testing.T) {
	t.Helper()
	from, to := s.masters[s.owner], s.masters[(s.owner+1)%len(s.masters)]
	s.owner = (s.owner + 1) % len(s.masters)
	do(t, to, "CLUSTER", "SETSLOT", s.number, "IMPORTING", from.id)
	do(t, from, "CLUSTER", "SETSLOT", s.number, "MIGRATING", to.id)
	do(t, to, "CLUSTER", "SETSLOT", s.number, "NODE", to.id)
	do(t, from, "CLUSTER", "SETSLOT", s.number, "NODE", to.id)
}

func BenchmarkBus(b *testing.B) {
	for name, e := range map[string]func(testing.TB) redisconn.Endpoint{
		"one server": servicetest.RedisEndpoint,
		"cluster":    servicetest.RedisClusterEndpoint,
	} {
		b.Run(name, func(b *testing.B) {
			bustest.Benchmark(b, func(b *testing.B) cluster.Bus { return open(b, e(b), 0) })
		})
	}
}
