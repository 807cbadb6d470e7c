package processes

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"

	"sockudo/internal/clientip"
	"sockudo/internal/servicetest"
)

// A proxy is a program with a file of docs/proxies, in which a test changes
// nothing but addresses and places.
type proxy struct {
	program, file string
	// listen is what the file says of the port, and what it is for a test.
	listen [2]string
	// timeout finds how long a connection may be idle; nil: for ever.
	timeout *regexp.Regexp
	// asks says that it asks the nodes whether they are well.
	asks bool
	// prepare makes further files, and returns the arguments.
	prepare func(t *testing.T, dir, file string) []string
}

var proxies = map[string]*proxy{
	"nginx": {
		program: "nginx", file: "nginx.conf", listen: [2]string{"listen 443 ", "listen 127.0.0.1:%s "},
		timeout: regexp.MustCompile(`proxy_read_timeout (\w+);`),
		prepare: func(t *testing.T, dir, file string) []string {
			// What a distribution has in its nginx.conf.
			main := fmt.Sprintf(`
				daemon off; pid %[1]s/pid; error_log stderr; worker_processes 1;
				events { worker_connections 1024; }
				http {
					access_log off; client_body_temp_path %[1]s/body; proxy_temp_path %[1]s/proxy;
					fastcgi_temp_path %[1]s/fastcgi; uwsgi_temp_path %[1]s/uwsgi; scgi_temp_path %[1]s/scgi;
					include %[2]s;
				}`, dir, file)
			if os.Getuid() == 0 {
				main = "user root;" + main // another user could not write to the folder
			}
			write(t, filepath.Join(dir, "main.conf"), main)
			return []string{"-e", "stderr", "-p", dir, "-c", filepath.Join(dir, "main.conf")}
		},
	},
	"haproxy": {
		program: "haproxy", file: "haproxy.cfg", listen: [2]string{"bind :443 ", "bind 127.0.0.1:%s "},
		timeout: regexp.MustCompile(`timeout tunnel (\w+)`), asks: true,
		prepare: func(_ *testing.T, _, file string) []string { return []string{"-db", "-f", file} },
	},
	"caddy": {
		program: "caddy", file: "Caddyfile", listen: [2]string{"ws.example.com:443", "localhost:%s"}, asks: true,
		prepare: func(_ *testing.T, _, file string) []string {
			return []string{"run", "--adapter", "caddyfile", "--config", file}
		},
	},
}

func write(t *testing.T, file, text string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, file string) string {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// text returns the documented file.
func (p *proxy) text(t *testing.T) string {
	return read(t, filepath.Join(servicetest.Root(t), "docs", "proxies", p.file))
}

// start runs the proxy with the text of its file in front of three addresses.
func (p *proxy) start(t *testing.T, text string, nodes []string) *node {
	t.Helper()
	program := servicetest.Tool(t, p.program)
	dir := t.TempDir()
	port := fmt.Sprint(servicetest.Port(t))
	ca := servicetest.Env(t, servicetest.CA)
	certificate, key := filepath.Join(filepath.Dir(ca), "server.crt"), filepath.Join(filepath.Dir(ca), "server.key")
	write(t, filepath.Join(dir, "both.pem"), read(t, certificate)+read(t, key))
	pairs := []string{p.listen[0], fmt.Sprintf(p.listen[1], port), "server_name ws.example.com", "server_name localhost"}
	for i, addr := range nodes {
		pairs = append(pairs, fmt.Sprintf("10.0.0.%d:6001", i+1), addr)
	}
	pairs = append(pairs, "/etc/ssl/ws.example.com.crt", certificate, "/etc/ssl/ws.example.com.key", key,
		"/etc/ssl/ws.example.com.pem", filepath.Join(dir, "both.pem"), "localhost:2019", fmt.Sprintf("127.0.0.1:%d", servicetest.Port(t)))
	file := filepath.Join(dir, p.file)
	write(t, file, strings.NewReplacer(pairs...).Replace(text))

	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(read(t, ca)))
	front := &node{addr: "localhost:" + port, tls: &tls.Config{RootCAs: roots}}
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, p.prepare(t, dir, file)...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, log, log
	cmd.Env = append(os.Environ(), "HOME="+dir, "XDG_DATA_HOME="+dir, "XDG_CONFIG_HOME="+dir)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		_ = cmd.Wait() // how it ended does not matter
		close(ended)
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-ended:
		case <-time.After(5 * time.Second): // some wait for their clients
			_ = cmd.Process.Kill()
			<-ended
		}
		_ = log.Close()
		if t.Failed() {
			t.Logf("log of %s:\n%s", p.program, read(t, log.Name()))
		}
	})
	eventually(t, p.program+" listens", func() error {
		select {
		case <-ended:
			t.Fatalf("%s has ended", p.program)
		default:
		}
		conn, err := net.Dial("tcp", front.addr)
		if err == nil {
			err = conn.Close()
		}
		return err
	})
	return front
}

// connect opens connections and returns when all of them are greeted.
func connect(ctx context.Context, n *node, count int) (all []net.Conn, err error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	for range count {
		conn, r, err := n.dial(ctx)
		if err != nil {
			return all, err
		}
		all = append(all, conn)
		if r != nil {
			continue // the greeting came with the answer
		}
		_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
		if _, op, err := wsutil.ReadServerData(conn); err != nil || op != ws.OpText {
			return all, fmt.Errorf("the greeting is %v: %w", op, err)
		}
	}
	return all, nil
}

// connections asks a node how many it has.
func (n *node) connections(t *testing.T) int {
	t.Helper()
	resp, err := http.Get("http://" + n.addr + "/stats")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	var stats struct {
		Totals struct{ Connections int }
	}
	if err := json.NewDecoder(resp.Body).Decode(&stats); err != nil {
		t.Fatal(err)
	}
	return stats.Totals.Connections
}

// reached waits until new connections through the proxy come to a node, or do
// not, when there are so many others. A proxy prefers who has fewest, so that
// one of so many must come.
func reached(t *testing.T, front *node, nodes []*node, n *node, others int, want bool) {
	t.Helper()
	eventually(t, fmt.Sprintf("new connections reach the node at %s: %t", n.addr, want), func() error {
		sum := 0
		for _, n := range nodes {
			sum += n.connections(t)
		}
		if sum != others {
			return fmt.Errorf("there are %d connections, want %d", sum, others)
		}
		before := n.connections(t)
		all, err := connect(t.Context(), front, 9)
		after := n.connections(t)
		for _, c := range all {
			_ = c.Close()
		}
		if err == nil && (after > before) != want {
			err = fmt.Errorf("it had %d and has %d", before, after)
		}
		return err
	})
}

// TestProxies runs each documented proxy before three nodes.
func TestProxies(t *testing.T) {
	for name, p := range proxies {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := redisBroker(t)
			hops := map[string]any{"trust_hops": 1}
			settings := map[string]any{
				"rate_limiter": map[string]any{"api_rate_limit": hops, "websocket_rate_limit": hops},
				"app_manager": map[string]any{"array": map[string]any{"apps": []any{map[string]any{
					"id": app.ID, "key": app.Key, "secret": app.Secret, "enabled": true, "require_tls": true,
				}}}},
			}
			var nodes []*node
			var addrs []string
			for i := range last + 1 {
				n := newNode(t, b.adapter(i), settings)
				n.launch(t)
				nodes, addrs = append(nodes, n), append(addrs, n.addr)
			}
			for _, n := range nodes {
				n.awaitReady(t)
			}
			front := p.start(t, p.text(t), addrs)
			idle, since := idler(t, front), time.Now()

			t.Run("headers", p.headers)
			if p.timeout != nil {
				t.Run("timeout", func(t *testing.T) { p.cutsIdlers(t, addrs) })
			}
			t.Run("requests", func(t *testing.T) { requests(t, front, nodes) })
			if p.asks {
				b.cutOff(t)
				nodes[last].awaitUnready(t)
				reached(t, front, nodes, nodes[last], 1, false)
				allAccepted(t, front, 20)
				b.rejoin(t)
				nodes[last].awaitReady(t)
				reached(t, front, nodes, nodes[last], 1, true)
			}
			// Longer than whatever else has a timeout in the files.
			<-time.After(time.Until(since.Add(11 * time.Second)))
			idle(t)

			nodes[0].kill(t)
			eventually(t, "nobody notices the dead node", func() error {
				all, err := connect(t.Context(), front, 9)
				for _, c := range all {
					_ = c.Close()
				}
				return err
			})
			allAccepted(t, front, 20)
			nodes[0].start(t)
			reached(t, front, nodes, nodes[0], 0, true)

			roll(t, nodes, at(front), func(n *node) { reached(t, front, nodes, n, listeners, true) })
		})
	}
}

// headers has a server in place of the nodes that looks at what arrives.
func (p *proxy) headers(t *testing.T) {
	var mu sync.Mutex
	arrived := map[string]http.Header{}
	hosts := map[string]string{}
	behind := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		arrived[r.URL.RequestURI()], hosts[r.URL.RequestURI()] = r.Header.Clone(), r.Host
	}))
	t.Cleanup(behind.Close)
	addr := strings.TrimPrefix(behind.URL, "http://")
	front := p.start(t, p.text(t), []string{addr, addr, addr})
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: front.tls, DisableKeepAlives: true}, Timeout: 10 * time.Second}
	const escaped = "/apps/a/users/a%20b%2Fc?auth_key=k&info=a,b%2Cc"
	for _, uri := range []string{"/app/key?protocol=7", escaped} {
		req, err := http.NewRequest(http.MethodGet, front.url("http")+uri, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("X-Forwarded-For", "198.51.100.7") // anybody can say that
		req.Header.Set("X-Forwarded-Proto", "http")
		if strings.HasPrefix(uri, "/app/") {
			req.Header.Set("Upgrade", "websocket")
			req.Header.Set("Connection", "Upgrade")
			req.Header.Set("Sec-WebSocket-Version", "13")
			req.Header.Set("Sec-WebSocket-Key", "AAAAAAAAAAAAAAAAAAAAAA==")
		}
		eventually(t, "it passes "+uri, func() error {
			resp, err := client.Do(req)
			if err != nil {
				return err
			}
			_ = resp.Body.Close()
			if resp.StatusCode != http.StatusOK {
				return fmt.Errorf("status %d", resp.StatusCode)
			}
			return nil
		})
		mu.Lock()
		h, host := arrived[uri], hosts[uri]
		mu.Unlock()
		// The address of the proxy, if it were another machine.
		peer := netip.MustParseAddr("10.0.0.9")
		if got := clientip.From(peer, h, 1); !got.IsLoopback() {
			t.Errorf("%s: with one trusted proxy the client is %v, want 127.0.0.1; X-Forwarded-For is %q", uri, got, h["X-Forwarded-For"])
		}
		if !clientip.Secure(peer, h, 1) {
			t.Errorf("%s: the client came over TLS, X-Forwarded-Proto is %q", uri, h["X-Forwarded-Proto"])
		}
		if strings.HasPrefix(uri, "/app/") && !strings.EqualFold(h.Get("Upgrade"), "websocket") {
			t.Errorf("%s: Upgrade is %q", uri, h.Get("Upgrade"))
		}
		if !strings.HasPrefix(host, "localhost") {
			t.Errorf("%s: Host is %q", uri, host)
		}
	}
	for _, uri := range []string{"/stats", "/metrics", "/up"} {
		resp, err := client.Get(front.url("http") + uri)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusNotFound {
			t.Errorf("%s is open to everybody: %d", uri, resp.StatusCode)
		}
	}
}

// idler opens a connection, and returns what checks that it is still there.
func idler(t *testing.T, front *node) func(t *testing.T) {
	t.Helper()
	all, err := connect(t.Context(), front, 1)
	for _, c := range all {
		t.Cleanup(func() { _ = c.Close() })
	}
	if err != nil {
		t.Fatal(err)
	}
	return func(t *testing.T) {
		t.Helper()
		_ = all[0].SetDeadline(time.Now().Add(patience))
		if err := wsutil.WriteClientText(all[0], []byte(`{"event":"pusher:ping","data":{}}`)); err != nil {
			t.Errorf("an idle connection has ended: %v", err)
			return
		}
		for {
			text, _, err := wsutil.ReadServerData(all[0])
			if err != nil {
				t.Errorf("an idle connection has ended: %v", err)
				return
			}
			if strings.Contains(string(text), "pusher:pong") {
				_ = all[0].Close()
				return
			}
		}
	}
}

// cutsIdlers checks that the documented timeout is the one that matters: made
// short, it cuts idle connections, and as it is it is longer than a client may
// be silent.
func (p *proxy) cutsIdlers(t *testing.T, addrs []string) {
	text := p.text(t)
	found := p.timeout.FindStringSubmatch(text)
	if found == nil {
		t.Fatalf("%s has no %v", p.file, p.timeout)
	}
	const silence = 150 * time.Second // activity_timeout and pong_timeout by default
	if d, err := time.ParseDuration(found[1]); err != nil || d <= silence {
		t.Errorf("%s is %v, %v; want more than %v", found[0], d, err, silence)
	}
	front := p.start(t, strings.Replace(text, found[0], strings.Replace(found[0], found[1], "1s", 1), 1), addrs)
	all, err := connect(t.Context(), front, 1)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = all[0].Close() }()
	_ = all[0].SetReadDeadline(time.Now().Add(patience))
	_, err = io.ReadAll(all[0])
	if netErr, ok := err.(net.Error); ok && netErr.Timeout() {
		t.Errorf("with 1s in place of %s an idle connection is not cut", found[1])
	}
}

// requests checks connections and the signed API through the proxy.
func requests(t *testing.T, front *node, nodes []*node) {
	var ears []*ear
	for i := range 6 {
		ears = append(ears, listen(t, fmt.Sprint("ear ", i), at(front), false, "news", fmt.Sprintf(`presence-proxied {"user_id":"u%d"}`, i%2)))
	}
	for _, n := range nodes {
		if n.connections(t) == 0 {
			t.Errorf("the node at %s has no connection", n.addr)
		}
	}
	allAccepted(t, front, 5)
	for _, e := range ears {
		e.until(t, "all events", func() bool {
			got := 0
			for _, h := range e.heard {
				if h.channel == "news" && h.event == "e" {
					got++
				}
			}
			return got == 5
		})
		e.proper(t)
	}
	var info struct {
		SubscriptionCount int `json:"subscription_count"`
		UserCount         int `json:"user_count"`
	}
	eventually(t, "the counts are those of all nodes", func() error {
		get(t, front, "/channels/presence-proxied", &info, "info", "subscription_count,user_count")
		if info.SubscriptionCount != len(ears) || info.UserCount != 2 {
			return fmt.Errorf("they are %+v", info)
		}
		return nil
	})
	var users struct{ Users []struct{ ID string } }
	get(t, front, "/channels/presence-proxied/users", &users)
	if len(users.Users) != 2 {
		t.Errorf("the users are %v", users)
	}
	// Who comes past the proxy is not believed to have TLS.
	conn, r, err := nodes[0].dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetReadDeadline(time.Now().Add(patience))
	var from io.Reader = conn
	if r != nil {
		from = r
	}
	if told, err := io.ReadAll(from); !strings.Contains(string(told), "4000") {
		t.Errorf("without TLS a client is told %q, %v; want error 4000", told, err)
	}
}

// allAccepted publishes and wants 200 each time.
func allAccepted(t *testing.T, front *node, count int) {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: front.tls}, Timeout: 10 * time.Second}
	defer client.CloseIdleConnections()
	for i := range count {
		body, _ := json.Marshal(map[string]any{"name": "e", "channel": "news", "data": fmt.Sprint(i)})
		if status, _, answer := call(t.Context(), client, http.MethodPost, front, "/events", body); status != http.StatusOK {
			t.Errorf("publish %d: %d %s", i, status, answer)
		}
	}
}
