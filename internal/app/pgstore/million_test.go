package pgstore

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"sockudo/internal/app"
	"sockudo/internal/app/apptest"
	"sockudo/internal/servicetest"
)

// fill makes n rows within the server.
func (d *database) fill(t testing.TB, n int) {
	t.Helper()
	d.exec(t, `INSERT INTO applications (id, key, secret, max_connections, max_client_events_per_second)`+
		fmt.Sprintf(` SELECT 'app-' || n, 'app-' || n || '-key', 'app-' || n || '-secret', 0, 0 FROM generate_series(0, %d) AS n`, n-1),
		"ANALYZE applications")
}

func TestAMillionApps(t *testing.T) {
	const n = 1_000_000
	d := newDatabase(t, servicetest.Env(t, servicetest.Postgres))
	d.exec(t, strings.Replace(bootstrap, "allowed_origins JSONB,", "", 1))
	s := newStore(t, d.user(t, dml)) // so that columns stay missing, which is the harder query
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
		plan := d.plan(t, s.schema.Load().selects+" WHERE a."+quote(column)+" = 'app-77'::text::varchar")
		if strings.Contains(plan, "Seq Scan") || !strings.Contains(plan, "Index Scan") {
			t.Errorf("a lookup by %s uses no index:\n%s", column, plan)
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
}

func (d *database) plan(t testing.TB, query string) string {
	t.Helper()
	rows, err := d.admin.Query(t.Context(), "EXPLAIN "+query)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	var plan strings.Builder
	for rows.Next() {
		var line string
		if err := rows.Scan(&line); err != nil {
			t.Fatal(err)
		}
		plan.WriteString(line + "\n")
	}
	return plan.String()
}

func BenchmarkLookup(b *testing.B) {
	d := newDatabase(b, servicetest.Env(b, servicetest.Postgres))
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
