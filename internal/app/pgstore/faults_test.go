package pgstore

import (
	"errors"
	"net"
	"strconv"
	"sync"
	"testing"
	"time"

	"sockudo/internal/app"
	"sockudo/internal/app/apptest"
	"sockudo/internal/servicetest"
)

// through changes the address of options.
func through(t testing.TB, opts Options, addr string) Options {
	t.Helper()
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		t.Fatal(err)
	}
	opts.Host, opts.Port, opts.Timeout = host, uint16(n), apptest.CallTimeout
	return opts
}

func TestFaultsOfTheNetwork(t *testing.T) {
	d := newDatabase(t, servicetest.Env(t, servicetest.Postgres))
	apptest.RunFaults(t, d.url.Host, func(t *testing.T, addr string) app.Backend {
		return newStore(t, through(t, d.options(t), addr))
	})
}

func TestTheServerEndsAndComesBack(t *testing.T) {
	group := servicetest.Start(t, servicetest.Options{}, "postgres")
	d := newDatabase(t, group.Env(t, servicetest.Postgres))
	opts := d.options(t)
	opts.Timeout = apptest.CallTimeout
	apptest.RunRestart(t, group, "postgres", newStore(t, opts))
}

func TestASlowServerHoldsNobodyLong(t *testing.T) {
	d := newDatabase(t, servicetest.Env(t, servicetest.Postgres))
	opts := d.options(t)
	opts.Timeout, opts.MaxConns = apptest.CallTimeout, 2
	s := newStore(t, opts)
	if err := s.Create(t.Context(), apptest.Plain("app-1")); err != nil {
		t.Fatal(err)
	}
	tx, err := d.admin.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), "LOCK TABLE applications IN ACCESS EXCLUSIVE MODE"); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	var wg sync.WaitGroup
	for range 50 { // the pool has two connections
		wg.Go(func() {
			if _, err := s.ByID(t.Context(), "app-1"); !errors.Is(err, app.ErrUnavailable) {
				t.Errorf("err = %v, want %v", err, app.ErrUnavailable)
			}
		})
	}
	wg.Wait()
	if took := time.Since(start); took > 2*apptest.CallTimeout {
		t.Errorf("50 lookups of a locked table took %v, want %v", took, apptest.CallTimeout)
	}
	if err := tx.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	apptest.Check(t, s, apptest.Plain("app-1"))
}
