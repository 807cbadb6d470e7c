package cluster_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"sockudo/internal/cluster"
)

// A leaky bus takes what it is given and passes on nothing while it leaks.
type leakyBus struct {
	toldBus

	mu     sync.Mutex // guards what follows
	leaks  bool
	leaked []func() error
}

// late passes on what has leaked.
func (b *leakyBus) late(t *testing.T) {
	t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, publish := range b.leaked {
		if err := publish(); err != nil {
			t.Error(err)
		}
	}
	b.leaked = nil
}

func (b *leakyBus) leak(leaks bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.leaks = leaks
}

func (b *leakyBus) Publish(ctx context.Context, topic string, msg []byte) error {
	publish := func() error { return b.Bus.Publish(ctx, topic, msg) }
	b.mu.Lock()
	leaks := b.leaks
	if leaks {
		b.leaked = append(b.leaked, publish)
	}
	b.mu.Unlock()
	if leaks {
		return nil
	}
	return publish()
}

// ring is three nodes that hear a channel and know so of each other.
func ring(t *testing.T) (nodes []*member, buses []*leakyBus) {
	t.Helper()
	broker := cluster.NewMemoryBus()
	for _, name := range []string{"a", "b", "c"} {
		b := &leakyBus{toldBus: toldBus{Bus: broker.Connect()}}
		nodes, buses = append(nodes, join(t, b, cluster.Options{NodeID: name})), append(buses, b)
	}
	time.Sleep(3 * time.Second)
	for _, n := range nodes {
		n.mustBeReady()
		if err := n.Want(t.Context(), "app", "x"); err != nil {
			t.Fatal(err)
		}
		n.SetChannel("app", "x", 1)
	}
	settle()
	return nodes, buses
}

func (m *member) publish(text string) {
	m.t.Helper()
	if err := m.Broadcast(m.t.Context(), "app", "x", []byte(text), "", time.Now()); err != nil {
		m.t.Errorf("%s: %v", text, err)
	}
}

// heard fails the test unless a node was delivered these, in order.
func (m *member) heard(want ...string) {
	m.t.Helper()
	settle()
	for i, w := range want {
		want[i] = fmt.Sprintf("app x %s ", w)
	}
	if got := m.took(&m.delivered); !slices.Equal(got, want) {
		m.t.Errorf("%s heard %q, want %q", m.NodeID(), got, want)
	}
}

func TestWhatTheBrokerTookAndLostIsSaidAgainByItsPublisher(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		nodes, buses := ring(t)
		nodes[0].publish("1")
		buses[0].leak(true)
		nodes[0].publish("2")
		nodes[0].publish("3")
		buses[0].on.Lost()
		buses[0].leak(false)
		buses[0].on.Restored()
		nodes[0].publish("4") // waits until all have the others
		nodes[1].heard("1", "2", "3", "4")
		nodes[2].heard("1", "2", "3", "4")
		nodes[0].heard()

		// It was only slow: nobody takes it twice, and nobody complains.
		buses[0].late(t)
		nodes[1].heard()
		if got := nodes[1].Status().Refused; len(got) != 0 {
			t.Errorf("refused: %v, want nothing", got)
		}
	})
}

func TestWhatANodeMissedIsSaidAgainByTheOthersBeforeWhatCameSince(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		nodes, buses := ring(t)
		nodes[0].publish("1")
		settle()
		buses[0].leak(true)
		nodes[0].publish("2") // is as if it came after the connection of the others had ended
		buses[0].leak(false)
		buses[1].on.Lost()
		nodes[0].publish("3") // is passed on before the node says that it is back
		nodes[1].heard("1")
		buses[1].on.Restored()
		nodes[1].heard("2", "3")
		nodes[2].heard("1", "3")

		// Late is too late: what came after it is there already.
		buses[2].on.Lost()
		buses[2].on.Restored()
		nodes[0].publish("4")
		nodes[2].heard("4")
	})
}

func TestWhatWaitsForANodeThatIsSilentIsDeliveredInTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		nodes, buses := ring(t)
		buses[1].on.Lost() // a part of it, and it does not come back
		nodes[0].publish("1")
		nodes[1].heard()
		time.Sleep(time.Second)
		nodes[0].publish("2") // the rest is well, it seems
		nodes[1].heard("1", "2")
		nodes[0].publish("3")
		nodes[1].heard("3")

		buses[1].on.Restored()
		buses[1].on.Lost()
		nodes[0].publish("4")
		time.Sleep(6 * time.Second)
		nodes[1].heard("4")
	})
}

func TestCommandsAreSaidAgainToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		nodes, buses := ring(t)
		buses[0].leak(true)
		if err := nodes[0].Cluster.Terminate(t.Context(), "app", "ann", 4009, "bye"); err != nil {
			t.Fatal(err)
		}
		buses[0].on.Lost()
		buses[0].leak(false)
		buses[0].on.Restored()
		settle()
		for _, n := range nodes[1:] {
			if got := n.took(&n.did); !slices.Equal(got, []string{"terminate app ann 4009 bye"}) {
				t.Errorf("%s did %q", n.NodeID(), got)
			}
		}
	})
}

func TestWhoCameSinceDoesNotHearWhatWasBefore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		nodes, buses := ring(t)
		const late = "late"
		buses[0].leak(true)
		for range 2 {
			if err := nodes[0].Broadcast(t.Context(), "app", late, []byte("1"), "", time.Now()); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(100 * time.Millisecond)
		buses[0].on.Lost()
		if err := nodes[1].Want(t.Context(), "app", late); err != nil {
			t.Fatal(err)
		}
		nodes[1].SetChannel("app", late, 1)
		settle()
		buses[0].leak(false)
		buses[0].on.Restored()
		nodes[1].heard()
	})
}
