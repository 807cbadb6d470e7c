package mysqlstore

import (
	"testing"
	"time"

	"sockudo/internal/app/apptest"
)

func TestWhatIsCommittedWhileAChangeWaitsIsSeen(t *testing.T) {
	servers(t, func(t *testing.T, dsn string) {
		d := newDatabase(t, dsn)
		apptest.WhileLocked(t, newStore(t, d.options(t)), func(t *testing.T, id string) func() {
			tx, err := d.admin.BeginTx(t.Context(), nil)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = tx.Rollback() })
			if _, err := tx.ExecContext(t.Context(), "UPDATE applications SET secret = 'theirs' WHERE id = ?", id); err != nil {
				t.Fatal(err)
			}
			return func() {
				t.Helper()
				d.awaitLock(t)
				if err := tx.Commit(); err != nil {
					t.Fatal(err)
				}
			}
		})
	})
}

// awaitLock waits until a statement in the database waits for a row.
func (d *database) awaitLock(t *testing.T) {
	t.Helper()
	// Who asks again within 100 ms gets the same answer again.
	tick := time.NewTicker(150 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(time.Minute); time.Now().Before(end); <-tick.C {
		var waiting int
		err := d.admin.QueryRowContext(t.Context(), "SELECT COUNT(*) FROM information_schema.innodb_trx AS x JOIN information_schema.processlist AS p"+
			" ON p.id = x.trx_mysql_thread_id WHERE p.db = DATABASE() AND x.trx_state = 'LOCK WAIT'").Scan(&waiting)
		if err != nil {
			t.Fatal(err)
		}
		if waiting > 0 {
			return
		}
	}
	t.Fatal("the change does not wait")
}
