package mysqlstore

import (
	"errors"
	"fmt"
	"testing"

	"sockudo/internal/app"
	"sockudo/internal/app/apptest"
	"sockudo/internal/servicetest"
)

// fill makes n rows within the server.
func (d *database) fill(t testing.TB, n int) {
	t.Helper()
	digits := "(SELECT 0 AS d UNION SELECT 1 UNION SELECT 2 UNION SELECT 3 UNION SELECT 4 UNION SELECT 5 UNION SELECT 6 UNION SELECT 7 UNION SELECT 8 UNION SELECT 9)"
	from, number := digits+" AS t0", "t0.d"
	for i, power := 1, 10; power < n; i, power = i+1, power*10 {
		from += fmt.Sprintf(", %s AS t%d", digits, i)
		number += fmt.Sprintf(" + %d * t%d.d", power, i)
	}
	d.exec(t, "INSERT INTO applications (`id`, `key`, `secret`, `max_connections`, `enable_client_messages`, `enabled`, `max_client_events_per_second`)"+
		" SELECT CONCAT('app-', n), CONCAT('app-', n, '-key'), CONCAT('app-', n, '-secret'), 0, 0, 1, 0 FROM (SELECT "+number+" AS n FROM "+from+") AS numbers"+
		fmt.Sprintf(" WHERE n < %d", n))
}

func TestAMillionApps(t *testing.T) {
	servers(t, func(t *testing.T, dsn string) {
		const n = 1_000_000
		d := newDatabase(t, dsn)
		d.exec(t, bootstrap)
		opts := d.user(t, dml) // so that columns stay missing, which is the harder query
		s := newStore(t, opts)
		d.fill(t, n)

		for i := range 200 {
			name := fmt.Sprintf("app-%d", (i*7919)%n)
			if a, err := s.ByKey(t.Context(), name+"-key"); err != nil || a.ID != name {
				t.Fatalf("by key %s: %v", name, err)
			}
			if _, err := s.ByID(t.Context(), "nobody-"+name); !errors.Is(err, app.ErrNotFound) {
				t.Fatalf("by id: %v", err)
			}
		}
		for _, column := range []string{"id", "key"} {
			if rows := d.examined(t, s.schema.Load().selects+" WHERE a."+quote(column)+" = 'app-77'"); rows > 10 {
				t.Errorf("a lookup by %s examines %d rows", column, rows)
			}
		}
		if there, err := s.Any(t.Context()); !there || err != nil {
			t.Errorf("any = %t, %v", there, err)
		}
		listed := 0
		if err := s.List(t.Context(), func(*app.App) bool { listed++; return listed < 2000 }); err != nil || listed != 2000 {
			t.Errorf("listed %d, %v", listed, err)
		}
		if err := s.SetSecrets(t.Context(), nil, &app.App{ID: "app-77", Secret: "s"}); err != nil {
			t.Error(err)
		}
		if err := s.Upsert(t.Context(), apptest.Plain("app-500000")); err != nil {
			t.Error(err)
		}
	})
}

// examined returns how many rows the server expects to read for a query.
func (d *database) examined(t testing.TB, query string) int {
	t.Helper()
	rows, err := d.admin.Query("EXPLAIN " + query)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = rows.Close() }()
	names, err := rows.Columns()
	if err != nil {
		t.Fatal(err)
	}
	total := 0
	for rows.Next() {
		values, into := make([]any, len(names)), make([]any, len(names))
		for i := range values {
			into[i] = &values[i]
		}
		if err := rows.Scan(into...); err != nil {
			t.Fatal(err)
		}
		for i, name := range names {
			if b, ok := values[i].([]byte); ok && name == "rows" {
				n := 0
				if _, err := fmt.Sscan(string(b), &n); err != nil {
					t.Fatal(err)
				}
				total += n
			}
		}
	}
	return total
}

func BenchmarkLookup(b *testing.B) {
	dsn := servicetest.Env(b, servicetest.MariaDB)
	d := newDatabase(b, dsn)
	s := newStore(b, d.options(b))
	d.fill(b, 10_000)
	b.RunParallel(func(pb *testing.PB) {
		for i := 0; pb.Next(); i++ {
			if _, err := s.ByKey(b.Context(), fmt.Sprintf("app-%d-key", (i*7919)%10_000)); err != nil {
				b.Error(err)
			}
		}
	})
}
