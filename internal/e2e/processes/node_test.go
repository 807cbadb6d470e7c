package processes

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/gobwas/ws"
	"go.uber.org/goleak"

	"sockudo/internal/pushertest"
	"sockudo/internal/servicetest"
)

const (
	// patience bounds every wait; nothing takes that long unless it is broken.
	patience = 60 * time.Second
	// heartbeat and nodeTimeout are as short as a busy machine allows.
	heartbeat   = time.Second
	nodeTimeout = 3 * time.Second
	// answerTimeout is how long a node waits for the broker.
	answerTimeout = 2 * time.Second
	grace         = 3 // seconds for a stop
)

// app has all features and no limits that a test would meet.
var app = pushertest.App{ID: "app-id", Key: "app-key", Secret: "app-secret"}

var (
	binary   string
	buildErr error
)

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "sockudo-processes")
	if err != nil {
		panic(err)
	}
	binary = filepath.Join(dir, "sockudo")
	if out, err := exec.Command("go", "build", "-o", binary, "sockudo/cmd/sockudo").CombinedOutput(); err != nil {
		buildErr = fmt.Errorf("go build: %w\n%s", err, out)
	}
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		_ = os.RemoveAll(dir)
		os.Exit(code)
	}))
}

// A node is one process, on a port that it keeps when it is started again. A
// proxy in front of nodes is one for its clients, too.
type node struct {
	addr string
	dir  string
	tls  *tls.Config // nil: without TLS

	mu    sync.Mutex // guards what follows
	cmd   *exec.Cmd  // nil: it does not run
	ended chan struct{}
	err   error
}

// newNode writes the settings of a node with an adapter, and with further ones.
func newNode(t *testing.T, adapter map[string]any, further ...map[string]any) *node {
	t.Helper()
	if buildErr != nil {
		t.Fatal(buildErr)
	}
	n := &node{addr: fmt.Sprintf("127.0.0.1:%d", servicetest.Port(t)), dir: t.TempDir()}
	if adapter["cluster_health"] == nil {
		adapter["cluster_health"] = map[string]any{
			"heartbeat_interval_ms": heartbeat.Milliseconds(),
			"node_timeout_ms":       nodeTimeout.Milliseconds(),
			"cleanup_interval_ms":   heartbeat.Milliseconds(),
		}
	}
	_, port, _ := net.SplitHostPort(n.addr)
	all := map[string]any{
		"host": "127.0.0.1", "port": json.Number(port), "shutdown_grace_period": grace,
		"metrics": map[string]any{"enabled": false},
		"admin":   map[string]any{"unix_socket": filepath.Join(shortDir(t), "admin")},
		"queue":   map[string]any{"driver": "memory"},
		"adapter": adapter,
		"app_manager": map[string]any{"array": map[string]any{"apps": []any{map[string]any{
			"id": app.ID, "key": app.Key, "secret": app.Secret, "enabled": true,
			"enable_client_messages": true, "max_client_events_per_second": 10000, "enable_watchlist_events": true,
		}}}},
	}
	for _, f := range further {
		maps.Copy(all, f)
	}
	settings, err := json.Marshal(all)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(n.config(), settings, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if n.running() {
			n.signal(t, syscall.SIGCONT)
			n.stop(t)
		}
		if t.Failed() {
			if log, err := os.ReadFile(n.log()); err == nil {
				t.Logf("log of the node at %s:\n%s", n.addr, log)
			}
		}
	})
	return n
}

// url is the base of addresses; the scheme is http or ws.
func (n *node) url(scheme string) string {
	if n.tls != nil {
		scheme += "s"
	}
	return scheme + "://" + n.addr
}

// dial opens a WebSocket connection. The reader has what came with the answer.
func (n *node) dial(ctx context.Context) (net.Conn, *bufio.Reader, error) {
	d := ws.Dialer{TLSConfig: n.tls}
	conn, r, _, err := d.Dial(ctx, n.url("ws")+"/app/"+app.Key+"?protocol=7&client=test&version=1.0")
	return conn, r, err
}

// shortDir is a folder for Unix sockets, whose paths must be short.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "node")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func (n *node) config() string { return filepath.Join(n.dir, "config.json") }
func (n *node) log() string    { return filepath.Join(n.dir, "log") }

// launch starts the process and does not wait.
func (n *node) launch(t *testing.T) {
	t.Helper()
	log, err := os.OpenFile(n.log(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = log.Close() }()
	cmd := exec.Command(binary, "-c", n.config())
	cmd.Dir = n.dir
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	n.mu.Lock()
	defer n.mu.Unlock()
	n.cmd, n.ended, n.err = cmd, ended, nil
	go func() {
		err := cmd.Wait()
		n.mu.Lock()
		defer n.mu.Unlock()
		n.cmd, n.err = nil, err
		close(ended)
	}()
}

// start starts the process and returns when it is ready.
func (n *node) start(t *testing.T) {
	t.Helper()
	n.launch(t)
	n.awaitReady(t)
}

func (n *node) running() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.cmd != nil
}

func (n *node) signal(t *testing.T, sig syscall.Signal) {
	t.Helper()
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.cmd == nil {
		t.Fatalf("the node at %s does not run: %v", n.addr, n.err)
	}
	if err := n.cmd.Process.Signal(sig); err != nil {
		t.Fatal(err)
	}
}

// kill ends the process as a crash of the machine would.
func (n *node) kill(t *testing.T) {
	t.Helper()
	n.signal(t, syscall.SIGKILL)
	n.await(t)
}

// stop ends the process in good order.
func (n *node) stop(t *testing.T) {
	t.Helper()
	n.signal(t, syscall.SIGTERM)
	if err := n.await(t); err != nil {
		t.Errorf("the node at %s: %v", n.addr, err)
	}
}

func (n *node) await(t *testing.T) error {
	t.Helper()
	n.mu.Lock()
	ended := n.ended
	n.mu.Unlock()
	select {
	case <-ended:
	case <-time.After(patience):
		n.signal(t, syscall.SIGKILL)
		t.Errorf("the node at %s did not obey the signal", n.addr)
		<-ended
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.err
}

// up asks GET /up.
func (n *node) up(ctx context.Context) (status int, err error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+n.addr+"/up", nil)
	if err != nil {
		return 0, err
	}
	req.Close = true
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err
	}
	return resp.StatusCode, resp.Body.Close()
}

func (n *node) awaitReady(t *testing.T) {
	t.Helper()
	eventually(t, "the node at "+n.addr+" is ready", func() error {
		if !n.running() {
			t.Fatalf("the node at %s ended: %v", n.addr, n.err)
		}
		return n.is(t, http.StatusOK)
	})
}

func (n *node) awaitUnready(t *testing.T) {
	t.Helper()
	eventually(t, "the node at "+n.addr+" is not ready", func() error { return n.is(t, http.StatusServiceUnavailable) })
}

func (n *node) is(t *testing.T, status int) error {
	got, err := n.up(t.Context())
	if err == nil && got != status {
		err = fmt.Errorf("GET /up is %d, want %d", got, status)
	}
	return err
}

// eventually asks again and again until there is no error.
func eventually(t *testing.T, what string, ask func() error) {
	t.Helper()
	again := time.NewTicker(20 * time.Millisecond)
	defer again.Stop()
	for end := time.Now().Add(patience); ; <-again.C {
		err := ask()
		if err == nil {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("not within %v: %s: %v", patience, what, err)
		}
	}
}
