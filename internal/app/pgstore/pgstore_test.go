package pgstore

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"sockudo/internal/app"
	"sockudo/internal/app/apptest"
	"sockudo/internal/servicetest"
)

func TestMain(m *testing.M) { servicetest.VerifyNoLeaks(m) }

var databases atomic.Int64

// A database is an empty database of one test.
type database struct {
	url   *url.URL // of the database, as admin
	name  string
	admin *pgxpool.Pool // in the database
}

func newDatabase(t testing.TB, raw string) *database {
	t.Helper()
	u, err := url.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	d := &database{url: u, name: fmt.Sprintf("t%d_%d", os.Getpid(), databases.Add(1))}
	first := open(t, raw)
	d.admin = first
	d.exec(t, "CREATE DATABASE "+d.name)
	t.Cleanup(func() { _, _ = first.Exec(context.WithoutCancel(t.Context()), "DROP DATABASE "+d.name+" WITH (FORCE)") })
	u.Path = "/" + d.name
	d.admin = open(t, u.String())
	return d
}

func open(t testing.TB, url string) *pgxpool.Pool {
	t.Helper()
	conf, err := pgxpool.ParseConfig(url)
	if err != nil {
		t.Fatal(err)
	}
	conf.MaxConns = 4
	p, err := pgxpool.NewWithConfig(t.Context(), conf)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

func (d *database) exec(t testing.TB, queries ...string) {
	t.Helper()
	for _, q := range queries {
		if _, err := d.admin.Exec(t.Context(), q); err != nil {
			t.Fatalf("%s: %v", q, err)
		}
	}
}

// user makes a user with some rights to the tables that there are and returns
// options for it.
func (d *database) user(t testing.TB, rights string) Options {
	t.Helper()
	name := d.name + "_u"
	d.exec(t, "CREATE ROLE "+name+" LOGIN PASSWORD '"+servicetest.Password+"'",
		"REVOKE CREATE ON SCHEMA public FROM PUBLIC", "GRANT "+rights+" ON ALL TABLES IN SCHEMA public TO "+name)
	t.Cleanup(func() {
		_, _ = d.admin.Exec(context.WithoutCancel(t.Context()), "DROP OWNED BY "+name)
		_, _ = d.admin.Exec(context.WithoutCancel(t.Context()), "DROP ROLE "+name)
	})
	opts := d.options(t)
	opts.Username = name
	return opts
}

func (d *database) options(t testing.TB) Options {
	t.Helper()
	port, err := strconv.ParseUint(d.url.Port(), 10, 16)
	if err != nil {
		t.Fatal(err)
	}
	password, _ := d.url.User.Password()
	return Options{
		Host: d.url.Hostname(), Port: uint16(port), Username: d.url.User.Username(), Password: app.Secret(password), Database: d.name,
		Defaults: app.StandardDefaults(),
	}
}

func newStore(t testing.TB, opts Options) *Store {
	t.Helper()
	s, err := Open(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func TestContract(t *testing.T) {
	dbs := map[string]*database{}
	var mu sync.Mutex
	apptest.Run(t, func(t *testing.T, name string) app.Backend {
		mu.Lock()
		defer mu.Unlock()
		if dbs[name] == nil {
			dbs[name] = newDatabase(t, servicetest.Env(t, servicetest.Postgres))
		}
		return newStore(t, dbs[name].options(t))
	})
}

func TestThePoolIsTheOneOfTheSettings(t *testing.T) {
	opts := server(t).options(t)
	opts.MinConns, opts.MaxConns = 3, 7
	s := newStore(t, opts)
	c := s.pool.Config()
	if c.MinConns != 3 || c.MaxConns != 7 || c.MaxConnIdleTime != 180*time.Second || c.MaxConnLifetime != 30*time.Minute || s.opts.Timeout != 5*time.Second {
		t.Errorf("%d to %d connections, idle for %v, for %v at most, %v for a call", c.MinConns, c.MaxConns, c.MaxConnIdleTime, c.MaxConnLifetime, s.opts.Timeout)
	}
	for end := time.Now().Add(time.Minute); s.pool.Stat().TotalConns() < 3; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d connections are open, want 3", s.pool.Stat().TotalConns())
		}
	}
}
