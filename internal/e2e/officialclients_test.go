package e2e

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"sockudo/internal/servicetest"
)

// officialItems are the items of the checklist that tests of official clients
// stand for, by the mark in their names.
var officialItems = []int{324, 325, 326, 327, 328, 329, 330, 331}

// TestOfficialClientsWork runs test/clients against the server as it is shipped.
func TestOfficialClientsWork(t *testing.T) {
	chromium := chromium(t)
	clients := servicetest.NewClients(t)

	binary := buildServer(t)
	main := startProcess(t, binary, appB, nil)
	full := startProcess(t, binary, appB, map[string]any{"max_connections": 1})
	env := []string{
		"SOCKUDO_HOST=127.0.0.1",
		"SOCKUDO_PORT=" + strconv.Itoa(main.port),
		"SOCKUDO_FULL_PORT=" + strconv.Itoa(full.port),
		"SOCKUDO_APP_ID=" + appB.ID,
		"SOCKUDO_APP_KEY=" + appB.Key,
		"SOCKUDO_APP_SECRET=" + appB.Secret,
		"SOCKUDO_CONTROL=" + control(t, main),
		"SOCKUDO_TEST_CHROMIUM=" + chromium,
		"SOCKUDO_BINARY=" + binary,
	}
	results := map[string]bool{}
	for _, file := range []string{"node.test.js", "browser.test.js", "readme.test.js"} {
		for _, res := range clients.Run(t, file, env...) {
			name := strings.Join(res.Name, "/")
			ok := t.Run(name, res.Report)
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
	return servicetest.Tool(t, names[0])
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
