package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"sockudo/internal/config"
	"sockudo/internal/pushertest"
)

type opts = pushertest.Options

func TestHandshake(t *testing.T) {
	s := serve(t, func(cfg *config.Config) { cfg.ActivityTimeout = 97; cfg.PathPrefix = "/prefix" })

	t.Run("first frame", func(t *testing.T) {
		items(t, 1, 2, 3, 4)
		c, refused := pushertest.DialRaw(t, s.Addr, appB)
		if refused != nil {
			t.Fatalf("refused with %d", refused.Status)
		}
		c.Established() // fails unless the data is a string that holds an object
		if !regexp.MustCompile(`^\d+\.\d+$`).MatchString(c.SocketID) {
			t.Errorf("socket_id %q", c.SocketID)
		}
		if c.ActivityTimeout != 97*time.Second {
			t.Errorf("activity_timeout %v, want 97 s", c.ActivityTimeout)
		}
	})

	t.Run("socket ids", func(t *testing.T) {
		items(t, 5, 6)
		const n = 1000
		ids := make(chan string, n)
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() {
				for range n / 20 {
					c := pushertest.Dial(t, s.Addr, appB)
					ids <- c.SocketID
				}
			})
		}
		wg.Wait()
		close(ids)
		seen := map[string]bool{}
		for id := range ids {
			if seen[id] {
				t.Fatalf("socket id %s was given twice", id)
			}
			seen[id] = true
		}
		if len(seen) != n {
			t.Fatalf("%d socket ids, want %d", len(seen), n)
		}
	})

	accepted := []struct {
		items []int
		name  string
		opts  opts
	}{
		{[]int{7}, "protocol 5", opts{Query: "protocol=5&client=java-client"}},
		{[]int{8}, "protocol 6", opts{Query: "protocol=6"}},
		{[]int{9}, "no protocol", opts{Query: "client=js"}},
		{[]int{10}, "empty protocol", opts{Query: "protocol="}},
		{[]int{13}, "no version", opts{Query: "protocol=7"}},
		{[]int{13}, "empty version", opts{Query: "protocol=7&version="}},
		{[]int{13}, "strange version", opts{Query: "protocol=7&version=@VERSION@"}},
		{[]int{14}, "unknown parameters", opts{Query: "protocol=7&foo=bar&x[]=1&%zz"}},
		{[]int{14}, "no query at all", opts{Query: "-"}},
		{[]int{25}, "trailing slash", opts{Path: "/app/app-key/"}},
		{[]int{26}, "prefix", opts{Path: "/prefix/app/app-key"}},
		{nil, "percent-encoded key", opts{Path: "/app/app%2Dkey"}},
	}
	for _, a := range accepted {
		t.Run(a.name, func(t *testing.T) {
			items(t, a.items...)
			c := pushertest.Dial(t, s.Addr, appB, a.opts)
			c.Subscribe("works")
		})
	}

	refused := []struct {
		items []int
		name  string
		app   string
		opts  opts
		code  int
	}{
		{[]int{11}, "protocol abc", "app", opts{Query: "protocol=abc"}, 4006},
		{[]int{11}, "protocol 7.0", "app", opts{Query: "protocol=7.0"}, 4006},
		{[]int{11}, "protocol minus", "app", opts{Query: "protocol=-"}, 4006},
		{[]int{12}, "protocol 4", "app", opts{Query: "protocol=4"}, 4007},
		{[]int{12}, "protocol 8", "app", opts{Query: "protocol=8"}, 4007},
		{[]int{12}, "protocol 0", "app", opts{Query: "protocol=0"}, 4007},
		{[]int{12}, "protocol -7", "app", opts{Query: "protocol=-7"}, 4007},
		{[]int{12}, "protocol beyond 64 bits", "app", opts{Query: "protocol=99999999999999999999"}, 4007},
		{[]int{15, 16, 17}, "unknown key", "nobody", opts{}, 4001},
		{[]int{18}, "disabled app", "disabled", opts{}, 4003},
		{[]int{20}, "plain connection to a TLS app", "tls", opts{}, 4000},
		{[]int{21}, "unknown path", "app", opts{Path: "/nonsense"}, 4005},
		{nil, "path below the key", "app", opts{Path: "/app/app-key/more"}, 4005},
		{[]int{22}, "bad origin", "origin", opts{Header: origin("https://bad.example")}, 4009},
		{[]int{23}, "look-alike origin", "origin", opts{Header: origin("https://badexample.com")}, 4009},
		{[]int{24}, "no origin", "origin", opts{}, 4009},
	}
	for _, r := range refused {
		t.Run(r.name, func(t *testing.T) {
			items(t, r.items...)
			c, answer := pushertest.DialRaw(t, s.Addr, appNamed(r.app), r.opts)
			if answer != nil {
				t.Fatalf("refused over HTTP with %d", answer.Status)
			}
			e := c.ExpectFail(r.code)
			if r.code == 4001 && !strings.Contains(e.Message, "nobody-key") {
				t.Errorf("message %q does not name the key", e.Message)
			}
		})
	}

	t.Run("origins", func(t *testing.T) {
		items(t, 22, 23)
		for _, o := range []string{"https://good.example", "https://example.com", "https://a.b.example.com", "HTTPS://A.Example.COM"} {
			pushertest.Dial(t, s.Addr, appNamed("origin"), opts{Header: origin(o)})
		}
	})
	t.Run("no list, no origin", func(t *testing.T) {
		items(t, 24)
		pushertest.Dial(t, s.Addr, appB)
	})
	t.Run("quota", func(t *testing.T) {
		items(t, 19)
		one := pushertest.Dial(t, s.Addr, appNamed("single"))
		two, _ := pushertest.DialRaw(t, s.Addr, appNamed("single"))
		two.ExpectFail(4004)
		one.Close(1000)
		eventually(t, "a new connection is accepted", func() bool {
			c, _ := pushertest.DialRaw(t, s.Addr, appNamed("single"))
			defer c.Cut()
			return c.Next().Event == "pusher:connection_established"
		})
	})
	t.Run("subscribe before reading", func(t *testing.T) {
		items(t, 27)
		c, _ := pushertest.DialRaw(t, s.Addr, plain, opts{Early: `{"event":"pusher:subscribe","data":{"channel":"early"}}`})
		c.Established()
		c.Expect("pusher_internal:subscription_succeeded", "early")
	})
	t.Run("subprotocol", func(t *testing.T) {
		items(t, 28)
		c := pushertest.Dial(t, s.Addr, appB, opts{Header: http.Header{"Sec-Websocket-Protocol": {"chat, pusher"}}})
		if p := c.UpgradeHeader().Get("Sec-Websocket-Protocol"); p != "" {
			t.Errorf("the subprotocol %q was agreed on", p)
		}
	})
	t.Run("permessage-deflate", func(t *testing.T) {
		items(t, 29)
		for _, h := range []http.Header{nil, {"Sec-Websocket-Extensions": {"permessage-deflate; client_max_window_bits"}}} {
			c := pushertest.Dial(t, s.Addr, plain, opts{Header: h})
			c.Subscribe("deflate")
			c.Quiet()
		}
	})
	t.Run("no upgrade", func(t *testing.T) {
		items(t, 30)
		resp, err := http.Get("http://" + s.Addr + "/app/app-key")
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if resp.StatusCode != 426 {
			t.Errorf("status %s, want 426", resp.Status)
		}
		pushertest.Dial(t, s.Addr, appB)
	})
}

func origin(o string) http.Header { return http.Header{"Origin": {o}} }

// eventually waits for something that other goroutines bring about.
func eventually(t testing.TB, what string, met func() bool) {
	t.Helper()
	const patience = 30 * time.Second
	end := time.Now().Add(patience)
	for !met() {
		if time.Now().After(end) {
			t.Fatalf("not so within %v: %s", patience, what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

func TestStrictProtocol(t *testing.T) {
	items(t, 9, 10)
	s := serve(t, func(cfg *config.Config) { cfg.StrictProtocol = true })
	for _, query := range []string{"client=js", "protocol=", "-"} {
		c, _ := pushertest.DialRaw(t, s.Addr, appB, opts{Query: query})
		c.ExpectFail(4008)
	}
	pushertest.Dial(t, s.Addr, appB)
}

func TestNodeCapacity(t *testing.T) {
	s := serve(t, func(cfg *config.Config) { cfg.MaxConnections = 2 })
	pushertest.Dial(t, s.Addr, appB)
	pushertest.Dial(t, s.Addr, appC)
	c, _ := pushertest.DialRaw(t, s.Addr, appB)
	c.ExpectFail(4100)
}

func TestTLS(t *testing.T) {
	items(t, 20)
	cert, key, pool := certificate(t)
	s := serve(t, func(cfg *config.Config) {
		cfg.SSL.Enabled, cfg.SSL.CertPath, cfg.SSL.KeyPath = true, cert, key
	})
	conf := &tls.Config{RootCAs: pool, ServerName: "127.0.0.1"}
	c := pushertest.Dial(t, s.Addr, appNamed("tls"), opts{TLS: conf})
	c.Subscribe("over-tls")
	d := pushertest.Dial(t, s.Addr, appNamed("tls"), opts{TLS: conf})
	d.Subscribe("over-tls")
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: conf}}
	defer client.CloseIdleConnections()
	resp, err := client.Get("https://" + s.Addr + "/up")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != 200 {
		t.Fatal(resp.Status)
	}
	c.Close(1000)
	d.Quiet()
}

// certificate writes a self-signed certificate for 127.0.0.1.
func certificate(t *testing.T) (certPath, keyPath string, pool *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	certPath, keyPath = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for path, block := range map[string]*pem.Block{certPath: {Type: "CERTIFICATE", Bytes: der}, keyPath: {Type: "PRIVATE KEY", Bytes: keyDER}} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	pool = x509.NewCertPool()
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool.AddCert(cert)
	return certPath, keyPath, pool
}
