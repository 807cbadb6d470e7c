package mysqlstore

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"sockudo/internal/app"
	"sockudo/internal/backoff"
)

// Create inserts an app; see app.Editor.
func (s *Store) Create(ctx context.Context, a *app.App) error {
	if err := s.mayInsert(ctx); err != nil {
		return err
	}
	return s.write(ctx, "create", a, func(columns []app.Column) (string, []any) {
		return insert(s.table, columns, a)
	}, false)
}

// Update replaces all fields of an app; see app.Editor.
func (s *Store) Update(ctx context.Context, a *app.App) error {
	return s.write(ctx, "update", a, func(columns []app.Column) (string, []any) {
		var sets []string
		var args []any
		for _, c := range columns {
			if c.Name != "id" {
				sets = append(sets, quote(c.Name)+" = ?")
				args = append(args, c.Value(a))
			}
		}
		return "UPDATE " + s.table.quoted + " SET " + strings.Join(sets, ", ") + s.where(), append(args, a.ID, a.ID)
	}, true)
}

// Upsert inserts or replaces an app in one statement; see app.Editor.
func (s *Store) Upsert(ctx context.Context, a *app.App) error {
	if err := s.mayInsert(ctx); err != nil {
		return err
	}
	return s.write(ctx, "upsert", a, func(columns []app.Column) (string, []any) {
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
	}, false)
}

// Delete removes an app; see app.Editor.
func (s *Store) Delete(ctx context.Context, id string) error {
	if !app.ValidName(id) || !s.schema.Load().canHold("id", id) {
		return app.ErrNotFound
	}
	return s.exec(ctx, "delete", true, func(context.Context) (string, []any, error) {
		return "DELETE FROM " + s.table.quoted + s.where(), []any{id, id}, nil
	})
}

// SetSecrets replaces the secrets of an app and nothing else; see app.Editor.
func (s *Store) SetSecrets(ctx context.Context, id string, secret, previous app.Secret, until time.Time) error {
	if err := app.ValidateSecrets(secret, previous); err != nil {
		return err
	}
	if !app.ValidName(id) || !s.schema.Load().canHold("id", id) {
		return app.ErrNotFound
	}
	a := &app.App{Secret: secret, PreviousSecret: previous, PreviousUntil: until}
	return s.exec(ctx, "set secrets", true, func(ctx context.Context) (string, []any, error) {
		columns, err := s.columnsFor(ctx, a)
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

func (s *Store) write(ctx context.Context, what string, a *app.App, build func([]app.Column) (string, []any), mustMatch bool) error {
	if err := app.Validate(a); err != nil {
		return err
	}
	return s.exec(ctx, what, mustMatch, func(ctx context.Context) (string, []any, error) {
		columns, err := s.columnsFor(ctx, a)
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
func (s *Store) exec(ctx context.Context, what string, mustMatch bool, build func(context.Context) (string, []any, error)) error {
	ctx, cancel := context.WithTimeout(ctx, s.opts.Timeout)
	defer cancel()
	query, args, err := build(ctx)
	if err != nil {
		return s.wrap(what, err)
	}
	pauses := backoff.Policy{First: 2 * time.Millisecond, Max: 100 * time.Millisecond, Jitter: 0.9}
	var matched int64
	tries := 0
	err = backoff.Retry(ctx, pauses, func(ctx context.Context) error {
		tries++
		result, err := s.db.ExecContext(ctx, query, args...)
		if err == nil {
			matched, err = result.RowsAffected()
		}
		if n := number(err); tries < deadlockRetries && (n == errDeadlock || n == errRecordChanged) {
			return err
		}
		return backoff.Permanent(err)
	}, nil)
	switch {
	case number(err) == errNullColumn:
		return app.ErrExists
	case err != nil:
		return s.wrap(what, err)
	case mustMatch && matched == 0:
		return app.ErrNotFound
	}
	return nil
}

// columnsFor returns the columns that the table has, after it has added those
// that a needs. What cannot be kept is an error, unless it is only a feature.
func (s *Store) columnsFor(ctx context.Context, a *app.App) ([]app.Column, error) {
	all := app.Columns()
	if slices.ContainsFunc(all, s.lacks) {
		// Another node may have added it meanwhile.
		if err := s.probe(ctx); err != nil {
			return nil, err
		}
	}
	for i := range all {
		c := &all[i]
		if !s.lacks(*c) || c.Value(a) == nil {
			continue
		}
		if err := s.addColumn(ctx, c); err != nil {
			if !c.Feature {
				return nil, fmt.Errorf("the table has no column %s and it cannot be added; have this executed and try again: %s; (%w)", c.Name, alter(s.table, c), err)
			}
			s.log.Warn("field of an app is not stored: the column is missing and cannot be added",
				"app_id", a.ID, "column", c.Name, "statement", alter(s.table, c), "err", err)
			continue
		}
		if err := s.probe(ctx); err != nil {
			return nil, err
		}
	}
	return slices.DeleteFunc(slices.Clone(all), s.lacks), nil
}

func (s *Store) lacks(c app.Column) bool { return !s.schema.Load().has(c.Name) }
