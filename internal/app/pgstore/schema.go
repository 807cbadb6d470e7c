package pgstore

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"

	"sockudo/internal/app"
	"sockudo/internal/backoff"
)

// table is the name of the table, taken apart.
type table struct {
	name   string
	quoted string
}

var tableName = regexp.MustCompile(`^(?:([A-Za-z_][A-Za-z0-9_]*)\.)?([A-Za-z_][A-Za-z0-9_]*)$`)

// parseTable folds the name to lower case, as the server does with a name that
// is not quoted: Sockudo never quotes.
func parseTable(name string) (table, error) {
	if name == "" {
		name = "applications"
	}
	m := tableName.FindStringSubmatch(strings.ToLower(name))
	if m == nil {
		return table{}, backoff.Permanent(fmt.Errorf("pgstore: %q is no table name: want NAME or SCHEMA.NAME of letters, digits and _", name))
	}
	t := table{name: m[0], quoted: quote(m[2])}
	if m[1] != "" {
		t.quoted = quote(m[1]) + "." + t.quoted
	}
	return t, nil
}

func quote(identifier string) string { return pgx.Identifier{identifier}.Sanitize() }

// schema is what is known of the table. It is immutable.
type schema struct {
	types   map[string]string // the quoted type by column
	unique  map[string]bool   // columns whose values the server keeps apart
	read    []string          // names of the columns that selects returns
	selects string            // SELECT … FROM … with the table as a; all values as text
}

// newSchema writes the query that reads apps. A column that the table does not
// have is read in a way that finds it as soon as it has: within the inner
// SELECT its name means a column of the table if there is one, else the NULL
// of the joined row. So nodes that run see a column that a rotation of secrets
// on another node has just added, without asking for the columns each time.
func newSchema(t table, types map[string]string, unique map[string]bool) *schema {
	sch := &schema{types: types, unique: unique}
	var exprs, nulls []string
	for _, c := range app.Columns() {
		sch.read = append(sch.read, c.Name)
		if sch.has(c.Name) {
			exprs = append(exprs, "a."+quote(c.Name)+"::text")
			continue
		}
		exprs = append(exprs, fmt.Sprintf(`(SELECT %s FROM %s AS i WHERE i."id" = a."id" LIMIT 1)::text`, quote(c.Name), t.quoted))
		nulls = append(nulls, "NULL::text AS "+quote(c.Name))
	}
	sch.selects = "SELECT " + strings.Join(exprs, ", ") + " FROM " + t.quoted + " AS a"
	if len(nulls) > 0 {
		sch.selects += " CROSS JOIN (SELECT " + strings.Join(nulls, ", ") + ") AS missing"
	}
	return sch
}

func (sch *schema) has(column string) bool { return sch.types[column] != "" }

// param is a placeholder for text that becomes the type of a column, so that
// an index of the column can be used.
func (sch *schema) param(column string, n int) string {
	return "$" + strconv.Itoa(n) + "::text::" + sch.types[column]
}

// most are the largest numbers that columns hold.
var most = map[string]uint32{`"pg_catalog"."int2"`: 1<<15 - 1, `"pg_catalog"."int4"`: 1<<31 - 1}

// text is the value of a column as text, nil for NULL.
func (sch *schema) text(c *app.Column, a *app.App) any {
	switch v := c.Value(a).(type) {
	case nil:
		return nil
	case uint32:
		if m, ok := most[sch.types[c.Name]]; ok {
			v = min(v, m)
		}
		return strconv.FormatUint(uint64(v), 10)
	default:
		return fmt.Sprint(v)
	}
}

func (sch *schema) scan(rows pgx.Rows) (map[string]*string, error) {
	values := make([]*string, len(sch.read))
	into := make([]any, len(values))
	for i := range values {
		into[i] = &values[i]
	}
	if err := rows.Scan(into...); err != nil {
		return nil, err
	}
	byName := make(map[string]*string, len(values))
	for i, name := range sch.read {
		byName[name] = values[i]
	}
	return byName, nil
}

// probe asks which columns the table has. Unlike information_schema, the
// catalogue also tells of those that this user has no rights to.
func (s *Store) probe(ctx context.Context) error {
	rows, err := s.pool.Query(ctx, "SELECT a.attname::text, n.nspname::text, t.typname::text,"+
		" EXISTS (SELECT 1 FROM pg_catalog.pg_index x WHERE x.indrelid = a.attrelid AND x.indisunique AND x.indisvalid"+
		" AND x.indnkeyatts = 1 AND x.indkey[0] = a.attnum AND x.indpred IS NULL) FROM pg_catalog.pg_attribute a"+
		" JOIN pg_catalog.pg_type t ON t.oid = a.atttypid JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace"+
		" WHERE a.attrelid = to_regclass($1::text) AND a.attnum > 0 AND NOT a.attisdropped", s.table.quoted)
	if err != nil {
		return fmt.Errorf("columns of %s: %w", s.table.quoted, err)
	}
	defer rows.Close()
	types, unique := map[string]string{}, map[string]bool{}
	for rows.Next() {
		var name, space, kind string
		var only bool
		if err := rows.Scan(&name, &space, &kind, &only); err != nil {
			return fmt.Errorf("columns of %s: %w", s.table.quoted, err)
		}
		types[name], unique[name] = pgx.Identifier{space, kind}.Sanitize(), only
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("columns of %s: %w", s.table.quoted, err)
	}
	s.schema.Store(newSchema(s.table, types, unique))
	return nil
}

// ensure makes the table usable, with statements only for what is missing:
// the server's user often may not change tables.
func (s *Store) ensure(ctx context.Context) error {
	if err := s.probe(ctx); err != nil {
		return s.wrap("schema", err)
	}
	if len(s.schema.Load().types) == 0 {
		if err := s.create(ctx); err != nil {
			return err
		}
	}
	return s.sql().Complete(ctx)
}

// sql is what both SQL stores do alike with their table.
func (s *Store) sql() *app.SQLTable {
	return &app.SQLTable{
		Driver: "pgstore", Name: s.table.name, Quoted: s.table.quoted, Log: s.log,
		Probe:  s.probe,
		Has:    func(column string) bool { return s.schema.Load().has(column) },
		Unique: func(column string) bool { return s.schema.Load().unique[column] },
		Add:    s.addColumn,
		Alter:  func(c *app.Column) string { return alter(s.table, c) },
		Wrap:   s.wrap,
	}
}

func (s *Store) create(ctx context.Context) error {
	_, err := s.pool.Exec(ctx, createTable(s.table))
	switch code(err) {
	case "":
	case uniqueViolation, duplicateTable, duplicateObject: // another node was first
		err = nil
	}
	if err != nil {
		err = s.wrap("the table "+s.table.quoted+" is missing and cannot be created", err)
		if errors.Is(err, app.ErrUnavailable) {
			return err
		}
		return backoff.Permanent(err)
	}
	s.log.Info("table created", "table", s.table.name)
	if err := s.probe(ctx); err != nil {
		return s.wrap("schema", err)
	}
	return nil
}

// addColumn adds a nullable column; that another node was first is fine. The
// change waits only for a moment for others: everybody else waits behind it.
func (s *Store) addColumn(ctx context.Context, c *app.Column) error {
	err := pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "SET LOCAL lock_timeout = '"+lockTimeout+"'"); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, alter(s.table, c))
		return err
	})
	if err != nil && code(err) != duplicateColumn {
		return s.wrap("add column "+c.Name, err)
	}
	s.log.Info("column added", "table", s.table.name, "column", c.Name)
	return nil
}

// alter is the statement that adds a column.
func alter(t table, c *app.Column) string {
	return "ALTER TABLE " + t.quoted + " ADD COLUMN " + quote(c.Name) + " " + typeOf(c)
}

func typeOf(c *app.Column) string {
	switch c.Kind {
	case app.Uint:
		return "INTEGER"
	case app.Bool:
		return "BOOLEAN"
	case app.JSON:
		return "JSONB"
	default:
		return "VARCHAR(255)"
	}
}

// createTable is the statement for a new table, as Sockudo makes it.
func createTable(t table) string {
	var b strings.Builder
	b.WriteString("CREATE TABLE IF NOT EXISTS " + t.quoted + " (\n")
	for _, c := range app.Columns() {
		if c.Need == app.Extra {
			continue
		}
		b.WriteString("\t" + quote(c.Name) + " " + typeOf(&c))
		switch {
		case c.Name == "id":
			b.WriteString(" PRIMARY KEY")
		case c.Name == "key":
			b.WriteString(" UNIQUE NOT NULL")
		case c.Name == "enabled":
			b.WriteString(" NOT NULL DEFAULT TRUE")
		case c.Name == "enable_client_messages":
			b.WriteString(" NOT NULL DEFAULT FALSE")
		case c.Need == app.Required:
			b.WriteString(" NOT NULL")
		}
		b.WriteString(",\n")
	}
	b.WriteString("\t\"created_at\" TIMESTAMP DEFAULT CURRENT_TIMESTAMP,\n\t\"updated_at\" TIMESTAMP DEFAULT CURRENT_TIMESTAMP\n)")
	return b.String()
}
