package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"sockudo/internal/app"
	"sockudo/internal/app/apptest"
	"sockudo/internal/config"
	"sockudo/internal/servicetest"
)

func TestAStoreThatDoesNotAnswerIsToldApart(t *testing.T) {
	s := newShell(t)
	s.env = append(s.env, "APP_MANAGER_DRIVER=mysql", "DATABASE_MYSQL_HOST=127.0.0.1", "DATABASE_MYSQL_PORT=1", "DATABASE_MYSQL_PASSWORD=geheim")
	_, errs := s.run(exitUnavailable, "apps", "list")
	contains(t, errs, "app_manager.driver mysql")
	if strings.Contains(errs, "geheim") {
		t.Errorf("the password is shown: %s", errs)
	}
}

// A database is one that apps are kept in, with a table of its own.
type database struct {
	name string
	env  []string
}

func TestLifeOfAnAppInEveryDatabase(t *testing.T) {
	for _, d := range databases(t) {
		t.Run(d.name, func(t *testing.T) {
			t.Parallel()
			lifeOfAnApp(t, d)
		})
	}
}

// server is command for one that lives longer than the others.
func (s *shell) server(args ...string) *exec.Cmd {
	s.t.Helper()
	short := s.command(args...)
	ctx, cancel := context.WithTimeout(s.t.Context(), 5*time.Minute)
	s.t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, short.Path, args...)
	cmd.Dir, cmd.Env = short.Dir, short.Env
	return cmd
}

func lifeOfAnApp(t *testing.T, d database) {
	s := withAdmin(t, d.env...)
	out, _ := s.run(exitOK, "apps", "list", "--json")
	if out != "[]\n" {
		t.Fatalf("a new table has apps: %s", out)
	}
	a := s.record("apps", "create", "shop", "--max-connections", "50", "--enable-client-messages", "--allowed-origin", "*",
		"--max-event-batch-size", "5", "--webhooks", `[{"url":"https://h.example","event_types":["member_added"]}]`, "--json")
	if a.ID != "shop" || len(a.Secret) != 32 || a.MaxConnections != 50 || !a.EnableClientMessages || *a.MaxEventBatchSize != 5 || len(a.Webhooks) != 1 {
		t.Errorf("created: %+v", a)
	}
	sameApp(t, s.record("apps", "show", "shop", "--json", "--show-secrets"), a)
	sameApp(t, s.record("apps", "show", "--by-key", a.Key, "--json", "--show-secrets"), a)
	s.run(exitExists, "apps", "create", "shop")
	_, errs := s.run(exitExists, "apps", "create", "other", "--key", a.Key)
	contains(t, errs, "other")
	_, errs = s.run(exitOK, "apps", "update", "shop", "--max-connections", "50")
	contains(t, errs, "running nodes: not told, they notice within about 10 seconds", "admin listener at /")

	changedAtOnce(t, s)

	// A server that runs meanwhile.
	port := freePort(t)
	base := "http://127.0.0.1:" + port
	r := startServer(t, s.server("--host", "127.0.0.1", "--port", port))
	r.until("listening")
	publish := func(secret app.Secret) error {
		out, errs, code := finish(t, command(t, "trigger", "--url", base, "--key", a.Key, "--secret", secret.Reveal(), "shop", "c", "e", "d"))
		if code != exitOK {
			return fmt.Errorf("%s%s", out, errs)
		}
		return nil
	}
	subscribes := func(secret app.Secret) {
		t.Helper()
		l := startServer(t, command(t, "listen", "--url", base, "--key", a.Key, "--secret", secret.Reveal(), "private-x"))
		l.until("subscription_succeeded")
		l.stop(os.Interrupt)
	}
	eventually := func(what string, done func() bool) {
		t.Helper()
		for end := time.Now().Add(30 * time.Second); !done(); time.Sleep(50 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("not within 30 s: %s", what)
			}
		}
	}
	if err := publish(a.Secret); err != nil {
		t.Fatal(err)
	}
	subscribes(a.Secret)

	// Both secrets work, then the newer one.
	b := s.record("apps", "rotate-secret", "shop", "--json")
	if b.Secret == a.Secret || b.PreviousSecret != a.Secret || !b.PreviousUntil.IsZero() {
		t.Errorf("rotated: secret changed %t, previous kept %t", b.Secret != a.Secret, b.PreviousSecret == a.Secret)
	}
	_, errs = s.run(exitFatal, "apps", "rotate-secret", "shop")
	contains(t, errs, "a rotation goes on")
	eventually("the server knows the new secret", func() bool { return publish(b.Secret) == nil })
	for _, secret := range []app.Secret{a.Secret, b.Secret} {
		if err := publish(secret); err != nil {
			t.Errorf("during the rotation: %v", err)
		}
		subscribes(secret)
	}
	_, errs = s.run(exitOK, "apps", "rotate-secret", "shop", "--finish")
	contains(t, errs, "running nodes: the one of this machine was told")
	eventually("the old secret has ended", func() bool { return publish(a.Secret) != nil })
	if err := publish(b.Secret); err != nil {
		t.Errorf("after the rotation: %v", err)
	}
	// One that ends by itself; 2 s are enough for nothing but the end.
	c := s.record("apps", "rotate-secret", "shop", "--keep", "2s", "--json")
	sameApp(t, s.record("apps", "show", "shop", "--json", "--show-secrets"), c)
	eventually("the secret has ended by itself", func() bool { return publish(b.Secret) != nil })
	eventually("and the new one works", func() bool { return publish(c.Secret) == nil })
	if d := s.record("apps", "rotate-secret", "shop", "--keep", "0", "--json"); d.PreviousSecret != "" {
		t.Error("--keep 0 keeps a secret")
	}
	given, _ := s.feed(exitOK, "my own secret\n", "apps", "rotate-secret", "shop", "--force", "--secret-file", "-")
	contains(t, given, "my own secret", "--show-secrets", "--finish")

	out, _ = s.run(exitOK, "apps", "update", "shop", "--max-event-batch-size", "default", "--enable-client-messages=false", "--allowed-origin", "", "--json")
	if strings.Contains(out, "my own secret") {
		t.Errorf("update shows the secret: %s", out)
	}
	want := *a
	want.MaxEventBatchSize, want.EnableClientMessages, want.AllowedOrigins = nil, false, nil
	want.Secret, want.PreviousSecret = "my own secret", s.record("apps", "show", "shop", "--json", "--show-secrets").PreviousSecret
	sameApp(t, s.record("apps", "show", "shop", "--json", "--show-secrets"), &want)

	importInto(t, s)
	_, errs = s.run(exitUsage, "apps", "delete", "shop")
	contains(t, errs, "--yes")
	s.run(exitOK, "apps", "delete", "shop", "--yes")
	s.run(exitNotFound, "apps", "delete", "shop", "--yes")
	eventually("the app is unknown to the server", func() bool { return publish("my own secret") != nil })
	if code := r.stop(syscall.SIGTERM); code != exitOK {
		t.Errorf("the server ended with %d", code)
	}
	for _, line := range r.seen {
		for _, secret := range []app.Secret{a.Secret, b.Secret, c.Secret, "my own secret"} {
			if strings.Contains(line, secret.Reveal()) {
				t.Errorf("the log has a secret: %s", line)
			}
		}
	}
}

// changedAtOnce lets several people change one app at the same moment.
func changedAtOnce(t *testing.T, s *shell) {
	s.run(exitOK, "apps", "create", "busy", "--key", "busy-key")
	all := func(args ...[]string) (outs []string, codes []int) {
		outs, codes = make([]string, len(args)), make([]int, len(args))
		var wg sync.WaitGroup
		for i := range args {
			cmd := s.command(args[i]...)
			wg.Go(func() {
				out, err := cmd.Output()
				if _, ended := errors.AsType[*exec.ExitError](err); err != nil && !ended {
					t.Error(err)
				}
				outs[i], codes[i] = string(out), cmd.ProcessState.ExitCode()
			})
		}
		wg.Wait()
		return outs, codes
	}
	rotate := []string{"apps", "rotate-secret", "busy", "--json"}
	outs, codes := all(rotate, rotate, rotate, rotate)
	rotated := 0
	for i, code := range codes {
		switch code {
		case exitOK:
			rotated++
			var told struct{ Secret string }
			if err := json.Unmarshal([]byte(outs[i]), &told); err != nil {
				t.Fatal(err)
			}
			if now := s.record("apps", "show", "busy", "--json", "--show-secrets"); now.Secret.Reveal() != told.Secret {
				t.Error("a secret was printed that is not the one of the app")
			}
		case exitFatal, exitChanged: // a rotation goes on, or was ahead
		default:
			t.Errorf("a rotation ended with %d", code)
		}
	}
	if rotated != 1 {
		t.Errorf("%d of 4 rotations at once happened, want 1", rotated)
	}
	update := func(flag string) []string { return []string{"apps", "update", "busy", flag} }
	_, codes = all(update("--max-connections=7"), update("--max-event-batch-size=3"), update("--enable-client-messages"))
	if a := s.record("apps", "show", "busy", "--json"); a.MaxConnections != 7 || *a.MaxEventBatchSize != 3 || !a.EnableClientMessages {
		t.Errorf("of three updates at once, which ended with %v, one is lost: %+v", codes, a)
	}
	s.run(exitOK, "apps", "delete", "busy", "--yes")
}

// importInto moves apps in and out of a database that has one app.
func importInto(t *testing.T, s *shell) {
	full := apptest.Full("full")
	text, err := settingsOf([]*app.App{full, apptest.Plain("plain")}, false, false)
	if err != nil {
		t.Fatal(err)
	}
	write(t, s.dir, "two.json", string(text))
	out, _ := s.run(exitOK, "apps", "import", "two.json", "--dry-run")
	contains(t, out, "2 create", "nothing is written")
	s.run(exitNotFound, "apps", "show", "full")
	out, _ = s.run(exitOK, "apps", "import", "two.json")
	contains(t, out, "2 create")
	sameApp(t, s.record("apps", "show", "full", "--json", "--show-secrets"), full)
	out, _ = s.run(exitOK, "apps", "import", "two.json")
	contains(t, out, "2 unchanged")
	write(t, s.dir, "changed.json", strings.Replace(string(text), "plain-secret", "other-secret", 1))
	_, errs := s.run(exitExists, "apps", "import", "changed.json")
	contains(t, errs, `app "plain"`, "(secret)", "--overwrite")
	out, _ = s.run(exitOK, "apps", "import", "changed.json", "--overwrite")
	contains(t, out, "1 unchanged", "1 update")
	write(t, s.dir, "stolen.json", `[{"id":"thief","key":"full-key","secret":"s"},{"id":"fine","key":"fine-key","secret":"s"}]`)
	s.run(exitExists, "apps", "import", "stolen.json", "--overwrite")
	s.run(exitNotFound, "apps", "show", "fine") // all or nothing

	s.run(exitOK, "apps", "export", "-o", "all.toml")
	apps, _, err := config.ReadApps("all.toml", readFile(t, filepath.Join(s.dir, "all.toml")))
	if err != nil || len(apps) != 3 {
		t.Fatalf("%d apps are exported, %v; want 3", len(apps), err)
	}
	out, _ = s.run(exitOK, "apps", "import", "all.toml")
	contains(t, out, "3 unchanged")
	list, _ := s.run(exitOK, "apps", "list")
	contains(t, list, "full", "plain", "shop")

	// Apps of the settings come back at every start of a server.
	write(t, s.dir, "config/config.json", `{"app_manager":{"array":{"apps":[{"id":"plain","key":"plain-key","secret":"x"}]}}}`)
	for _, args := range [][]string{{"update", "plain", "--enabled=false"}, {"rotate-secret", "plain"}} {
		_, errs := s.run(exitFatal, append([]string{"apps"}, args...)...)
		contains(t, errs, "config.json:1", "--force")
		s.run(exitOK, append([]string{"apps"}, append(args, "--force")...)...)
	}
	_, errs = s.run(exitOK, "apps", "delete", "plain", "--yes")
	contains(t, errs, "comes back")
	if err := os.Remove(filepath.Join(s.dir, "config/config.json")); err != nil {
		t.Fatal(err)
	}
}

func readFile(t *testing.T, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// databases are those of test/services, each with a new table, and one with
// the cache in Redis.
func databases(t *testing.T) []database {
	t.Helper()
	table := fmt.Sprintf("cli_%d_%d", os.Getpid(), time.Now().UnixNano()%1e9)
	var all []database
	for _, sql := range []struct{ name, driver, variable, prefix string }{
		{"MariaDB", "mysql", mariaDSN(t), "DATABASE_MYSQL_"}, {"PostgreSQL", "pgsql", servicetest.Env(t, servicetest.Postgres), "DATABASE_POSTGRES_"},
	} {
		u, err := url.Parse(sql.variable)
		if err != nil {
			t.Fatal(err)
		}
		password, _ := u.User.Password()
		all = append(all, database{sql.name, []string{
			"APP_MANAGER_DRIVER=" + sql.driver, sql.prefix + "HOST=" + u.Hostname(), sql.prefix + "PORT=" + u.Port(),
			sql.prefix + "USERNAME=" + u.User.Username(), sql.prefix + "PASSWORD=" + password,
			sql.prefix + "DATABASE=" + strings.Trim(u.Path, "/"), sql.prefix + "TABLE_NAME=" + table,
		}})
	}
	cached := database{"MariaDB with the cache in Redis", append([]string{}, all[0].env...)}
	cached.env[len(cached.env)-1] += "_cached"
	cached.env = append(cached.env, "CACHE_DRIVER=redis", "CACHE_REDIS_PREFIX="+table, "CACHE_REDIS_URL="+servicetest.Env(t, servicetest.Redis))
	return append(all, cached, database{"DynamoDB", []string{
		"APP_MANAGER_DRIVER=dynamodb", "DATABASE_DYNAMODB_ENDPOINT_URL=" + servicetest.Env(t, servicetest.DynamoDB), "DATABASE_DYNAMODB_TABLE_NAME=" + table,
		"AWS_ACCESS_KEY_ID=key", "AWS_SECRET_ACCESS_KEY=secret",
	}})
}

// mariaDSN turns user:password@tcp(host:port)/database into a URL.
func mariaDSN(t *testing.T) string {
	t.Helper()
	dsn := servicetest.Env(t, servicetest.MariaDB)
	credentials, rest, _ := strings.Cut(dsn, "@tcp(")
	user, password, _ := strings.Cut(credentials, ":")
	addr, db, _ := strings.Cut(rest, ")/")
	return (&url.URL{Scheme: "mysql", User: url.UserPassword(user, password), Host: addr, Path: "/" + db}).String()
}
