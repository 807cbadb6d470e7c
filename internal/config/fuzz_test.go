package config

import (
	"encoding/json"
	"errors"
	"os"
	"strings"
	"testing"
	"unicode/utf8"
)

// load reads text as a file, without touching the disk.
func load(name string, text []byte, env map[string]string) (*Config, *Report, error) {
	l := &loader{
		opts:   LoadOptions{Env: func(name string) (string, bool) { v, ok := env[name]; return v, ok }},
		cfg:    Default(),
		report: &Report{sources: map[string]Source{}},
		faults: &faults{},
	}
	if err := l.text(name, text); err != nil {
		return nil, l.report, err
	}
	l.normalise()
	l.validate()
	return l.cfg, l.report, l.faults.err()
}

func seeds(f *testing.F, example string, more ...string) {
	f.Helper()
	text, err := os.ReadFile("../../docs/examples/" + example)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	for _, s := range more {
		f.Add([]byte(s))
	}
}

// checkLoaded holds for any file: what loads is valid, what does not says where.
func checkLoaded(t *testing.T, c *Config, err error, lines int) {
	t.Helper()
	if err == nil {
		if err := c.Validate(); err != nil {
			t.Fatalf("what was loaded is not valid: %v", err)
		}
		if err := c.Show(new(strings.Builder), &Report{}, true); err != nil {
			t.Fatalf("what was loaded cannot be shown: %v", err)
		}
		return
	}
	e, ok := errors.AsType[*Error](err)
	if !ok || len(e.Problems) == 0 || len(e.Problems) > maxNotices {
		t.Fatalf("error %T: %v", err, err)
	}
	for _, p := range e.Problems {
		if p.Source.Line > lines || p.Source.Kind == FromFile && p.Source.Line < 1 {
			t.Fatalf("problem in line %d of %d: %s", p.Source.Line, lines, p)
		}
	}
}

func FuzzJSONFile(f *testing.F) {
	seeds(f, "config.json", `{"port": "1", "port": 2}`, `{"a": {"b": [1, null, {"c": 1e5}]}}`, "\xef\xbb\xbf{}", `{"port": 1,}`, `[`, `{"`,
		`{"app_manager":{"array":{"apps":[{"id":"a","key":"k","secret":"s","policy":{"channels":{"allowed_origins":["*."]}}}]}}}`,
		`{"database":{"redis":{"sentinels":["s",{}],"cluster_nodes":[{"host":"::1"}]}}}`, `{"host": "${X:-y}"}`)
	f.Fuzz(func(t *testing.T, data []byte) {
		c, _, err := load("f.json", data, map[string]string{"X": "\"\n"})
		checkLoaded(t, c, err, strings.Count(string(data), "\n")+1)
	})
}

func FuzzJSONSyntax(f *testing.F) {
	seeds(f, "config.json", `{"a":1}{`, `{"a":[1,]}`, `{,}`, `{"a"}`, `{"a" 1}`, `[1 2]`, "nul", `{"a":1 "b":2}`, `"\ud800"`, ":1", ",1")
	f.Fuzz(func(t *testing.T, data []byte) {
		_, err := parseJSON(data)
		if err == nil && !json.Valid(data) {
			t.Fatalf("accepted what is no JSON: %q", data)
		}
		if e, ok := errors.AsType[*syntaxError](err); err != nil && json.Valid(data) &&
			(!ok || !strings.Contains(e.reason, "given twice") && !strings.Contains(e.reason, "nested deeper")) {
			t.Fatalf("refused JSON %q: %v", data, err)
		}
	})
}

func FuzzTOMLFile(f *testing.F) {
	seeds(f, "config.toml", "port = 1\nport = 2", "a.b.c = [1, {d = 1}]\n[a]\nb = 1", "[[a]]\n[a.b]\n[[a]]", "x = '''\n'''", "port = 0x_1",
		"ssl = {enabled = true, # c\n}", "d = 1979-05-27T07:32:00Z", "[app_manager.array]\napps = [{id = 'a'}]", "port = '${X}'", "'' = 1\n\"\".a = 1")
	f.Fuzz(func(t *testing.T, data []byte) {
		c, _, err := load("f.toml", data, map[string]string{"X": "1"})
		checkLoaded(t, c, err, strings.Count(string(data), "\n")+1)
	})
}

func FuzzSubstitutedTextStaysOneValue(f *testing.F) {
	for _, s := range []string{"x", `"`, `\`, "\n", `", "port": 1, "x": "`, "${V}", "\u2028\x00", "'", `"""`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, v string) {
		if !utf8.ValidString(v) || strings.TrimSpace(v) == "" {
			return
		}
		env := map[string]string{"V": v}
		for name, text := range map[string]string{
			"f.json": `{"instance": {"process_id": "${V}"}}`,
			"f.toml": "[instance]\nprocess_id = \"${V}\"",
			"g.toml": "[instance]\nprocess_id = \"\"\"${V}\"\"\"",
		} {
			c, r, err := load(name, []byte(text), env)
			if err != nil || len(r.Warnings) > 0 || c.Instance.ProcessID != v {
				t.Fatalf("%s: %q became %+v, %v", name, v, c, err)
			}
		}
	})
}

func FuzzRedisURL(f *testing.F) {
	for _, s := range []string{"redis://u:p@h:1/2", "rediss://[::1]#insecure", "unix:///s?db=1", "h:7000", "redis://:@", "::", "[", "redis://h:p@ss@h"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		u, err := NodeURL(s, 7000)
		if err != nil {
			if len(s) > 12 && strings.Contains(err.Error(), s) {
				t.Fatalf("the error repeats the URL: %v", err)
			}
			return
		}
		e, err := parseRedisURL(u)
		if err != nil || len(e.Addrs) != 1 || e.Addrs[0] == "" {
			t.Fatalf("NodeURL(%q) = %q, which is not usable: %v", s, string(u), err)
		}
	})
}
