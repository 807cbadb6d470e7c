package pgstore

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sockudo/internal/app"
	"sockudo/internal/app/apptest"
	"sockudo/internal/backoff"
	"sockudo/internal/servicetest"
)

// bootstrap is the table of the test script that comes with Sockudo 2.9.
const bootstrap = `CREATE TABLE applications (
	id VARCHAR(255) PRIMARY KEY, key VARCHAR(255) UNIQUE NOT NULL, secret VARCHAR(255) NOT NULL,
	max_connections INTEGER DEFAULT 1000, enable_client_messages BOOLEAN DEFAULT FALSE, enabled BOOLEAN DEFAULT TRUE,
	max_backend_events_per_second INTEGER DEFAULT 100, max_client_events_per_second INTEGER DEFAULT 100,
	max_read_requests_per_second INTEGER DEFAULT 100, max_presence_members_per_channel INTEGER DEFAULT 100,
	max_presence_member_size_in_kb INTEGER DEFAULT 2, max_channel_name_length INTEGER DEFAULT 200,
	max_event_channels_at_once INTEGER DEFAULT 100, max_event_name_length INTEGER DEFAULT 200,
	max_event_payload_in_kb INTEGER DEFAULT 100, max_event_batch_size INTEGER DEFAULT 10,
	enable_user_authentication BOOLEAN DEFAULT FALSE, enable_watchlist_events BOOLEAN DEFAULT FALSE, webhooks JSONB, allowed_origins JSONB,
	created_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP, updated_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP);
	CREATE INDEX idx_applications_key ON applications (key); CREATE INDEX idx_applications_enabled ON applications (enabled);
	CREATE INDEX idx_applications_allowed_origins ON applications (created_at)`

// dml are the rights of a user who may not change tables.
const dml = "SELECT, INSERT, UPDATE, DELETE"

func server(t testing.TB) *database { return newDatabase(t, servicetest.Env(t, servicetest.Postgres)) }

func TestTheBundledTableWorksWithoutTheRightToChangeIt(t *testing.T) {
	d := server(t)
	d.exec(t, strings.Replace(strings.Replace(bootstrap, " webhooks JSONB, allowed_origins JSONB,", " webhooks JSONB,", 1), "enable_watchlist_events BOOLEAN DEFAULT FALSE,", "", 1),
		"INSERT INTO applications (id, key, secret) VALUES ('demo', 'demo-key', 'geheim')",
		"INSERT INTO applications (id, key, secret, max_connections, enable_client_messages, enabled, max_client_events_per_second,"+
			" max_event_batch_size, webhooks) VALUES ('nulls', 'nulls-key', 'geheim', NULL, NULL, NULL, NULL, NULL, 'null')")
	opts := d.user(t, dml)
	log, lines := apptest.Logged()
	opts.Log = log
	s := newStore(t, opts)
	lines.Want(t, "level=WARN", "allowed_origins", "42501")
	lines.Want(t, "level=WARN", "enable_watchlist_events", "42501")

	n := func(v uint32) *uint32 { return &v }
	no, yes := false, true
	demo := &app.App{
		ID: "demo", Key: "demo-key", Secret: "geheim", Enabled: true, MaxConnections: 1000, MaxClientEventsPerSecond: 100,
		MaxBackendEventsPerSecond: n(100), MaxReadRequestsPerSecond: n(100), MaxPresenceMembersPerChannel: n(100),
		MaxPresenceMemberSizeInKB: n(2), MaxChannelNameLength: n(200), MaxEventChannelsAtOnce: n(100), MaxEventNameLength: n(200),
		MaxEventPayloadInKB: n(100), MaxEventBatchSize: n(10), EnableUserAuthentication: &no,
	}
	apptest.Check(t, s, demo)
	nulls := *demo
	nulls.ID, nulls.Key, nulls.MaxConnections, nulls.MaxClientEventsPerSecond, nulls.MaxEventBatchSize = "nulls", "nulls-key", 0, 0, nil
	apptest.Check(t, s, &nulls)

	plain := apptest.Plain("mine")
	for _, change := range []func() error{
		func() error { return s.Create(t.Context(), plain) },
		func() error { return s.Upsert(t.Context(), plain) },
		func() error { return s.Update(t.Context(), nil, plain) },
		func() error { return s.SetSecrets(t.Context(), nil, &app.App{ID: "mine", Secret: plain.Secret}) },
	} {
		if err := change(); err != nil {
			t.Fatal(err)
		}
		apptest.Check(t, s, plain)
	}

	// What the table cannot keep is refused, with what would help.
	guarded := apptest.Plain("guarded")
	guarded.AllowedOrigins = []string{"https://example.com"}
	err := s.Create(t.Context(), guarded)
	if err == nil || !strings.Contains(err.Error(), `ALTER TABLE "applications" ADD COLUMN "allowed_origins" JSONB`) {
		t.Errorf("an app with origins: err = %v, want the statement that is missing", err)
	}
	err = s.SetSecrets(t.Context(), nil, &app.App{ID: "mine", Secret: "geheim-neu", PreviousSecret: "geheim-alt"})
	if err == nil || !strings.Contains(err.Error(), `ALTER TABLE "applications" ADD COLUMN "previous_secret" VARCHAR(255)`) || strings.Contains(err.Error(), "geheim") {
		t.Errorf("a second secret: err = %v, want the statement that is missing", err)
	}
	apptest.Check(t, s, plain)
	// A mere feature is only missed.
	counted := apptest.Plain("counted")
	counted.EnableSubscriptionCount = &yes
	if err := s.Create(t.Context(), counted); err != nil {
		t.Error(err)
	}
	lines.Want(t, "counted", "enable_subscription_count")
	apptest.Check(t, s, apptest.Plain("counted"))

	// Somebody adds the columns while the server runs.
	for _, c := range app.Columns() {
		if !s.schema.Load().has(c.Name) {
			d.exec(t, alter(s.table, &c))
		}
	}
	d.exec(t, `UPDATE applications SET previous_secret = 'older', allowed_origins = '["https://a"]', require_tls = true WHERE id = 'mine'`)
	plain.PreviousSecret, plain.AllowedOrigins, plain.RequireTLS = "older", []string{"https://a"}, &yes
	apptest.Check(t, s, plain)
	if err := s.SetSecrets(t.Context(), nil, &app.App{ID: "mine", Secret: "s2", PreviousSecret: "s1"}); err != nil {
		t.Fatal(err)
	}
	plain.Secret, plain.PreviousSecret = "s2", "s1"
	apptest.Check(t, s, plain)

	// And somebody drops them again.
	s2 := newStore(t, opts)
	apptest.Check(t, s2, plain)
	d.exec(t, "ALTER TABLE applications DROP COLUMN previous_secret, DROP COLUMN require_tls")
	plain.PreviousSecret, plain.RequireTLS = "", nil
	apptest.Check(t, s2, plain)
	if strings.Contains(lines.String(), "geheim") {
		t.Errorf("the log has a secret:\n%s", lines)
	}
}

// definition is all that the catalogue says of the columns.
func (d *database) definition(t *testing.T) []string {
	t.Helper()
	rows, err := d.admin.Query(t.Context(), "SELECT column_name || ' ' || data_type || ' ' || is_nullable || ' ' || coalesce(column_default, '')"+
		" FROM information_schema.columns WHERE table_name = 'applications' ORDER BY ordinal_position")
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	var lines []string
	for rows.Next() {
		var line string
		if err := rows.Scan(&line); err != nil {
			t.Fatal(err)
		}
		lines = append(lines, strings.TrimSpace(line))
	}
	return lines
}

func TestATableThatLacksNothingIsLeftAlone(t *testing.T) {
	d := server(t)
	d.exec(t, bootstrap)
	before := d.definition(t)
	s := newStore(t, d.user(t, dml))
	if err := s.Create(t.Context(), apptest.Plain("a")); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(before, d.definition(t)); diff != "" {
		t.Errorf("the table was changed:\n%s", diff)
	}
}

func TestTheTableIsTheOneThatSockudoMakes(t *testing.T) {
	d := server(t)
	newStore(t, d.options(t))
	const text, integer, boolean = " character varying", " integer", " boolean"
	want := []string{
		"id" + text + " NO", "key" + text + " NO", "secret" + text + " NO", "max_connections" + integer + " NO",
		"enable_client_messages" + boolean + " NO false", "enabled" + boolean + " NO true", "max_backend_events_per_second" + integer + " YES",
		"max_client_events_per_second" + integer + " NO", "max_read_requests_per_second" + integer + " YES",
		"max_presence_members_per_channel" + integer + " YES", "max_presence_member_size_in_kb" + integer + " YES",
		"max_channel_name_length" + integer + " YES", "max_event_channels_at_once" + integer + " YES", "max_event_name_length" + integer + " YES",
		"max_event_payload_in_kb" + integer + " YES", "max_event_batch_size" + integer + " YES", "enable_user_authentication" + boolean + " YES",
		"enable_watchlist_events" + boolean + " YES", "webhooks jsonb YES", "allowed_origins jsonb YES",
		"created_at timestamp without time zone YES CURRENT_TIMESTAMP", "updated_at timestamp without time zone YES CURRENT_TIMESTAMP",
	}
	if diff := cmp.Diff(want, d.definition(t)); diff != "" {
		t.Errorf("columns (-want +got):\n%s", diff)
	}
}

func TestAnUpdateSetsItsTime(t *testing.T) {
	d := server(t)
	s := newStore(t, d.options(t))
	a := apptest.Plain("a")
	for what, change := range map[string]func() error{
		"update": func() error { return s.Update(t.Context(), nil, a) }, "upsert": func() error { return s.Upsert(t.Context(), a) },
		"set secrets": func() error { return s.SetSecrets(t.Context(), nil, &app.App{ID: "a", Secret: "s"}) },
	} {
		if err := s.Upsert(t.Context(), a); err != nil {
			t.Fatal(err)
		}
		d.exec(t, "UPDATE applications SET updated_at = '2001-01-01'")
		if err := change(); err != nil {
			t.Fatal(err)
		}
		var recent bool
		if err := d.admin.QueryRow(t.Context(), "SELECT updated_at > now() - interval '1 hour' FROM applications").Scan(&recent); err != nil || !recent {
			t.Errorf("%s leaves updated_at: %v", what, err)
		}
	}
}

func TestManyNodesMakeTheTableAtOnce(t *testing.T) {
	d := server(t)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			s, err := Open(t.Context(), d.options(t))
			if err != nil {
				t.Error(err)
				return
			}
			defer func() { _ = s.Close() }()
			if err := s.Upsert(t.Context(), apptest.Full("a")); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	apptest.Check(t, newStore(t, d.options(t)), apptest.Full("a"))
}

func TestATableThatCannotBeUsedEndsTheStart(t *testing.T) {
	d := server(t)
	opts := d.user(t, dml)
	for _, test := range []struct{ table, want, make string }{
		{"", "cannot be created", "SELECT 1"},
		{"half", `no column "secret"`, "CREATE TABLE half (id VARCHAR(255) PRIMARY KEY, key VARCHAR(255))"},
		{"a b", "is no table name", "SELECT 1"},
		{"x; DROP TABLE applications", "is no table name", "SELECT 1"},
		{"a.b.c", "is no table name", "SELECT 1"},
		{`"a"`, "is no table name", "SELECT 1"},
	} {
		d.exec(t, test.make)
		opts.Table = test.table
		tries := 0
		err := backoff.Retry(t.Context(), backoff.Policy{}, func(ctx context.Context) error {
			tries++
			_, err := Open(ctx, opts)
			return err
		}, nil)
		if err == nil || !strings.Contains(err.Error(), test.want) || tries != 1 {
			t.Errorf("table %q: err = %v after %d tries, want %q after one", test.table, err, tries, test.want)
		}
	}
}

func TestTheNameOfTheTableIsFoldedToLowerCase(t *testing.T) {
	d := server(t)
	d.exec(t, "CREATE SCHEMA elsewhere")
	opts := d.options(t)
	opts.Table = "Elsewhere.My_Apps"
	s := newStore(t, opts)
	if err := s.Create(t.Context(), apptest.Full("a")); err != nil {
		t.Fatal(err)
	}
	var n int
	if err := d.admin.QueryRow(t.Context(), "SELECT count(*) FROM elsewhere.my_apps").Scan(&n); err != nil || n != 1 {
		t.Errorf("%d rows, %v", n, err)
	}
	opts.Table = "elsewhere.my_apps"
	apptest.Check(t, newStore(t, opts), apptest.Full("a"))
}

func TestColumnTypesOfOtherTables(t *testing.T) {
	for name, replace := range map[string][]string{
		"text":     {"VARCHAR(255)", "TEXT", "INTEGER", "BIGINT", "JSONB", "JSON"},
		"all text": {"INTEGER NOT NULL", "TEXT", "INTEGER", "TEXT", "JSONB", "TEXT", "BOOLEAN NOT NULL DEFAULT FALSE", "TEXT", "BOOLEAN NOT NULL DEFAULT TRUE", "TEXT", "BOOLEAN", "TEXT"},
		"smallint": {"INTEGER", "SMALLINT"},
		"no case":  {`"id" VARCHAR(255)`, `"id" VARCHAR(255) COLLATE nocase`, `"key" VARCHAR(255)`, `"key" VARCHAR(255) COLLATE nocase`},
		"newer":    {`"created_at"`, `policy JSONB, idempotency JSONB, "created_at"`},
	} {
		d := server(t)
		d.exec(t, "CREATE COLLATION nocase (provider = icu, locale = 'und-u-ks-level2', deterministic = false)",
			strings.NewReplacer(replace...).Replace(createTable(table{quoted: `"applications"`})))
		s := newStore(t, d.options(t))
		a := apptest.Full("App")
		if name == "smallint" {
			a.MaxClientEventsPerSecond = 5
		}
		for range 2 {
			if err := s.Upsert(t.Context(), a); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			apptest.Check(t, s, a)
		}
		for _, other := range []string{"app", "APP", "App ", "Äpp", "😀", "?"} {
			apptest.CheckUnknown(t, s, other, other+"-key")
			if err := s.SetSecrets(t.Context(), nil, &app.App{ID: other, Secret: "x"}); !errors.Is(err, app.ErrNotFound) {
				t.Errorf("%s: secrets of %q: %v", name, other, err)
			}
			if err := s.Delete(t.Context(), other); !errors.Is(err, app.ErrNotFound) {
				t.Errorf("%s: delete %q: %v", name, other, err)
			}
		}
		if name == "no case" {
			if err := s.Upsert(t.Context(), apptest.Plain("APP")); !errors.Is(err, app.ErrExists) {
				t.Errorf("upsert of an id that differs in case: %v", err)
			}
			apptest.Check(t, s, a)
		}
		a.MaxConnections = 3
		if err := s.Update(t.Context(), nil, a); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		apptest.Check(t, s, a)
	}
}

func TestAnIDOfAnotherTypeIsNoFault(t *testing.T) {
	d := server(t)
	d.exec(t, strings.Replace(createTable(table{quoted: `"applications"`}), `"id" VARCHAR(255)`, `"id" UUID`, 1))
	s := newStore(t, d.options(t))
	a := apptest.Plain("0b5c0e1e-2f5a-4a5e-9c39-9a3b8b3c2a11")
	if err := s.Create(t.Context(), a); err != nil {
		t.Fatal(err)
	}
	apptest.Check(t, s, a)
	apptest.CheckUnknown(t, s, "no uuid", "no-key")
	apptest.CheckUnknown(t, s, "0B5C0E1E-2F5A-4A5E-9C39-9A3B8B3C2A11", "no-key")
}

func TestNumbersThatDoNotFitAreWrappedOrClamped(t *testing.T) {
	d := server(t)
	s := newStore(t, d.options(t))
	most := uint32(math.MaxUint32)
	a := apptest.Plain("a")
	a.MaxConnections, a.MaxEventBatchSize = most, &most
	if err := s.Create(t.Context(), a); err != nil {
		t.Fatal(err)
	}
	clamped := uint32(math.MaxInt32)
	a.MaxConnections, a.MaxEventBatchSize = clamped, &clamped
	apptest.Check(t, s, a)
	d.exec(t, "UPDATE applications SET max_connections = -1, max_event_batch_size = -2147483648")
	half := uint32(1 << 31)
	a.MaxConnections, a.MaxEventBatchSize = most, &half
	apptest.Check(t, s, a)
}

// TestMalformedRows has every case of the storage document, in a table that a
// person made: everything is text.
func TestMalformedRows(t *testing.T) {
	d := server(t)
	var columns []string
	for _, c := range app.Columns() {
		columns = append(columns, quote(c.Name)+" TEXT")
	}
	d.exec(t, "CREATE TABLE applications ("+strings.Join(columns, ", ")+")")
	row := func(id string, set map[string]any) {
		t.Helper()
		names, marks, args := []string{"id", "key", "secret"}, "$1, $2, $3", []any{id, id + "-key", "geheim"}
		for n, v := range set {
			if n == "id" || n == "key" || n == "secret" {
				args[map[string]int{"id": 0, "key": 1, "secret": 2}[n]] = v
				continue
			}
			args = append(args, v)
			names, marks = append(names, n), marks+fmt.Sprintf(", $%d", len(args))
		}
		if _, err := d.admin.Exec(t.Context(), "INSERT INTO applications ("+strings.Join(names, ", ")+") VALUES ("+marks+")", args...); err != nil {
			t.Fatal(err)
		}
	}
	apptest.MalformedText(t, row, func(log *slog.Logger) app.Backend {
		opts := d.options(t)
		opts.Log = log
		return newStore(t, opts)
	})
}

func TestAUserWhoMayOnlyReadIsEnoughToServe(t *testing.T) {
	d := server(t)
	first := newStore(t, d.options(t))
	if err := first.Create(t.Context(), apptest.Full("a")); err != nil {
		t.Fatal(err)
	}
	s := newStore(t, d.user(t, "SELECT"))
	apptest.Check(t, s, apptest.Full("a"))
	for what, err := range map[string]error{
		"create": s.Create(t.Context(), apptest.Plain("b")), "update": s.Update(t.Context(), nil, apptest.Plain("a")),
		"upsert": s.Upsert(t.Context(), apptest.Plain("a")), "delete": s.Delete(t.Context(), "a"),
		"set secrets":    s.SetSecrets(t.Context(), nil, &app.App{ID: "a", Secret: "geheim"}),
		"guarded update": s.Update(t.Context(), apptest.Full("a"), apptest.Plain("a")),
	} {
		if err == nil || !strings.Contains(err.Error(), "denied") || errors.Is(err, app.ErrUnavailable) || strings.Contains(err.Error(), "geheim") {
			t.Errorf("%s: err = %v, want that it is denied", what, err)
		}
	}
	apptest.Check(t, s, apptest.Full("a"))
}

func TestCredentialsAppearNowhere(t *testing.T) {
	d := server(t)
	log, lines := apptest.Logged()
	opts := d.options(t)
	opts.Log, opts.Password = log, "geheim-falsch"
	_, err := Open(t.Context(), opts)
	if err == nil || !strings.Contains(err.Error(), "authentication failed") {
		t.Fatalf("err = %v, want that the password is wrong", err)
	}
	said := err.Error() + fmt.Sprintf("%v %+v %#v", opts, opts, opts)
	opts.Database = "no\x00database"
	if _, err = Open(t.Context(), opts); err == nil {
		t.Error("a name with NUL was accepted")
	} else {
		said += err.Error()
	}
	opts = d.options(t)
	opts.Log = log
	s := newStore(t, opts)
	// A secret that the column cannot hold is refused without being told.
	d.exec(t, "ALTER TABLE applications ALTER COLUMN secret TYPE VARCHAR(20), ADD CHECK (secret NOT LIKE '%x%')")
	for _, secret := range []app.Secret{"geheim-x-geheim", "geheim-geheim-geheim-geheim"} {
		a := apptest.Plain("a")
		a.Secret = secret
		for _, err := range []error{s.Create(t.Context(), a), s.Upsert(t.Context(), a)} {
			if err == nil {
				continue // a cast to varchar(n) cuts, but the column's own check does not
			}
			said += err.Error()
		}
	}
	if strings.Contains(said+lines.String(), "geheim") || strings.Contains(said+lines.String(), servicetest.Password) {
		t.Errorf("a credential was told: %s\n%s", said, lines)
	}
}

func TestOnlyTheTLSVariablesOfTheEnvironmentCount(t *testing.T) {
	d := server(t)
	for name, value := range map[string]string{
		"PGHOST": "192.0.2.1", "PGPORT": "1", "PGUSER": "nobody", "PGPASSWORD": "wrong", "PGDATABASE": "nothing", "PGOPTIONS": "-c search_path=nowhere",
		"PGAPPNAME": "x", "PGTARGETSESSIONATTRS": "standby", "PGCONNECT_TIMEOUT": "0", "PGPASSFILE": "/x", "PGTZ": "Asia/Tokyo",
		"PGREQUIREAUTH": "none", "PGCHANNELBINDING": "require",
	} {
		t.Setenv(name, value)
	}
	encrypted := func() bool {
		t.Helper()
		var on bool
		if err := newStore(t, d.options(t)).pool.QueryRow(t.Context(), "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()").Scan(&on); err != nil {
			t.Fatal(err)
		}
		return on
	}
	if !encrypted() {
		t.Error("by default the connection is not encrypted although the server can")
	}
	t.Setenv("PGSSLMODE", "disable")
	if encrypted() {
		t.Error("PGSSLMODE=disable is not obeyed")
	}
	t.Setenv("PGSSLMODE", "verify-full")
	t.Setenv("PGSSLROOTCERT", os.Getenv(servicetest.CA))
	if !encrypted() {
		t.Error("PGSSLMODE=verify-full does not encrypt")
	}
	t.Setenv("PGSSLROOTCERT", "")
	if _, err := Open(t.Context(), d.options(t)); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("with an unknown authority: err = %v", err)
	}
	t.Setenv("PGSSLROOTCERT", "/nonexistent")
	if _, err := Open(t.Context(), d.options(t)); err == nil || !strings.Contains(err.Error(), "/nonexistent") {
		t.Errorf("with a missing file: err = %v", err)
	}
}

func TestATableWithoutAnIndexIsReadAndNotAddedTo(t *testing.T) {
	d := server(t)
	d.exec(t, strings.NewReplacer(" PRIMARY KEY", "", " UNIQUE", "").Replace(createTable(table{quoted: `"applications"`})),
		// Neither of these keeps ids apart.
		"CREATE UNIQUE INDEX ON applications (id) WHERE enabled", "CREATE UNIQUE INDEX ON applications (id, key)",
		"INSERT INTO applications (id, key, secret, max_connections, max_client_events_per_second) VALUES ('a', 'a-key', 'a-secret', 0, 0)")
	log, lines := apptest.Logged()
	opts := d.options(t)
	opts.Log = log
	s := newStore(t, opts)
	lines.Want(t, "level=WARN", "no unique index", "column=id")
	lines.Want(t, "level=WARN", "no unique index", "column=key")
	apptest.Check(t, s, apptest.Plain("a"))
	const statement = `ALTER TABLE "applications" ADD UNIQUE ("id")`
	for what, err := range map[string]error{
		"create": s.Create(t.Context(), apptest.Plain("b")), "upsert": s.Upsert(t.Context(), apptest.Plain("a")),
	} {
		if err == nil || !strings.Contains(err.Error(), statement) || errors.Is(err, app.ErrUnavailable) {
			t.Errorf("%s: err = %v, want the statement that is missing", what, err)
		}
	}
	apptest.CheckUnknown(t, s, "b", "b-key")
	d.exec(t, statement)
	if err := s.Upsert(t.Context(), apptest.Full("a")); err != nil {
		t.Error(err)
	}
	apptest.Check(t, s, apptest.Full("a"))
}
