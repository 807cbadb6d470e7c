package mysqlstore

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sockudo/internal/app"
	"sockudo/internal/app/apptest"
	"sockudo/internal/backoff"
	"sockudo/internal/servicetest"
)

// bootstrap is the table of the script that comes with Sockudo 2.9: nullable,
// with defaults, without allowed_origins.
const bootstrap = "CREATE TABLE applications (" +
	"`id` VARCHAR(255) PRIMARY KEY, `key` VARCHAR(255) UNIQUE NOT NULL, `secret` VARCHAR(255) NOT NULL," +
	"`max_connections` INT UNSIGNED DEFAULT 1000, `enable_client_messages` BOOLEAN DEFAULT FALSE, `enabled` BOOLEAN DEFAULT TRUE," +
	"`max_backend_events_per_second` INT UNSIGNED DEFAULT 100, `max_client_events_per_second` INT UNSIGNED DEFAULT 100," +
	"`max_read_requests_per_second` INT UNSIGNED DEFAULT 100, `max_presence_members_per_channel` INT UNSIGNED DEFAULT 100," +
	"`max_presence_member_size_in_kb` INT UNSIGNED DEFAULT 2, `max_channel_name_length` INT UNSIGNED DEFAULT 200," +
	"`max_event_channels_at_once` INT UNSIGNED DEFAULT 100, `max_event_name_length` INT UNSIGNED DEFAULT 200," +
	"`max_event_payload_in_kb` INT UNSIGNED DEFAULT 100, `max_event_batch_size` INT UNSIGNED DEFAULT 10," +
	"`enable_user_authentication` BOOLEAN DEFAULT FALSE, `enable_watchlist_events` BOOLEAN DEFAULT FALSE, `webhooks` JSON DEFAULT NULL," +
	"`created_at` TIMESTAMP DEFAULT CURRENT_TIMESTAMP, `updated_at` TIMESTAMP DEFAULT CURRENT_TIMESTAMP ON UPDATE CURRENT_TIMESTAMP," +
	"INDEX idx_key (`key`), INDEX idx_enabled (`enabled`), INDEX idx_created_at (`created_at`)" +
	") ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci"

// dml are the rights that the script gives the server's user.
const dml = "SELECT, INSERT, UPDATE, DELETE"

func TestTheBundledTableWorksWithoutTheRightToChangeIt(t *testing.T) {
	servers(t, func(t *testing.T, dsn string) {
		d := newDatabase(t, dsn)
		d.exec(t, bootstrap, "INSERT INTO applications (`id`, `key`, `secret`) VALUES ('demo', 'demo-key', 'geheim')",
			"INSERT INTO applications (`id`, `key`, `secret`, `max_connections`, `enable_client_messages`, `enabled`, `max_client_events_per_second`,"+
				" `max_event_batch_size`, `webhooks`) VALUES ('nulls', 'nulls-key', 'geheim', NULL, NULL, NULL, NULL, NULL, 'null')")
		opts := d.user(t, dml)
		log, lines := apptest.Logged()
		opts.Log = log
		s := newStore(t, opts)
		lines.Want(t, "level=WARN", "allowed_origins", "1142")

		n := func(v uint32) *uint32 { return &v }
		no := false
		apptest.Check(t, s, &app.App{
			ID: "demo", Key: "demo-key", Secret: "geheim", Enabled: true, MaxConnections: 1000, MaxClientEventsPerSecond: 100,
			MaxBackendEventsPerSecond: n(100), MaxReadRequestsPerSecond: n(100), MaxPresenceMembersPerChannel: n(100),
			MaxPresenceMemberSizeInKB: n(2), MaxChannelNameLength: n(200), MaxEventChannelsAtOnce: n(100), MaxEventNameLength: n(200),
			MaxEventPayloadInKB: n(100), MaxEventBatchSize: n(10), EnableUserAuthentication: &no, EnableWatchlistEvents: &no,
		})
		nulls := &app.App{
			ID: "nulls", Key: "nulls-key", Secret: "geheim", Enabled: true,
			MaxBackendEventsPerSecond: n(100), MaxReadRequestsPerSecond: n(100), MaxPresenceMembersPerChannel: n(100),
			MaxPresenceMemberSizeInKB: n(2), MaxChannelNameLength: n(200), MaxEventChannelsAtOnce: n(100), MaxEventNameLength: n(200),
			MaxEventPayloadInKB: n(100), EnableUserAuthentication: &no, EnableWatchlistEvents: &no,
		}
		apptest.Check(t, s, nulls)

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
		if err == nil || !strings.Contains(err.Error(), "ALTER TABLE `applications` ADD COLUMN `allowed_origins` JSON NULL") {
			t.Errorf("an app with origins: err = %v, want the statement that is missing", err)
		}
		err = s.SetSecrets(t.Context(), nil, &app.App{ID: "mine", Secret: "geheim-neu", PreviousSecret: "geheim-alt"})
		if err == nil || !strings.Contains(err.Error(), "ALTER TABLE `applications` ADD COLUMN `previous_secret` VARCHAR(255) NULL") || strings.Contains(err.Error(), "geheim") {
			t.Errorf("a second secret: err = %v, want the statement that is missing", err)
		}
		apptest.Check(t, s, plain)
		// A mere feature is only missed.
		counted := apptest.Plain("counted")
		yes := true
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
		d.exec(t, "UPDATE applications SET previous_secret = 'older', allowed_origins = '[\"https://a\"]', require_tls = 1 WHERE id = 'mine'")
		plain.PreviousSecret, plain.AllowedOrigins, plain.RequireTLS = "older", []string{"https://a"}, &yes
		apptest.Check(t, s, plain)
		if err := s.SetSecrets(t.Context(), nil, &app.App{ID: "mine", Secret: "s2", PreviousSecret: "s1"}); err != nil {
			t.Fatal(err)
		}
		plain.Secret, plain.PreviousSecret = "s2", "s1"
		apptest.Check(t, s, plain)
		if strings.Contains(lines.String(), "geheim") {
			t.Errorf("the log has a secret:\n%s", lines)
		}
	})
}

func TestATableThatLacksNothingIsLeftAlone(t *testing.T) {
	servers(t, func(t *testing.T, dsn string) {
		d := newDatabase(t, dsn)
		d.exec(t, createTable(table{quoted: "`applications`"}))
		before := d.definition(t)
		s := newStore(t, d.user(t, dml))
		if err := s.Create(t.Context(), apptest.Plain("a")); err != nil {
			t.Fatal(err)
		}
		if after := d.definition(t); after != before {
			t.Errorf("the table was changed:\n%s", cmp.Diff(before, after))
		}
	})
}

func (d *database) definition(t *testing.T) string {
	t.Helper()
	var name, text string
	if err := d.admin.QueryRow("SHOW CREATE TABLE applications").Scan(&name, &text); err != nil {
		t.Fatal(err)
	}
	return text
}

func TestTheTableIsTheOneThatSockudoMakes(t *testing.T) {
	servers(t, func(t *testing.T, dsn string) {
		d := newDatabase(t, dsn)
		newStore(t, d.options(t))
		rows, err := d.admin.Query("SELECT COLUMN_NAME, COLUMN_TYPE, IS_NULLABLE, COALESCE(COLUMN_DEFAULT, ''), COLUMN_KEY FROM information_schema.COLUMNS" +
			" WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = 'applications' ORDER BY ORDINAL_POSITION")
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = rows.Close() }()
		var got []string
		for rows.Next() {
			var name, kind, null, value, key string
			if err := rows.Scan(&name, &kind, &null, &value, &key); err != nil {
				t.Fatal(err)
			}
			kind = strings.NewReplacer("int(10) unsigned", "int unsigned", "longtext", "json").Replace(kind)
			value = strings.NewReplacer("NULL", "", "current_timestamp()", "now", "CURRENT_TIMESTAMP", "now").Replace(value)
			got = append(got, strings.TrimSpace(fmt.Sprint(name, " ", kind, " ", null, " ", value, " ", key)))
		}
		want := []string{
			"id varchar(255) NO  PRI", "key varchar(255) NO  UNI", "secret varchar(255) NO", "max_connections int unsigned NO",
			"enable_client_messages tinyint(1) NO 0", "enabled tinyint(1) NO 1", "max_backend_events_per_second int unsigned YES",
			"max_client_events_per_second int unsigned NO", "max_read_requests_per_second int unsigned YES",
			"max_presence_members_per_channel int unsigned YES", "max_presence_member_size_in_kb int unsigned YES",
			"max_channel_name_length int unsigned YES", "max_event_channels_at_once int unsigned YES", "max_event_name_length int unsigned YES",
			"max_event_payload_in_kb int unsigned YES", "max_event_batch_size int unsigned YES", "enable_user_authentication tinyint(1) YES",
			"enable_watchlist_events tinyint(1) YES", "webhooks json YES", "allowed_origins json YES",
			"created_at timestamp YES now", "updated_at timestamp YES now",
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("columns (-want +got):\n%s", diff)
		}
		if text := d.definition(t); !strings.Contains(text, "ENGINE=InnoDB") || !strings.Contains(text, "utf8mb4_unicode_ci") ||
			!strings.Contains(strings.ToUpper(text), "ON UPDATE CURRENT_TIMESTAMP") {
			t.Errorf("table:\n%s", text)
		}
	})
}

func TestManyNodesMakeTheTableAtOnce(t *testing.T) {
	servers(t, func(t *testing.T, dsn string) {
		d := newDatabase(t, dsn)
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
	})
}

func TestATableThatCannotBeUsedEndsTheStart(t *testing.T) {
	servers(t, func(t *testing.T, dsn string) {
		d := newDatabase(t, dsn)
		opts := d.user(t, dml)
		for _, test := range []struct {
			table, want string
			make        string
		}{
			{"", "cannot be created", "DO 1"},
			{"half", `no column "secret"`, "CREATE TABLE half (`id` VARCHAR(255) PRIMARY KEY, `key` VARCHAR(255))"},
			{"a b", "is no table name", "DO 1"},
			{"x; DROP TABLE applications", "is no table name", "DO 1"},
			{"a.b.c", "is no table name", "DO 1"},
			{"`a`", "is no table name", "DO 1"},
		} {
			d.exec(t, test.make)
			opts.Table = test.table
			_, err := Open(t.Context(), opts)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("table %q: err = %v, want %q", test.table, err, test.want)
				continue
			}
			tries := 0
			_ = backoff.Retry(t.Context(), backoff.Policy{}, func(ctx context.Context) error {
				tries++
				_, err := Open(ctx, opts)
				return err
			}, nil)
			if tries != 1 {
				t.Errorf("table %q is tried %d times, want that no retry helps", test.table, tries)
			}
		}
	})
}

func TestATableElsewhereIsFound(t *testing.T) {
	servers(t, func(t *testing.T, dsn string) {
		d, other := newDatabase(t, dsn), newDatabase(t, dsn)
		opts := d.options(t)
		opts.Table = other.name + ".my_apps"
		s := newStore(t, opts)
		if err := s.Create(t.Context(), apptest.Full("a")); err != nil {
			t.Fatal(err)
		}
		opts = other.options(t)
		opts.Table = "my_apps"
		apptest.Check(t, newStore(t, opts), apptest.Full("a"))
	})
}

func TestCharacterSetsOfOtherTables(t *testing.T) {
	servers(t, func(t *testing.T, dsn string) {
		for _, charset := range []string{
			"ascii COLLATE ascii_bin", "ascii COLLATE ascii_general_ci", "latin1", "utf8mb3", "utf8mb4 COLLATE utf8mb4_bin",
			"utf8mb4 COLLATE utf8mb4_general_ci", "binary",
		} {
			d := newDatabase(t, dsn)
			// As newer versions of Sockudo make it: more columns, and names in ASCII.
			d.exec(t, strings.NewReplacer("`id` VARCHAR(255)", "`id` VARCHAR(255) CHARACTER SET "+charset,
				"`key` VARCHAR(255)", "`key` VARCHAR(255) CHARACTER SET "+charset).Replace(createTable(table{quoted: "`applications`"})),
				"ALTER TABLE applications ADD COLUMN policy JSON NULL, ADD COLUMN idempotency JSON NULL")
			s := newStore(t, d.options(t))
			a := apptest.Full("App")
			for range 2 {
				if err := s.Upsert(t.Context(), a); err != nil {
					t.Fatalf("%s: %v", charset, err)
				}
				apptest.Check(t, s, a)
				d.exec(t, `UPDATE applications SET policy = '{"x":1}'`)
			}
			for _, name := range []string{"app", "APP", "App ", "Äpp", "日本", "😀", "App\u200b", "?"} {
				apptest.CheckUnknown(t, s, name, name+"-key")
				if err := s.SetSecrets(t.Context(), nil, &app.App{ID: name, Secret: "x"}); !errors.Is(err, app.ErrNotFound) {
					t.Errorf("%s: secrets of %q: %v", charset, name, err)
				}
				if err := s.Delete(t.Context(), name); !errors.Is(err, app.ErrNotFound) {
					t.Errorf("%s: delete %q: %v", charset, name, err)
				}
				if _, err := s.ByKey(t.Context(), name+"-KEY"); !errors.Is(err, app.ErrNotFound) {
					t.Errorf("%s: key %q: %v", charset, name, err)
				}
			}
			if err := s.Update(t.Context(), nil, a); err != nil {
				t.Errorf("%s: %v", charset, err)
			}
			var policy string
			if err := d.admin.QueryRow("SELECT policy FROM applications").Scan(&policy); err != nil || !strings.Contains(policy, `"x"`) {
				t.Errorf("%s: a column that is not ours holds %q, %v", charset, policy, err)
			}
		}
	})
}

// TestMalformedRows has every case of the storage document, in a table that a
// person made: everything is text.
func TestMalformedRows(t *testing.T) {
	servers(t, func(t *testing.T, dsn string) {
		d := newDatabase(t, dsn)
		var columns []string
		for _, c := range app.Columns() {
			columns = append(columns, quote(c.Name)+" TEXT NULL")
		}
		d.exec(t, "CREATE TABLE applications ("+strings.Join(columns, ", ")+", KEY (`id`(50)), KEY (`key`(50)))")
		row := func(id string, set map[string]any) {
			t.Helper()
			names, marks, args := []string{"`id`", "`key`", "`secret`"}, "?, ?, ?", []any{id, id + "-key", "geheim"}
			for n, v := range set {
				if n == "id" || n == "key" || n == "secret" {
					args[map[string]int{"id": 0, "key": 1, "secret": 2}[n]] = v
					continue
				}
				names, marks, args = append(names, quote(n)), marks+", ?", append(args, v)
			}
			if _, err := d.admin.Exec("INSERT INTO applications ("+strings.Join(names, ", ")+") VALUES ("+marks+")", args...); err != nil {
				t.Fatal(err)
			}
		}
		apptest.MalformedText(t, row, func(log *slog.Logger) app.Backend {
			opts := d.options(t)
			opts.Log = log
			return newStore(t, opts)
		})
	})
}

func TestAUserWhoMayOnlyReadIsEnoughToServe(t *testing.T) {
	servers(t, func(t *testing.T, dsn string) {
		d := newDatabase(t, dsn)
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
	})
}

func TestCredentialsAppearNowhere(t *testing.T) {
	servers(t, func(t *testing.T, dsn string) {
		d := newDatabase(t, dsn)
		log, lines := apptest.Logged()
		opts := d.options(t)
		opts.Log, opts.Password = log, "geheim-falsch"
		_, err := Open(t.Context(), opts)
		if err == nil || !strings.Contains(err.Error(), "denied") {
			t.Fatalf("err = %v, want that access is denied", err)
		}
		said := err.Error() + fmt.Sprintf("%v %+v %#v", opts, opts, opts)
		opts = d.options(t)
		opts.Log = log
		s := newStore(t, opts)
		// A secret that the column cannot hold is refused without being told.
		d.exec(t, "ALTER TABLE applications MODIFY `secret` VARCHAR(20) CHARACTER SET ascii")
		for _, secret := range []app.Secret{"geheim-ä-geheim", "geheim-geheim-geheim-geheim"} {
			a := apptest.Plain("a")
			a.Secret = secret
			for _, err := range []error{s.Create(t.Context(), a), s.Upsert(t.Context(), a)} {
				if err == nil {
					t.Errorf("a secret was cut to fit")
				} else {
					said += err.Error()
				}
			}
		}
		if strings.Contains(said+lines.String(), "geheim") || strings.Contains(said+lines.String(), servicetest.Password) {
			t.Errorf("a credential was told: %s\n%s", said, lines)
		}
	})
}

func TestTheConnectionIsEncryptedIfTheServerCan(t *testing.T) {
	servers(t, func(t *testing.T, dsn string) {
		s := newStore(t, newDatabase(t, dsn).options(t))
		var name, cipher string
		if err := s.db.QueryRow("SHOW SESSION STATUS LIKE 'Ssl_cipher'").Scan(&name, &cipher); err != nil || cipher == "" {
			t.Errorf("cipher = %q, %v", cipher, err)
		}
	})
}

func TestLargeNumbersAreKept(t *testing.T) {
	servers(t, func(t *testing.T, dsn string) {
		s := newStore(t, newDatabase(t, dsn).options(t))
		a := apptest.Plain("a")
		most := uint32(math.MaxUint32)
		a.MaxConnections, a.MaxEventBatchSize = most, &most
		if err := s.Create(t.Context(), a); err != nil {
			t.Fatal(err)
		}
		apptest.Check(t, s, a)
	})
}

func TestATableWithoutAnIndexIsReadAndNotAddedTo(t *testing.T) {
	servers(t, func(t *testing.T, dsn string) {
		d := newDatabase(t, dsn)
		d.exec(t, strings.NewReplacer(" PRIMARY KEY", "", " UNIQUE", "").Replace(createTable(table{quoted: "`applications`"})),
			"INSERT INTO applications (`id`, `key`, `secret`, `max_connections`, `max_client_events_per_second`) VALUES ('a', 'a-key', 'a-secret', 0, 0)")
		log, lines := apptest.Logged()
		opts := d.options(t)
		opts.Log = log
		s := newStore(t, opts)
		lines.Want(t, "level=WARN", "no unique index", "column=id")
		lines.Want(t, "level=WARN", "no unique index", "column=key")
		apptest.Check(t, s, apptest.Plain("a"))
		const statement = "ALTER TABLE `applications` ADD UNIQUE (`id`)"
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
	})
}
