package mysqlstore

import (
	"database/sql"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"

	"sockudo/internal/app"
	"sockudo/internal/app/apptest"
	"sockudo/internal/servicetest"
)

func TestMain(m *testing.M) { servicetest.VerifyNoLeaks(m) }

// servers runs a test on MariaDB and, where there is one, on MySQL.
func servers(t *testing.T, run func(t *testing.T, dsn string)) {
	t.Helper()
	t.Run("MariaDB", func(t *testing.T) { run(t, servicetest.Env(t, servicetest.MariaDB)) })
	if dsn := os.Getenv(servicetest.MySQL); dsn != "" {
		t.Run("MySQL", func(t *testing.T) { run(t, dsn) })
	}
}

var databases atomic.Int64

// A database is an empty database of one test.
type database struct {
	dsn   string
	name  string
	admin *sql.DB // in the database
}

func newDatabase(t testing.TB, dsn string) *database {
	t.Helper()
	d := &database{dsn: dsn, name: fmt.Sprintf("t%d_%d", os.Getpid(), databases.Add(1))}
	conf, err := mysql.ParseDSN(dsn)
	if err != nil {
		t.Fatal(err)
	}
	first := open(t, conf)
	d.admin = first
	d.exec(t, "CREATE DATABASE "+d.name+" CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci")
	t.Cleanup(func() { _, _ = first.Exec("DROP DATABASE " + d.name) })
	conf.DBName = d.name
	d.admin = open(t, conf)
	return d
}

func open(t testing.TB, conf *mysql.Config) *sql.DB {
	t.Helper()
	conf.Logger = &mysql.NopLogger{}
	connector, err := mysql.NewConnector(conf)
	if err != nil {
		t.Fatal(err)
	}
	db := sql.OpenDB(connector)
	t.Cleanup(func() { _ = db.Close() })
	return db
}

func (d *database) exec(t testing.TB, queries ...string) {
	t.Helper()
	for _, q := range queries {
		if _, err := d.admin.Exec(q); err != nil {
			t.Fatalf("%s: %v", q, err)
		}
	}
}

// user makes a user with some rights in the database and returns options for it.
func (d *database) user(t testing.TB, rights string) Options {
	t.Helper()
	name := d.name + "_u"
	d.exec(t, "CREATE USER IF NOT EXISTS '"+name+"'@'%' IDENTIFIED BY '"+servicetest.Password+"'",
		"GRANT "+rights+" ON "+d.name+".* TO '"+name+"'@'%'")
	t.Cleanup(func() { _, _ = d.admin.Exec("DROP USER '" + name + "'@'%'") })
	opts := d.options(t)
	opts.Username = name
	return opts
}

func (d *database) options(t testing.TB) Options {
	t.Helper()
	conf, err := mysql.ParseDSN(d.dsn)
	if err != nil {
		t.Fatal(err)
	}
	host, port, _ := strings.Cut(conf.Addr, ":")
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		t.Fatal(err)
	}
	return Options{
		Host: host, Port: uint16(n), Username: conf.User, Password: app.Secret(conf.Passwd), Database: d.name,
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
	servers(t, func(t *testing.T, dsn string) {
		dbs := map[string]*database{}
		var mu sync.Mutex
		apptest.Run(t, func(t *testing.T, name string) app.Backend {
			mu.Lock()
			defer mu.Unlock()
			if dbs[name] == nil {
				dbs[name] = newDatabase(t, dsn)
			}
			return newStore(t, dbs[name].options(t))
		})
	})
}

func TestThePoolIsTheOneOfTheSettings(t *testing.T) {
	servers(t, func(t *testing.T, dsn string) {
		opts := newDatabase(t, dsn).options(t)
		opts.MinConns, opts.MaxConns = 3, 7
		s := newStore(t, opts)
		if stats := s.db.Stats(); stats.OpenConnections != 3 || stats.MaxOpenConnections != 7 || s.opts.Timeout != 5*time.Second {
			t.Errorf("%d connections of %d are open, %v for a call; want 3 of 7, 5s", stats.OpenConnections, stats.MaxOpenConnections, s.opts.Timeout)
		}
	})
}
