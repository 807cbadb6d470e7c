package pgstore

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"sockudo/internal/app"
	"sockudo/internal/backoff"
)

// statement is one that changes apps.
type statement struct {
	query string
	args  []any
}

// arg adds a value and returns its placeholder.
func (st *statement) arg(sch *schema, c *app.Column, a *app.App) string {
	st.args = append(st.args, sch.text(c, a))
	return sch.param(c.Name, len(st.args))
}

// where finds one app by the bytes of its id.
func (st *statement) where(sch *schema, id string) {
	st.args = append(st.args, id)
	n := len(st.args)
	st.query += fmt.Sprintf(` WHERE "id" = %s AND "id"::text = $%d::text COLLATE "C"`, sch.param("id", n), n)
}

// Create inserts an app; see app.Editor.
func (s *Store) Create(ctx context.Context, a *app.App) error {
	if err := s.sql().MayInsert(ctx, s.opts.Timeout); err != nil {
		return err
	}
	return s.write(ctx, change{what: "create", id: a.ID}, a, func(sch *schema, columns []app.Column) *statement {
		return s.insert(sch, columns, a)
	})
}

// Update replaces all fields of an app; see app.Editor.
func (s *Store) Update(ctx context.Context, was, next *app.App) error {
	c := change{what: "update", id: next.ID, mustMatch: true, still: app.Still(was, app.Same)}
	return s.write(ctx, c, next, func(sch *schema, columns []app.Column) *statement {
		st := &statement{}
		var sets []string
		for i := range columns {
			if c := &columns[i]; c.Name != "id" {
				sets = append(sets, quote(c.Name)+" = "+st.arg(sch, c, next))
			}
		}
		st.query = "UPDATE " + s.table.quoted + " SET " + strings.Join(append(sets, sch.touch()...), ", ")
		st.where(sch, next.ID)
		return st
	})
}

// touch sets the time of the last change, if the table has it.
func (sch *schema) touch() []string {
	if !sch.has("updated_at") {
		return nil
	}
	return []string{`"updated_at" = CURRENT_TIMESTAMP`}
}

// Upsert inserts or replaces an app in one statement; see app.Editor.
func (s *Store) Upsert(ctx context.Context, a *app.App) error {
	if err := s.sql().MayInsert(ctx, s.opts.Timeout); err != nil {
		return err
	}
	err := s.write(ctx, change{what: "upsert", id: a.ID, mustMatch: true, upsert: true}, a, func(sch *schema, columns []app.Column) *statement {
		st := s.insert(sch, columns, a)
		var sets []string
		for _, c := range columns {
			if c.Name != "id" {
				sets = append(sets, fmt.Sprintf("%[1]s = EXCLUDED.%[1]s", quote(c.Name)))
			}
		}
		st.query += ` ON CONFLICT ("id") DO UPDATE SET ` + strings.Join(append(sets, sch.touch()...), ", ") +
			` WHERE t."id"::text = EXCLUDED."id"::text COLLATE "C"`
		return st
	})
	if errors.Is(err, app.ErrNotFound) {
		return app.ErrExists // an app whose id the column takes for the same
	}
	return err
}

func (s *Store) insert(sch *schema, columns []app.Column, a *app.App) *statement {
	st := &statement{}
	var names, marks []string
	for i := range columns {
		names = append(names, quote(columns[i].Name))
		marks = append(marks, st.arg(sch, &columns[i], a))
	}
	st.query = "INSERT INTO " + s.table.quoted + " AS t (" + strings.Join(names, ", ") + ") VALUES (" + strings.Join(marks, ", ") + ")"
	return st
}

// Delete removes an app; see app.Editor.
func (s *Store) Delete(ctx context.Context, id string) error {
	if !app.ValidName(id) {
		return app.ErrNotFound
	}
	return s.exec(ctx, change{what: "delete", id: id, mustMatch: true}, func(context.Context) (*statement, error) {
		st := &statement{query: "DELETE FROM " + s.table.quoted}
		st.where(s.schema.Load(), id)
		return st, nil
	})
}

// SetSecrets replaces the secrets of an app and nothing else; see app.Editor.
func (s *Store) SetSecrets(ctx context.Context, was, next *app.App) error {
	if err := app.ValidateSecrets(next.Secret, next.PreviousSecret); err != nil {
		return err
	}
	if !app.ValidName(next.ID) {
		return app.ErrNotFound
	}
	c := change{what: "set secrets", id: next.ID, mustMatch: true, still: app.Still(was, app.SameSecrets)}
	a := &app.App{Secret: next.Secret, PreviousSecret: next.PreviousSecret, PreviousUntil: next.PreviousUntil}
	return s.exec(ctx, c, func(ctx context.Context) (*statement, error) {
		columns, err := s.sql().ColumnsFor(ctx, a)
		if err != nil {
			return nil, err
		}
		st, sch := &statement{}, s.schema.Load()
		var sets []string
		for i := range columns {
			if c := &columns[i]; c.Secret() {
				sets = append(sets, quote(c.Name)+" = "+st.arg(sch, c, a))
			}
		}
		st.query = "UPDATE " + s.table.quoted + " SET " + strings.Join(append(sets, sch.touch()...), ", ")
		st.where(sch, next.ID)
		return st, nil
	})
}

// A change is what one statement does.
type change struct {
	what      string
	id        string              // of the app
	mustMatch bool                // that nothing was changed means that there is no such app
	upsert    bool                // a value that is taken may be that of the same app, just inserted by another node
	still     func(*app.App) bool // what must hold for the app as it is; nil: nothing
}

func (s *Store) write(ctx context.Context, c change, a *app.App, build func(*schema, []app.Column) *statement) error {
	if err := app.Validate(a); err != nil {
		return err
	}
	return s.exec(ctx, c, func(ctx context.Context) (*statement, error) {
		columns, err := s.sql().ColumnsFor(ctx, a)
		if err != nil {
			return nil, err
		}
		return build(s.schema.Load(), columns), nil
	})
}

const (
	deadlockRetries = 20
	// ON CONFLICT waits for others that insert the same id, but not for other
	// columns that must be unique, such as the key in Sockudo's table.
	upsertRetries = 5
)

// exec runs a statement that build makes. Statements that got in each other's
// way, as when many nodes start, are tried again.
func (s *Store) exec(ctx context.Context, c change, build func(context.Context) (*statement, error)) error {
	ctx, cancel := context.WithTimeout(ctx, s.opts.Timeout)
	defer cancel()
	st, err := build(ctx)
	if err != nil {
		return s.wrap(c.what, err)
	}
	pauses := backoff.Policy{First: 2 * time.Millisecond, Max: 100 * time.Millisecond, Jitter: 0.9}
	var matched int64
	tries := 0
	err = backoff.Retry(ctx, pauses, func(ctx context.Context) error {
		tries++
		matched, err = s.execOnce(ctx, c, st)
		n := code(err)
		if tries < deadlockRetries && (n == deadlock || n == serialization) || tries < upsertRetries && c.upsert && n == uniqueViolation {
			return err
		}
		return backoff.Permanent(err)
	}, nil)
	switch {
	case err != nil:
		return s.wrap(c.what, err)
	case c.mustMatch && matched == 0:
		return app.ErrNotFound
	}
	return nil
}

func (s *Store) execOnce(ctx context.Context, c change, st *statement) (matched int64, err error) {
	if c.still == nil {
		tag, err := s.pool.Exec(ctx, st.query, st.args...)
		return tag.RowsAffected(), err
	}
	// The row is locked by one statement and looked at by the next, so that what
	// was committed while this waited is seen, in all columns.
	err = pgx.BeginTxFunc(ctx, s.pool, pgx.TxOptions{IsoLevel: pgx.ReadCommitted}, func(tx pgx.Tx) error {
		lock := &statement{query: "SELECT FROM " + s.table.quoted}
		lock.where(s.schema.Load(), c.id)
		if _, err := tx.Exec(ctx, lock.query+" FOR UPDATE", lock.args...); err != nil {
			return err
		}
		now, err := s.findOnce(ctx, tx, "id", c.id)
		switch {
		case err != nil:
			return err
		case !c.still(now):
			return app.ErrChanged
		}
		tag, err := tx.Exec(ctx, st.query, st.args...)
		matched = tag.RowsAffected()
		return err
	})
	return matched, err
}
