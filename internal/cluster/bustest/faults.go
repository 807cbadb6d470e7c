package bustest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"sockudo/internal/cluster"
)

// A Broker is a real one that belongs to one test, with what can happen to it.
type Broker struct {
	// Connect returns a new connection, which waits Timeout for an answer.
	Connect func(t *testing.T) cluster.Bus
	Timeout time.Duration
	Cut     func(t *testing.T) // the connections for publishing and subscribing break
	Crash   func(t *testing.T) // what it knows is gone, and publishing fails for a while; nil: not tried
	Recover func(t *testing.T)
	Freeze  func(t *testing.T) // connections stay and nothing answers; nil: not tried
	Thaw    func(t *testing.T)
}

// soon is the time that a call which must not wait is given.
const soon = 300 * time.Millisecond

// Faults checks that a Bus survives what happens to its broker.
func Faults(t *testing.T, b Broker) {
	for _, test := range []struct {
		name string
		run  func(t *testing.T, b Broker)
		skip bool
	}{
		{"cut", testCut, false},
		{"frozen", testFrozen, b.Freeze == nil},
		{"crash", testCrash, b.Crash == nil},
	} {
		if !test.skip {
			t.Run(test.name, func(t *testing.T) { test.run(t, b) })
		}
	}
}

// testCut counts every message of publishers that go on while connections are cut.
func testCut(t *testing.T, b Broker) {
	const topics = 8
	n := Start(t, b.Connect(t))
	var names []string
	for i := range topics {
		names = append(names, topicOf(t, fmt.Sprint("cut", i)))
		n.Hear(names[i])
	}
	accepted := make([][]int, topics)
	attempted := make([]int, topics)
	goOn := make(chan struct{})
	var publishers sync.WaitGroup
	for i, topic := range names {
		publishers.Go(func() {
			for k := 0; ; k++ {
				select {
				case <-goOn:
					return
				default:
				}
				attempted[i]++
				ctx, cancel := context.WithTimeout(context.Background(), soon)
				if n.Publish(ctx, topic, []byte(strconv.Itoa(k))) == nil {
					accepted[i] = append(accepted[i], k)
				}
				cancel()
			}
		})
	}
	for range 3 {
		for _, topic := range names {
			n.More(topic, 50)
		}
		losses := n.Losses()
		b.Cut(t)
		n.AwaitLoss(losses)
		n.AwaitRestored()
	}
	for _, topic := range names {
		n.More(topic, 50)
	}
	close(goOn)
	publishers.Wait()
	n.alternates(t)

	var sum struct{ attempted, accepted, received, lost int }
	for i, topic := range names {
		n.Say(topic, "end")
		var got []string
		n.Until("the end", func() bool {
			got = nil
			for _, m := range n.got[topic] {
				got = append(got, string(m))
			}
			return slices.Contains(got, "end")
		})
		last := -1
		received := map[int]bool{}
		for _, m := range got[:len(got)-1] {
			k, err := strconv.Atoi(m)
			if err != nil || k <= last {
				t.Fatalf("%q came after %d", m, last)
			}
			last = k
			received[k] = true
		}
		sum.attempted += attempted[i]
		sum.accepted += len(accepted[i])
		sum.received += len(received)
		for _, k := range accepted[i] {
			if !received[k] {
				sum.lost++
			}
		}
	}
	t.Logf("%+v, none twice and none out of order", sum)
}

// testFrozen lets the broker hold its breath, longer than it may.
func testFrozen(t *testing.T, b Broker) {
	n := Start(t, b.Connect(t))
	topics := manyTopics(t, "frozen", 20)
	n.HearAll(topics)
	b.Freeze(t)
	n.refused(t, topics)
	n.AwaitLoss(0)
	b.Thaw(t)
	n.AwaitRestored()
	n.reaches(t, topics)
	n.alternates(t)

	// The end does not wait for what does not answer.
	other := b.Connect(t)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- other.Run(ctx, &Node{got: map[string][][]byte{}, changed: make(chan struct{})}) }()
	b.Freeze(t)
	cancel()
	start := time.Now()
	select {
	case err := <-ended:
		if err != nil {
			t.Errorf("Run = %v, want nil", err)
		}
	case <-time.After(patience):
		t.Error("Run does not end while the broker is frozen")
	}
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("Run ended after %v", took)
	}
	b.Thaw(t)
	n.AwaitRestored()
}

// testCrash has so many topics that they do not fit into one command, and
// finds all of them again after a crash of the broker.
func testCrash(t *testing.T, b Broker) {
	n := Start(t, b.Connect(t))
	topics := manyTopics(t, "many", 10_000)
	n.HearAll(topics)
	n.reaches(t, topics)
	losses := n.Losses()
	b.Crash(t)
	n.AwaitLoss(losses)
	n.refused(t, topics[:200])

	// What is subscribed meanwhile is remembered, even if it fails.
	late := manyTopics(t, "late", 50)
	var wg sync.WaitGroup
	for _, topic := range late {
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(context.Background(), soon)
			defer cancel()
			_ = n.Subscribe(ctx, topic)
		})
	}
	wg.Wait()
	for _, topic := range topics[:50] {
		n.Deafen(topic)
	}
	b.Recover(t)
	n.AwaitRestored()
	n.HearAll(late)
	n.reaches(t, append(topics[50:], late...))
	n.alternates(t)
}

func manyTopics(t *testing.T, name string, count int) []string {
	topics := make([]string, count)
	base := topicOf(t, name)
	for i := range topics {
		topics[i] = fmt.Sprintf("%s:%d", base, i)
	}
	return topics
}

// Losses returns how often continuity was lost.
func (n *Node) Losses() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.lost
}

// AwaitLoss waits until continuity was lost more often than that.
func (n *Node) AwaitLoss(than int) {
	n.t.Helper()
	n.Until("lost", func() bool { return n.lost > than })
}

// AwaitRestored waits until continuity is there.
func (n *Node) AwaitRestored() {
	n.t.Helper()
	n.Until("restored", func() bool { return n.restored > n.lost })
}

// HearAll subscribes to many topics, from many goroutines.
func (n *Node) HearAll(topics []string) {
	n.t.Helper()
	each(topics, func(topic string) {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := n.Subscribe(ctx, topic); err != nil {
			n.t.Errorf("Subscribe(%q) = %v", topic, err)
		}
	})
}

// each calls f for all topics, a few hundred at a time.
func each(topics []string, f func(topic string)) {
	var wg sync.WaitGroup
	for part := range slices.Chunk(topics, len(topics)/200+1) {
		wg.Go(func() {
			for _, topic := range part {
				f(topic)
			}
		})
	}
	wg.Wait()
}

// More waits until so many more messages have arrived on a topic.
func (n *Node) More(topic string, count int) {
	n.t.Helper()
	n.mu.Lock()
	before := len(n.got[topic])
	n.mu.Unlock()
	n.Got(topic, before+count)
}

// reaches publishes once to every topic, and waits until all have got it, once.
// If continuity is lost on the way, because a fault has more than one
// consequence, it begins again.
func (n *Node) reaches(t *testing.T, topics []string) {
	t.Helper()
	for end := time.Now().Add(patience); ; {
		n.AwaitRestored()
		err := n.tryReach(t, topics)
		if err == nil {
			return
		}
		if time.Now().After(end) {
			t.Fatal(err)
		}
		t.Logf("again: %v", err)
	}
}

func (n *Node) tryReach(t *testing.T, topics []string) error {
	t.Helper()
	losses := n.Losses()
	msg := fmt.Sprintf("round %d", time.Now().UnixNano())
	var mu sync.Mutex
	var failed error
	each(topics, func(topic string) {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := n.Publish(ctx, topic, []byte(msg)); err != nil {
			mu.Lock()
			defer mu.Unlock()
			failed = err
		}
	})
	if failed != nil {
		return failed
	}
	for _, topic := range topics {
		n.Until("a message on "+topic, func() bool {
			got := n.got[topic]
			return n.lost > losses || len(got) > 0 && string(got[len(got)-1]) == msg
		})
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.lost > losses {
		return errors.New("continuity was lost on the way")
	}
	for _, topic := range topics {
		count := 0
		for _, m := range n.got[topic] {
			if string(m) == msg {
				count++
			}
		}
		if count != 1 {
			t.Errorf("%d times on %s, want once", count, topic)
		}
	}
	return nil
}

// refused publishes to every topic once. The broker is down: it must say so for
// one of them at least, and soon for all.
func (n *Node) refused(t *testing.T, topics []string) {
	t.Helper()
	var mu sync.Mutex
	failed := 0
	each(topics, func(topic string) {
		ctx, cancel := context.WithTimeout(context.Background(), soon)
		defer cancel()
		start := time.Now()
		err := n.Publish(ctx, topic, []byte("lost"))
		if took := time.Since(start); took > soon+2*time.Second { // for a busy machine
			t.Errorf("Publish returned after %v, its context ended after %v", took, soon)
		}
		if err != nil {
			mu.Lock()
			failed++
			mu.Unlock()
		}
	})
	if failed == 0 {
		t.Errorf("all of %d messages were taken by a broker that is down", len(topics))
	}
}

// alternates checks that Restored and Lost came in turns, Restored first.
func (n *Node) alternates(t *testing.T) {
	t.Helper()
	n.mu.Lock()
	defer n.mu.Unlock()
	for i, e := range n.turns {
		if e != []string{"restored", "lost"}[i%2] {
			t.Fatalf("events were %s", strings.Join(n.turns, ", "))
		}
	}
}

// Flood publishes many times at once; order means nothing.
func (n *Node) Flood(topic, msg string, times int) {
	n.t.Helper()
	const publishers = 100
	var wg sync.WaitGroup
	for range publishers {
		wg.Go(func() {
			for range times / publishers {
				ctx, cancel := context.WithTimeout(context.Background(), patience)
				if err := n.Publish(ctx, topic, []byte(msg)); err != nil {
					n.t.Errorf("Publish = %v", err)
				}
				cancel()
			}
		})
	}
	wg.Wait()
}

// Retry calls f until it succeeds, as one does whose publish was refused.
func Retry(t *testing.T, f func(context.Context) error) {
	t.Helper()
	for end := time.Now().Add(patience); ; {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		err := f(ctx)
		cancel()
		if err == nil {
			return
		}
		if time.Now().After(end) {
			t.Fatal(err)
		}
	}
}
