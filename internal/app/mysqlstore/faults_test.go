package mysqlstore

import (
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"

	"sockudo/internal/app"
	"sockudo/internal/app/apptest"
	"sockudo/internal/servicetest"
)

// through changes the address of options.
func through(t testing.TB, opts Options, addr string) Options {
	t.Helper()
	d := database{dsn: "u:p@tcp(" + addr + ")/x"}
	other := d.options(t)
	opts.Host, opts.Port, opts.Timeout = other.Host, other.Port, apptest.CallTimeout
	return opts
}

func addressOf(t testing.TB, dsn string) string {
	t.Helper()
	conf, err := mysql.ParseDSN(dsn)
	if err != nil {
		t.Fatal(err)
	}
	return conf.Addr
}

func TestFaultsOfTheNetwork(t *testing.T) {
	servers(t, func(t *testing.T, dsn string) {
		d := newDatabase(t, dsn)
		apptest.RunFaults(t, addressOf(t, dsn), func(t *testing.T, addr string) app.Backend {
			return newStore(t, through(t, d.options(t), addr))
		})
	})
}

func TestTheServerEndsAndComesBack(t *testing.T) {
	group := servicetest.Start(t, servicetest.Options{}, "mariadb")
	d := newDatabase(t, group.Env(t, servicetest.MariaDB))
	opts := d.options(t)
	opts.Timeout = apptest.CallTimeout
	apptest.RunRestart(t, group, "mariadb", newStore(t, opts))
}

func TestASlowServerHoldsNobodyLong(t *testing.T) {
	servers(t, func(t *testing.T, dsn string) {
		d := newDatabase(t, dsn)
		opts := d.options(t)
		opts.Timeout, opts.MaxConns = apptest.CallTimeout, 2
		s := newStore(t, opts)
		for i := range 20 {
			if err := s.Create(t.Context(), apptest.Plain("app-"+string(rune('0'+i%10))+"-"[:i/10])); err != nil {
				t.Fatal(err)
			}
		}
		lock, err := d.admin.Conn(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = lock.Close() }()
		if _, err := lock.ExecContext(t.Context(), "LOCK TABLES applications WRITE"); err != nil {
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
		if _, err := lock.ExecContext(t.Context(), "UNLOCK TABLES"); err != nil {
			t.Fatal(err)
		}
		apptest.Check(t, s, apptest.Plain("app-1"))
	})
}
