package bench

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"time"
)

// How long a server may take to answer after its start, and to end.
const (
	startWait = 30 * time.Second
	stopWait  = 5 * time.Second
)

// A server is what a run loads: one that was there, or one that is started for
// the run.
type server struct {
	urls []string
	app  identity
	pids []int

	dir  string // of files made for it; "": none
	cmds []*started
}

// A started is a process of ours.
type started struct {
	cmd  *exec.Cmd
	out  *tail
	done chan struct{} // closed when it has ended
}

// openServer starts what the options say. What is started is stopped by close,
// also after an error.
func (o *Options) openServer(ctx context.Context) (*server, error) {
	s := &server{urls: o.URLs, app: identity{o.AppID, o.Key, o.Secret}, pids: o.PIDs}
	var err error
	switch {
	case o.Serve:
		err = s.serve(ctx, o)
	case o.Floor:
		err = s.floor(ctx, o)
	case o.Exec != "":
		err = s.exec(ctx, o)
	}
	if err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

// serve starts o.Nodes servers of this program.
func (s *server) serve(ctx context.Context, o *Options) error {
	var err error
	if s.dir, err = os.MkdirTemp("", "sockudo-bench-"); err != nil {
		return err
	}
	if o.Config == "" {
		s.app = identity{"bench", randomHex(), randomHex()}
	}
	for i := range o.Nodes {
		port, err := freePort()
		if err != nil {
			return err
		}
		config := o.Config
		if config == "" {
			config = filepath.Join(s.dir, fmt.Sprintf("config-%d.json", i))
			if err := s.writeConfig(config, o.TLS); err != nil {
				return err
			}
		}
		cmd := exec.CommandContext(ctx, o.Program, "serve", "-c", config, "--host", "127.0.0.1", "--port", strconv.Itoa(port))
		scheme := "http"
		if o.TLS {
			scheme = "https"
		}
		base := fmt.Sprintf("%s://127.0.0.1:%d", scheme, port)
		if err := s.start(ctx, cmd, o, base+"/up"); err != nil {
			return err
		}
		s.urls = append(s.urls, base)
	}
	return nil
}

// writeConfig writes settings in which every rule is on and none is in the way.
func (s *server) writeConfig(file string, secure bool) error {
	type object = map[string]any
	const plenty = 1_000_000
	settings := object{
		"shutdown_grace_period": 1,
		"metrics":               object{"enabled": true, "host": "127.0.0.1", "port": 0},
		"app_manager": object{"driver": "memory", "array": object{"apps": []object{{
			"id": s.app.id, "key": s.app.key, "secret": s.app.secret, "enabled": true,
			"max_connections": plenty, "enable_client_messages": true, "max_client_events_per_second": 200,
			"max_backend_events_per_second": plenty, "max_read_requests_per_second": plenty,
			"max_presence_members_per_channel": plenty,
		}}}},
		"rate_limiter": object{
			"api_rate_limit":       object{"max_requests": plenty, "window_seconds": 1},
			"websocket_rate_limit": object{"max_requests": plenty, "window_seconds": 1},
		},
	}
	if secure {
		cert, key := filepath.Join(s.dir, "cert.pem"), filepath.Join(s.dir, "key.pem")
		if err := writeCertificate(cert, key); err != nil {
			return err
		}
		settings["ssl"] = object{"enabled": true, "cert_path": cert, "key_path": key}
	}
	b, err := json.Marshal(settings)
	if err != nil {
		return err
	}
	return os.WriteFile(file, b, 0o600)
}

// floor starts the loop of send.
func (s *server) floor(ctx context.Context, o *Options) error {
	port, err := freePort()
	if err != nil {
		return err
	}
	address := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	s.urls = []string{"http://" + address}
	return s.start(ctx, exec.CommandContext(ctx, o.Program, "bench", "floor-server", address), o, "")
}

// exec starts a server of somebody else.
func (s *server) exec(ctx context.Context, o *Options) error {
	words, err := splitWords(o.Exec)
	if err != nil {
		return fmt.Errorf("--exec: %w", err)
	}
	if len(words) == 0 {
		return errors.New("--exec is empty")
	}
	return s.start(ctx, exec.CommandContext(ctx, words[0], words[1:]...), o, "")
}

// start starts a command and waits until it answers: with 200 at health, or
// with an open port at the first URL.
func (s *server) start(ctx context.Context, cmd *exec.Cmd, o *Options, health string) error {
	p := &started{cmd: cmd, out: &tail{}, done: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = p.out, p.out
	cmd.Env = append(append(os.Environ(), "NO_COLOR=1"), o.Env...)
	if err := startOn(cmd, o.ServerCPU); err != nil {
		return fmt.Errorf("start %s: %w", cmd.Path, err)
	}
	go func() {
		_ = cmd.Wait() // how it ended does not matter, only that it did
		close(p.done)
	}()
	s.cmds = append(s.cmds, p)
	s.pids = append(s.pids, cmd.Process.Pid)
	deadline := time.Now().Add(startWait)
	for {
		if err := answers(ctx, s.urls, health); err == nil {
			return nil
		} else if time.Now().After(deadline) || ctx.Err() != nil {
			return fmt.Errorf("%s does not answer: %w\n%s", cmd.Path, err, p.out)
		}
		select {
		case <-p.done:
			return fmt.Errorf("%s ended at once:\n%s", cmd.Path, p.out)
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func answers(ctx context.Context, urls []string, health string) error {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	if health == "" {
		u, err := url.Parse(urls[0])
		if err != nil {
			return err
		}
		var d net.Dialer
		nc, err := d.DialContext(ctx, "tcp", u.Host)
		if err != nil {
			return err
		}
		return nc.Close()
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, health, nil)
	if err != nil {
		return err
	}
	transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true}
	resp, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answers %s", health, resp.Status)
	}
	return nil
}

// died returns an error if one of the started processes is gone.
func (s *server) died() error {
	for _, p := range s.cmds {
		select {
		case <-p.done:
			return fmt.Errorf("the server ended during the run:\n%s", p.out)
		default:
		}
	}
	return nil
}

// output returns the last that the started processes have printed.
func (s *server) output() string {
	var b bytes.Buffer
	for _, p := range s.cmds {
		b.WriteString(p.out.String())
	}
	return b.String()
}

// close stops what was started and removes its files.
func (s *server) close() {
	for _, p := range s.cmds {
		kill(p.cmd, false)
	}
	for _, p := range s.cmds {
		select {
		case <-p.done:
		case <-time.After(stopWait):
		}
		kill(p.cmd, true)
		<-p.done
	}
	if s.dir != "" {
		_ = os.RemoveAll(s.dir) // a temporary directory
	}
}

// tailBytes is how much of a server's output is kept.
const tailBytes = 64 << 10

// A tail keeps the end of what is written to it.
type tail struct {
	mu sync.Mutex // guards what follows
	b  []byte
}

var _ io.Writer = (*tail)(nil)

// Write keeps p.
func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.b = append(t.b, p...)
	if len(t.b) > 2*tailBytes {
		t.b = append(t.b[:0], t.b[len(t.b)-tailBytes:]...)
	}
	return len(p), nil
}

// String returns what was kept.
func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.b)
}

func randomHex() string {
	var b [10]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

func freePort() (int, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer ln.Close()
	return ln.Addr().(*net.TCPAddr).Port, nil
}

// writeCertificate makes a certificate for 127.0.0.1 and writes it with its key.
func writeCertificate(certFile, keyFile string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	about := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		NotBefore:    time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	cert, err := x509.CreateCertificate(rand.Reader, about, about, &key.PublicKey, key)
	if err != nil {
		return err
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	return errors.Join(
		os.WriteFile(certFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert}), 0o600),
		os.WriteFile(keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}), 0o600))
}
