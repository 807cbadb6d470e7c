package cluster_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"sockudo/internal/cluster"
)

// A told bus says what the test lets it say of its continuity.
type toldBus struct {
	cluster.Bus
	on cluster.Events
}

func (b *toldBus) Run(ctx context.Context, on cluster.Events) error {
	b.on = on
	return b.Bus.Run(ctx, on)
}

func TestEventsWaitForNodesThatMayNotHearTheBrokerYet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broker := cluster.NewMemoryBus()
		atA, atB := &toldBus{Bus: broker.Connect()}, &toldBus{Bus: broker.Connect()}
		a := join(t, atA, cluster.Options{NodeID: "a"})
		b := join(t, atB, cluster.Options{NodeID: "b"})
		time.Sleep(3 * time.Second)
		a.mustBeReady()
		b.mustBeReady()
		publish := func() error { return a.Broadcast(t.Context(), "app", "x", []byte("{}"), "", time.Now()) }
		if err := publish(); err != nil {
			t.Fatalf("while all is well: %v", err)
		}

		atA.on.Lost()
		atB.on.Lost()
		begin := time.Now()
		if err := publish(); err == nil {
			t.Error("accepted while the broker is lost")
		} else if d := time.Since(begin); d != time.Second {
			t.Errorf("refused after %v, want 1s: %v", d, err)
		}
		if err := publish(); err == nil || time.Since(begin) != time.Second {
			t.Errorf("later: %v after %v, want it refused at once", err, time.Since(begin))
		}
		atA.on.Restored()
		begin = time.Now()
		time.AfterFunc(300*time.Millisecond, atB.on.Restored)
		if err := publish(); err != nil {
			t.Errorf("refused although the other node came back: %v", err)
		} else if d := time.Since(begin); d < 300*time.Millisecond || d > 500*time.Millisecond {
			t.Errorf("accepted after %v, want it as soon as the other node is back, after 300ms", d)
		}

		// Who lost the broker alone has its answer at once.
		atA.on.Lost()
		atA.on.Restored()
		begin = time.Now()
		if err := publish(); err != nil || time.Since(begin) > 10*time.Millisecond {
			t.Errorf("after a loss of its own: %v after %v", err, time.Since(begin))
		}

		// Who never answers is not waited for: it is as one that is cut off.
		atB.on.Lost()
		settle()
		atA.on.Lost()
		atA.on.Restored()
		if err := publish(); err == nil {
			t.Error("accepted while the other node does not hear")
		}
		time.Sleep(2 * time.Second) // its canary is well
		if err := a.Ready(); err == nil {
			t.Error("ready although it refuses events")
		}
		time.Sleep(3 * time.Second)
		a.mustBeReady()
		if err := publish(); err != nil {
			t.Errorf("refused for a node that does not answer: %v", err)
		}
	})
}
