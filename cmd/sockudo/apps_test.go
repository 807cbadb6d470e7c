package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"sockudo/internal/app"
	"sockudo/internal/app/apptest"
)

// A shell runs commands in one folder and environment.
type shell struct {
	t   *testing.T
	dir string
	env []string
}

func newShell(t *testing.T, env ...string) *shell {
	t.Helper()
	return &shell{t, t.TempDir(), env}
}

func (s *shell) command(args ...string) *exec.Cmd {
	s.t.Helper()
	cmd := command(s.t, args...)
	cmd.Dir = s.dir
	cmd.Env = append(cmd.Env, s.env...)
	return cmd
}

// run wants an exit code and returns what was printed.
func (s *shell) run(code int, args ...string) (out, errs string) {
	s.t.Helper()
	return s.feed(code, "", args...)
}

// feed is run with standard input.
func (s *shell) feed(code int, in string, args ...string) (out, errs string) {
	s.t.Helper()
	cmd := s.command(args...)
	cmd.Stdin = strings.NewReader(in)
	out, errs, got := finish(s.t, cmd)
	if got != code {
		s.t.Fatalf("%v: exit code %d, want %d\n%s%s", args, got, code, out, errs)
	}
	return out, errs
}

// record is run for a command that prints an app as JSON.
func (s *shell) record(args ...string) *app.App {
	s.t.Helper()
	out, _ := s.run(exitOK, args...)
	return parseRecord(s.t, out)
}

func parseRecord(t *testing.T, text string) *app.App {
	t.Helper()
	a, problems, err := app.UnmarshalRecord([]byte(text))
	if err != nil || len(problems) > 0 {
		t.Fatalf("no app: %v, %v\n%s", err, problems, text)
	}
	return a
}

func sameApp(t *testing.T, got, want *app.App) {
	t.Helper()
	secrets := cmp.Comparer(func(a, b app.Secret) bool { return a == b })
	if d := cmp.Diff(want, got, secrets, cmpopts.EquateEmpty(), cmpopts.IgnoreFields(app.App{}, "Limits", "Origins")); d != "" {
		t.Errorf("app %s (-want +got):\n%s", want.ID, d)
	}
}

func contains(t *testing.T, text string, parts ...string) {
	t.Helper()
	for _, p := range parts {
		if !strings.Contains(text, p) {
			t.Errorf("%q is missing in\n%s", p, text)
		}
	}
}

const twoApps = `{"app_manager":{"array":{"apps":[
	{"id":"a","key":"a-key","secret":"geheim-a","max_connections":5,"webhooks":[
		{"url":"https://user:geheim-u@h.example/x?token=geheim-t","event_types":["member_added"],"headers":{"X-Token":"geheim-h"}}]},
	{"id":"b","key":"b-key","secret":"geheim-b","previous_secret":"geheim-p","enabled":false,"allowed_origins":["https://x"]}]}}}`

func TestAppsOfTheSettings(t *testing.T) {
	s := newShell(t)
	file := write(t, s.dir, "config/config.json", twoApps)
	var shown strings.Builder
	list, _ := s.run(exitOK, "apps", "list")
	contains(t, list, "ID", "a-key", "unlimited", "no")
	if n := strings.Count(list, "\n"); n != 3 {
		t.Errorf("%d lines:\n%s", n, list)
	}
	asJSON, _ := s.run(exitOK, "apps", "list", "--json")
	var records []json.RawMessage
	if err := json.Unmarshal([]byte(asJSON), &records); err != nil || len(records) != 2 {
		t.Errorf("%v: %s", err, asJSON)
	}
	one, _ := s.run(exitOK, "apps", "show", "a")
	contains(t, one, "max_connections", "5", "max_event_batch_size", "(10)", "***@h.example")
	byKey, _ := s.run(exitOK, "apps", "show", "--by-key", "b-key", "--json")
	for _, text := range []string{list, asJSON, one, byKey} {
		shown.WriteString(text)
	}

	// What would change them changes nothing and says what to do.
	_, errs := s.run(exitFatal, "apps", "delete", "a", "--yes")
	contains(t, errs, "app_manager.driver is memory", "config.json", "restart")
	shown.WriteString(errs)
	out, errs := s.run(exitFatal, "apps", "update", "a", "--max-connections", "7", "--enable-signin=false", "--max-event-batch-size", "3")
	contains(t, errs, "put the app above in app_manager.array.apps of config/config.json")
	a := parseRecord(t, out)
	if a.MaxConnections != 7 || *a.EnableSignin || *a.MaxEventBatchSize != 3 || a.Secret != "geheim-a" || len(a.Webhooks) != 1 {
		t.Errorf("the app that is printed: %s", out)
	}
	if n := strings.Count(shown.String(), "geheim"); n > 0 {
		t.Errorf("secrets are shown:\n%s", shown.String())
	}
	out, _ = s.run(exitFatal, "apps", "rotate-secret", "a", "--keep", "7d")
	a = parseRecord(t, out)
	if left := time.Until(a.PreviousUntil); a.PreviousSecret != "geheim-a" || a.Secret == "geheim-a" || left > 7*24*time.Hour || left < 6*24*time.Hour {
		t.Errorf("the rotation that is printed: %s", out)
	}
	out, _ = s.run(exitFatal, "apps", "create", "c")
	if a := parseRecord(t, out); a.ID != "c" || len(a.Key) != 20 || len(a.Secret) != 32 {
		t.Errorf("the app that is printed: %s", out)
	}
	s.run(exitExists, "apps", "create", "a")
	write(t, s.dir, "soketi.json", `[{"id":"s","key":"s-key","secret":"x"}]`)
	_, errs = s.run(exitFatal, "apps", "import", "soketi.json")
	contains(t, errs, "--print")
	s.run(exitOK, "apps", "import", "soketi.json", "--dry-run")
	if text, err := os.ReadFile(file); err != nil || string(text) != twoApps {
		t.Errorf("the settings were changed: %v\n%s", err, text)
	}

	// With secrets, only when asked for.
	secret, _ := s.run(exitOK, "apps", "show", "a", "--json", "--show-secrets")
	contains(t, secret, "geheim-a", "geheim-u", "geheim-h")
	secret, _ = s.run(exitOK, "apps", "list", "--show-secrets")
	contains(t, secret, "geheim-a", "geheim-b")
	// In TOML where the settings are.
	write(t, s.dir, "x.toml", "port = 6001\n")
	out, _ = s.run(exitFatal, "-c", "x.toml", "apps", "create", "c", "--allowed-origin", "https://a")
	contains(t, out, "[[app_manager.array.apps]]", `id = "c"`, `allowed_origins = ["https://a"]`)
}

func TestWrongUseOfApps(t *testing.T) {
	s := newShell(t)
	write(t, s.dir, "config/config.json", twoApps)
	write(t, s.dir, "text", "hello")
	for _, c := range []struct {
		code int
		want string
		args []string
	}{
		{exitUsage, "unknown command", []string{"nothing"}},
		{exitUsage, "arg", []string{"show"}},
		{exitUsage, "nothing to change", []string{"update", "a"}},
		{exitUsage, "--max-connections", []string{"update", "a", "--max-connections", "-1"}},
		{exitUsage, "4294967295", []string{"update", "a", "--max-connections", "4294967296"}},
		{exitUsage, "true, false or default", []string{"update", "a", "--enabled=perhaps"}},
		{exitUsage, "--allowed-origin", []string{"create", "--allowed-origin", "a*b*c"}},
		{exitUsage, "url is not absolute", []string{"create", "--webhooks", `[{"url":"x","event_types":[]}]`}},
		{exitUsage, "no JSON list", []string{"create", "--webhooks", "x"}},
		{exitFatal, "missing.json", []string{"create", "--webhooks", "@missing.json"}},
		{exitUsage, "--keep", []string{"rotate-secret", "a", "--keep", "soon"}},
		{exitUsage, "--keep", []string{"rotate-secret", "a", "--keep", "-1h"}},
		{exitUsage, "finish", []string{"rotate-secret", "a", "--keep", "1h", "--finish"}},
		{exitFatal, "a rotation goes on", []string{"rotate-secret", "b"}},
		{exitNotFound, `app "c"`, []string{"show", "c"}},
		{exitNotFound, `app "c"`, []string{"update", "c", "--enabled=false"}},
		{exitNotFound, `app "c"`, []string{"rotate-secret", "c"}},
		{exitNotFound, `app "c"`, []string{"delete", "c"}},
		{exitNotFound, `app "c"`, []string{"export", "a", "c"}},
		{exitUsage, "either FILE or --env", []string{"import"}},
		{exitUsage, "either FILE or --env", []string{"import", "text", "--env"}},
		{exitUsage, "--format", []string{"import", "text"}},
		{exitUsage, "sockudo, soketi or env", []string{"import", "text", "--format", "pusher"}},
		{exitFatal, "text: is no JSON", []string{"import", "text", "--format", "soketi"}},
		{exitFatal, "text: line 1", []string{"import", "text", "--format", "env"}},
		{exitFatal, "missing", []string{"import", "missing"}},
		{exitFatal, "REVERB_APP_ID", []string{"import", "--env"}},
		{exitFatal, "255 bytes", []string{"create", strings.Repeat("x", 256)}},
	} {
		out, errs := s.run(c.code, append([]string{"apps"}, c.args...)...)
		contains(t, errs, c.want)
		if strings.Contains(out+errs, "geheim") {
			t.Errorf("%v shows a secret:\n%s%s", c.args, out, errs)
		}
	}
}

func TestExportAndImportLoseNothing(t *testing.T) {
	s := newShell(t)
	full := apptest.Full("full")
	full.Secret = `${NOT_A_VARIABLE} "quoted" \ ü` + "\x7f"
	plain := apptest.Plain("plain")
	text, err := settingsOf([]*app.App{full, plain, {ID: "off", Key: "off-key", Secret: "s"}}, false, false)
	if err != nil {
		t.Fatal(err)
	}
	write(t, s.dir, "first.json", string(text))
	for i, c := range []struct{ from, to string }{{"first.json", "second.json"}, {"second.json", "third.toml"}, {"third.toml", "fourth.json"}} {
		s.run(exitOK, "-c", c.from, "apps", "export", "-o", c.to)
		if info, err := os.Stat(filepath.Join(s.dir, c.to)); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%v: a file with secrets is %v", err, info.Mode())
		}
		out, _ := s.run(exitOK, "-c", c.from, "apps", "import", c.to)
		contains(t, out, "3 apps: 3 unchanged")
		sameApp(t, s.record("-c", c.to, "apps", "show", "full", "--json", "--show-secrets"), full)
		if i == 0 {
			_, errs := s.run(exitFatal, "-c", c.from, "apps", "export", "-o", c.to)
			contains(t, errs, "--force")
			s.run(exitOK, "-c", c.from, "apps", "export", "-o", c.to, "--force")
		}
	}
	first, err := os.ReadFile(filepath.Join(s.dir, "second.json"))
	if err != nil {
		t.Fatal(err)
	}
	if last, err := os.ReadFile(filepath.Join(s.dir, "fourth.json")); err != nil || string(last) != string(first) {
		t.Errorf("%v: JSON to TOML to JSON differs:\n%s", err, cmp.Diff(string(first), string(last)))
	}
	out, _ := s.run(exitOK, "-c", "first.json", "apps", "export", "plain", "--toml")
	if strings.Contains(out, "full") {
		t.Errorf("more than was asked for:\n%s", out)
	}
	list, _ := s.run(exitOK, "-c", "first.json", "apps", "list", "--json", "--show-secrets")
	out, _ = s.feed(exitOK, list, "-c", "first.json", "apps", "import", "-")
	contains(t, out, "3 unchanged")

	// The form of Sockudo 2.9.
	var doc struct {
		AppManager struct {
			Array struct {
				Apps []map[string]any `json:"apps"`
			} `json:"array"`
		} `json:"app_manager"`
	}
	if err := json.Unmarshal(first, &doc); err != nil {
		t.Fatal(err)
	}
	for _, a := range doc.AppManager.Array.Apps {
		for _, must := range []string{"enabled", "enable_client_messages", "max_connections", "max_client_events_per_second"} {
			if a[must] == nil {
				t.Errorf("app %s lacks %s", a["id"], must)
			}
		}
		for name, v := range a {
			_, isNumber := v.(float64)
			_, isText := v.(string)
			if asString[name] && isNumber || (name == "max_channel_name_length" || name == "max_event_name_length") && isText {
				t.Errorf("%s is %v, which Sockudo does not read", name, v)
			}
		}
	}
}

func TestImportPrintsSettings(t *testing.T) {
	s := newShell(t)
	write(t, s.dir, ".env", "REVERB_APP_ID=1\nREVERB_APP_KEY=rk\nREVERB_APP_SECRET=geheim\nREVERB_APP_MAX_CONNECTIONS=5\nREVERB_HOST=h\n")
	out, errs := s.run(exitOK, "apps", "import", ".env", "--print")
	contains(t, errs, "REVERB_APP_MAX_CONNECTIONS -> max_connections", "NOT MAPPED REVERB_HOST")
	if strings.Contains(errs, "geheim") {
		t.Errorf("the report has the secret:\n%s", errs)
	}
	write(t, s.dir, "c.json", out)
	s.run(exitOK, "config", "check", "c.json")
	sameApp(t, s.record("-c", "c.json", "apps", "show", "1", "--json", "--show-secrets"),
		&app.App{ID: "1", Key: "rk", Secret: "geheim", Enabled: true, EnableClientMessages: true, MaxConnections: 5})
	s.env = []string{"SOKETI_DEFAULT_APP_ID=s", "SOKETI_DEFAULT_APP_KEY=sk", "SOKETI_DEFAULT_APP_SECRET=x", "REVERB_APP_ID=r", "REVERB_APP_KEY=rk", "REVERB_APP_SECRET=y"}
	out, _ = s.run(exitOK, "apps", "import", "--env", "--dry-run", "--json")
	var report struct {
		DryRun bool `json:"dry_run"`
		Apps   []struct {
			ID, Action string
			Mapped     []map[string]string
		}
	}
	if err := json.Unmarshal([]byte(out), &report); err != nil || !report.DryRun || len(report.Apps) != 2 || report.Apps[0].ID != "s" || report.Apps[1].Action != "create" {
		t.Errorf("%v: %s", err, out)
	}
	// Nothing is imported if one app is bad, and all that is wrong is told.
	write(t, s.dir, "bad.json", `[{"id":"a","key":"k","secret":"geheim"},{"id":"a","key":"l","secret":"s"},{"id":"b","key":"k","secret":"s"}]`)
	_, errs = s.run(exitFatal, "apps", "import", "bad.json", "--dry-run")
	contains(t, errs, "nothing was imported", `app "a": the id is there twice`, `app "b": its key is another app's too`)
}

func TestCompletionOfApps(t *testing.T) {
	s := newShell(t)
	write(t, s.dir, "config/config.json", twoApps)
	for _, c := range []struct{ args, want string }{
		{"apps show ", "a\nb\n"}, {"apps delete b", "b\n"}, {"apps export a ", "a\nb\n"}, {"apps rotate-secret a ", ""},
		{"apps import --format ", "soketi\n"}, {"apps update a --enabled=", "default\n"}, {"apps rot", "rotate-secret"},
	} {
		out, _ := s.run(exitOK, append([]string{"__complete"}, strings.Split(c.args, " ")...)...)
		if c.want == "" && !strings.HasPrefix(out, ":") || !strings.Contains(out, c.want) {
			t.Errorf("%q completes to %q, want %q", c.args, out, c.want)
		}
	}
}
