package redisconn_test

import (
	"context"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/url"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"sockudo/internal/redisconn"
	"sockudo/internal/servicetest"
)

func TestMain(m *testing.M) { servicetest.VerifyNoLeaks(m) }

func dial(t *testing.T, e redisconn.Endpoint) rueidis.Client {
	t.Helper()
	c, err := redisconn.Dial(t.Context(), redisconn.Options(e))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// key is a new one for each run of a test.
func key(t *testing.T) string {
	t.Helper()
	return "redisconn:" + t.TempDir()
}

func check(t *testing.T, c rueidis.Client) {
	t.Helper()
	key := key(t)
	if err := c.Do(t.Context(), c.B().Set().Key(key).Value("v").ExSeconds(60).Build()).Error(); err != nil {
		t.Fatal(err)
	}
	if got, err := c.Do(t.Context(), c.B().Get().Key(key).Build()).ToString(); got != "v" || err != nil {
		t.Fatalf("got %q, %v; want what was set", got, err)
	}
}

func TestOneServer(t *testing.T) { check(t, dial(t, servicetest.RedisEndpoint(t))) }

func TestTheMasterOfSentinels(t *testing.T) {
	c := dial(t, servicetest.SentinelEndpoint(t))
	check(t, c)
	if c.Mode() != rueidis.ClientModeSentinel {
		t.Errorf("mode = %v", c.Mode())
	}
}

func TestACluster(t *testing.T) {
	c := dial(t, servicetest.RedisClusterEndpoint(t))
	check(t, c)
	if c.Mode() != rueidis.ClientModeCluster || len(c.Nodes()) != 3 {
		t.Errorf("mode = %v of %d nodes, want the three masters", c.Mode(), len(c.Nodes()))
	}
}

func TestTheDatabaseIsSelected(t *testing.T) {
	e := servicetest.RedisEndpoint(t)
	first := dial(t, e)
	e.DB = 7
	seventh := dial(t, e)
	k := key(t)
	if err := first.Do(t.Context(), first.B().Set().Key(k).Value("v").ExSeconds(60).Build()).Error(); err != nil {
		t.Fatal(err)
	}
	for want, c := range []rueidis.Client{seventh, first} {
		if n, err := c.Do(t.Context(), c.B().Exists().Key(k).Build()).AsInt64(); int(n) != want || err != nil {
			t.Errorf("the key is there %d times, %v; want %d", n, err, want)
		}
	}
}

func TestCredentialsAreUsed(t *testing.T) {
	e := servicetest.RedisEndpoint(t)
	e.Username, e.Password = servicetest.User, servicetest.Password
	c := dial(t, e)
	if who, err := c.Do(t.Context(), c.B().Arbitrary("ACL", "WHOAMI").Build()).ToString(); who != servicetest.User || err != nil {
		t.Errorf("connected as %q, %v; want %q", who, err, servicetest.User)
	}
	e.Password = "wrong-geheim"
	_, err := redisconn.Dial(t.Context(), redisconn.Options(e))
	if err == nil || !strings.Contains(err.Error(), "WRONGPASS") || strings.Contains(err.Error(), "geheim") {
		t.Errorf("err = %v, want the refusal without the password", err)
	}
}

func TestTLSIsVerifiedUnlessToldOtherwise(t *testing.T) {
	e, err := redisconn.Parse(servicetest.Env(t, servicetest.RedisTLS))
	if err != nil {
		t.Fatal(err)
	}
	check(t, dial(t, e))

	e.Insecure = false
	_, err = redisconn.Dial(t.Context(), redisconn.Options(e))
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); !ok {
		t.Errorf("err = %v, want that nobody knows the authority", err)
	}

	// With the authority known it works: the certificate names 127.0.0.1.
	opt := redisconn.Options(e)
	pem, err := os.ReadFile(servicetest.Env(t, servicetest.CA))
	if err != nil {
		t.Fatal(err)
	}
	opt.TLSConfig.RootCAs = x509.NewCertPool()
	opt.TLSConfig.RootCAs.AppendCertsFromPEM(pem)
	c, err := redisconn.Dial(t.Context(), opt)
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
}

func TestASocketInTheFileSystem(t *testing.T) {
	// A socket of ours that leads to the server.
	path := t.TempDir() + "/r.sock"
	ln, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	u, err := url.Parse(servicetest.Env(t, servicetest.Redis))
	if err != nil {
		t.Fatal(err)
	}
	bridge(t, ln, u.Host)
	e, err := redisconn.Parse("unix://" + path + "?db=3")
	if err != nil {
		t.Fatal(err)
	}
	check(t, dial(t, e))
}

func TestDialEndsWithItsContext(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0") // accepts by its backlog and never answers
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = silent.Close() }()
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	start := time.Now()
	_, err = redisconn.Dial(ctx, redisconn.Options(redisconn.Endpoint{Addrs: []string{silent.Addr().String()}}))
	if err == nil {
		t.Fatal("connected to nobody")
	}
	if took := time.Since(start); took > 3*time.Second {
		t.Errorf("gave up after %v, want soon after 100ms", took)
	}
}

func TestNoAddressIsAnError(t *testing.T) {
	if _, err := redisconn.Dial(t.Context(), redisconn.Options(redisconn.Endpoint{})); !errors.Is(err, rueidis.ErrNoAddr) {
		t.Errorf("err = %v, want %v", err, rueidis.ErrNoAddr)
	}
}

func bridge(t *testing.T, ln net.Listener, target string) {
	t.Helper()
	var wg sync.WaitGroup
	t.Cleanup(func() { _ = ln.Close(); wg.Wait() })
	wg.Go(func() {
		for {
			a, err := ln.Accept()
			if err != nil {
				return
			}
			b, err := net.Dial("tcp", target)
			if err != nil {
				_ = a.Close()
				continue
			}
			for _, way := range [][2]net.Conn{{a, b}, {b, a}} {
				wg.Go(func() { _, _ = io.Copy(way[0], way[1]); _, _ = a.Close(), b.Close() })
			}
		}
	})
}
