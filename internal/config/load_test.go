package config

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// sources is what a test gives to Load. Its file is written to a directory of
// the test, under the name that its format asks for.
type sources struct {
	json, toml string
	env        map[string]string
	flags      []Flag
}

func (s sources) options(t *testing.T) LoadOptions {
	t.Helper()
	opts := LoadOptions{Dir: t.TempDir(), Flags: s.flags, Env: func(name string) (string, bool) {
		v, ok := s.env[name]
		return v, ok
	}}
	for name, text := range map[string]string{"config.json": s.json, "config.toml": s.toml} {
		if text != "" {
			opts.Path = filepath.Join(opts.Dir, name)
			write(t, opts.Path, text)
		}
	}
	return opts
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func mustLoad(t *testing.T, s sources) (*Config, *Report) {
	t.Helper()
	c, r, err := Load(s.options(t))
	if err != nil {
		t.Fatalf("Load: %v", err)
	}
	return c, r
}

// problems loads what must not load and returns the lines of the error, with
// the directory of the file cut off.
func problems(t *testing.T, s sources) []string {
	t.Helper()
	opts := s.options(t)
	_, r, err := Load(opts)
	if _, ok := errors.AsType[*Error](err); !ok {
		t.Fatalf("Load: error %v, want *Error", err)
	}
	if r == nil {
		t.Fatal("no report")
	}
	return strings.Split(strings.ReplaceAll(err.Error(), opts.Dir+string(filepath.Separator), ""), "\n")
}

func warnings(r *Report) string {
	var b strings.Builder
	for _, n := range r.Warnings {
		b.WriteString(n.String() + "\n")
	}
	return b.String()
}

func TestNothingButDefaultsLoads(t *testing.T) {
	c, r := mustLoad(t, sources{})
	if c.Port != 6001 || c.Queue.Driver != "memory" || len(c.Instance.ProcessID) != 36 {
		t.Errorf("port %d, queue %q, process %q", c.Port, c.Queue.Driver, c.Instance.ProcessID)
	}
	if len(r.Warnings)+len(r.Infos) > 0 || r.File != "" {
		t.Errorf("report %+v, want nothing to say", r)
	}
}
