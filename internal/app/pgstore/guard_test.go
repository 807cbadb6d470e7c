package pgstore

import (
	"testing"
	"time"

	"sockudo/internal/app/apptest"
)

func TestWhatIsCommittedWhileAChangeWaitsIsSeen(t *testing.T) {
	d := server(t)
	apptest.WhileLocked(t, newStore(t, d.options(t)), func(t *testing.T, id string) func() {
		tx, err := d.admin.Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = tx.Rollback(t.Context()) })
		if _, err := tx.Exec(t.Context(), "UPDATE applications SET secret = 'theirs' WHERE id = $1", id); err != nil {
			t.Fatal(err)
		}
		return func() {
			t.Helper()
			d.awaitLock(t)
			if err := tx.Commit(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// awaitLock waits until a statement in the database waits for a row.
func (d *database) awaitLock(t *testing.T) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(time.Minute); time.Now().Before(end); <-tick.C {
		var waiting int
		err := d.admin.QueryRow(t.Context(), "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'").Scan(&waiting)
		if err != nil {
			t.Fatal(err)
		}
		if waiting > 0 {
			return
		}
	}
	t.Fatal("the change does not wait")
}
