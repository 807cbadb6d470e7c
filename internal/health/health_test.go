package health

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func discard() *slog.Logger { return slog.New(slog.DiscardHandler) }

func good(context.Context) error { return nil }

func bad(context.Context) error { return errors.New("connection refused") }

// deaf answers neither in time nor when its context is done.
func deaf(release <-chan struct{}) func(context.Context) error {
	return func(context.Context) error { <-release; return nil }
}

func TestCriticalChecksDecide(t *testing.T) {
	type c struct {
		critical bool
		ask      func(context.Context) error
	}
	for _, test := range []struct {
		name   string
		checks []c
		want   Status
	}{
		{"no check", nil, OK},
		{"all well", []c{{true, good}, {false, good}}, OK},
		{"a minor one fails", []c{{true, good}, {false, bad}}, Degraded},
		{"a critical one fails", []c{{true, bad}, {false, good}}, Error},
		{"a minor one fails after a critical one", []c{{true, bad}, {false, bad}}, Error},
		{"a critical one fails after a minor one", []c{{false, bad}, {true, bad}}, Error},
		{"a minor one panics", []c{{false, func(context.Context) error { panic("oops") }}}, Degraded},
	} {
		t.Run(test.name, func(t *testing.T) {
			h := New(time.Second, discard())
			for _, c := range test.checks {
				h.Add("x", c.critical, c.ask)
			}
			for range 2 { // the first answer is not kept
				if got := h.Run(t.Context()); got != test.want {
					t.Errorf("got %s, want %s", got, test.want)
				}
			}
		})
	}
}

func TestDependencyMayComeBack(t *testing.T) {
	var down atomic.Bool
	h := New(time.Second, discard())
	h.Add("cache", true, func(context.Context) error {
		if down.Load() {
			return errors.New("down")
		}
		return nil
	})
	for _, is := range []bool{false, true, false} {
		down.Store(is)
		if got := h.Run(t.Context()); (got == Error) != is {
			t.Errorf("down is %v, status %s", is, got)
		}
	}
}

func TestHangingChecksRunSideBySideWithinOneBound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		h := New(400*time.Millisecond, discard())
		h.Add("database", true, deaf(release))
		h.Add("queue", false, deaf(release))
		h.Add("cache", true, good)
		began := time.Now()
		if got := h.Run(t.Context()); got != Error {
			t.Errorf("got %s", got)
		}
		if took := time.Since(began); took != 400*time.Millisecond {
			t.Errorf("took %v", took)
		}
		close(release)
		synctest.Wait()
		if got := h.Run(t.Context()); got != OK {
			t.Errorf("after they answer again: %s", got)
		}
	})
}

func TestProbesShareOneQuestion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		var asked atomic.Int32
		h := New(400*time.Millisecond, discard())
		h.Add("database", true, func(context.Context) error { asked.Add(1); <-release; return nil })
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() {
				if got := h.Run(t.Context()); got != Error {
					t.Errorf("got %s", got)
				}
			})
			time.Sleep(10 * time.Millisecond)
		}
		wg.Wait()
		if n := asked.Load(); n != 1 {
			t.Errorf("a check that hangs was asked %d times", n)
		}
		close(release)
	})
}

func TestCallerWhoHangsUpSpoilsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var logged bytes.Buffer
		h := New(400*time.Millisecond, slog.New(slog.NewTextHandler(&logged, nil)))
		h.Add("database", true, func(ctx context.Context) error {
			select {
			case <-time.After(100 * time.Millisecond):
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
		gone, hangUp := context.WithCancel(t.Context())
		go h.Run(gone)
		time.Sleep(50 * time.Millisecond)
		hangUp()
		if got := h.Run(t.Context()); got != OK {
			t.Errorf("the other caller got %s", got)
		}
		if logged.Len() > 0 {
			t.Errorf("logged %s", &logged)
		}
	})
}

func TestFailureIsLoggedOnceAndNamed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var logged bytes.Buffer
		h := New(400*time.Millisecond, slog.New(slog.NewTextHandler(&logged, nil)))
		h.Add("database", true, func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() })
		h.Add("queue", false, bad)
		h.Run(t.Context())
		synctest.Wait()
		got := logged.String()
		if strings.Count(got, "\n") != 2 || !strings.Contains(got, "level=ERROR") || !strings.Contains(got, "check=database") ||
			!strings.Contains(got, "level=WARN") || !strings.Contains(got, `check=queue critical=false err="connection refused"`) {
			t.Errorf("logged %s", got)
		}
	})
}

func TestDrainingNodeAsksNobody(t *testing.T) {
	h := New(0, discard())
	h.Add("x", true, func(context.Context) error { t.Error("asked"); return nil })
	if h.IsDraining() {
		t.Error("draining from the start")
	}
	h.SetDraining()
	if got := h.Run(t.Context()); got != Draining || !h.IsDraining() {
		t.Errorf("got %s", got)
	}
	if h.Timeout() != DefaultTimeout {
		t.Errorf("timeout %v", h.Timeout())
	}
}

func TestWhatFailsForLongIsLoggedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var logged bytes.Buffer
		h := New(0, slog.New(slog.NewTextHandler(&logged, nil)))
		var down error
		h.Add("bus", true, func(context.Context) error { return down })
		for _, step := range []struct {
			err           error
			failed, again int
		}{{nil, 0, 0}, {errors.New("away"), 1, 0}, {errors.New("away"), 1, 0}, {nil, 1, 1}, {nil, 1, 1}, {errors.New("away"), 2, 1}} {
			down = step.err
			h.Run(t.Context())
			synctest.Wait()
			failed, again := strings.Count(logged.String(), "health check failed"), strings.Count(logged.String(), "passes again")
			if failed != step.failed || again != step.again {
				t.Errorf("logged %d failures and %d recoveries, want %d and %d", failed, again, step.failed, step.again)
			}
		}
	})
}
