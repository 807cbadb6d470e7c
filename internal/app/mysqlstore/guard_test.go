package mysqlstore

import (
	"errors"
	"testing"
	"time"

	"sockudo/internal/app"
	"sockudo/internal/app/apptest"
)

// TestWhatIsCommittedWhileAChangeWaitsIsSeen lets another transaction have the
// row while a change comes, and commits it then.
func TestWhatIsCommittedWhileAChangeWaitsIsSeen(t *testing.T) {
	servers(t, func(t *testing.T, dsn string) {
		d := newDatabase(t, dsn)
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
				tx, err := d.admin.BeginTx(t.Context(), nil)
				if err != nil {
					t.Fatal(err)
				}
				defer func() { _ = tx.Rollback() }()
				if _, err := tx.ExecContext(t.Context(), "UPDATE applications SET secret = 'theirs' WHERE id = ?", name); err != nil {
					t.Fatal(err)
				}
				done := make(chan error, 1)
				go func() {
					next := *was
					next.Secret = "ours"
					done <- change(was, &next)
				}()
				d.awaitLock(t)
				if err := tx.Commit(); err != nil {
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
	})
}

// awaitLock waits until a statement in the database waits for a row.
func (d *database) awaitLock(t *testing.T) {
	t.Helper()
	for end := time.Now().Add(time.Minute); time.Now().Before(end); {
		var waiting int
		err := d.admin.QueryRowContext(t.Context(), "SELECT COUNT(*) FROM information_schema.innodb_trx AS x JOIN information_schema.processlist AS p"+
			" ON p.id = x.trx_mysql_thread_id WHERE p.db = DATABASE() AND x.trx_state = 'LOCK WAIT'").Scan(&waiting)
		if err != nil {
			t.Fatal(err)
		}
		if waiting > 0 {
			return
		}
		time.Sleep(150 * time.Millisecond) // who asks within 100 ms gets the same answer again
	}
	t.Fatal("the change does not wait")
}
