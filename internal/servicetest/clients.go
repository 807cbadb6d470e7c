package servicetest

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

const clientsLimit = 10 * time.Minute // for npm and for all tests of one file

// Clients runs the tests of test/clients, which are of official clients.
type Clients struct{ node, dir string }

// NewClients installs the packages that these tests need.
func NewClients(t testing.TB) *Clients {
	t.Helper()
	c := &Clients{node: Tool(t, "node"), dir: filepath.Join(Root(t), "test", "clients")}
	c.install(t, Tool(t, "npm"))
	return c
}

// install installs the packages of the lock file if that has changed since the
// last time. Tests of several packages may come here at once.
func (c *Clients) install(t testing.TB, npm string) {
	t.Helper()
	file := filepath.Join(c.dir, "package-lock.json")
	one, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = one.Close() }()
	if err := syscall.Flock(int(one.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	lock, err := one.Stat()
	if err != nil {
		t.Fatal(err)
	}
	installed, err := os.Stat(filepath.Join(c.dir, "node_modules", ".package-lock.json"))
	if err == nil && installed.ModTime().After(lock.ModTime()) {
		return
	}
	ctx, cancel := context.WithTimeout(t.Context(), clientsLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund")
	cmd.Dir = c.dir
	if out, err := cmd.CombinedOutput(); err != nil {
		if os.Getenv(Folder) != "" {
			t.Fatalf("npm ci: %v\n%s", err, out)
		}
		t.Skipf("SKIPPED: npm ci: %v\n%s", err, out)
	}
}

// A ClientResult is a line of test/clients/lib/reporter.js.
type ClientResult struct {
	Name         []string
	Suite        bool
	Passed       bool
	Skipped      bool
	Milliseconds float64
	Error        string
	Output       string
}

// Report fails a test if that of the client did not pass.
func (r ClientResult) Report(t *testing.T) {
	switch {
	case !r.Passed:
		t.Errorf("after %.0f ms: %s", r.Milliseconds, r.Error)
	case r.Skipped:
		t.Error("a test of the clients may not be skipped")
	}
}

// Run runs one file of tests with further variables of the environment, and
// returns what became of each test.
func (c *Clients) Run(t testing.TB, file string, env ...string) []ClientResult {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), clientsLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, c.node, "--test", "--test-reporter=./lib/reporter.js", file)
	cmd.Dir, cmd.Env = c.dir, append(os.Environ(), env...)
	cmd.WaitDelay = 5 * time.Second
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if _, failed := errors.AsType[*exec.ExitError](err); err != nil && !failed {
		t.Fatalf("node %s: %v", file, err)
	}
	var results []ClientResult
	bad := false
	lines := bufio.NewScanner(strings.NewReader(string(out)))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var r ClientResult
		if jsonErr := json.Unmarshal(lines.Bytes(), &r); jsonErr != nil {
			t.Fatalf("node %s printed %q: %v", file, lines.Text(), jsonErr)
		}
		switch {
		case r.Output != "":
			t.Logf("%s: %s", file, strings.TrimRight(r.Output, "\n"))
		case !r.Passed || !r.Suite:
			bad = bad || !r.Passed
			results = append(results, r)
		}
	}
	if len(results) == 0 || (err != nil && !bad) {
		t.Fatalf("node %s: %v after %d tests\n%s", file, err, len(results), stderr.String())
	}
	if bad && stderr.Len() > 0 {
		t.Logf("%s: %s", file, stderr.String())
	}
	return results
}
