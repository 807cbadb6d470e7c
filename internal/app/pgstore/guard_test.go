package pgstore

import (
	"errors"
	"testing"
	"time"

	"sockudo/internal/app"
	"sockudo/internal/app/apptest"
	"sockudo/internal/servicetest"
)

// TestWhatIsCommittedWhileAChangeWaitsIsSeen lets another transaction have the
// row while a change comes, and commits it then.
func TestWhatIsCommittedWhileAChangeWaitsIsSeen(t *testing.T) {
	d := newDatabase(t, servicetest.Env(t, servicetest.Postgres))
	s := newStore(t, d.options(t))
	for name, change := range map[string]func(was, next *app.App) error{
		"update":   func(was, next *app.App) error { return s.Update(t.Context(), was, next) },
		"rotation": func(was, next *app.App) error { return s.SetSecrets(t.Context(), was, next) },
	} {
		t.Run(name, func(t *testing.T) {
			was := apptest.Plain(name)
			if err := s.Create(t.Context(), was); err != nil {
				t.Fatal(err)
			}
			tx, err := d.admin.Begin(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = tx.Rollback(t.Context()) }()
			if _, err := tx.Exec(t.Context(), "UPDATE applications SET secret = 'theirs' WHERE id = $1", name); err != nil {
				t.Fatal(err)
			}
			done := make(chan error, 1)
			go func() {
				next := *was
				next.Secret = "ours"
				done <- change(was, &next)
			}()
			for end := time.Now().Add(time.Minute); ; {
				var waiting int
				if err := d.admin.QueryRow(t.Context(), "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'").Scan(&waiting); err != nil {
					t.Fatal(err)
				}
				if waiting > 0 {
					break
				}
				if time.Now().After(end) {
					t.Fatal("the change does not wait")
				}
			}
			if err := tx.Commit(t.Context()); err != nil {
				t.Fatal(err)
			}
			if err := <-done; !errors.Is(err, app.ErrChanged) {
				t.Errorf("err = %v, want %v", err, app.ErrChanged)
			}
			theirs := *was
			theirs.Secret = "theirs"
			apptest.Check(t, s, &theirs)
		})
	}
}
