package logging

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func levels(t *testing.T, directives string) Levels {
	t.Helper()
	l, warnings := ParseLevels(directives)
	if len(warnings) > 0 {
		t.Fatalf("ParseLevels(%q): %v", directives, warnings)
	}
	return l
}

func TestDirectivesSetLevelsOfTargets(t *testing.T) {
	for _, c := range []struct {
		directives, target string
		want               slog.Level
	}{
		{"", "sockudo", slog.LevelInfo},
		{"warn", "sockudo::hub", slog.LevelWarn},
		{"WARN", "sockudo", slog.LevelWarn},
		{"off", "sockudo", LevelOff},
		{"trace", "sockudo", LevelTrace},
		{"info,sockudo=debug,tower_http=debug", "sockudo::hub", slog.LevelDebug},
		{"sockudo::hub=debug", "sockudo::hub", slog.LevelDebug},
		{"sockudo::hub=debug", "sockudo", slog.LevelInfo},
		{"sockudo::hub=debug", "sockudo::hubcap", slog.LevelInfo},
		{"sockudo::hub=error,sockudo=trace", "sockudo::hub::x", slog.LevelError},
		{"error,sockudo::ws", "sockudo::ws", LevelTrace},
		{"sockudo=warn,sockudo=debug", "sockudo", slog.LevelDebug},
		{" hyper = debug , info ", "sockudo", slog.LevelInfo},
		{"hyper=trace", "sockudo", slog.LevelInfo},
	} {
		if got := levels(t, c.directives).Of(c.target); got != c.want {
			t.Errorf("%q: level of %s = %v, want %v", c.directives, c.target, got, c.want)
		}
	}
}

func TestBadDirectiveIsAWarningAndTheOthersCount(t *testing.T) {
	for _, bad := range []string{"loud", "sockudo=loud", "=debug", "sockudo[span]=info", "a b=info", "sockudo=", strings.Repeat("x", 5000)} {
		l, warnings := ParseLevels(bad + ",warn")
		if len(warnings) != 1 || l.Of("sockudo") != slog.LevelWarn {
			t.Errorf("%.20q: warnings %q, level %v", bad, warnings, l.Of("sockudo"))
		}
		if len(warnings) == 1 && len(warnings[0]) > 300 {
			t.Errorf("warning of %d bytes", len(warnings[0]))
		}
	}
}

func TestEnvironmentChoosesLevelsAndFormat(t *testing.T) {
	for _, c := range []struct {
		name  string
		env   map[string]string
		debug bool
		want  slog.Level // of sockudo
		json  bool
		warns int
	}{
		{name: "nothing set", want: slog.LevelInfo},
		{name: "debug", debug: true, want: slog.LevelDebug},
		{name: "RUST_LOG wins", env: map[string]string{"RUST_LOG": "error", "SOCKUDO_LOG_DEBUG": "trace", "LOG_LEVEL": "warn"}, debug: true, want: slog.LevelError},
		{name: "debug directives", env: map[string]string{"SOCKUDO_LOG_DEBUG": "trace", "SOCKUDO_LOG_PROD": "warn"}, debug: true, want: LevelTrace},
		{name: "production directives", env: map[string]string{"SOCKUDO_LOG_DEBUG": "trace", "SOCKUDO_LOG_PROD": "warn"}, want: slog.LevelWarn},
		{name: "LOG_LEVEL", env: map[string]string{"LOG_LEVEL": "warn"}, want: slog.LevelWarn},
		{name: "LOG_LEVEL does not silence debug", env: map[string]string{"LOG_LEVEL": "warn"}, debug: true, want: slog.LevelDebug},
		{name: "LOG_LEVEL is weak", env: map[string]string{"LOG_LEVEL": "warn", "SOCKUDO_LOG_DEBUG": "trace"}, want: slog.LevelInfo},
		{name: "bad LOG_LEVEL", env: map[string]string{"LOG_LEVEL": "loud"}, want: slog.LevelInfo, warns: 1},
		{name: "json", env: map[string]string{"LOG_OUTPUT_FORMAT": "JSON"}, want: slog.LevelInfo, json: true},
		{name: "other name for json", env: map[string]string{"LOG_FORMAT": "json"}, want: slog.LevelInfo, json: true},
		{name: "primary name first", env: map[string]string{"LOG_OUTPUT_FORMAT": "human", "LOG_FORMAT": "json"}, want: slog.LevelInfo},
		{name: "bad format", env: map[string]string{"LOG_OUTPUT_FORMAT": "xml"}, want: slog.LevelInfo, warns: 1},
		{name: "bad directive", env: map[string]string{"RUST_LOG": "sockudo=loud"}, want: slog.LevelInfo, warns: 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			o, warnings := FromEnv(lookup(c.env), Settings{Debug: c.debug})
			if got := o.Levels.Of("sockudo"); got != c.want || o.JSON != c.json || len(warnings) != c.warns || o.Source != c.debug {
				t.Errorf("level %v json %v source %v warnings %q; want level %v json %v, %d warnings",
					got, o.JSON, o.Source, warnings, c.want, c.json, c.warns)
			}
		})
	}
}

func TestColoursNeedATerminalAndNoObjection(t *testing.T) {
	for _, c := range []struct {
		env      map[string]string
		settings Settings
		want     bool
	}{
		{nil, Settings{Colors: true, Terminal: true}, true},
		{nil, Settings{Colors: true}, false},
		{map[string]string{"LOG_COLORS_ENABLED": "true"}, Settings{Colors: true}, true},
		{map[string]string{"NO_COLOR": "1"}, Settings{Colors: true, Terminal: true}, false},
		{nil, Settings{Terminal: true}, false},
	} {
		if o, _ := FromEnv(lookup(c.env), c.settings); o.Color != c.want {
			t.Errorf("env %v, settings %+v: colour %v, want %v", c.env, c.settings, o.Color, c.want)
		}
	}
}

func lookup(env map[string]string) func(string) (string, bool) {
	return func(name string) (string, bool) { v, ok := env[name]; return v, ok }
}

func TestHumanLinesShowTargetAndAttributes(t *testing.T) {
	var b bytes.Buffer
	log := New(&b, Options{Target: true}).With("component", "hub", "node_id", 7)
	log.Info("socket joined", "channel", "a b", "took", 2*time.Second, "err", errors.New("x=1"))
	got := withoutTime(t, b.String())
	want := ` INFO sockudo::hub: socket joined node_id=7 channel="a b" took=2s err="x=1"` + "\n"
	if got != want {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

func TestHumanLinesCannotBeForged(t *testing.T) {
	var b bytes.Buffer
	New(&b, Options{}).Warn("bad\nname \x1b[31m", "channel", "x\n2026-01-01T00:00:00Z ERROR fake", "utf8", "\xff")
	if n := strings.Count(b.String(), "\n"); n != 1 || strings.ContainsRune(b.String(), 0x1b) || strings.IndexByte(b.String(), 0xff) >= 0 {
		t.Errorf("%d lines: %q", n, b.String())
	}
}

func TestJSONLinesHaveTheDocumentedShape(t *testing.T) {
	var b bytes.Buffer
	log := New(&b, Options{JSON: true, Source: true}).With("component", "hub")
	log.WithGroup("g").Error("it \"broke\"", "n", 3, "ok", true, "f", 1.5, "list", []string{"a", "b"},
		"nil", nil, "err", errors.New("x"), slog.Group("in", "k", "v"))
	var got map[string]any
	if err := json.Unmarshal(b.Bytes(), &got); err != nil {
		t.Fatalf("%v in %s", err, b.Bytes())
	}
	if _, err := time.Parse(time.RFC3339, got["timestamp"].(string)); err != nil {
		t.Error(err)
	}
	if line, _ := got["line_number"].(float64); line <= 0 || got["filename"] != "logging/logging_test.go" {
		t.Errorf("source %v:%v", got["filename"], got["line_number"])
	}
	delete(got, "timestamp")
	delete(got, "line_number")
	delete(got, "filename")
	want := map[string]any{
		"level":  "ERROR",
		"target": "sockudo::hub",
		"fields": map[string]any{
			"message": `it "broke"`, "g.n": 3.0, "g.ok": true, "g.f": 1.5, "g.list": []any{"a", "b"},
			"g.nil": nil, "g.err": "x", "g.in.k": "v",
		},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func TestLevelsOfTargetsFilterRecords(t *testing.T) {
	var b bytes.Buffer
	log := New(&b, Options{JSON: true, Levels: levels(t, "warn,sockudo::hub=trace")})
	log.Info("no")
	log.With("component", "ws").Info("no")
	log.With("component", "hub").Log(context.Background(), LevelTrace, "yes")
	log.With("component", "hub.inner").Debug("yes")
	log.Error("yes")
	if strings.Contains(b.String(), `"no"`) || strings.Count(b.String(), `"yes"`) != 3 {
		t.Error(b.String())
	}
}

type hidden string

func (hidden) String() string { return "***" }

type holder struct {
	Token hidden
	Plain string
}

func TestSecretsStayOut(t *testing.T) {
	for _, asJSON := range []bool{true, false} {
		var b bytes.Buffer
		log := New(&b, Options{JSON: asJSON}).With("url", "redis://:with@h")
		log.Info("dial redis://user:geheim@host/0 now", "err", errors.New("get https://k:geheim@h/x?token=geheim&a=b: no"),
			"any", holder{"geheim", "x"}, "hidden", hidden("geheim"), "list", []string{"nats://u:geheim@h"},
			"url", "unix:///p?pass=geheim")
		if s := b.String(); strings.Contains(s, "geheim") || strings.Contains(s, "with") || !strings.Contains(s, "***@host/0") {
			t.Errorf("json %v: %s", asJSON, s)
		}
	}
}

func TestURLsLoseTheirCredentials(t *testing.T) {
	for in, want := range map[string]string{
		"redis://user:pass@host:6379/0": "redis://***@host:6379/0",
		"redis://:p@ss/w rd@host":       "redis://***@host",
		"user:pass@host":                "***@host",
		"redis://host:6379/0":           "redis://host:6379/0",
		"127.0.0.1":                     "127.0.0.1",
		"unix:///s?db=1&pass=x&a=b":     "unix:///s?db=1&pass=***&a=b",
		"":                              "",
	} {
		if got := RedactURL(in); got != want {
			t.Errorf("RedactURL(%q) = %q, want %q", in, got, want)
		}
	}
	if got, want := RedactText(`dial "redis://a:b@c": x@y`), `dial "redis://***@c": x@y`; got != want {
		t.Errorf("RedactText: %q, want %q", got, want)
	}
}

func FuzzDirectives(f *testing.F) {
	for _, s := range []string{"info", "info,sockudo=debug", "sockudo::hub", "=,=", "off,sockudo=off", "a=b=c", "sockudo::=trace", "\xff"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		l, warnings := ParseLevels(s)
		if l.Of("sockudo") < LevelTrace {
			t.Fatal("a level below all")
		}
		if n := strings.Count(s, ",") + 1; len(warnings) > n {
			t.Fatalf("%d warnings for %d directives", len(warnings), n)
		}
	})
}

func FuzzRecords(f *testing.F) {
	f.Add("message", "key", "value redis://a:b@c")
	f.Add("\n", "\x00", "\xff\xfe\u2028")
	f.Fuzz(func(t *testing.T, message, key, value string) {
		var b bytes.Buffer
		New(&b, Options{JSON: true}).Info(message, "a."+key, value)
		if !json.Valid(b.Bytes()) || bytes.Count(b.Bytes(), []byte("\n")) != 1 {
			t.Fatalf("not one line of JSON: %q", b.Bytes())
		}
		b.Reset()
		New(&b, Options{}).Info(message, "x", value)
		if bytes.Count(b.Bytes(), []byte("\n")) != 1 {
			t.Fatalf("not one line: %q", b.Bytes())
		}
	})
}

func withoutTime(t *testing.T, line string) string {
	t.Helper()
	stamp, rest, ok := strings.Cut(line, " ")
	if _, err := time.Parse(time.RFC3339, stamp); !ok || err != nil {
		t.Fatalf("no time at the start of %q", line)
	}
	return rest
}
