package mysqlstore

import (
	"context"
	"database/sql"
	"fmt"
	"strings"
	"time"

	"sockudo/internal/app"
	"sockudo/internal/backoff"
)

// Create inserts an app; see app.Editor.
func (s *Store) Create(ctx context.Context, a *app.App) error {
	if err := s.sql().MayInsert(ctx, s.opts.Timeout); err != nil {
		return err
	}
	return s.write(ctx, change{what: "create", id: a.ID}, a, func(columns []app.Column) (string, []any) {
		return insert(s.table, columns, a)
	})
}

// Update replaces all fields of an app; see app.Editor.
func (s *Store) Update(ctx context.Context, was, next *app.App) error {
	c := change{what: "update", id: next.ID, mustMatch: true, still: app.Still(was, app.Same)}
	return s.write(ctx, c, next, func(columns []app.Column) (string, []any) {
		var sets []string
		var args []any
		for _, c := range columns {
			if c.Name != "id" {
				sets = append(sets, quote(c.Name)+" = ?")
				args = append(args, c.Value(next))
			}
		}
		return "UPDATE " + s.table.quoted + " SET " + strings.Join(sets, ", ") + s.where(), append(args, next.ID, next.ID)
	})
}

// Upsert inserts or replaces an app in one statement; see app.Editor.
func (s *Store) Upsert(ctx context.Context, a *app.App) error {
	if err := s.sql().MayInsert(ctx, s.opts.Timeout); err != nil {
		return err
	}
	return s.write(ctx, change{what: "upsert", id: a.ID}, a, func(columns []app.Column) (string, []any) {
		query, args := insert(s.table, columns, a)
		// The row that is in the way may be another app with this key, or one
		// whose id the collation takes for the same. It must stay as it is: NULL
		// is refused by a primary key.
		sets := []string{"`id` = IF(" + sameBytes("`id`", "VALUES(`id`)") + ", `id`, NULL)"}
		for _, c := range columns {
			if c.Name != "id" {
				sets = append(sets, fmt.Sprintf("%[1]s = VALUES(%[1]s)", quote(c.Name)))
			}
		}
		return query + " ON DUPLICATE KEY UPDATE " + strings.Join(sets, ", "), args
	})
}

// Delete removes an app; see app.Editor.
func (s *Store) Delete(ctx context.Context, id string) error {
	if !app.ValidName(id) || !s.schema.Load().canHold("id", id) {
		return app.ErrNotFound
	}
	return s.exec(ctx, change{what: "delete", id: id, mustMatch: true}, func(context.Context) (string, []any, error) {
		return "DELETE FROM " + s.table.quoted + s.where(), []any{id, id}, nil
	})
}

// SetSecrets replaces the secrets of an app and nothing else; see app.Editor.
func (s *Store) SetSecrets(ctx context.Context, was, next *app.App) error {
	if err := app.ValidateSecrets(next.Secret, next.PreviousSecret); err != nil {
		return err
	}
	id := next.ID
	if !app.ValidName(id) || !s.schema.Load().canHold("id", id) {
		return app.ErrNotFound
	}
	c := change{what: "set secrets", id: id, mustMatch: true, still: app.Still(was, app.SameSecrets)}
	a := &app.App{Secret: next.Secret, PreviousSecret: next.PreviousSecret, PreviousUntil: next.PreviousUntil}
	return s.exec(ctx, c, func(ctx context.Context) (string, []any, error) {
		columns, err := s.sql().ColumnsFor(ctx, a)
		if err != nil {
			return "", nil, err
		}
		var sets []string
		var args []any
		for i := range columns {
			if c := &columns[i]; c.Secret() {
				sets = append(sets, quote(c.Name)+" = ?")
				args = append(args, c.Value(a))
			}
		}
		return "UPDATE " + s.table.quoted + " SET " + strings.Join(sets, ", ") + s.where(), append(args, id, id), nil
	})
}

func insert(t table, columns []app.Column, a *app.App) (string, []any) {
	var names, marks []string
	var args []any
	for _, c := range columns {
		names = append(names, quote(c.Name))
		marks = append(marks, "?")
		args = append(args, c.Value(a))
	}
	return "INSERT INTO " + t.quoted + " (" + strings.Join(names, ", ") + ") VALUES (" + strings.Join(marks, ", ") + ")", args
}

// where finds one app, by the index first and then by the bytes of its id. It
// takes the id twice.
func (s *Store) where() string {
	return " WHERE `id` = " + s.schema.Load().param("id") + " AND " + sameBytes("`id`", "?")
}

func sameBytes(a, b string) string {
	return fmt.Sprintf("CAST(CONVERT(%s USING utf8mb4) AS BINARY) = CAST(CONVERT(%s USING utf8mb4) AS BINARY)", a, b)
}

// A change is what one statement does.
type change struct {
	what      string
	id        string              // of the app
	mustMatch bool                // that nothing was changed means that there is no such app
	still     func(*app.App) bool // what must hold for the app as it is; nil: nothing
}

func (s *Store) write(ctx context.Context, c change, a *app.App, build func([]app.Column) (string, []any)) error {
	if err := app.Validate(a); err != nil {
		return err
	}
	return s.exec(ctx, c, func(ctx context.Context) (string, []any, error) {
		columns, err := s.sql().ColumnsFor(ctx, a)
		if err != nil {
			return "", nil, err
		}
		query, args := build(columns)
		return query, args, nil
	})
}

const deadlockRetries = 20

// exec runs a statement that build makes. Statements that got in each other's
// way, as when many nodes start, are tried again.
func (s *Store) exec(ctx context.Context, c change, build func(context.Context) (string, []any, error)) error {
	ctx, cancel := context.WithTimeout(ctx, s.opts.Timeout)
	defer cancel()
	query, args, err := build(ctx)
	if err != nil {
		return s.wrap(c.what, err)
	}
	pauses := backoff.Policy{First: 2 * time.Millisecond, Max: 100 * time.Millisecond, Jitter: 0.9}
	var matched int64
	tries := 0
	err = backoff.Retry(ctx, pauses, func(ctx context.Context) error {
		tries++
		matched, err = s.execOnce(ctx, c, query, args)
		if n := number(err); tries < deadlockRetries && (n == errDeadlock || n == errRecordChanged) {
			return err
		}
		return backoff.Permanent(err)
	}, nil)
	switch {
	case number(err) == errNullColumn:
		return app.ErrExists
	case err != nil:
		return s.wrap(c.what, err)
	case c.mustMatch && matched == 0:
		return app.ErrNotFound
	}
	return nil
}

func (s *Store) execOnce(ctx context.Context, c change, query string, args []any) (matched int64, err error) {
	if c.still == nil {
		return matchedBy(s.db.ExecContext(ctx, query, args...))
	}
	tx, err := s.db.BeginTx(ctx, nil)
	if err != nil {
		return 0, err
	}
	defer func() { _ = tx.Rollback() }()
	// The row is locked before it is looked at, so that what was committed while
	// this waited is seen.
	var one int
	err = tx.QueryRowContext(ctx, "SELECT 1 FROM "+s.table.quoted+s.where()+" FOR UPDATE", c.id, c.id).Scan(&one)
	if err != nil {
		return 0, err
	}
	now, err := s.findOnce(ctx, tx, "id", c.id)
	switch {
	case err != nil:
		return 0, err
	case !c.still(now):
		return 0, app.ErrChanged
	}
	if matched, err = matchedBy(tx.ExecContext(ctx, query, args...)); err != nil {
		return 0, err
	}
	return matched, tx.Commit()
}

func matchedBy(result sql.Result, err error) (int64, error) {
	if err != nil {
		return 0, err
	}
	return result.RowsAffected()
}
