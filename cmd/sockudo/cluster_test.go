package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"sockudo/internal/admin"
)

// withAdmin gives the commands of a shell an admin listener of their own.
func withAdmin(t *testing.T, env ...string) *shell {
	t.Helper()
	dir, err := os.MkdirTemp("", "adm") // the path of a Unix socket is short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return newShell(t, append(env, "ADMIN_ENABLED=true", "ADMIN_UNIX_SOCKET="+filepath.Join(dir, "s"))...)
}

func TestClusterCommandsOfANodeThatIsAlone(t *testing.T) {
	s := withAdmin(t)
	for _, command := range []string{"status", "audit"} {
		_, errs := s.run(exitUnavailable, "cluster", command)
		contains(t, errs, "admin listener at /", "does the node run", "--url")
	}
	r := startServer(t, s.server("--host", "127.0.0.1", "--port", "0"))
	r.until("listening")
	out, _ := s.run(exitOK, "cluster", "status")
	contains(t, out, "runs alone", "0 connections")
	out, _ = s.run(exitOK, "cluster", "audit")
	contains(t, out, "runs alone", "nothing to compare")
	out, _ = s.run(exitOK, "cluster", "status", "--json")
	var status admin.Status
	if err := json.Unmarshal([]byte(out), &status); err != nil || status.Driver != "local" || status.Nodes == nil || status.Silent == nil {
		t.Errorf("%v: %s", err, out)
	}
	if code := r.stop(syscall.SIGTERM); code != exitOK {
		t.Errorf("the server ended with %d", code)
	}
}

func TestTheAdminListenerFollowsTheMainPort(t *testing.T) {
	s := newShell(t, "ADMIN_ENABLED=true", "ADMIN_TOKEN=0123456789abcdef")
	port := freePort(t)
	r := startServer(t, s.server("--host", "127.0.0.1", "--port", port))
	r.until("listening")
	out, _ := s.run(exitOK, "cluster", "status", "--port", port)
	contains(t, out, "runs alone")

	// The token is what the settings say, or a file.
	_, errs := s.feed(exitUnavailable, "another", "cluster", "status", "--port", port, "--token-file", "-")
	contains(t, errs, "refused", "401", "admin.token")
	write(t, s.dir, "token", "0123456789abcdef\n")
	s.run(exitOK, "cluster", "status", "--port", port, "--token-file", "token")

	// A second one on the same port runs without, and says so.
	second := startServer(t, newShell(t, "ADMIN_ENABLED=true", "ADMIN_PORT="+adminPort(t, port)).server("--host", "127.0.0.1", "--port", "0"))
	second.until("admin listener is not served")
	second.until("listening")
	for _, r := range []*running{r, second} {
		if code := r.stop(syscall.SIGTERM); code != exitOK {
			t.Errorf("the server ended with %d", code)
		}
		for _, line := range r.seen {
			if strings.Contains(line, "0123456789abcdef") {
				t.Errorf("the log has the token: %s", line)
			}
		}
	}
}

// adminPort is where the settings put the listener of a main port.
func adminPort(t *testing.T, port string) string {
	t.Helper()
	var opts serveOptions
	if err := opts.port.Set(port); err != nil {
		t.Fatal(err)
	}
	cfg, _, err := opts.load(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	_, address := cfg.AdminAddr()
	return address[strings.LastIndex(address, ":")+1:]
}

func TestClusterCommandsThatCannotWork(t *testing.T) {
	s := newShell(t)
	_, errs := s.run(exitUnavailable, "cluster", "status")
	contains(t, errs, "admin.enabled is false")
	s.env = append(s.env, "ADMIN_ENABLED=true")
	_, errs = s.run(exitUnavailable, "cluster", "audit", "--port", "0")
	contains(t, errs, "any free port", "--url")
	_, errs = s.run(exitUsage, "cluster", "audit", "--url", "ftp://x")
	contains(t, errs, "--url must be like")
	_, errs = s.run(exitUsage, "cluster", "audits")
	contains(t, errs, "did you mean audit")
	for _, host := range []string{"0.0.0.0", "10.1.2.3", "::"} {
		s.env = append(s.env, "ADMIN_HOST="+host)
		_, errs = s.run(exitFatal, "--port", "0")
		contains(t, errs, "admin.host", "set admin.token")
		if strings.Contains(errs, "listening") {
			t.Errorf("it serves: %s", errs)
		}
	}
}
