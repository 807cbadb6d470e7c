package bustest

import (
	"context"
	"sync"
	"testing"

	"sockudo/internal/cluster"
)

// Benchmark measures a Bus with messages of 300 bytes, about what an event of
// 200 bytes becomes. RoundTrip is one message from its publisher through the
// broker to a subscriber at another connection; Publish is what a publisher
// waits while many publish; Deliver is a message through the whole bus then.
func Benchmark(b *testing.B, connect func(b *testing.B) cluster.Bus) {
	msg := make([]byte, 300)
	b.Run("RoundTrip", func(b *testing.B) {
		from, to := startBench(b, connect(b)), startBench(b, connect(b))
		to.hear(b, b.Name())
		for b.Loop() {
			if err := from.bus.Publish(b.Context(), b.Name(), msg); err != nil {
				b.Fatal(err)
			}
			<-to.got
		}
	})
	b.Run("Publish", func(b *testing.B) {
		from := startBench(b, connect(b))
		b.SetParallelism(64)
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				if err := from.bus.Publish(b.Context(), b.Name(), msg); err != nil {
					b.Error(err)
					return
				}
			}
		})
	})
	b.Run("Deliver", func(b *testing.B) {
		from, to := startBench(b, connect(b)), startBench(b, connect(b))
		to.hear(b, b.Name())
		b.SetParallelism(64)
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				if err := from.bus.Publish(b.Context(), b.Name(), msg); err != nil {
					b.Error(err)
					return
				}
				<-to.got // not necessarily the same one
			}
		})
	})
}

type bench struct {
	bus      cluster.Bus
	got      chan struct{}
	restored chan struct{}
	once     sync.Once
}

func startBench(b *testing.B, bus cluster.Bus) *bench {
	b.Helper()
	n := &bench{bus: bus, got: make(chan struct{}, 1024), restored: make(chan struct{})}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- bus.Run(ctx, n) }()
	b.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			b.Error(err)
		}
	})
	<-n.restored
	return n
}

func (n *bench) hear(b *testing.B, topic string) {
	b.Helper()
	if err := n.bus.Subscribe(b.Context(), topic); err != nil {
		b.Fatal(err)
	}
}

func (n *bench) Message(string, []byte) { n.got <- struct{}{} }

func (n *bench) Lost() {}

func (n *bench) Restored() { n.once.Do(func() { close(n.restored) }) }
