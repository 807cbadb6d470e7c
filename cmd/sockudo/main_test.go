package main

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"sockudo/internal/servicetest"
)

// binary is the command, built once for all tests.
var binary string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "sockudo-cmd")
	if err != nil {
		panic(err)
	}
	binary = filepath.Join(dir, "sockudo")
	if out, err := exec.Command("go", "build", "-o", binary, ".").CombinedOutput(); err != nil {
		panic(fmt.Sprintf("%v: %s", err, out))
	}
	code := m.Run()
	_ = os.RemoveAll(dir)
	os.Exit(code)
}

// command returns the command in an empty directory and environment.
func command(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, binary, args...)
	cmd.Dir = t.TempDir()
	cmd.Env = []string{"METRICS_PORT=0", "METRICS_HOST=127.0.0.1", "ADMIN_ENABLED=false", "HOME=" + cmd.Dir}
	return cmd
}

// finish runs a command to its end.
func finish(t *testing.T, cmd *exec.Cmd) (stdout, stderr string, code int) {
	t.Helper()
	var out, errs strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	if cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

func freePort(t *testing.T) string { return strconv.Itoa(servicetest.Port(t)) }

// A running server and what it has printed.
type running struct {
	*exec.Cmd
	t     *testing.T
	lines chan string
	seen  []string
}

func startServer(t *testing.T, cmd *exec.Cmd) *running {
	t.Helper()
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if cmd.Stderr == nil {
		cmd.Stderr = cmd.Stdout
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	r := &running{Cmd: cmd, t: t, lines: make(chan string, 1000)}
	go func() {
		defer close(r.lines)
		sc := bufio.NewScanner(out)
		for sc.Scan() {
			r.lines <- sc.Text()
		}
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		for range r.lines {
		}
		_ = cmd.Wait()
	})
	return r
}

// until waits for a line that contains text.
func (r *running) until(text string) string {
	r.t.Helper()
	for {
		select {
		case line, ok := <-r.lines:
			if !ok {
				r.t.Fatalf("the server ended without %q:\n%s", text, strings.Join(r.seen, "\n"))
			}
			r.seen = append(r.seen, line)
			if strings.Contains(line, text) {
				return line
			}
		case <-time.After(20 * time.Second):
			r.t.Fatalf("no line with %q:\n%s", text, strings.Join(r.seen, "\n"))
		}
	}
}

// stop sends a signal and returns the exit code.
func (r *running) stop(sig os.Signal) int {
	r.t.Helper()
	if err := r.Process.Signal(sig); err != nil {
		r.t.Fatal(err)
	}
	for line := range r.lines {
		r.seen = append(r.seen, line)
	}
	_ = r.Wait()
	return r.ProcessState.ExitCode()
}

func TestFirstRunMakesUpAnApp(t *testing.T) {
	port := freePort(t)
	r := startServer(t, command(t, "--host", "127.0.0.1", "--port", port))
	r.until("listening")
	shown := strings.Join(r.seen, "\n")
	key := regexp.MustCompile(`key +([0-9a-f]{20})`).FindStringSubmatch(shown)
	id := regexp.MustCompile(`app id +([0-9a-f]{8})`).FindStringSubmatch(shown)
	secret := regexp.MustCompile(`secret +([0-9a-f]{32})`).FindStringSubmatch(shown)
	if key == nil || id == nil || secret == nil {
		t.Fatalf("no credentials in the banner:\n%s", shown)
	}
	for _, snippet := range []string{"http://127.0.0.1:" + port, `new Pusher("` + key[1], "new Echo(", `appId: "` + id[1], `new Pusher\Pusher("` + key[1]} {
		if !strings.Contains(shown, snippet) {
			t.Errorf("the banner lacks %s", snippet)
		}
	}
	// What is shown works: it publishes.
	_, errs, code := finish(t, command(t, "trigger", "--url", "http://127.0.0.1:"+port, "--key", key[1], "--secret", secret[1], id[1], "c", "e", "d"))
	if code != exitOK {
		t.Errorf("trigger: %d %s", code, errs)
	}
	if code := r.stop(syscall.SIGTERM); code != exitOK {
		t.Errorf("exit code %d after SIGTERM", code)
	}
}

func TestTwoFirstRunsHaveDifferentSecrets(t *testing.T) {
	secrets := map[string]bool{}
	for range 2 {
		r := startServer(t, command(t, "--host", "127.0.0.1", "--port", freePort(t)))
		secrets[r.until("secret  ")] = true
		r.until("listening")
		r.stop(os.Interrupt)
	}
	if len(secrets) != 2 {
		t.Error("the same secret twice")
	}
}

func TestDevStaysOnLoopback(t *testing.T) {
	_, errs, code := finish(t, command(t, "--dev", "--host", "0.0.0.0", "--port", freePort(t)))
	if code != exitFatal || !strings.Contains(errs, "--dev-remote") || !strings.Contains(errs, "0.0.0.0") {
		t.Errorf("%d %s", code, errs)
	}
	for _, args := range [][]string{{"--dev"}, {"serve", "--dev"}, {"--dev", "--host", "0.0.0.0", "--dev-remote"}} {
		cmd := command(t, append(args, "--port", "0")...)
		cmd.Env = append(cmd.Env, "METRICS_HOST=0.0.0.0")
		r := startServer(t, cmd)
		r.until("demo-secret")
		want := 2 // the API and the metrics
		if len(args) == 4 {
			want = 0
		}
		if line := r.until("listening"); strings.Count(line, "=127.0.0.1:") != want {
			t.Errorf("%v: %s", args, line)
		}
		if code := r.stop(syscall.SIGTERM); code != exitOK {
			t.Errorf("%v: exit code %d", args, code)
		}
	}
}

func TestDevWritesNothingIntoADatabase(t *testing.T) {
	cmd := command(t, "--dev", "--port", "0")
	cmd.Env = append(cmd.Env, "APP_MANAGER_DRIVER=mysql")
	if _, errs, code := finish(t, cmd); code != exitFatal || !strings.Contains(errs, "app_manager.driver") {
		t.Errorf("%d %s", code, errs)
	}
}

func TestJSONLogsHaveNoBannerAmongThem(t *testing.T) {
	cmd := command(t, "--dev", "--port", "0")
	cmd.Env = append(cmd.Env, "LOG_OUTPUT_FORMAT=json")
	var banner strings.Builder
	cmd.Stderr = &banner
	r := startServer(t, cmd)
	r.until("listening")
	if code := r.stop(syscall.SIGTERM); code != exitOK {
		t.Errorf("exit code %d", code)
	}
	for _, line := range r.seen {
		if !json.Valid([]byte(line)) {
			t.Errorf("not JSON: %s", line)
		}
	}
	if !strings.Contains(banner.String(), "demo-secret") {
		t.Errorf("no banner: %s", banner.String())
	}
}

func TestKnownSecretIsALoudWarning(t *testing.T) {
	cmd := command(t, "-c", "c.json", "--host", "127.0.0.1", "--port", freePort(t))
	write(t, cmd.Dir, "c.json", `{"app_manager":{"array":{"apps":[{"id":"1","key":"k","secret":"demo-secret"}]}}}`)
	r := startServer(t, cmd)
	if line := r.until("SECRET FROM A MANUAL"); strings.Contains(line, "demo-secret") {
		t.Errorf("the warning tells the secret: %s", line)
	}
}

func write(t *testing.T, dir, name, text string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestListenPrintsWhatTriggerSends(t *testing.T) {
	port := freePort(t)
	r := startServer(t, command(t, "--dev", "--port", port))
	r.until("listening")
	url := "http://127.0.0.1:" + port
	l := startServer(t, command(t, "listen", "--dev", "--url", url, "public", "private-x", "presence-y", "#server-to-user-4 2"))
	for _, channel := range []string{"public", "private-x", "presence-y", "#server-to-user-4 2"} {
		for !strings.Contains(l.until("subscription_succeeded"), channel) {
		}
	}
	trigger := command(t, "trigger", "--dev", "--url", url, "demo-app", "private-x", "greeting", "-")
	trigger.Stdin = strings.NewReader(`{"text":"hällo"}`)
	if _, errs, code := finish(t, trigger); code != exitOK {
		t.Fatalf("%d %s", code, errs)
	}
	var event struct{ Event, Channel, Data string }
	if err := json.Unmarshal([]byte(l.until("greeting")), &event); err != nil {
		t.Fatal(err)
	}
	if event.Channel != "private-x" || event.Data != `{"text":"hällo"}` {
		t.Errorf("%+v", event)
	}
	if code := l.stop(os.Interrupt); code != exitOK {
		t.Errorf("listen ended with %d:\n%s", code, strings.Join(l.seen, "\n"))
	}
	out, errs, code := finish(t, command(t, "healthcheck", "--url", url))
	if code != exitOK || out != "OK\n" {
		t.Errorf("healthcheck: %d %q %s", code, out, errs)
	}
	r.stop(syscall.SIGTERM)
	if _, errs, code := finish(t, command(t, "healthcheck", "--url", url)); code != exitFatal || errs == "" {
		t.Errorf("healthcheck of a stopped server: %d %q", code, errs)
	}
	if _, errs, code := finish(t, command(t, "trigger", "--dev", "--url", url, "demo-app", "x", "e", "d")); code != exitFatal || strings.Contains(errs, "auth_signature") {
		t.Errorf("trigger at a stopped server: %d %q", code, errs)
	}
	if _, errs, code := finish(t, command(t, "listen", "--dev", "--url", url, "x")); code != exitFatal || errs == "" {
		t.Errorf("listen at a stopped server: %d %q", code, errs)
	}
}

func TestConfigCheckNamesPathLineAndReason(t *testing.T) {
	cmd := command(t, "config", "check", "bad.json")
	write(t, cmd.Dir, "bad.json", "{\n  \"port\": 6001,\n  \"activity_timeout\": \"soon\",\n  \"adpter\": {}\n}\n")
	out, errs, code := finish(t, cmd)
	if code != exitFatal || !strings.Contains(out, "bad.json:3") || !strings.Contains(out, "activity_timeout") || errs != "" {
		t.Errorf("%d\n%s%s", code, out, errs)
	}
	if !strings.Contains(out, "adapter") {
		t.Errorf("the nearest known name is not told:\n%s", out)
	}
	cmd = command(t, "config", "check", "good.toml")
	write(t, cmd.Dir, "good.toml", "port = 6001\n[[app_manager.array.apps]]\nid = \"1\"\nkey = \"k\"\nsecret = \"s3cr3t\"\n")
	if out, errs, code := finish(t, cmd); code != exitOK {
		t.Errorf("%d\n%s%s", code, out, errs)
	}
	if _, errs, code := finish(t, command(t, "-c", "missing.json")); code != exitFatal || !strings.Contains(errs, "missing.json") {
		t.Errorf("missing file: %d %s", code, errs)
	}
}

func TestConfigShowTellsSourcesAndNoSecrets(t *testing.T) {
	cmd := command(t, "config", "show", "--json")
	write(t, cmd.Dir, "config/config.json", `{"port": 7001, "app_manager":{"array":{"apps":[{"id":"1","key":"k","secret":"s3cr3t-value"}]}}}`)
	cmd.Env = append(cmd.Env, "ACTIVITY_TIMEOUT=30", "DATABASE_MYSQL_PASSWORD=hidden-value")
	out, errs, code := finish(t, cmd)
	if code != exitOK || !json.Valid([]byte(out)) {
		t.Fatalf("%d\n%s%s", code, out, errs)
	}
	for _, text := range []string{"config.json:1", "ACTIVITY_TIMEOUT", "7001"} {
		if !strings.Contains(out, text) {
			t.Errorf("%s is missing", text)
		}
	}
	for _, secret := range []string{"s3cr3t-value", "hidden-value"} {
		if strings.Contains(out, secret) {
			t.Errorf("%s is shown", secret)
		}
	}
}

func TestWhatIsNotBuiltIsAnError(t *testing.T) {
	for name, value := range map[string]string{
		"APP_MANAGER_DRIVER": "scylladb", "QUEUE_DRIVER": "sqs", "RATE_LIMITER_ENABLED": "true",
	} {
		cmd := command(t, "--port", "0")
		cmd.Env = append(cmd.Env, name+"="+value)
		_, errs, code := finish(t, cmd)
		if code != exitFatal || !strings.Contains(errs, "not built into this version") || !strings.Contains(errs, value) {
			t.Errorf("%s=%s: %d %s", name, value, code, errs)
		}
		cmd = command(t, "config", "check")
		cmd.Env = append(cmd.Env, name+"="+value)
		out, errs, code := finish(t, cmd)
		if code != exitFatal || !strings.Contains(out, "error: env "+name+": ") || !strings.Contains(out, "not built into this version") {
			t.Errorf("config check with %s=%s: %d %s%s", name, value, code, out, errs)
		}
	}
}

func TestWrongUsageIsExitCodeTwo(t *testing.T) {
	for _, args := range [][]string{{"--nonsense"}, {"nonsense"}, {"trigger", "x"}, {"listen"}, {"listen", "--dev", "bad name"}, {"config", "check", "a", "b"}, {"version", "x"},
		{"--port", "65536"}, {"listen", "--dev", "#server-to-user-1", "#server-to-user-2"}, {"listen", "--dev", "--url", "ftp://x", "c"},
		{"trigger", "--dev", "--url", "127.0.0.1:6001", "demo-app", "c", "e", "d"}, {"healthcheck", "--url", "localhost"},
	} {
		_, errs, code := finish(t, command(t, args...))
		if code != exitUsage || !strings.Contains(errs, "--help") || strings.Contains(errs, "auth_signature") {
			t.Errorf("%v: %d %s", args, code, errs)
		}
	}
}

func TestMistypedCommandsAreGuessed(t *testing.T) {
	for guess, args := range map[string][]string{"trigger": {"tigger"}, "healthcheck": {"healthchek"}, "check": {"config", "chek"}} {
		if _, errs, _ := finish(t, command(t, args...)); !strings.Contains(errs, "did you mean "+guess+"?") {
			t.Errorf("%v: %s", args, errs)
		}
	}
	if _, errs, _ := finish(t, command(t, "config", "chek")); !strings.Contains(errs, "Run 'sockudo config --help'") {
		t.Errorf("another help is named: %s", errs)
	}
}

func TestHelpVersionAndCompletion(t *testing.T) {
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"--help"}, "Exit codes"}, {[]string{"-h"}, "serve"}, {[]string{"trigger", "--help"}, "standard input"},
		{[]string{"listen", "--help"}, "one line of JSON"}, {[]string{"config", "--help"}, "check"},
		{[]string{"version"}, "sockudo "}, {[]string{"--version"}, "sockudo "}, {[]string{"-V"}, "sockudo "},
		{[]string{"completion", "bash"}, "bash completion"}, {[]string{"completion", "zsh"}, "compdef"}, {[]string{"completion", "fish"}, "fish completion"},
	} {
		if out, errs, code := finish(t, command(t, c.args...)); code != exitOK || !strings.Contains(out, c.want) {
			t.Errorf("%v: %d %s%s", c.args, code, out, errs)
		}
	}
}

// Every command and flag is in docs/command-line.md.
func TestManualNamesEveryCommandAndFlag(t *testing.T) {
	manual, err := os.ReadFile("../../docs/command-line.md")
	if err != nil {
		t.Fatal(err)
	}
	root := newRoot()
	commands := append(root.Commands(), root)
	for _, cmd := range root.Commands() {
		if cmd.Name() != "bench" { // whose scenarios tell their flags themselves
			commands = append(commands, cmd.Commands()...)
		}
	}
	for _, cmd := range commands {
		if !strings.Contains(string(manual), cmd.Name()) {
			t.Errorf("the command %s is missing", cmd.Name())
		}
		for flag := range strings.FieldsSeq(cmd.Flags().FlagUsages()) {
			if name, ok := strings.CutPrefix(flag, "--"); ok && name != "help" && name != "version" && !strings.Contains(string(manual), "--"+name) {
				t.Errorf("the flag --%s of %s is missing", name, cmd.Name())
			}
		}
	}
}

func TestSecondSignalEndsAtOnce(t *testing.T) {
	port := freePort(t)
	cmd := command(t, "--dev", "--port", port)
	cmd.Env = append(cmd.Env, "SHUTDOWN_GRACE_PERIOD=600")
	r := startServer(t, cmd)
	r.until("listening")
	// Many clients that do not answer the close keep the server busy.
	for range 50 {
		nc, err := net.Dial("tcp", "127.0.0.1:"+port)
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		fmt.Fprint(nc, "GET /app/demo-key?protocol=7 HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
		if _, err := io.ReadAtLeast(nc, make([]byte, 1), 1); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	r.until("stopping")
	began := time.Now()
	r.stop(syscall.SIGTERM)
	if d := time.Since(began); d > 3*time.Second {
		t.Errorf("ended %v after the second signal", d)
	}
}

func TestUnixSocket(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "made", "s.sock")
	env := []string{"UNIX_SOCKET_ENABLED=true", "UNIX_SOCKET_PATH=" + path, "UNIX_SOCKET_PERMISSION_MODE=600", "METRICS_ENABLED=false"}
	start := func() *running {
		cmd := command(t, "--dev")
		cmd.Env = append(cmd.Env, env...)
		return startServer(t, cmd)
	}
	r := start()
	r.until("listening")
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	client := http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", path)
	}}}
	resp, err := client.Get("http://localhost/up")
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	health := command(t, "healthcheck", "--dev")
	health.Env = append(health.Env, env...)
	if out, errs, code := finish(t, health); code != exitOK || out != "OK\n" {
		t.Errorf("healthcheck through the socket: %d %s%s", code, out, errs)
	}

	second := command(t, "--dev")
	second.Env = append(second.Env, env...)
	if _, errs, code := finish(t, second); code != exitFatal || !strings.Contains(errs, "in use by another process") {
		t.Errorf("second server on the socket: %d %s", code, errs)
	}
	_ = r.Process.Kill() // leaves the socket behind
	for range r.lines {
	}
	_ = r.Wait()
	again := start()
	again.until("listening")
	if code := again.stop(syscall.SIGTERM); code != exitOK {
		t.Errorf("exit code %d", code)
	}
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Errorf("the socket was left behind: %v", err)
	}

	write(t, filepath.Dir(path), "s.sock", "not a socket")
	third := command(t, "--dev")
	third.Env = append(third.Env, env...)
	if _, errs, code := finish(t, third); code != exitFatal || !strings.Contains(errs, "not a socket") {
		t.Errorf("a file in the place of the socket: %d %s", code, errs)
	}
	if text, err := os.ReadFile(path); err != nil || string(text) != "not a socket" {
		t.Errorf("the file was touched: %q, %v", text, err)
	}
}

// A server with a certificate for its public name is reached on loopback too.
func TestCommandsReachAServerWithTLS(t *testing.T) {
	dir, port := t.TempDir(), freePort(t)
	certificate(t, dir, "ws.example.com")
	file := write(t, dir, "config.json", `{"host":"127.0.0.1","port":`+port+`,
		"ssl":{"enabled":true,"cert_path":"`+dir+`/cert.pem","key_path":"`+dir+`/key.pem"},
		"app_manager":{"array":{"apps":[{"id":"1","key":"k","secret":"a secret","require_tls":true}]}}}`)
	r := startServer(t, command(t, "-c", file))
	r.until("listening")
	l := startServer(t, command(t, "listen", "-c", file, "private-x"))
	l.until("subscription_succeeded")
	if _, errs, code := finish(t, command(t, "trigger", "-c", file, "1", "private-x", "greeting", "hello")); code != exitOK {
		t.Errorf("trigger: %d %s", code, errs)
	}
	l.until("greeting")
	if out, errs, code := finish(t, command(t, "healthcheck", "-c", file)); code != exitOK || out != "OK\n" {
		t.Errorf("healthcheck: %d %s%s", code, out, errs)
	}
	// Anywhere else the name is checked.
	_, errs, code := finish(t, command(t, "healthcheck", "--url", "https://127.0.0.1:"+port))
	if code != exitFatal || !strings.Contains(errs, "certificate") {
		t.Errorf("healthcheck with --url: %d %s", code, errs)
	}
}

// certificate writes cert.pem and key.pem for a name.
func certificate(t *testing.T, dir, name string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{name}}
	cert, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	write(t, dir, "cert.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert})))
	write(t, dir, "key.pem", string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})))
}
