// Package mysqlstore keeps apps in a table of MySQL or MariaDB, also one that
// Sockudo or a person made (storage section 1).
package mysqlstore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/go-sql-driver/mysql"

	"sockudo/internal/app"
)

// Options are where the table is and how it is used. What has a default may be
// left out.
type Options struct {
	Host     string // name, address, or the path of a socket; default localhost
	Port     uint16 // default 3306
	Username string
	Password app.Secret
	Database string
	Table    string // NAME or SCHEMA.NAME of letters, digits and _; default applications

	MinConns int           // opened at the start
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
	lockTimeout     = "5"         // seconds that the server lets a statement wait for others
	pageSize        = 500         // apps read at once by List
)

// A Store keeps apps in one table. Calls give up after Options.Timeout.
type Store struct {
	db    *sql.DB
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
	s := &Store{opts: opts, log: opts.Log.With("component", "apps", "driver", "mysql"), table: t}
	connector, err := mysql.NewConnector(s.config())
	if err != nil {
		return nil, fmt.Errorf("mysqlstore: %w", err)
	}
	s.db = sql.OpenDB(connector)
	s.db.SetMaxOpenConns(opts.MaxConns)
	s.db.SetMaxIdleConns(opts.MaxConns)
	s.db.SetConnMaxIdleTime(maxIdleTime)
	s.db.SetConnMaxLifetime(maxLifetime)
	if err := s.prepare(ctx); err != nil {
		_ = s.db.Close()
		return nil, err
	}
	return s, nil
}

// config never becomes text, so that a password may hold any character.
func (s *Store) config() *mysql.Config {
	c := mysql.NewConfig()
	c.User, c.Passwd, c.DBName = s.opts.Username, s.opts.Password.Reveal(), s.opts.Database
	c.Net, c.Addr = "tcp", address(s.opts.Host, s.opts.Port)
	if strings.HasPrefix(s.opts.Host, "/") {
		c.Net, c.Addr = "unix", s.opts.Host
	}
	c.TLSConfig = "preferred"
	c.Timeout = s.opts.Timeout
	c.ClientFoundRows = true // an update that changes nothing has found its row
	c.InterpolateParams = true
	c.ConnectionAttributes = "program_name:sockudo"
	// Strict, so that the server refuses what it would otherwise bend to fit.
	c.Params = map[string]string{
		"sql_mode": "'STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION'",
		// By default a change of the table waits for others for days, and everybody
		// else behind it; and a statement goes on waiting when its client has gone.
		"lock_wait_timeout": lockTimeout, "innodb_lock_wait_timeout": lockTimeout,
	}
	c.Logger = driverLog{s.log}
	return c
}

func address(host string, port uint16) string {
	if host == "" {
		host = "localhost"
	}
	if port == 0 {
		port = 3306
	}
	return net.JoinHostPort(strings.Trim(host, "[]"), strconv.Itoa(int(port)))
}

// driverLog is where the driver tells of broken connections; the calls that
// meet them return errors.
type driverLog struct{ log *slog.Logger }

func (l driverLog) Print(v ...any) {
	l.log.Debug("connection", "err", strings.TrimSpace(fmt.Sprintln(v...)))
}

func (s *Store) prepare(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, schemaTimeout)
	defer cancel()
	if err := s.warm(ctx); err != nil {
		return err
	}
	return s.ensure(ctx)
}

// warm opens the least number of connections.
func (s *Store) warm(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, s.opts.Timeout)
	defer cancel()
	for range min(max(s.opts.MinConns, 1), s.opts.MaxConns) {
		c, err := s.db.Conn(ctx)
		if err != nil {
			return s.wrap("connect", err)
		}
		defer func() { _ = c.Close() }() // all at the end: now each is another one
	}
	return nil
}

// Close releases the connections. Nothing that is stored changes.
func (s *Store) Close() error { return s.db.Close() }

// Ping asks the server for an answer.
func (s *Store) Ping(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, s.opts.Timeout)
	defer cancel()
	var one int
	if err := s.db.QueryRowContext(ctx, "SELECT 1").Scan(&one); err != nil {
		return s.wrap("ping", err)
	}
	return nil
}

// Any reports whether the table has a row.
func (s *Store) Any(ctx context.Context) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, s.opts.Timeout)
	defer cancel()
	var one int
	err := s.db.QueryRowContext(ctx, "SELECT 1 FROM "+s.table.quoted+" LIMIT 1").Scan(&one)
	if errors.Is(err, sql.ErrNoRows) {
		return false, nil
	}
	if err != nil {
		return false, s.wrap("any app", err)
	}
	return true, nil
}

// ByID returns an app; see app.Store.
func (s *Store) ByID(ctx context.Context, id string) (*app.App, error) { return s.find(ctx, "id", id) }

// ByKey returns an app; see app.Store.
func (s *Store) ByKey(ctx context.Context, key string) (*app.App, error) {
	return s.find(ctx, "key", key)
}

func (s *Store) find(ctx context.Context, column, name string) (*app.App, error) {
	sch := s.schema.Load()
	if !app.ValidName(name) || !sch.canHold(column, name) {
		return nil, app.ErrNotFound
	}
	ctx, cancel := context.WithTimeout(ctx, s.opts.Timeout)
	defer cancel()
	var a *app.App
	err := s.again(ctx, func() error {
		var err error
		a, err = s.findOnce(ctx, s.db, column, name)
		return err
	})
	if err != nil {
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
	case number(err) == errUnknownColumn:
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
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

// findOnce compares the bytes of what the server found: to many collations
// Key, key and "key " are the same.
func (s *Store) findOnce(ctx context.Context, db querier, column, name string) (*app.App, error) {
	sch := s.schema.Load()
	rows, err := db.QueryContext(ctx, sch.selects+" WHERE a."+quote(column)+" = "+sch.param(column), name)
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		values, err := sch.scan(rows)
		if err != nil {
			return nil, err
		}
		if values[column].String != name {
			continue
		}
		a := s.build(values)
		if a == nil {
			return nil, app.ErrNotFound
		}
		return a, rows.Close()
	}
	if err := rows.Err(); err != nil {
		return nil, err
	}
	return nil, app.ErrNotFound
}

// build returns the app of a row, or nil if it cannot be used.
func (s *Store) build(values map[string]sql.NullString) *app.App {
	a, fields := app.FromColumns(func(column string) (string, bool) {
		v := values[column]
		return v.String, v.Valid
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
	after := sql.NullString{}
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
		if !last.Valid {
			return nil
		}
		after = last
	}
}

// page reads the apps behind an id. last is the id to go on from, NULL at the end.
func (s *Store) page(ctx context.Context, after sql.NullString) (page []*app.App, last sql.NullString, err error) {
	ctx, cancel := context.WithTimeout(ctx, s.opts.Timeout)
	defer cancel()
	err = s.again(ctx, func() error {
		page, last, err = s.pageOnce(ctx, s.schema.Load(), after)
		return err
	})
	return page, last, err
}

func (s *Store) pageOnce(ctx context.Context, sch *schema, after sql.NullString) (page []*app.App, last sql.NullString, err error) {
	query, args := sch.selects, []any(nil)
	if after.Valid {
		query += " WHERE a.`id` > " + sch.param("id")
		args = append(args, after.String)
	}
	rows, err := s.db.QueryContext(ctx, query+" ORDER BY a.`id` LIMIT "+strconv.Itoa(pageSize), args...)
	if err != nil {
		return nil, last, err
	}
	defer func() { _ = rows.Close() }()
	n := 0
	for ; rows.Next(); n++ {
		values, err := sch.scan(rows)
		if err != nil {
			return nil, last, err
		}
		last = values["id"]
		if a := s.build(values); a != nil {
			page = append(page, a)
		}
	}
	if n < pageSize {
		last = sql.NullString{}
	}
	return page, last, rows.Err()
}
