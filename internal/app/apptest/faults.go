package apptest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sockudo/internal/app"
	"sockudo/internal/servicetest"
)

// CallTimeout is what stores under RunFaults must be opened with.
const CallTimeout = time.Second

// slack is how much later than its bound a call may return on a busy machine.
const slack = 3 * time.Second

// RunFaults checks what a store on a server does when the network between them
// fails. open returns a store that reaches the server at addr, with
// CallTimeout; the stores share their apps.
func RunFaults(t *testing.T, target string, open func(t *testing.T, addr string) app.Backend) {
	p := servicetest.NewProxy(t, target)
	s := open(t, p.Addr())
	for i := range 20 {
		must(t, s.Create(t.Context(), Plain(fmt.Sprintf("app-%d", i))))
	}
	t.Run("a_cancelled_call_is_no_unknown_app", func(t *testing.T) { cancelled(t, s) })
	t.Run("connections_are_cut_in_mid-query", func(t *testing.T) {
		UnderLoad(t, s, func() {
			for range 20 {
				p.Cut()
				pause(t, 20*time.Millisecond)
			}
		})
		Recovers(t, s)
	})
	t.Run("the_server_refuses", func(t *testing.T) {
		UnderLoad(t, s, func() {
			p.Refuse()
			WantDown(t, s)
			p.Accept(t)
		})
		Recovers(t, s)
	})
	t.Run("the_network_swallows_everything", func(t *testing.T) {
		UnderLoad(t, s, func() {
			p.Hold()
			WantDown(t, s)
			p.Release()
		})
		Recovers(t, s)
	})
	t.Run("many_callers_wait_for_few_connections", func(t *testing.T) {
		p.Hold()
		var wg sync.WaitGroup
		start := time.Now()
		for range 200 {
			wg.Go(func() {
				if _, err := s.ByKey(t.Context(), "app-1-key"); !errors.Is(err, app.ErrUnavailable) {
					t.Errorf("err = %v, want %v", err, app.ErrUnavailable)
				}
			})
		}
		wg.Wait()
		if took := time.Since(start); took > CallTimeout+slack {
			t.Errorf("the last of 200 callers gave up after %v, want %v", took, CallTimeout)
		}
		p.Release()
		Recovers(t, s)
	})
	t.Run("behind_the_caching_store", func(t *testing.T) { behindCached(t, s, p) })
}

// RunRestart checks what a store does while its server is killed and started
// again. The stores of open share their apps and reach that server.
func RunRestart(t *testing.T, services *servicetest.Services, server string, s app.Backend) {
	for i := range 20 {
		must(t, s.Create(t.Context(), Plain(fmt.Sprintf("app-%d", i))))
	}
	for _, end := range []struct {
		how  string
		call func(testing.TB, string)
	}{{"killed", services.Kill}, {"stopped", services.Stop}} {
		t.Run("the_server_is_"+end.how+"_under_load", func(t *testing.T) {
			UnderLoad(t, s, func() {
				end.call(t, server)
				WantDown(t, s)
				services.Restart(t, server)
			})
			Recovers(t, s)
		})
	}
	t.Run("the_server_is_frozen", func(t *testing.T) {
		UnderLoad(t, s, func() {
			services.Pause(t, server)
			WantDown(t, s)
			services.Resume(t, server)
		})
		Recovers(t, s)
	})
}

// UnderLoad calls fault while others look apps up. Whatever happens, none of
// them may hear that an app does not exist, get another app, or wait for long.
func UnderLoad(t *testing.T, s app.Store, fault func()) {
	t.Helper()
	var wg sync.WaitGroup
	var stop atomic.Bool
	var good, bad atomic.Int64
	for w := range 8 {
		wg.Go(func() {
			for i := w; !stop.Load(); i++ {
				name := fmt.Sprintf("app-%d", i%20)
				start := time.Now()
				a, err := s.ByKey(t.Context(), name+"-key")
				switch {
				case err == nil && a.ID == name:
					good.Add(1)
				case err == nil:
					t.Errorf("asked for %s and got %s", name, a.ID)
				case !errors.Is(err, app.ErrUnavailable) || errors.Is(err, app.ErrNotFound):
					t.Errorf("err = %v, want %v", err, app.ErrUnavailable)
				default:
					bad.Add(1)
					pause(t, time.Millisecond)
				}
				if took := time.Since(start); took > CallTimeout+slack {
					t.Errorf("a lookup took %v, want at most %v", took, CallTimeout)
				}
			}
		})
	}
	for good.Load() == 0 && !t.Failed() {
		pause(t, time.Millisecond)
	}
	func() {
		defer wg.Wait()
		defer stop.Store(true) // also if fault ends the test
		fault()
	}()
	t.Logf("%d lookups worked, %d did not", good.Load(), bad.Load())
}

// WantDown waits until lookups fail, and checks that they say so.
func WantDown(t *testing.T, s app.Backend) {
	t.Helper()
	until(t, "lookups fail", func() bool {
		_, err := s.ByID(t.Context(), "app-1")
		return err != nil
	})
	var wg sync.WaitGroup
	for what, call := range map[string]func(context.Context) error{
		"by id":  func(ctx context.Context) error { _, err := s.ByID(ctx, "nobody"); return err },
		"by key": func(ctx context.Context) error { _, err := s.ByKey(ctx, "nobody"); return err },
		"ping":   s.Ping,
		"any":    func(ctx context.Context) error { _, err := s.Any(ctx); return err },
		"list":   func(ctx context.Context) error { return s.List(ctx, func(*app.App) bool { return true }) },
		"update": func(ctx context.Context) error { return s.Update(ctx, nil, Plain("nobody")) },
	} {
		wg.Go(func() {
			start := time.Now()
			if err := call(t.Context()); !errors.Is(err, app.ErrUnavailable) || errors.Is(err, app.ErrNotFound) {
				t.Errorf("%s: err = %v, want %v", what, err, app.ErrUnavailable)
			}
			if took := time.Since(start); took > CallTimeout+slack {
				t.Errorf("%s took %v, want at most %v", what, took, CallTimeout)
			}
		})
	}
	wg.Wait()
}

// Recovers waits until everything works again.
func Recovers(t *testing.T, s app.Backend) {
	t.Helper()
	until(t, "lookups work again", func() bool {
		_, err := s.ByID(t.Context(), "app-1")
		return err == nil
	})
	must(t, s.Ping(t.Context()))
	must(t, s.Update(t.Context(), nil, Plain("app-1")))
	for i := range 20 {
		Check(t, s, Plain(fmt.Sprintf("app-%d", i)))
	}
}

func cancelled(t *testing.T, s app.Backend) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for what, call := range map[string]func() error{
		"by id":  func() error { _, err := s.ByID(ctx, "nobody"); return err },
		"by key": func() error { _, err := s.ByKey(ctx, "nobody"); return err },
		"update": func() error { return s.Update(ctx, nil, Plain("nobody")) },
		"delete": func() error { return s.Delete(ctx, "nobody") },
	} {
		start := time.Now()
		if err := call(); !errors.Is(err, context.Canceled) || errors.Is(err, app.ErrNotFound) {
			t.Errorf("%s: err = %v, want %v", what, err, context.Canceled)
		}
		if took := time.Since(start); took > slack {
			t.Errorf("%s took %v", what, took)
		}
	}
	Recovers(t, s)
}

// behindCached is the whole of what a server sees of an outage.
func behindCached(t *testing.T, s app.Backend, p *servicetest.Proxy) {
	c := app.NewCached(s, app.StandardDefaults(), app.CachedOptions{Local: time.Millisecond, NegativeTTL: time.Second, Timeout: CallTimeout})
	for i := range 10 {
		Check(t, c, Plain(fmt.Sprintf("app-%d", i)))
	}
	p.Refuse()
	until(t, "the store is known to be down", func() bool {
		_, err := c.ByKey(t.Context(), "app-15-key")
		return errors.Is(err, app.ErrUnavailable)
	})
	start := time.Now()
	for range 50 {
		for i := range 10 {
			Check(t, c, Plain(fmt.Sprintf("app-%d", i)))
		}
		if _, err := c.ByKey(t.Context(), "app-15-key"); !errors.Is(err, app.ErrUnavailable) || errors.Is(err, app.ErrNotFound) {
			t.Errorf("an app that was never seen: err = %v, want %v", err, app.ErrUnavailable)
		}
	}
	if took := time.Since(start); took > CallTimeout+slack {
		t.Errorf("1050 lookups without the server took %v", took)
	}
	p.Accept(t)
	until(t, "the app that was never seen is found", func() bool {
		_, err := c.ByKey(t.Context(), "app-15-key")
		return err == nil
	})
}

// until polls for what a server does in its own time.
func until(t *testing.T, what string, done func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !done(); pause(t, 5*time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("a minute has passed and still not: %s", what)
		}
	}
}

// pause lets a real server and a real network do something.
func pause(t *testing.T, d time.Duration) {
	t.Helper()
	timer := time.NewTimer(d)
	defer timer.Stop()
	<-timer.C
}
