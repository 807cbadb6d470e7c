package processes

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"

	"sockudo/internal/servicetest"
)

// TestChangedAppsAreKnownAtOnce has the commands change an app in a database
// that three nodes share: they are told through the admin listener of one, and
// without that over the broker.
func TestChangedAppsAreKnownAtOnce(t *testing.T) {
	for _, driver := range []string{"redis", "redis-cluster", "nats"} {
		t.Run(driver, func(t *testing.T) {
			t.Parallel()
			changedApps(t, driver)
		})
	}
}

func changedApps(t *testing.T, driver string) {
	u, err := url.Parse(servicetest.Env(t, servicetest.Postgres))
	if err != nil {
		t.Fatal(err)
	}
	password, _ := u.User.Password()
	meter := meters[driver](t)
	further := map[string]any{
		"app_manager": map[string]any{"driver": "pgsql"},
		"database": map[string]any{"postgres": map[string]any{
			"host": u.Hostname(), "port": json.Number(u.Port()), "username": u.User.Username(), "password": password,
			"database": strings.Trim(u.Path, "/"), "table_name": fmt.Sprintf("told_%d_%d", os.Getpid(), time.Now().UnixNano()%1e9),
		}},
	}
	s := &site{}
	for range last + 1 {
		n := newNode(t, meter.adapter(), further)
		if len(s.nodes) == 0 {
			out, errs, code := n.command(t, "apps", "create", "shop", "--key", "shop-key")
			if code != 0 || !strings.Contains(errs, "running nodes: told (over "+driver+")") {
				t.Fatalf("create: %d %s%s", code, out, errs)
			}
		}
		n.launch(t)
		s.nodes = append(s.nodes, n)
	}
	s.awaitReady(t)

	// Whoever runs the command has the settings of a node, or others without the
	// listener.
	remote := newNode(t, meter.adapter(), further, map[string]any{"admin": map[string]any{"enabled": false}})
	s.toldAtOnce(t, s.nodes[1], "running nodes: told, 3 of them")
	s.toldAtOnce(t, remote, "running nodes: told (over "+driver+")")

	// Imported and deleted ones are told of, too.
	if err := os.WriteFile(filepath.Join(remote.dir, "apps.json"), []byte(`[{"id": "shop", "key": "shop-key", "secret": "other"}]`), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"apps", "import", "apps.json", "--overwrite"}, {"apps", "rotate-secret", "shop"}, {"apps", "delete", "shop", "--yes"}} {
		out, errs, code := remote.command(t, args...)
		if code != 0 || strings.Count(errs, "running nodes: told (over "+driver+")") != 1 || strings.Contains(out, "running nodes") {
			t.Errorf("%v: %d %s%s", args, code, out, errs)
		}
	}
	// Nothing was changed: nobody is told.
	if out, errs, _ := remote.command(t, "apps", "delete", "shop", "--yes"); strings.Contains(out+errs, "running nodes") {
		t.Errorf("delete: %s%s", out, errs)
	}
}

// toldAtOnce switches the app off and on. A node that is not told takes up to
// 10 s for each; so three rounds of ten in which all nodes need less than 3 s do
// not come by chance, and a busy machine may spoil the others.
func (s *site) toldAtOnce(t *testing.T, teller *node, want string) {
	t.Helper()
	for rounds, good := 1, 0; good < 3; rounds++ {
		var conns []shopper
		for _, n := range s.nodes {
			var c shopper
			eventually(t, "the app is served", func() (err error) { c, err = shop(t, n); return err })
			conns = append(conns, c)
		}
		out, errs, code := teller.command(t, "apps", "update", "shop", "--enabled=false")
		if code != 0 || !strings.Contains(errs, want) {
			t.Fatalf("update: %d %s%s, want %q", code, out, errs, want)
		}
		begun := time.Now()
		for i, c := range conns {
			if code := c.closed(t); code != 4003 {
				t.Fatalf("node %d closed with %d", i, code)
			}
		}
		if _, errs, code = teller.command(t, "apps", "update", "shop", "--enabled"); code != 0 || !strings.Contains(errs, want) {
			t.Fatalf("update: %d %s, want %q", code, errs, want)
		}
		for _, n := range s.nodes {
			eventually(t, "the app is served again", func() error {
				c, err := shop(t, n)
				if err == nil {
					c.hang()
				}
				return err
			})
		}
		if took := time.Since(begun); took < 3*time.Second {
			good++
		} else {
			t.Logf("round %d took %v", rounds, took)
		}
		if rounds == 10 && good < 3 {
			t.Fatalf("%d of 10 rounds were quick enough, want 3", good)
		}
	}
}

// A shopper is a connection to the app of these tests.
type shopper struct {
	hang func()
	read func() ([]byte, error)
}

// shop connects; an error means that the app is not served.
func shop(t *testing.T, n *node) (shopper, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	conn, r, _, err := ws.Dial(ctx, n.url("ws")+"/app/shop-key?protocol=7&client=test&version=1.0")
	if err != nil {
		return shopper{}, err
	}
	t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(patience))
	c := shopper{hang: func() { _ = conn.Close() }, read: func() ([]byte, error) { return wsutil.ReadServerText(through(conn, r)) }}
	text, err := c.read()
	if err == nil && !strings.Contains(string(text), "pusher:connection_established") {
		err = fmt.Errorf("it heard %s", text)
	}
	if err != nil {
		c.hang()
	}
	return c, err
}

// closed waits for the end and returns its code.
func (c shopper) closed(t *testing.T) int {
	t.Helper()
	defer c.hang()
	for {
		_, err := c.read()
		if end, ok := errors.AsType[wsutil.ClosedError](err); ok {
			return int(end.Code)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}
