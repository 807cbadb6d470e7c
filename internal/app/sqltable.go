package app

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"sockudo/internal/backoff"
)

// An SQLTable is the table of an SQL store: what is the same for all of them
// about making it usable. The functions are the store's.
type SQLTable struct {
	Driver string // how errors begin
	Name   string
	Quoted string
	Log    *slog.Logger

	Probe  func(ctx context.Context) error            // asks the server which columns there are
	Has    func(column string) bool                   // whether there was a column then
	Unique func(column string) bool                   // whether its values are kept apart
	Add    func(ctx context.Context, c *Column) error // adds a nullable column
	Alter  func(c *Column) string                     // the statement of Add
	Wrap   func(what string, err error) error         // makes an error one of the contract
}

// Complete adds the columns that are missing. That one cannot be added is an
// error only if the table cannot be used without it.
func (t *SQLTable) Complete(ctx context.Context) error {
	for i := range columns {
		c := &columns[i]
		if t.Has(c.Name) || c.Need == Extra {
			continue
		}
		if c.Need == Required {
			return backoff.Permanent(fmt.Errorf("%s: the table %s has no column %q, which it must have", t.Driver, t.Quoted, c.Name))
		}
		if err := t.Add(ctx, c); err != nil {
			t.Log.Warn("column is missing and cannot be added; it is read as empty", "table", t.Name, "column", c.Name, "err", err)
		}
	}
	if err := t.Probe(ctx); err != nil {
		return t.Wrap("schema", err)
	}
	for _, column := range []string{"id", "key"} {
		if !t.Unique(column) {
			t.Log.Warn("column has no unique index: lookups may read the whole table", "table", t.Name, "column", column,
				"statement", t.addIndex(column))
		}
	}
	return nil
}

// MayInsert returns why apps cannot be inserted, or nil: without an index the
// server would let one be there twice.
func (t *SQLTable) MayInsert(ctx context.Context, timeout time.Duration) error {
	if t.Unique("id") {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	if err := t.Probe(ctx); err != nil { // it may have been added meanwhile
		return t.Wrap("schema", err)
	}
	if t.Unique("id") {
		return nil
	}
	return fmt.Errorf("%s: the table %s has no unique index of id; have this executed and try again: %s", t.Driver, t.Quoted, t.addIndex("id"))
}

func (t *SQLTable) addIndex(column string) string {
	quote := t.Quoted[:1] // of both kinds
	return "ALTER TABLE " + t.Quoted + " ADD UNIQUE (" + quote + column + quote + ")"
}

// ColumnsFor returns the columns that the table has, after it has added those
// that a needs. What cannot be kept is an error, unless it is only a feature.
func (t *SQLTable) ColumnsFor(ctx context.Context, a *App) ([]Column, error) {
	lacks := func(c Column) bool { return !t.Has(c.Name) }
	if slices.ContainsFunc(columns, lacks) {
		// Another node may have added it meanwhile.
		if err := t.Probe(ctx); err != nil {
			return nil, err
		}
	}
	for i := range columns {
		c := &columns[i]
		if !lacks(*c) || c.Value(a) == nil {
			continue
		}
		if err := t.Add(ctx, c); err != nil {
			if !c.Feature {
				return nil, fmt.Errorf("the table has no column %s and it cannot be added; have this executed and try again: %s; (%w)", c.Name, t.Alter(c), err)
			}
			t.Log.Warn("field of an app is not stored: the column is missing and cannot be added",
				"app_id", a.ID, "column", c.Name, "statement", t.Alter(c), "err", err)
			continue
		}
		if err := t.Probe(ctx); err != nil {
			return nil, err
		}
	}
	return slices.DeleteFunc(slices.Clone(columns), lacks), nil
}
