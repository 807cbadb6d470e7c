package server_test

import (
	"bytes"
	"database/sql"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"os"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/go-sql-driver/mysql"
	"github.com/jackc/pgx/v5"

	"sockudo/internal/config"
	"sockudo/internal/pushertest"
	"sockudo/internal/servertest"
	"sockudo/internal/servicetest"
)

const million = 1_000_000

// TestAMillionApps asks the database how many of its million rows it has read
// for probes and for clients: a scan would be a million more.
func TestAMillionApps(t *testing.T) {
	for driver, fill := range map[string]func(t *testing.T) (s store, read func() int64){
		"mysql": millionInMySQL, "pgsql": millionInPostgres, "dynamodb": millionInDynamoDB,
	} {
		t.Run(driver, func(t *testing.T) {
			t.Parallel()
			s, read := fill(t)
			before := read()
			during := func(what string, questions, most int, ask func(addr string)) {
				t.Helper()
				n := servertest.Start(t, func(cfg *config.Config) {
					s.set(t, cfg, s.addr)
					cfg.AppManager.Array.Apps = nil
				})
				ask(n.Addr)
				must(t, n.Stop()) // PostgreSQL counts when a connection ends
				now := read()
				t.Logf("%s: %d questions, %d rows read", what, questions, now-before)
				if rows := now - before; rows < 1 || rows > int64(questions*most) {
					t.Errorf("for %s, %d questions, %d rows are read; want one to %d for each", what, questions, rows, most)
				}
				before = now
			}
			during("GET /up", 20, 1, func(addr string) {
				for range 20 {
					up(t, addr, 200)
				}
			})
			during("clients and calls", 120, 10, func(addr string) {
				for i := range 100 {
					name := fmt.Sprintf("app-%d", i*7919%million)
					if ok, code := admits(t, addr, pushertest.App{Key: name + "-key"}); !ok {
						t.Fatalf("%s is refused with %d", name, code)
					}
				}
				for i := range 10 {
					if ok, code := admits(t, addr, pushertest.App{Key: fmt.Sprintf("nobody-%d", i)}); ok || code != 4001 {
						t.Fatalf("an unknown app: admitted %t, code %d", ok, code)
					}
					name := fmt.Sprintf("app-%d", million-1-i)
					pushertest.NewAPI(t, addr, pushertest.App{ID: name, Key: name + "-key", Secret: name + "-secret"}).Get("/channels").Expect(200)
				}
			})
		})
	}
}

func millionInMySQL(t *testing.T) (store, func() int64) {
	dsn := mysqlDSN(t)
	s := store{driver: "mysql", table: fmt.Sprintf("t%d_%d", os.Getpid(), tables.Add(1)), addr: dsn.Addr}
	s.open(t, s.settings(t)) // makes the table
	connector, err := mysql.NewConnector(dsn)
	must(t, err)
	db := sql.OpenDB(connector)
	t.Cleanup(func() { _ = db.Close() })
	exec := func(query string) {
		t.Helper()
		if _, err := db.Exec(query); err != nil {
			t.Fatalf("%s: %v", query, err)
		}
	}
	exec("SET GLOBAL userstat = 1") // counts what is read of each table
	exec("INSERT INTO " + s.table + " (`id`, `key`, `secret`, `max_connections`, `max_client_events_per_second`)" +
		" SELECT CONCAT('app-', seq), CONCAT('app-', seq, '-key'), CONCAT('app-', seq, '-secret'), 0, 0" + fmt.Sprintf(" FROM seq_0_to_%d", million-1))
	t.Cleanup(func() { _, _ = db.Exec("DROP TABLE " + s.table) })
	return s, func() (n int64) {
		t.Helper()
		must(t, db.QueryRow("SELECT COALESCE(SUM(ROWS_READ), 0) FROM information_schema.TABLE_STATISTICS WHERE TABLE_NAME = ?", s.table).Scan(&n))
		return n
	}
}

func millionInPostgres(t *testing.T) (store, func() int64) {
	address := servicetest.Env(t, servicetest.Postgres)
	s := store{driver: "pgsql", table: fmt.Sprintf("t%d_%d", os.Getpid(), tables.Add(1)), addr: parseURL(t, address).Host}
	apps := s.open(t, s.settings(t)) // makes the table
	apps.Close()
	db, err := pgx.Connect(t.Context(), address)
	must(t, err)
	t.Cleanup(func() { _ = db.Close(t.Context()) })
	_, err = db.Exec(t.Context(), "INSERT INTO "+s.table+" (id, key, secret, max_connections, max_client_events_per_second)"+
		" SELECT 'app-' || n, 'app-' || n || '-key', 'app-' || n || '-secret', 0, 0"+fmt.Sprintf(" FROM generate_series(0, %d) AS n", million-1))
	must(t, err)
	_, err = db.Exec(t.Context(), "ANALYZE "+s.table)
	must(t, err)
	return s, func() (n int64) {
		t.Helper()
		// A connection that has ended says so, and then what it has read.
		until(t, "the connections of the node have ended", func() bool {
			var open int
			must(t, db.QueryRow(t.Context(), "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'sockudo' AND query LIKE '%'||$1||'%'", s.table).Scan(&open))
			return open == 0
		})
		must(t, db.QueryRow(t.Context(), "SELECT seq_tup_read + COALESCE(idx_tup_fetch, 0) FROM pg_stat_user_tables WHERE relname = $1", s.table).Scan(&n))
		return n
	}
}

// millionInDynamoDB counts what the endpoint says that it has looked at.
func millionInDynamoDB(t *testing.T) (store, func() int64) {
	group := servicetest.Start(t, servicetest.Options{Apps: million}, "dynamodb")
	target := parseURL(t, group.Env(t, servicetest.DynamoDB))
	var read atomic.Int64
	transport := &http.Transport{}
	srv := httptest.NewServer(&httputil.ReverseProxy{
		Transport: transport,
		Rewrite:   func(r *httputil.ProxyRequest) { r.SetURL(target) },
		ModifyResponse: func(r *http.Response) error {
			_, action, _ := strings.Cut(r.Request.Header.Get("X-Amz-Target"), ".")
			body, err := io.ReadAll(r.Body)
			if err != nil {
				return err
			}
			r.Body = io.NopCloser(bytes.NewReader(body))
			var answer struct{ ScannedCount int64 }
			switch action {
			case "DescribeTable":
			case "Scan", "Query":
				if err := json.Unmarshal(body, &answer); err != nil {
					return err
				}
				read.Add(answer.ScannedCount)
			case "GetItem":
				read.Add(1)
			default:
				t.Errorf("a node that serves asks for %s", action)
			}
			return nil
		},
	})
	t.Cleanup(func() { srv.Close(); transport.CloseIdleConnections() })
	s := store{driver: "dynamodb", table: "sockudo-applications", addr: parseURL(t, srv.URL).Host}
	return s, read.Load
}
