package mysqlstore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"regexp"
	"strings"

	"sockudo/internal/app"
	"sockudo/internal/backoff"
)

// table is the name of the table, taken apart.
type table struct {
	schema string // empty: the database of the connection
	name   string
	quoted string
}

var tableName = regexp.MustCompile(`^(?:([A-Za-z_][A-Za-z0-9_]*)\.)?([A-Za-z_][A-Za-z0-9_]*)$`)

func parseTable(name string) (table, error) {
	if name == "" {
		name = "applications"
	}
	m := tableName.FindStringSubmatch(name)
	if m == nil {
		return table{}, backoff.Permanent(fmt.Errorf("mysqlstore: %q is no table name: want NAME or SCHEMA.NAME of letters, digits and _", name))
	}
	t := table{schema: m[1], name: m[2], quoted: quote(m[2])}
	if t.schema != "" {
		t.quoted = quote(t.schema) + "." + t.quoted
	}
	return t, nil
}

func quote(identifier string) string { return "`" + identifier + "`" }

// schema is what is known of the table. It is immutable.
type schema struct {
	columns map[string]string // the character set by name; empty: has none
	unique  map[string]bool   // columns whose values the server keeps apart
	read    []string          // names of the columns that selects returns
	selects string            // SELECT … FROM … with the table as a
}

// newSchema writes the query that reads apps. A column that the table does not
// have is read in a way that finds it as soon as it has: within the inner
// SELECT its name means a column of the table if there is one, else the NULL
// of the joined row. So nodes that run see a column that a rotation of secrets
// on another node has just added, without asking for the columns each time.
func newSchema(t table, columns map[string]string, unique map[string]bool) *schema {
	sch := &schema{columns: columns, unique: unique}
	var exprs, nulls []string
	for _, c := range app.Columns() {
		sch.read = append(sch.read, c.Name)
		if sch.has(c.Name) {
			exprs = append(exprs, "a."+quote(c.Name))
			continue
		}
		exprs = append(exprs, fmt.Sprintf("(SELECT %s FROM %s AS i WHERE i.`id` = a.`id` LIMIT 1)", quote(c.Name), t.quoted))
		nulls = append(nulls, "NULL AS "+quote(c.Name))
	}
	sch.selects = "SELECT " + strings.Join(exprs, ", ") + " FROM " + t.quoted + " AS a"
	if len(nulls) > 0 {
		sch.selects += " JOIN (SELECT " + strings.Join(nulls, ", ") + ") AS missing"
	}
	return sch
}

func (sch *schema) has(column string) bool {
	_, ok := sch.columns[column]
	return ok
}

// param is the placeholder to compare a column with. A text in another
// character set than the column's would make the server convert the column of
// every row, and read the whole table.
func (sch *schema) param(column string) string {
	switch cs := sch.columns[column]; cs {
	case "", "utf8mb4":
		return "?"
	default:
		return "CONVERT(? USING " + cs + ")"
	}
}

// canHold reports whether a column could have this value at all.
func (sch *schema) canHold(column, value string) bool {
	if sch.columns[column] != "ascii" {
		return true
	}
	for i := range len(value) {
		if value[i] >= 0x80 {
			return false
		}
	}
	return true
}

func (sch *schema) scan(rows *sql.Rows) (map[string]sql.NullString, error) {
	values := make([]sql.NullString, len(sch.read))
	into := make([]any, len(values))
	for i := range values {
		into[i] = &values[i]
	}
	if err := rows.Scan(into...); err != nil {
		return nil, err
	}
	byName := make(map[string]sql.NullString, len(values))
	for i, name := range sch.read {
		byName[name] = values[i]
	}
	return byName, nil
}

// probe asks which columns the table has.
func (s *Store) probe(ctx context.Context) error {
	rows, err := s.db.QueryContext(ctx, "SELECT LOWER(COLUMN_NAME), COALESCE(CHARACTER_SET_NAME, ''), COLUMN_KEY IN ('PRI', 'UNI') FROM information_schema.COLUMNS"+
		" WHERE TABLE_SCHEMA = COALESCE(NULLIF(?, ''), DATABASE()) AND TABLE_NAME = ?", s.table.schema, s.table.name)
	if err != nil {
		return fmt.Errorf("columns of %s: %w", s.table.quoted, err)
	}
	defer func() { _ = rows.Close() }()
	columns, unique := map[string]string{}, map[string]bool{}
	for rows.Next() {
		var name, charset string
		var only bool
		if err := rows.Scan(&name, &charset, &only); err != nil {
			return fmt.Errorf("columns of %s: %w", s.table.quoted, err)
		}
		if !tableName.MatchString(charset) { // it becomes part of a query
			charset = ""
		}
		columns[name], unique[name] = charset, only
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("columns of %s: %w", s.table.quoted, err)
	}
	s.schema.Store(newSchema(s.table, columns, unique))
	return nil
}

// ensure makes the table usable, with statements only for what is missing:
// the server's user often may not change tables.
func (s *Store) ensure(ctx context.Context) error {
	if err := s.probe(ctx); err != nil {
		return s.wrap("schema", err)
	}
	if len(s.schema.Load().columns) == 0 {
		if _, err := s.db.ExecContext(ctx, createTable(s.table)); err != nil {
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
	}
	return s.sql().Complete(ctx)
}

// sql is what both SQL stores do alike with their table.
func (s *Store) sql() *app.SQLTable {
	return &app.SQLTable{
		Driver: "mysqlstore", Name: s.table.name, Quoted: s.table.quoted, Log: s.log,
		Probe:  s.probe,
		Has:    func(column string) bool { return s.schema.Load().has(column) },
		Unique: func(column string) bool { return s.schema.Load().unique[column] },
		Add:    s.addColumn,
		Alter:  func(c *app.Column) string { return alter(s.table, c) },
		Wrap:   s.wrap,
	}
}

// addColumn adds a nullable column; that another node was first is fine.
func (s *Store) addColumn(ctx context.Context, c *app.Column) error {
	_, err := s.db.ExecContext(ctx, alter(s.table, c))
	if err != nil && number(err) != errDuplicateColumn {
		return s.wrap("add column "+c.Name, err)
	}
	s.log.Info("column added", "table", s.table.name, "column", c.Name)
	return nil
}

// alter is the statement that adds a column.
func alter(t table, c *app.Column) string {
	return "ALTER TABLE " + t.quoted + " ADD COLUMN " + quote(c.Name) + " " + typeOf(c) + " NULL"
}

func typeOf(c *app.Column) string {
	switch c.Kind {
	case app.Uint:
		return "INT UNSIGNED"
	case app.Bool:
		return "BOOLEAN"
	case app.JSON:
		return "JSON"
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
			b.WriteString(" NOT NULL PRIMARY KEY")
		case c.Name == "key":
			b.WriteString(" NOT NULL UNIQUE")
		case c.Name == "enabled":
			b.WriteString(" NOT NULL DEFAULT TRUE")
		case c.Name == "enable_client_messages":
			b.WriteString(" NOT NULL DEFAULT FALSE")
		case c.Need == app.Required:
			b.WriteString(" NOT NULL")
		default:
			b.WriteString(" NULL")
		}
		b.WriteString(",\n")
	}
	b.WriteString("\t`created_at` TIMESTAMP NULL DEFAULT CURRENT_TIMESTAMP,\n" +
		"\t`updated_at` TIMESTAMP NULL DEFAULT CURRENT_TIMESTAMP ON UPDATE CURRENT_TIMESTAMP\n" +
		") ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci")
	return b.String()
}
