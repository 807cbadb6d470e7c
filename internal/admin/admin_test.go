package admin_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"sockudo/internal/admin"
	"sockudo/internal/app"
	"sockudo/internal/cluster"
	"sockudo/internal/directory"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A lone node is one whose listener is tested.
type lone struct {
	mu      sync.Mutex // guards what follows
	changed []string
	err     error
}

func (l *lone) change(_ context.Context, id string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.changed = append(l.changed, id)
	return l.err
}

// serve runs a listener until the test ends.
func serve(t *testing.T, n admin.Node, token app.Secret) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := admin.NewServer(n, admin.Options{Token: token})
	done := make(chan error, 1)
	go func() { done <- s.Serve(admin.Bound(ln)) }()
	t.Cleanup(func() {
		_ = s.Close()
		if err := <-done; !errors.Is(err, http.ErrServerClosed) {
			t.Errorf("Serve = %v", err)
		}
	})
	return ln.Addr().String()
}

func alone(l *lone) admin.Node {
	return admin.Node{Identity: admin.Identity{Driver: "local"}, Connections: func() int { return 7 }, ChangeApp: l.change}
}

// ask sends a request with further headers, in pairs.
func ask(t *testing.T, method, addr, path, body string, header ...string) (int, string, http.Header) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, "http://"+addr+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Close = true
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
		if header[i] == "Host" {
			req.Host = header[i+1]
		}
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(text), resp.Header
}

const token = app.Secret("0123456789abcdef")

func TestWhoMayAsk(t *testing.T) {
	open, closed := serve(t, alone(&lone{}), ""), serve(t, alone(&lone{}), token)
	_, port, _ := net.SplitHostPort(open)
	for _, c := range []struct {
		name, addr string
		header     []string
		want       int
	}{
		{"an address", open, nil, 200},
		{"localhost", open, []string{"Host", "LocalHost:" + port}, 200},
		{"IPv6", open, []string{"Host", "[::1]:" + port}, 200},
		{"a name that leads here by DNS", open, []string{"Host", "evil.example:" + port}, 421},
		{"a name that looks like it", open, []string{"Host", "127.0.0.1.evil.example"}, 421},
		{"no host that can be read", open, []string{"Host", "::::"}, 421},
		{"a page", open, []string{"Origin", "http://127.0.0.1:" + port}, 403},
		{"an image of a page", open, []string{"Sec-Fetch-Site", "cross-site"}, 403},
		{"a page of the same site", open, []string{"Sec-Fetch-Site", "same-origin"}, 403},
		{"typed into a browser", open, []string{"Sec-Fetch-Site", "none"}, 200},
		{"no token", closed, nil, 401},
		{"a wrong token", closed, []string{"Authorization", "Bearer 0123456789abcdeF"}, 401},
		{"a part of it", closed, []string{"Authorization", "Bearer 0123456789abcde"}, 401},
		{"another scheme", closed, []string{"Authorization", "Basic 0123456789abcdef"}, 401},
		{"the token", closed, []string{"Authorization", "bearer 0123456789abcdef"}, 200},
		{"the token and any host", closed, []string{"Authorization", "Bearer 0123456789abcdef", "Host", "node-1.internal"}, 200},
		{"the token of a page", closed, []string{"Authorization", "Bearer 0123456789abcdef", "Origin", "http://evil.example"}, 403},
	} {
		for _, path := range []string{"/cluster/status", "/cluster/audit", "/nothing"} {
			want := c.want
			if path == "/nothing" && want == 200 {
				want = 404
			}
			status, body, header := ask(t, http.MethodGet, c.addr, path, "", c.header...)
			if status != want || !strings.HasPrefix(body, "{") || header.Get("Content-Type") != "application/json" {
				t.Errorf("%s, %s: %d %s, want %d and JSON", c.name, path, status, body, want)
			}
			if header.Get("Access-Control-Allow-Origin") != "" {
				t.Errorf("%s, %s: a page may read it", c.name, path)
			}
			if strings.Contains(body, token.Reveal()) {
				t.Errorf("%s, %s: the token is shown: %s", c.name, path, body)
			}
		}
	}
}

func TestChangedApps(t *testing.T) {
	l := &lone{}
	addr := serve(t, alone(l), "")
	for _, c := range []struct {
		name, method, body string
		want               int
	}{
		{"one", http.MethodPost, `{"apps": ["a"]}`, 200},
		{"none", http.MethodPost, `{}`, 200},
		{"no JSON", http.MethodPost, `apps=a`, 400},
		{"another form", http.MethodPost, `{"apps": "a"}`, 400},
		{"too many", http.MethodPost, `{"apps": [` + strings.Repeat(`"a",`, admin.MaxApps) + `"a"]}`, 400},
		{"too much", http.MethodPost, `{"apps": ["` + strings.Repeat("a", 1<<20) + `"]}`, 413},
		{"by GET", http.MethodGet, "", 404},
	} {
		if status, body, _ := ask(t, c.method, addr, "/apps/changed", c.body); status != c.want {
			t.Errorf("%s: %d %.200s, want %d", c.name, status, body, c.want)
		}
	}
	if got := l.changed; !slices.Equal(got, []string{"a"}) {
		t.Errorf("changed: %q", got)
	}

	// The client asks as often as that takes.
	l.changed = nil
	var ids []string
	for i := range admin.MaxApps + 1 {
		ids = append(ids, fmt.Sprint(i))
	}
	c := admin.Client{Network: "tcp", Address: addr}
	if _, err := c.Changed(t.Context(), ids); err != nil || !slices.Equal(l.changed, ids) {
		t.Errorf("%v, %d apps changed", err, len(l.changed))
	}
	l.err = errors.New("the broker is down")
	if _, err := c.Changed(t.Context(), ids); !errors.Is(err, admin.ErrRefused) || !strings.Contains(err.Error(), "the broker is down") {
		t.Errorf("err = %v", err)
	}
}

func TestWhatIsNoAdminListenerIsSaidToBeNone(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	other := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/cluster/audit" {
			http.Redirect(w, r, "/elsewhere", http.StatusFound)
			return
		}
		fmt.Fprint(w, `{"hello": 1}`)
	}), ReadHeaderTimeout: time.Second}
	done := make(chan error, 1)
	go func() { done <- other.Serve(ln) }()
	c := admin.Client{URL: "http://" + ln.Addr().String(), Token: token}
	for _, err := range []error{second(c.Status(t.Context())), second(c.Audit(t.Context()))} {
		if err == nil || !strings.Contains(err.Error(), "this does not look like") || strings.Contains(err.Error(), token.Reveal()) {
			t.Errorf("err = %v", err)
		}
	}
	_ = other.Close()
	<-done
	if _, err := c.Status(t.Context()); err == nil {
		t.Error("nobody answered")
	}
}

func second[T any](_ T, err error) error { return err }

// TestManyCallersAreBorne opens more connections than there may be: the others
// wait, and nobody is forgotten.
func TestManyCallersAreBorne(t *testing.T) {
	addr := serve(t, alone(&lone{}), "")
	var idle []net.Conn
	for range 64 {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = c.Close() }()
		idle = append(idle, c)
	}
	answered := make(chan error, 1)
	client := admin.Client{Network: "tcp", Address: addr}
	go func() {
		_, err := client.Status(context.WithoutCancel(t.Context()))
		answered <- err
	}()
	select {
	case err := <-answered:
		t.Errorf("answered beside 64 connections: %v", err)
	case <-time.After(100 * time.Millisecond):
	}
	for _, c := range idle {
		_ = c.Close()
	}
	select {
	case err := <-answered:
		if err != nil {
			t.Errorf("Status = %v", err)
		}
	case <-time.After(30 * time.Second):
		t.Error("not answered after the others had gone")
	}
}

// member is a node of a cluster whose sockets are made up.
type member struct{}

func (member) Deliver(string, string, []byte, string, time.Time) {}
func (member) ChannelChanged(string, string)                     {}
func (member) MemberChanged(string, string, string)              {}
func (member) UserChanged(string, string)                        {}
func (member) Terminate(string, string, int, string)             {}
func (member) AppChanged(string)                                 {}
func (member) Truth(tell func(directory.Entry)) {
	tell(directory.Entry{Kind: directory.Channel, App: "app", Channel: "x", Value: 2})
}

func TestAllNodesAreSeenThroughOne(t *testing.T) {
	broker := cluster.NewMemoryBus()
	var nodes []*cluster.Cluster
	for _, name := range []string{"a", "b", "c"} {
		c := cluster.New(broker.Connect(), cluster.Options{NodeID: name, Secret: []byte("geheim")})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- c.Run(ctx, member{}) }()
		t.Cleanup(func() {
			cancel()
			if err := <-done; err != nil {
				t.Errorf("Run = %v", err)
			}
		})
		c.SetChannel("app", "x", 2)
		nodes = append(nodes, c)
	}
	n := admin.Node{
		Identity: admin.Identity{Driver: "redis", Cluster: "default", Prefix: "p"},
		Peers:    nodes[0], Connections: func() int { return 1 }, ChangeApp: nodes[0].AppChanged,
	}
	client := admin.Client{Network: "tcp", Address: serve(t, n, token), Token: token}
	for end := time.Now().Add(30 * time.Second); ; {
		s, err := client.Status(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		ready := 0
		for _, n := range s.Nodes {
			if n.Ready == "" && n.Own.Channels == 1 && len(n.Peers) == 2 && n.Peers[0].Channels == 1 {
				ready++
			}
		}
		if ready == 3 && len(s.Silent) == 0 {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("Status = %+v, want three nodes", s)
		}
	}
	a, err := client.Audit(t.Context())
	if err != nil || a.Differences != 0 || len(a.Nodes) != 3 || len(a.Silent)+len(a.Moving)+len(a.Disagreements) != 0 {
		t.Errorf("Audit = %+v, %v; want no differences at three nodes", a, err)
	}
	nodes[2].SetChannel("app", "y", 1) // which its sockets do not have
	if a, err = client.Audit(t.Context()); err != nil || a.Differences != 1 || len(a.Disagreements) != 1 {
		t.Errorf("Audit = %+v, %v; want a difference at c", a, err)
	}
	told, err := client.Changed(t.Context(), []string{"app"})
	if err != nil || told.Peers != 2 || told.Identity != n.Identity {
		t.Errorf("Changed = %+v, %v; want two peers", told, err)
	}
}
