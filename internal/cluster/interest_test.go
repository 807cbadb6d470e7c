package cluster

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

func TestWantsAfterTheEndFailAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newInterests(NewMemoryBus().Connect(), time.Second)
		ctx, cancel := context.WithCancel(t.Context())
		n.begin(ctx)
		if err := n.want(ctx, "app", "x", "x"); err != nil {
			t.Fatal(err)
		}
		cancel()
		n.sweep(context.Background(), time.Now())
		n.end()
		for _, topic := range []string{"x", "y"} {
			begin := time.Now()
			short, stop := context.WithTimeout(t.Context(), time.Minute)
			err := n.want(short, "app", topic, topic)
			stop()
			if !errors.Is(err, errStopped) || time.Since(begin) != 0 {
				t.Errorf("topic %s: %v after %v, want %v at once", topic, err, time.Since(begin), errStopped)
			}
		}
	})
}
