package redisbus_test

import (
	"context"
	"fmt"
	"net"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"sockudo/internal/backoff"
	"sockudo/internal/cluster"
	"sockudo/internal/cluster/bustest"
	"sockudo/internal/cluster/redisbus"
	"sockudo/internal/redisconn"
	"sockudo/internal/servicetest"
)

// exchange has each of two nodes publish once, and both hear it once.
func exchange(t *testing.T, a, b *bustest.Node, topic string, before int) {
	t.Helper()
	for i, n := range []*bustest.Node{a, b} {
		bustest.Retry(t, func(ctx context.Context) error { return n.Publish(ctx, topic, fmt.Append(nil, before+i)) })
		for _, to := range []*bustest.Node{a, b} {
			if got := to.Got(topic, before+i+1); len(got) != before+i+1 || string(got[before+i]) != fmt.Sprint(before+i) {
				t.Fatalf("got %d messages, the last %q; want %d", len(got), got[len(got)-1], before+i+1)
			}
		}
	}
}

func TestAThousandReconnectsLeaveNothingBehind(t *testing.T) {
	const reconnects = 1000
	proxy := servicetest.NewProxy(t, servicetest.RedisEndpoint(t).Addrs[0])
	e := redisconn.Endpoint{Addrs: []string{proxy.Addr()}}
	bus, err := redisbus.Open(t.Context(), e, e, redisbus.Options{
		Timeout: timeout, Retry: backoff.Policy{First: time.Millisecond, Max: time.Millisecond},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(bus.Close)
	n := bustest.Start(t, bus)
	topics := make([]string, 100)
	for i := range topics {
		topics[i] = fmt.Sprintf("redisbus:%s:%d", t.TempDir(), i)
	}
	n.HearAll(topics)
	lose := func(times int) {
		for range times {
			losses := n.Losses()
			proxy.Cut()
			n.AwaitLoss(losses)
			n.AwaitRestored()
		}
	}
	holds := func() (goroutines int, heap uint64, open int) {
		bustest.Retry(t, func(ctx context.Context) error { return n.Publish(ctx, topics[0], nil) })
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return runtime.NumGoroutine(), m.HeapAlloc, proxy.Open()
	}
	lose(20)
	goroutines, heap, open := holds()
	lose(reconnects)
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(50 * time.Millisecond) { // what was cut ends soon
		g, h, o := holds()
		if g <= goroutines+5 && h <= heap+2<<20 && o <= open+1 {
			t.Logf("after %d reconnects %d goroutines, %d kB, %d connections; before %d, %d kB, %d", reconnects, g, h>>10, o, goroutines, heap>>10, open)
			break
		}
		if time.Now().After(end) {
			t.Fatalf("after %d reconnects %d goroutines, %d bytes, %d connections; before %d, %d, %d", reconnects, g, h, o, goroutines, heap, open)
		}
	}
	for i, topic := range topics {
		n.Say(topic, "still here")
		if got := n.Got(topic, 1); string(got[len(got)-1]) != "still here" && i > 0 {
			t.Errorf("got %q", got)
		}
	}
}

// The address of the master is given to the replica; the old master lives on as a
// replica, with its connections.
func TestAnAddressThatIsGivenToAnotherMaster(t *testing.T) {
	t.Parallel()
	older, newer := servicetest.Start(t, servicetest.Options{}, "redis"), servicetest.Start(t, servicetest.Options{}, "redis")
	from, to := older.Redis(t).Addrs[0], newer.Redis(t).Addrs[0]
	follow := func(who, whom string) {
		host, port, _ := net.SplitHostPort(whom)
		do(t, admin(t, who), "REPLICAOF", host, port)
	}
	follow(to, from)
	proxy := servicetest.NewProxy(t, from)
	e := redisconn.Endpoint{Addrs: []string{proxy.Addr()}}
	const topic = "moved"
	a := bustest.Start(t, open(t, e, timeout))
	a.Hear(topic)
	do(t, admin(t, to), "REPLICAOF", "NO", "ONE")
	follow(from, to)
	proxy.Lead(to)
	b := bustest.Start(t, open(t, e, timeout)) // by the new address from the start
	b.Hear(topic)
	a.AwaitLoss(0)
	a.AwaitRestored()
	exchange(t, a, b, topic, 0)
}

// The master stands still, its replica is made the master, and the old one goes on
// as if nothing had happened until the Sentinels tell it.
func TestAFrozenMasterOfSentinelsIsLeft(t *testing.T) {
	t.Parallel()
	s := servicetest.Start(t, servicetest.Options{}, "sentinel")
	e := s.Sentinel(t, "")
	const topic = "frozen"
	a, b := bustest.Start(t, open(t, e, timeout)), bustest.Start(t, open(t, e, timeout))
	a.Hear(topic)
	b.Hear(topic)
	exchange(t, a, b, topic, 0)
	s.Pause(t, "master")
	for _, n := range []*bustest.Node{a, b} {
		n.AwaitLoss(0)
		n.AwaitRestored()
	}
	exchange(t, a, b, topic, 2)
	s.Resume(t, "master")
	exchange(t, a, b, topic, 4)
}

// The end comes at once while a bus looks for servers that are dead or stand still.
func TestTheEndDoesNotWaitForAConnection(t *testing.T) {
	t.Parallel()
	for name, group := range map[string][]string{
		"sentinels": {"sentinel", "master", "replica", "sentinel1", "sentinel2", "sentinel3"},
		"cluster":   {"cluster", "node1", "node2", "node3"},
	} {
		for how, stop := range map[string]func(*servicetest.Services, testing.TB, string){
			"dead": (*servicetest.Services).Kill, "frozen": (*servicetest.Services).Pause,
		} {
			t.Run(name+" "+how, func(t *testing.T) {
				t.Parallel()
				s := servicetest.Start(t, servicetest.Options{}, group[0])
				var e redisconn.Endpoint
				if name == "cluster" {
					e = s.Cluster(t)
				} else {
					e = s.Sentinel(t, "")
				}
				bus := open(t, e, timeout)
				on := &turns{restored: make(chan struct{}, 100), lost: make(chan struct{}, 100)}
				ctx, cancel := context.WithCancel(t.Context())
				ended := make(chan error, 1)
				go func() { ended <- bus.Run(ctx, on) }()
				<-on.restored
				for _, server := range group[1:] {
					stop(s, t, server)
				}
				<-on.lost
				for range 3 { // it tries to get back
					again, cancel := context.WithTimeout(t.Context(), timeout/2)
					if err := bus.Subscribe(again, "x"); err == nil {
						t.Error("subscribed without a server")
					}
					cancel()
				}
				cancel()
				begun := time.Now()
				if err := <-ended; err != nil {
					t.Errorf("Run = %v", err)
				}
				bus.Close()
				if took := time.Since(begun); took > 3*time.Second { // for a busy machine
					t.Errorf("ended after %v", took)
				}
				if how == "frozen" {
					for _, server := range group[1:] {
						s.Resume(t, server)
					}
				}
			})
		}
	}
}

// turns hears only whether there is a connection.
type turns struct{ restored, lost chan struct{} }

func (t *turns) Message(string, []byte) {}
func (t *turns) Lost()                  { t.lost <- struct{}{} }
func (t *turns) Restored()              { t.restored <- struct{}{} }

// A server that cannot save its data refuses to be pinged, but passes messages on.
func TestAServerWithAFullDiskIsUsed(t *testing.T) {
	t.Parallel()
	s := servicetest.Start(t, servicetest.Options{Lines: "dir /proc\nsave 3600 1"}, "redis")
	c := admin(t, s.Redis(t).Addrs[0])
	do(t, c, "SET", "key", "value")
	do(t, c, "BGSAVE")
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		err := c.Do(t.Context(), c.B().Ping().Build()).Error()
		if err != nil && strings.HasPrefix(err.Error(), "MISCONF") {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("PING = %v, want MISCONF", err)
		}
	}
	a, b := bustest.Start(t, open(t, s.Redis(t), timeout)), bustest.Start(t, open(t, s.Redis(t), timeout))
	a.Hear("full")
	b.Hear("full")
	exchange(t, a, b, "full", 0)
}

// A server that was restarted passes messages on while it still loads its data.
func TestAServerThatLoadsItsDataIsUsed(t *testing.T) {
	t.Parallel()
	s := servicetest.Start(t, servicetest.Options{Lines: strings.Join([]string{
		"enable-debug-command yes", "rdbcompression no", "key-load-delay 10000", "loading-process-events-interval-bytes 1024",
	}, "\n")}, "redis")
	e := s.Redis(t)
	do(t, admin(t, e.Addrs[0]), "DEBUG", "POPULATE", "500", "key", "1000")
	do(t, admin(t, e.Addrs[0]), "SAVE")
	a, b := bustest.Start(t, open(t, e, timeout)), bustest.Start(t, open(t, e, timeout))
	a.Hear("loading")
	b.Hear("loading")
	s.Kill(t, "redis")
	a.AwaitLoss(0)
	b.AwaitLoss(0)
	started := make(chan struct{})
	go func() {
		defer close(started)
		s.Restart(t, "redis") // returns when the data is there
	}()
	a.AwaitRestored()
	b.AwaitRestored()
	exchange(t, a, b, "loading", 0)
	c := admin(t, e.Addrs[0])
	if err := c.Do(t.Context(), c.B().Ping().Build()).Error(); err == nil || !strings.HasPrefix(err.Error(), "LOADING") {
		t.Errorf("PING = %v, want LOADING: the messages were late", err)
	}
	<-started
	exchange(t, a, b, "loading", 2)
}

// Servers before 6, and some proxies, do not know HELLO: then subscriptions have
// another connection than the rest of a link.
func TestFaultsOfAServerOfTheOldProtocol(t *testing.T) {
	t.Parallel()
	s := servicetest.Start(t, servicetest.Options{Lines: `rename-command HELLO ""`}, "redis")
	e := s.Redis(t)
	broker := bustest.Broker{
		Connect: func(t *testing.T) cluster.Bus { return open(t, e, timeout) },
		Cut: func(t *testing.T) {
			do(t, admin(t, e.Addrs[0]), "CLIENT", "KILL", "TYPE", "pubsub") // those alone
		},
		Freeze: func(t *testing.T) { s.Pause(t, "redis") },
		Thaw:   func(t *testing.T) { s.Resume(t, "redis") },
	}
	bustest.Run(t, broker.Connect)
	bustest.Faults(t, broker)
}

// Who may not subscribe any more has lost the broker until it may again.
func TestPermissionsThatAreTakenAway(t *testing.T) {
	t.Parallel()
	s := servicetest.Start(t, servicetest.Options{}, "redis")
	c := admin(t, s.Redis(t).Addrs[0])
	do(t, c, "ACL", "SETUSER", "node", "on", ">old", "~*", "&*", "+@all")
	e := s.Redis(t)
	e.Username, e.Password = "node", "old"
	a, b := bustest.Start(t, open(t, e, timeout)), bustest.Start(t, open(t, s.Redis(t), timeout))
	const topic = "permitted"
	a.Hear(topic)
	b.Hear(topic)
	exchange(t, a, b, topic, 0)
	for i, change := range [][2][]string{
		{{"resetchannels"}, {"&*"}},          // cuts those who subscribe
		{{"<old", ">new"}, {">old", "<new"}}, // does not
		{{"off"}, {"on"}},                    // nor does this
		{{"-subscribe", "-publish"}, {"+subscribe", "+publish"}},
	} {
		losses := a.Losses()
		do(t, c, append([]string{"ACL", "SETUSER", "node"}, change[0]...)...)
		do(t, c, "CLIENT", "KILL", "USER", "node")
		a.AwaitLoss(losses)
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		if err := a.Publish(ctx, topic, []byte("refused")); err == nil {
			t.Errorf("%v: published", change[0])
		} else if strings.Contains(err.Error(), "old") {
			t.Errorf("the error has the password: %v", err)
		}
		cancel()
		do(t, c, append([]string{"ACL", "SETUSER", "node"}, change[1]...)...)
		a.AwaitRestored()
		exchange(t, a, b, topic, 2*i+2)
	}
}

// A node that does not read fast enough is cut by the server.
func TestASlowReaderIsCutAndComesBack(t *testing.T) {
	t.Parallel()
	s := servicetest.Start(t, servicetest.Options{}, "redis")
	do(t, admin(t, s.Redis(t).Addrs[0]), "CONFIG", "SET", "client-output-buffer-limit", "pubsub 1mb 1mb 1")
	slow := &stuck{Bus: open(t, s.Redis(t), 5*time.Second), free: make(chan struct{})}
	b := bustest.Start(t, open(t, s.Redis(t), 5*time.Second))
	n := bustest.Start(t, slow)
	const topic, busy = "slow", "busy"
	n.Hear(topic)
	b.Hear(topic)
	n.Hear(busy)
	big := make([]byte, 256<<10)
	for range 80 { // more than all buffers on the way
		bustest.Retry(t, func(ctx context.Context) error { return b.Publish(ctx, busy, big) })
	}
	close(slow.free)
	n.AwaitLoss(0)
	n.AwaitRestored()
	exchange(t, n, b, topic, 0)
}

// stuck is a bus whose reader takes nothing until it is set free.
type stuck struct {
	cluster.Bus
	free chan struct{}
}

func (s *stuck) Run(ctx context.Context, on cluster.Events) error {
	return s.Bus.Run(ctx, stuckEvents{on, s.free})
}

type stuckEvents struct {
	cluster.Events
	free chan struct{}
}

func (e stuckEvents) Message(topic string, msg []byte) {
	<-e.free
	e.Events.Message(topic, msg)
}

// Topics of a slot come and go, and are published, while the slot moves on and on.
func TestTopicsComeAndGoWhileTheirSlotMoves(t *testing.T) {
	t.Parallel()
	s := servicetest.Start(t, servicetest.Options{}, "cluster")
	e := s.Cluster(t)
	a, b := bustest.Start(t, open(t, e, timeout)), bustest.Start(t, open(t, e, timeout))
	slot := newMovingSlot(t, e)
	steady := "{moving}:steady"
	b.Hear(steady)
	ctx, stop := context.WithCancel(t.Context())
	var busy sync.WaitGroup
	for i := range 4 {
		busy.Go(func() {
			for k := 0; ctx.Err() == nil; k++ {
				for j := range 10 {
					topic := fmt.Sprintf("{moving}:%d:%d", i, (k+j)%20)
					if j == 0 {
						_ = b.Unsubscribe(ctx, topic)
						continue
					}
					limited, cancel := context.WithTimeout(ctx, time.Second)
					_ = b.Subscribe(limited, topic)
					cancel()
				}
			}
		})
	}
	busy.Go(func() {
		for k := 0; ctx.Err() == nil; k++ {
			limited, cancel := context.WithTimeout(ctx, time.Second)
			_ = a.Publish(limited, steady, fmt.Append(nil, "noise ", k))
			cancel()
		}
	})
	for range 10 {
		losses := b.Losses()
		slot.move(t)
		b.AwaitLoss(losses)
		b.AwaitRestored()
	}
	stop()
	busy.Wait()
	var topics []string
	for i := range 4 {
		for j := range 20 {
			topics = append(topics, fmt.Sprintf("{moving}:%d:%d", i, j))
		}
	}
	b.HearAll(topics)
	for _, topic := range append(topics, steady) {
		a.Say(topic, "end")
	}
	for _, topic := range append(topics, steady) {
		b.Until("the end on "+topic, func() bool { return b.Heard(topic, "end") == 1 })
	}
	last := -1
	for _, m := range b.Got(steady, 1) {
		var k int
		if _, err := fmt.Sscanf(string(m), "noise %d", &k); err != nil {
			continue
		}
		if k <= last {
			t.Fatalf("%d came after %d", k, last)
		}
		last = k
	}
}

// The replica of a master takes its place in good order: the old one lives on as a
// replica, with all its connections.
func TestAMasterOfAClusterGivesWay(t *testing.T) {
	t.Parallel()
	for name, lines := range map[string]string{
		"sharded": "", "classic": "rename-command SPUBLISH \"\"\nrename-command SSUBSCRIBE \"\"",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := servicetest.Start(t, servicetest.Options{Replicas: true, Lines: lines}, "cluster")
			e := s.Cluster(t)
			a, b := bustest.Start(t, open(t, e, timeout)), bustest.Start(t, open(t, e, timeout))
			var topics []string
			for i := range 30 {
				topics = append(topics, fmt.Sprint("way", i))
			}
			a.HearAll(topics)
			b.HearAll(topics)
			old := admin(t, e.Addrs[0])
			var replica string
			for end := time.Now().Add(10 * time.Second); replica == ""; {
				answer, err := do(t, old, "ROLE").ToArray()
				if err != nil || time.Now().After(end) {
					t.Fatalf("the master has no replica: %v", err)
				}
				if list, _ := answer[2].ToArray(); len(list) > 0 {
					if it, _ := list[0].AsStrSlice(); len(it) == 3 {
						replica = net.JoinHostPort(it[0], it[1])
					}
				}
			}
			do(t, admin(t, replica), "CLUSTER", "FAILOVER")
			a.AwaitLoss(0)
			b.AwaitLoss(0)
			for _, n := range []*bustest.Node{a, b} {
				n.AwaitRestored()
			}
			for _, topic := range topics {
				for _, n := range []*bustest.Node{a, b} {
					bustest.Retry(t, func(ctx context.Context) error { return n.Publish(ctx, topic, []byte("end")) })
				}
			}
			for _, topic := range topics {
				for _, n := range []*bustest.Node{a, b} {
					n.Until("both on "+topic, func() bool { return n.Heard(topic, "end") == 2 })
				}
			}
		})
	}
}
