// Package pgstore keeps apps in a table of PostgreSQL, also one that Sockudo
// or a person made (storage section 1).
package pgstore

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"sockudo/internal/app"
	"sockudo/internal/backoff"
)

// Options are where the table is and how it is used. What has a default may be
// left out. Of the environment only PGSSLMODE, PGSSLROOTCERT, PGSSLCERT and
// PGSSLKEY count.
type Options struct {
	Host     string // name, address, or the folder of a socket; default localhost
	Port     uint16 // default 5432
	Username string
	Password app.Secret
	Database string
	Table    string // NAME or SCHEMA.NAME of letters, digits and _, in lower case; default applications

	MinConns int           // kept open
	MaxConns int           // default 10
	Timeout  time.Duration // of one call, with the wait for a connection; default 5 s

	Defaults app.Defaults // limits of apps without their own
	Log      *slog.Logger // nil: nothing is logged
}

const (
	defaultTimeout  = 5 * time.Second
	defaultMaxConns = 10
	maxIdleTime     = 180 * time.Second
	maxLifetime     = 30 * time.Minute
	schemaTimeout   = time.Minute // of making the table usable
	lockTimeout     = "5s"        // that a change of the table may wait, and everybody with it
	pageSize        = 500         // apps read at once by List
)

// A Store keeps apps in one table. Calls give up after Options.Timeout.
type Store struct {
	pool  *pgxpool.Pool
	opts  Options
	log   *slog.Logger
	table table

	schema atomic.Pointer[schema]
}

var _ app.Backend = (*Store)(nil)

// Open connects and sees to it that the table can be used: it is created if it
// is missing, and so are nullable columns if that is permitted. An error that
// trying again does not cure is marked by backoff.Permanent.
func Open(ctx context.Context, opts Options) (*Store, error) {
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	if opts.Timeout <= 0 {
		opts.Timeout = defaultTimeout
	}
	if opts.MaxConns <= 0 {
		opts.MaxConns = defaultMaxConns
	}
	t, err := parseTable(opts.Table)
	if err != nil {
		return nil, err
	}
	s := &Store{opts: opts, log: opts.Log.With("component", "apps", "driver", "postgres"), table: t}
	conf, err := opts.config()
	if err != nil {
		return nil, backoff.Permanent(err)
	}
	// The pool opens connections also when ctx is done.
	if s.pool, err = pgxpool.NewWithConfig(context.WithoutCancel(ctx), conf); err != nil {
		return nil, s.wrap("connect", err)
	}
	ctx, cancel := context.WithTimeout(ctx, schemaTimeout)
	defer cancel()
	if err := s.ensure(ctx); err != nil {
		s.pool.Close()
		return nil, err
	}
	return s, nil
}

// config says everything, so that the library takes nothing but the settings
// of TLS from the environment and from files of the user's home.
func (o *Options) config() (*pgxpool.Config, error) {
	host, port := o.Host, o.Port
	if host == "" {
		host = "localhost"
	}
	if port == 0 {
		port = 5432
	}
	var b strings.Builder
	for _, s := range [][2]string{
		{"host", strings.Trim(host, "[]")}, {"port", strconv.Itoa(int(port))}, {"user", o.Username}, {"dbname", o.Database},
		{"password", o.Password.Reveal()}, {"passfile", "/nonexistent"}, {"target_session_attrs", "any"},
		{"connect_timeout", strconv.Itoa(max(1, int(o.Timeout/time.Second)))}, {"channel_binding", "prefer"}, {"require_auth", ""},
		{"min_protocol_version", "3.0"}, {"max_protocol_version", "3.0"},
	} {
		fmt.Fprintf(&b, "%s='%s' ", s[0], strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(s[1]))
	}
	conf, err := pgxpool.ParseConfig(b.String())
	if err != nil {
		// Only the cause: the rest repeats what was parsed.
		if cause := errors.Unwrap(err); cause != nil {
			return nil, fmt.Errorf("pgstore: settings: %w", cause)
		}
		return nil, errors.New("pgstore: the settings cannot be used")
	}
	c := &conf.ConnConfig.Config
	c.Password = o.Password.Reveal() // also if it is empty
	c.RuntimeParams = map[string]string{"application_name": "sockudo"}
	conf.MaxConns = int32(min(o.MaxConns, 1<<20))
	conf.MinConns = min(int32(min(max(o.MinConns, 0), 1<<20)), conf.MaxConns)
	conf.MaxConnIdleTime = maxIdleTime
	conf.MaxConnLifetime = maxLifetime
	return conf, nil
}

// Close releases the connections. Nothing that is stored changes.
func (s *Store) Close() error {
	s.pool.Close()
	return nil
}

// Ping asks the server for an answer.
func (s *Store) Ping(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, s.opts.Timeout)
	defer cancel()
	var one int
	if err := s.pool.QueryRow(ctx, "SELECT 1").Scan(&one); err != nil {
		return s.wrap("ping", err)
	}
	return nil
}

// Any reports whether the table has a row.
func (s *Store) Any(ctx context.Context) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, s.opts.Timeout)
	defer cancel()
	var there bool
	err := s.pool.QueryRow(ctx, "SELECT EXISTS (SELECT 1 FROM "+s.table.quoted+" LIMIT 1)").Scan(&there)
	if err != nil {
		return false, s.wrap("any app", err)
	}
	return there, nil
}

// ByID returns an app; see app.Store.
func (s *Store) ByID(ctx context.Context, id string) (*app.App, error) { return s.find(ctx, "id", id) }

// ByKey returns an app; see app.Store.
func (s *Store) ByKey(ctx context.Context, key string) (*app.App, error) {
	return s.find(ctx, "key", key)
}

func (s *Store) find(ctx context.Context, column, name string) (*app.App, error) {
	if !app.ValidName(name) {
		return nil, app.ErrNotFound
	}
	ctx, cancel := context.WithTimeout(ctx, s.opts.Timeout)
	defer cancel()
	var a *app.App
	err := s.again(ctx, func() error {
		var err error
		a, err = s.findOnce(ctx, s.pool, column, name)
		return err
	})
	switch {
	case isValue(err):
		return nil, app.ErrNotFound // a column of another type, which cannot hold this name
	case err != nil:
		return nil, s.wrap("app by "+column, err)
	}
	return a, nil
}

// again reads once more after a connection broke, or after a column vanished
// that somebody dropped.
func (s *Store) again(ctx context.Context, read func() error) error {
	err := read()
	switch {
	case err == nil || ctx.Err() != nil:
		return err
	case code(err) == undefinedColumn || code(err) == changedPlan:
		if err := s.probe(ctx); err != nil {
			return err
		}
	case !isBroken(err):
		return err
	}
	return read()
}

// A querier is the pool, or one transaction.
type querier interface {
	Query(ctx context.Context, query string, args ...any) (pgx.Rows, error)
}

// findOnce compares the bytes of what the server found: the column may be of a
// type, or have a collation, to which Key and key are the same.
func (s *Store) findOnce(ctx context.Context, db querier, column, name string) (*app.App, error) {
	sch := s.schema.Load()
	rows, err := db.Query(ctx, sch.selects+" WHERE a."+quote(column)+" = "+sch.param(column, 1), name)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		values, err := sch.scan(rows)
		if err != nil {
			return nil, err
		}
		if v := values[column]; v == nil || *v != name {
			continue
		}
		if a := s.build(values); a != nil {
			return a, nil
		}
		return nil, app.ErrNotFound
	}
	if err := rows.Err(); err != nil {
		return nil, err
	}
	return nil, app.ErrNotFound
}

// build returns the app of a row, or nil if it cannot be used.
func (s *Store) build(values map[string]*string) *app.App {
	a, fields := app.FromColumns(func(column string) (string, bool) {
		if v := values[column]; v != nil {
			return *v, true
		}
		return "", false
	})
	var origins []error
	if a != nil {
		origins = app.Prepare(a, s.opts.Defaults)
	}
	app.LogProblems(s.log, a, fields, origins)
	return a
}

// List yields all apps in the table's order of id. It reads in pages, so that
// no connection is held while yield runs.
func (s *Store) List(ctx context.Context, yield func(*app.App) bool) error {
	var after *string
	for {
		page, last, err := s.page(ctx, after)
		if err != nil {
			return s.wrap("list", err)
		}
		for _, a := range page {
			if !yield(a) {
				return nil
			}
		}
		if last == nil {
			return nil
		}
		after = last
	}
}

// page reads the apps behind an id. last is the id to go on from, nil at the end.
func (s *Store) page(ctx context.Context, after *string) (page []*app.App, last *string, err error) {
	ctx, cancel := context.WithTimeout(ctx, s.opts.Timeout)
	defer cancel()
	err = s.again(ctx, func() error {
		page, last, err = s.pageOnce(ctx, s.schema.Load(), after)
		return err
	})
	return page, last, err
}

func (s *Store) pageOnce(ctx context.Context, sch *schema, after *string) (page []*app.App, last *string, err error) {
	// NULL would be first for ever and can be nobody's id.
	query, args := sch.selects+` WHERE a."id" IS NOT NULL`, []any(nil)
	if after != nil {
		query += ` AND a."id" > ` + sch.param("id", 1)
		args = append(args, *after)
	}
	rows, err := s.pool.Query(ctx, query+` ORDER BY a."id" LIMIT `+strconv.Itoa(pageSize), args...)
	if err != nil {
		return nil, nil, err
	}
	defer rows.Close()
	n := 0
	for ; rows.Next(); n++ {
		values, err := sch.scan(rows)
		if err != nil {
			return nil, nil, err
		}
		last = values["id"]
		if a := s.build(values); a != nil {
			page = append(page, a)
		}
	}
	if n < pageSize {
		last = nil
	}
	return page, last, rows.Err()
}
