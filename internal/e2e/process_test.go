package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"sockudo/internal/pushertest"
	"sockudo/internal/servicetest"
)

// built is the command, built once for all tests and removed by TestMain.
var built struct {
	once sync.Once
	dir  string
	err  error
}

func buildServer(t *testing.T) string {
	t.Helper()
	built.once.Do(func() {
		if built.dir, built.err = os.MkdirTemp("", "sockudo-e2e"); built.err != nil {
			return
		}
		out, err := exec.Command("go", "build", "-o", built.dir, "sockudo/cmd/sockudo").CombinedOutput()
		if err != nil {
			built.err = fmt.Errorf("go build: %w\n%s", err, out)
		}
	})
	if built.err != nil {
		t.Fatal(built.err)
	}
	return filepath.Join(built.dir, "sockudo")
}

// A process is a server started from its binary, on a port it keeps when it is
// started again.
type process struct {
	binary, config string
	port           int
	log            *os.File
	cmd            *exec.Cmd
}

// startProcess starts a server with one app that has all features, and with
// further settings.
func startProcess(t *testing.T, binary string, a pushertest.App, further map[string]any) *process {
	t.Helper()
	dir := t.TempDir()
	p := &process{binary: binary, config: filepath.Join(dir, "config.json"), port: servicetest.Port(t)}
	all := map[string]any{
		"host": "127.0.0.1", "port": p.port, "shutdown_grace_period": 1,
		"metrics": map[string]any{"enabled": false}, "admin": map[string]any{"enabled": false},
		"app_manager": map[string]any{"array": map[string]any{"apps": []any{map[string]any{
			"id": a.ID, "key": a.Key, "secret": a.Secret, "enabled": true,
			"enable_client_messages": true, "enable_watchlist_events": true, "enable_subscription_count": true,
		}}}},
	}
	maps.Copy(all, further)
	settings, err := json.Marshal(all)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(p.config, settings, 0o600); err != nil {
		t.Fatal(err)
	}
	if p.log, err = os.Create(filepath.Join(dir, "log")); err != nil {
		t.Fatal(err)
	}
	if err := p.start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if p.cmd.ProcessState == nil { // not stopped by the test
			if err := p.stop(syscall.SIGTERM); err != nil {
				t.Errorf("server: %v", err)
			}
		}
		p.log.Close()
		if out, err := os.ReadFile(p.log.Name()); err == nil && t.Failed() {
			t.Logf("log of the server on port %d:\n%s", p.port, out)
		}
	})
	return p
}

// start starts the process and returns when it is healthy.
func (p *process) start(ctx context.Context) error {
	p.cmd = exec.Command(p.binary, "-c", p.config)
	p.cmd.Dir = filepath.Dir(p.config)
	p.cmd.Stdout, p.cmd.Stderr = p.log, p.log
	if err := p.cmd.Start(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	again := time.NewTicker(20 * time.Millisecond)
	defer again.Stop()
	for {
		if healthy(ctx, p.port) {
			return nil
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			return fmt.Errorf("the server on port %d does not become healthy", p.port)
		}
	}
}

func healthy(ctx context.Context, port int) bool {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("http://127.0.0.1:%d/up", port), nil)
	if err != nil {
		return false
	}
	req.Close = true
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return false
	}
	resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}

// stop ends the process with a signal. One that does not obey is killed, which
// is an error.
func (p *process) stop(sig syscall.Signal) error {
	if err := p.cmd.Process.Signal(sig); err != nil {
		return err
	}
	stubborn := time.AfterFunc(20*time.Second, func() { _ = p.cmd.Process.Kill() })
	err := p.cmd.Wait()
	if !stubborn.Stop() {
		return errors.New("it did not obey the signal")
	}
	if sig == syscall.SIGKILL {
		return nil
	}
	return err
}

// A server that is told to stop closes its clients one after the other over the
// drain window, and whoever is still connected gets every event that the API
// accepts meanwhile.
func TestStoppingProcessClosesEvenlyAndLosesNothing(t *testing.T) {
	const clients, grace = 150, 5
	const window = clients * 20 * time.Millisecond // 3 s; four fifths of the grace period would be 4 s
	p := startProcess(t, buildServer(t), plain, map[string]any{"shutdown_grace_period": grace})
	addr := fmt.Sprintf("127.0.0.1:%d", p.port)
	var all []*pushertest.Client
	for range clients {
		c := pushertest.Dial(t, addr, plain)
		c.SendSubscribe("presence-last-words", `{"user_id":"one"}`)
		c.Expect("pusher_internal:subscription_succeeded", "presence-last-words")
		all = append(all, c)
	}
	api := pushertest.NewAPI(t, addr, plain)
	publish := func(n int) int {
		body := fmt.Sprintf(`{"name":"e","channel":"presence-last-words","data":"%d"}`, n)
		resp, err := api.Try(pushertest.Call{Method: "POST", Path: "/apps/plain-id/events", Body: body})
		if err != nil {
			return 0 // refused, after the last client has gone
		}
		return resp.Status
	}
	var answered []time.Time // when each event was accepted
	for n := range 10 {
		if status := publish(n); status != 200 {
			t.Fatalf("event %d: %d", n, status)
		}
		answered = append(answered, time.Now())
	}
	began := time.Now()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	for publish(len(answered)) == 200 {
		answered = append(answered, time.Now())
	}
	if err := p.cmd.Wait(); err != nil {
		t.Errorf("the process ended with %v", err)
	}
	if d := time.Since(began); d > (grace+2)*time.Second {
		t.Errorf("stopping took %v, the grace period is %d s", d, grace)
	}
	ends := make([]time.Duration, clients)
	for i, c := range all {
		n := 0
		f := c.Next()
		for ; f.Event == "e"; f = c.Next() {
			if f.Text(t) != fmt.Sprint(n) {
				t.Fatalf("client %d got %s after %d events", i, f.Raw, n)
			}
			n++
		}
		if f.Event != "pusher:error" || f.Error(t).Code != 4200 {
			t.Fatalf("client %d got %s", i, f.Raw)
		}
		c.ExpectClose(4200)
		if n < 10 {
			t.Errorf("client %d got %d events, 10 were accepted before the signal", i, n)
		}
		// The first event it did not get was accepted after its close; the client
		// may have seen that a little later.
		if n < len(answered) && f.At.Sub(answered[n]) > 2*time.Second {
			t.Errorf("client %d did not get event %d, accepted %v before its close", i, n, f.At.Sub(answered[n]))
		}
		ends[i] = f.At.Sub(began)
	}
	slices.Sort(ends)
	for i, d := range ends { // a busy machine closes later, never earlier
		if planned := window * time.Duration(i) / clients; d < planned-window/10 {
			t.Fatalf("%d clients were closed within %v, planned for %v", i+1, d, planned)
		}
	}
	if middle := ends[clients/2]; middle > window/2+2*time.Second {
		t.Errorf("half of the clients were closed after %v", middle)
	}
}

func TestSecondSignalEndsAStoppingProcess(t *testing.T) {
	p := startProcess(t, buildServer(t), plain, map[string]any{"shutdown_grace_period": 600})
	c := pushertest.Dial(t, fmt.Sprintf("127.0.0.1:%d", p.port), plain, opts{Mute: true})
	c.StopReading() // it does not answer the close either
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the server is stopping", func() bool { return !healthy(t.Context(), p.port) })
	began := time.Now()
	if err := p.cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	_ = p.cmd.Wait()
	if code := p.cmd.ProcessState.ExitCode(); code != 1 || time.Since(began) > 3*time.Second {
		t.Errorf("ended with %d after %v", code, time.Since(began))
	}
}
