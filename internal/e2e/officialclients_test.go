package e2e

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"sockudo/internal/servicetest"
)

const (
	clientsDir   = "../../test/clients"
	clientsLimit = 10 * time.Minute // for npm and for all tests of one file
)

// officialItems are the items of the checklist that tests of official clients
// stand for, by the mark in their names.
var officialItems = []int{324, 325, 326, 327, 328, 329, 330, 331}

// TestOfficialClientsWork runs test/clients against the server as it is shipped.
func TestOfficialClientsWork(t *testing.T) {
	node := tool(t, "node")
	npm := tool(t, "npm")
	chromium := chromium(t)
	installPackages(t, npm)

	binary := buildServer(t)
	main := startProcess(t, binary, appB, nil)
	full := startProcess(t, binary, appB, map[string]any{"max_connections": 1})
	env := append(os.Environ(),
		"SOCKUDO_HOST=127.0.0.1",
		"SOCKUDO_PORT="+strconv.Itoa(main.port),
		"SOCKUDO_FULL_PORT="+strconv.Itoa(full.port),
		"SOCKUDO_APP_ID="+appB.ID,
		"SOCKUDO_APP_KEY="+appB.Key,
		"SOCKUDO_APP_SECRET="+appB.Secret,
		"SOCKUDO_CONTROL="+control(t, main),
		"SOCKUDO_TEST_CHROMIUM="+chromium,
		"SOCKUDO_BINARY="+binary,
	)
	results := map[string]bool{}
	for _, file := range []string{"node.test.js", "browser.test.js", "readme.test.js"} {
		for _, res := range runNode(t, node, file, env) {
			name := strings.Join(res.Name, "/")
			ok := t.Run(name, res.report)
			for _, n := range officialItems {
				if strings.Contains(name, fmt.Sprintf("P%d:", n)) {
					mark := strconv.Itoa(n)
					before, seen := results[mark]
					results[mark] = ok && (before || !seen)
				}
			}
		}
	}
	for _, n := range officialItems {
		ok, seen := results[strconv.Itoa(n)]
		if !seen {
			t.Errorf("no test has the mark P%d", n)
		}
		if ok {
			items(t, n)
		}
	}
}

// clientResult is a line of test/clients/lib/reporter.js.
type clientResult struct {
	Name         []string
	Suite        bool
	Passed       bool
	Skipped      bool
	Milliseconds float64
	Error        string
	Output       string
}

func (r clientResult) report(t *testing.T) {
	switch {
	case !r.Passed:
		t.Errorf("after %.0f ms: %s", r.Milliseconds, r.Error)
	case r.Skipped:
		t.Error("a test of the clients may not be skipped")
	}
}

// runNode runs one file of tests and returns what became of each.
func runNode(t *testing.T, node, file string, env []string) []clientResult {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), clientsLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, node, "--test", "--test-reporter=./lib/reporter.js", file)
	cmd.Dir, cmd.Env = clientsDir, env
	cmd.WaitDelay = 5 * time.Second
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if _, failed := errors.AsType[*exec.ExitError](err); err != nil && !failed {
		t.Fatalf("node %s: %v", file, err)
	}
	var results []clientResult
	bad := false
	lines := bufio.NewScanner(strings.NewReader(string(out)))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var r clientResult
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

// absent fails under make test, where nothing may be missing, and skips otherwise.
func absent(t *testing.T, format string, args ...any) {
	t.Helper()
	what := fmt.Sprintf(format, args...)
	if os.Getenv(servicetest.Folder) != "" {
		t.Fatal(what)
	}
	t.Skip("SKIPPED: " + what + "; make test installs it")
}

func tool(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		absent(t, "%s is not there: %v", name, err)
	}
	return path
}

func chromium(t *testing.T) string {
	t.Helper()
	names := []string{"chromium", "chromium-browser", "google-chrome"}
	if named := os.Getenv("SOCKUDO_TEST_CHROMIUM"); named != "" {
		names = []string{named}
	}
	for _, name := range names {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	absent(t, "no Chromium under the names %v", names)
	return ""
}

// installPackages installs the packages of the lock file if that has changed
// since the last time.
func installPackages(t *testing.T, npm string) {
	t.Helper()
	lock, err := os.Stat(filepath.Join(clientsDir, "package-lock.json"))
	if err != nil {
		t.Fatal(err)
	}
	installed, err := os.Stat(filepath.Join(clientsDir, "node_modules", ".package-lock.json"))
	if err == nil && installed.ModTime().After(lock.ModTime()) {
		return
	}
	ctx, cancel := context.WithTimeout(t.Context(), clientsLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund")
	cmd.Dir = clientsDir
	if out, err := cmd.CombinedOutput(); err != nil {
		absent(t, "npm ci: %v\n%s", err, out)
	}
}

// control lets scenarios restart the server: POST /restart?how=term|kill. It
// answers when the server is back.
func control(t *testing.T, p *process) string {
	t.Helper()
	signals := map[string]syscall.Signal{"term": syscall.SIGTERM, "kill": syscall.SIGKILL}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /restart", func(w http.ResponseWriter, r *http.Request) {
		sig, known := signals[r.URL.Query().Get("how")]
		if !known {
			http.Error(w, "how is term or kill", http.StatusBadRequest)
			return
		}
		err := p.stop(sig)
		if err == nil {
			err = p.start(r.Context())
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
		}
	})
	srv := httptest.NewServer(mux)
	t.Cleanup(srv.Close)
	return srv.URL
}
