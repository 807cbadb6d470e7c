// Package bustest is the contract test of the buses between nodes.
package bustest

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"sockudo/internal/cluster"
)

// patience bounds every wait of the suite; nothing takes that long unless it
// is broken.
const patience = 30 * time.Second

// Run checks that what connect returns keeps the contract of cluster.Bus.
// connect returns a new connection to the same broker each time.
func Run(t *testing.T, connect func(t *testing.T) cluster.Bus) {
	for _, test := range []struct {
		name string
		run  func(t *testing.T, connect func(t *testing.T) cluster.Bus)
	}{
		{"a message reaches all subscribers, the sender too", testFanOut},
		{"a message reaches subscribers only", testInterest},
		{"what is published after the acknowledgement arrives", testAcknowledged},
		{"the messages of a sender keep their order", testOrder},
		{"subscriptions of others that come and go disturb no order", testChurn},
		{"messages are opaque and may be large", testOpaque},
		{"every legal topic is a topic of its own", testTopics},
		{"subscribing twice delivers once", testTwice},
		{"what is published with a context that is done is an error", testDone},
	} {
		t.Run(strings.NewReplacer(" ", "_", ",", "").Replace(test.name), func(t *testing.T) { test.run(t, connect) })
	}
}

// A Node is a running Bus that remembers what arrived.
type Node struct {
	cluster.Bus
	t *testing.T

	mu       sync.Mutex // guards what follows
	got      map[string][][]byte
	lost     int
	restored int
	turns    []string // lost and restored, as they came
	changed  chan struct{}
}

// Start runs bus until the test ends and returns once it is connected.
func Start(t *testing.T, bus cluster.Bus) *Node {
	t.Helper()
	n := &Node{Bus: bus, t: t, got: map[string][][]byte{}, changed: make(chan struct{})}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- bus.Run(ctx, n) }()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("Run = %v, want nil", err)
			}
		case <-time.After(patience):
			t.Errorf("Run did not end")
		}
	})
	n.Until("connected", func() bool { return n.restored > 0 })
	return n
}

// Message, Lost and Restored are the cluster.Events of a Node.
func (n *Node) Message(topic string, msg []byte) {
	n.change(func() { n.got[topic] = append(n.got[topic], msg) })
}

// Lost counts.
func (n *Node) Lost() { n.change(func() { n.lost++; n.turns = append(n.turns, "lost") }) }

// Restored counts.
func (n *Node) Restored() { n.change(func() { n.restored++; n.turns = append(n.turns, "restored") }) }

func (n *Node) change(f func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	f()
	close(n.changed)
	n.changed = make(chan struct{})
}

// Until waits for a condition, which is asked with the lock held whenever
// something arrived.
func (n *Node) Until(what string, is func() bool) {
	n.t.Helper()
	timeout := time.After(patience)
	for {
		n.mu.Lock()
		ok, changed := is(), n.changed
		n.mu.Unlock()
		if ok {
			return
		}
		select {
		case <-changed:
		case <-timeout:
			n.t.Fatalf("not within %v: %s", patience, what)
		}
	}
}

// Got returns what arrived on a topic once it is n messages or more.
func (n *Node) Got(topic string, count int) [][]byte {
	n.t.Helper()
	var got [][]byte
	n.Until(fmt.Sprintf("%d messages on %s", count, topic), func() bool {
		got = n.got[topic]
		return len(got) >= count
	})
	return got
}

// Heard returns how often a message arrived on a topic. Conditions of Until may
// ask, nobody else.
func (n *Node) Heard(topic, msg string) (times int) {
	for _, m := range n.got[topic] {
		if string(m) == msg {
			times++
		}
	}
	return times
}

// Say publishes and fails the test if that fails.
func (n *Node) Say(topic, msg string) {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := n.Publish(ctx, topic, []byte(msg)); err != nil {
		n.t.Fatalf("Publish(%q) = %v", topic, err)
	}
}

// Hear subscribes and fails the test if that fails.
func (n *Node) Hear(topic string) {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := n.Subscribe(ctx, topic); err != nil {
		n.t.Fatalf("Subscribe(%q) = %v", topic, err)
	}
}

// Deafen unsubscribes and fails the test if that fails.
func (n *Node) Deafen(topic string) {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := n.Unsubscribe(ctx, topic); err != nil {
		n.t.Fatalf("Unsubscribe(%q) = %v", topic, err)
	}
}

// topicOf makes topics that no other test of the same broker uses.
func topicOf(t *testing.T, name string) string {
	return fmt.Sprintf("bustest:%x:%s", time.Now().UnixNano(), name)
}

func testFanOut(t *testing.T, connect func(t *testing.T) cluster.Bus) {
	a, b, c := Start(t, connect(t)), Start(t, connect(t)), Start(t, connect(t))
	topic := topicOf(t, "all")
	for _, n := range []*Node{a, b, c} {
		n.Hear(topic)
	}
	a.Say(topic, "hello")
	for _, n := range []*Node{a, b, c} {
		if got := n.Got(topic, 1); string(got[0]) != "hello" {
			t.Errorf("got %q, want hello", got[0])
		}
	}
}

func testInterest(t *testing.T, connect func(t *testing.T) cluster.Bus) {
	a, b := Start(t, connect(t)), Start(t, connect(t))
	wanted, other, left := topicOf(t, "wanted"), topicOf(t, "other"), topicOf(t, "left")
	b.Hear(wanted)
	b.Hear(left)
	a.Say(left, "1")
	b.Got(left, 1)
	b.Deafen(left)
	b.deaf(a, left)
	a.Say(other, "x")
	a.Say(wanted, "end")
	b.Got(wanted, 1)
	b.Say(wanted, "end") // all connections of b had their turn
	b.Got(wanted, 2)
	b.mu.Lock()
	defer b.mu.Unlock()
	if n := len(b.got[other]); n != 0 {
		t.Errorf("got %d messages of a topic that was never wanted", n)
	}
}

// deaf waits until what another one publishes does not arrive any more: leaving
// a topic takes its time.
func (n *Node) deaf(other *Node, topic string) {
	n.t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); {
		fence := topicOf(n.t, "fence")
		n.Hear(fence)
		before := n.received(topic)
		other.Say(topic, "is anybody there")
		other.Say(fence, "x")
		n.Got(fence, 1)
		other.Say(fence, "x") // and what is slower on another connection
		n.Got(fence, 2)
		if n.received(topic) == before {
			return
		}
	}
	n.t.Fatalf("a topic that was left arrives for ever")
}

func (n *Node) received(topic string) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.got[topic])
}

func testAcknowledged(t *testing.T, connect func(t *testing.T) cluster.Bus) {
	a, b := Start(t, connect(t)), Start(t, connect(t))
	for i := range 50 {
		topic := topicOf(t, fmt.Sprint("ack", i))
		b.Hear(topic)
		a.Say(topic, "now")
		b.Got(topic, 1)
	}
}

func testOrder(t *testing.T, connect func(t *testing.T) cluster.Bus) {
	const topics, messages = 8, 200
	a, b := Start(t, connect(t)), Start(t, connect(t))
	var names [topics]string
	for i := range names {
		names[i] = topicOf(t, fmt.Sprint("order", i))
		b.Hear(names[i])
	}
	var wg sync.WaitGroup
	for _, topic := range names {
		wg.Go(func() {
			for i := range messages {
				if err := a.Publish(t.Context(), topic, fmt.Append(nil, i)); err != nil {
					t.Errorf("Publish = %v", err)
					return
				}
			}
		})
	}
	wg.Wait()
	for _, topic := range names {
		for i, msg := range b.Got(topic, messages) {
			if string(msg) != fmt.Sprint(i) {
				t.Fatalf("message %d of a sender is %s", i, msg)
			}
		}
	}
}

// testChurn counts messages of publishers while other topics come and go on the
// same connections.
func testChurn(t *testing.T, connect func(t *testing.T) cluster.Bus) {
	const publishers, messages = 4, 100
	a, b := Start(t, connect(t)), Start(t, connect(t))
	topic := topicOf(t, "steady")
	b.Hear(topic)
	var publishing, churning sync.WaitGroup
	done := make(chan struct{})
	for i := range 4 {
		churning.Go(func() {
			for k := 0; ; k++ {
				select {
				case <-done:
					return
				default:
				}
				other := fmt.Sprintf("%s:%d:%d", topic, i, k%10)
				b.Hear(other)
				a.Say(other, "x")
				b.Deafen(other)
			}
		})
	}
	for p := range publishers {
		publishing.Go(func() {
			for i := range messages {
				a.Say(topic, fmt.Sprintf("%d %d", p, i))
			}
		})
	}
	publishing.Wait()
	close(done)
	churning.Wait()
	next := map[int]int{}
	for _, msg := range b.Got(topic, publishers*messages) {
		var p, i int
		if _, err := fmt.Sscan(string(msg), &p, &i); err != nil || next[p] != i {
			t.Fatalf("got %q, want message %d of publisher %d", msg, next[p], p)
		}
		next[p]++
	}
	if n := b.received(topic); n != publishers*messages {
		t.Errorf("got %d messages, want %d", n, publishers*messages)
	}
}

func testOpaque(t *testing.T, connect func(t *testing.T) cluster.Bus) {
	a, b := Start(t, connect(t)), Start(t, connect(t))
	topic := topicOf(t, "opaque")
	b.Hear(topic)
	all := make([]byte, 256)
	for i := range all {
		all[i] = byte(i)
	}
	sent := [][]byte{{}, {0}, []byte("\r\n+OK\r\n"), all, bytes.Repeat(all, 4096)} // 1 MiB
	for _, msg := range sent {
		if err := a.Publish(t.Context(), topic, msg); err != nil {
			t.Fatalf("Publish of %d bytes = %v", len(msg), err)
		}
	}
	for i, msg := range b.Got(topic, len(sent)) {
		if !bytes.Equal(msg, sent[i]) {
			t.Errorf("message %d of %d bytes arrived as %d bytes", i, len(sent[i]), len(msg))
		}
	}
}

func testTopics(t *testing.T, connect func(t *testing.T) cluster.Bus) {
	a, b := Start(t, connect(t)), Start(t, connect(t))
	base := topicOf(t, "")
	var topics []string
	for c := '!'; c <= '~'; c++ {
		topics = append(topics, base+string(c), base+"a"+string(c)+"b")
	}
	topics = append(topics, base+"a..b", base+"A", base+">", base+"a.*", base+"{x}y", base+"{x}z",
		base+strings.Repeat("x", cluster.MaxTopic-len(base)), base+strings.Repeat(".", cluster.MaxTopic-len(base)))
	for _, topic := range topics {
		b.Hear(topic)
	}
	for _, topic := range topics {
		a.Say(topic, topic)
	}
	seen := map[string]bool{}
	for _, topic := range topics {
		if seen[topic] {
			continue
		}
		seen[topic] = true
		for _, msg := range b.Got(topic, 1) {
			if string(msg) != topic {
				t.Errorf("topic %s got the message of %s", topic, msg)
			}
		}
	}
}

func testTwice(t *testing.T, connect func(t *testing.T) cluster.Bus) {
	a, b := Start(t, connect(t)), Start(t, connect(t))
	topic := topicOf(t, "twice")
	b.Hear(topic)
	b.Hear(topic)
	a.Say(topic, "1")
	a.Say(topic, "2")
	if got := b.Got(topic, 2); string(got[0]) != "1" || string(got[1]) != "2" {
		t.Errorf("got %q, want 1 and 2 once", got)
	}
	b.Deafen(topic)
	b.Deafen(topic)
}

func testDone(t *testing.T, connect func(t *testing.T) cluster.Bus) {
	a := Start(t, connect(t))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	topic := topicOf(t, "done")
	if err := a.Publish(ctx, topic, []byte("x")); err == nil {
		t.Error("Publish with a context that is done = nil, want an error")
	}
	if err := a.Subscribe(ctx, topic); err == nil {
		t.Error("Subscribe with a context that is done = nil, want an error")
	}
}
