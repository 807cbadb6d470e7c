package driver

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// start runs a lane until the end of the bubble's test.
func start(t *testing.T, l *Lane) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { l.Run(ctx) })
	return func() { cancel(); running.Wait() }
}

func TestManyPublishersShareBatches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var batches, messages atomic.Int64
		l := NewLane(time.Minute, func(_ context.Context, batch []*Message) {
			batches.Add(1)
			messages.Add(int64(len(batch)))
			time.Sleep(time.Millisecond) // the round trip
		})
		stop := start(t, l)
		var publishers sync.WaitGroup
		for range 1000 {
			publishers.Go(func() {
				if err := l.Publish(t.Context(), "t", []byte("x")); err != nil {
					t.Error(err)
				}
			})
		}
		publishers.Wait()
		stop()
		if m, b := messages.Load(), batches.Load(); m != 1000 || b > 100 {
			t.Errorf("%d messages in %d batches, want 1000 in far fewer", m, b)
		}
	})
}

func TestAPublisherKeepsItsOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		got := map[string][]string{}
		l := NewLane(time.Minute, func(_ context.Context, batch []*Message) {
			mu.Lock()
			defer mu.Unlock()
			for _, m := range batch {
				got[m.Topic] = append(got[m.Topic], string(m.Data))
			}
		})
		stop := start(t, l)
		var publishers sync.WaitGroup
		for p := range 20 {
			publishers.Go(func() {
				for i := range 200 {
					if err := l.Publish(t.Context(), fmt.Sprint(p), fmt.Append(nil, i)); err != nil {
						t.Error(err)
					}
				}
			})
		}
		publishers.Wait()
		stop()
		for topic, data := range got {
			for i, d := range data {
				if d != fmt.Sprint(i) {
					t.Fatalf("message %d of publisher %s is %s", i, topic, d)
				}
			}
		}
	})
}

func TestABrokerThatHangsHoldsNobodyLongerThanItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const timeout = 5 * time.Second
		var sent atomic.Int64
		l := NewLane(timeout, func(ctx context.Context, batch []*Message) {
			sent.Add(int64(len(batch)))
			<-ctx.Done()
			for _, m := range batch {
				m.Err = ctx.Err()
			}
		})
		stop := start(t, l)
		begin := time.Now()
		var publishers sync.WaitGroup
		for range 100 {
			publishers.Go(func() {
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				if err := l.Publish(ctx, "t", nil); !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("err = %v, want that the time is over", err)
				}
			})
			synctest.Wait()
		}
		publishers.Wait()
		if took := time.Since(begin); took != time.Second {
			t.Errorf("waited %v, want 1s", took)
		}
		// One batch of one message per worker is under way; the rest was given
		// up before its turn and is not sent late.
		time.Sleep(2 * timeout)
		synctest.Wait()
		if n := sent.Load(); n != inFlight {
			t.Errorf("%d messages were sent, want %d", n, inFlight)
		}
		stop()
	})
}

func TestWhatIsLeftAtTheEndIsAnError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := NewLane(time.Minute, func(ctx context.Context, batch []*Message) {
			<-ctx.Done()
			for _, m := range batch {
				m.Err = ctx.Err()
			}
		})
		stop := start(t, l)
		errs := make(chan error, 10)
		for range cap(errs) {
			go func() { errs <- l.Publish(t.Context(), "t", nil) }()
			synctest.Wait()
		}
		stop()
		stopped := 0
		for range cap(errs) {
			err := <-errs
			if err == nil {
				t.Error("a message that was not sent has no error")
			}
			if errors.Is(err, ErrStopped) {
				stopped++
			}
		}
		if stopped != cap(errs)-inFlight {
			t.Errorf("%d were never sent, want %d", stopped, cap(errs)-inFlight)
		}
		if err := l.Publish(t.Context(), "t", nil); !errors.Is(err, ErrStopped) {
			t.Errorf("err = %v, want %v", err, ErrStopped)
		}
	})
}

func TestBatchesAreBounded(t *testing.T) {
	l := NewLane(time.Minute, nil)
	for range 3 {
		l.waiting = append(l.waiting, &Message{Data: make([]byte, maxBatchBytes)})
	}
	for range 2 * maxBatch {
		l.waiting = append(l.waiting, &Message{})
	}
	var sizes []int
	for {
		batch := l.take(nil)
		if len(batch) == 0 {
			break
		}
		sizes = append(sizes, len(batch))
	}
	if want := []int{1, 1, 1, maxBatch, maxBatch}; fmt.Sprint(sizes) != fmt.Sprint(want) {
		t.Errorf("sizes = %v, want %v", sizes, want)
	}
}

func BenchmarkLane(b *testing.B) {
	l := NewLane(time.Minute, func(context.Context, []*Message) {})
	ctx, cancel := context.WithCancel(b.Context())
	var running sync.WaitGroup
	running.Go(func() { l.Run(ctx) })
	data := make([]byte, 200)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			_ = l.Publish(b.Context(), "t", data)
		}
	})
	cancel()
	running.Wait()
}
