package ws

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"math/big"
	"net"
	"testing"
	"time"
)

// tlsConfigs returns the two ends of a TLS connection with a throw-away
// certificate.
func tlsConfigs(t testing.TB) (server, client *tls.Config) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	if c, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	roots.AddCert(c)
	server = &tls.Config{
		Certificates:                []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}},
		NextProtos:                  []string{"http/1.1"},
		DynamicRecordSizingDisabled: true,
	}
	return server, &tls.Config{RootCAs: roots}
}

func TestTLSConnectionsAreServed(t *testing.T) {
	onBoth(t, func(t *testing.T, opts Options) {
		serverTLS, clientTLS := tlsConfigs(t)
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		h := &echo{closed: make(chan error, 1), on: func(c *Conn, payload []byte) {
			c.Send(TextFrame(payload))
			if string(payload) == "close" {
				c.Close(4200, "asked for")
			}
		}}
		s := NewServer(handled(h), opts)
		serveOn(t, s, tls.NewListener(Quiet(ln), serverTLS))
		c, err := Dial(context.Background(), "wss://"+ln.Addr().String()+"/x", DialOptions{TLS: clientTLS})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		for _, message := range []string{"a", long(10_000), long(64 << 10), "", "close"} {
			if err := c.Write([]byte(message)); err != nil {
				t.Fatal(err)
			}
			if got, err := c.Read(); err != nil || string(got) != message {
				t.Fatalf("%d bytes, %v, want %d", len(got), err, len(message))
			}
		}
		_, err = c.Read()
		if ce, ok := errors.AsType[*CloseError](err); !ok || ce.Code != 4200 || ce.Reason != "asked for" {
			t.Errorf("err = %v", err)
		}
		if err := waitClosed(t, h.closed); !errors.Is(err, ErrClosed) {
			t.Errorf("err = %v", err)
		}
		if _, err := c.Read(); err != io.EOF { // not unexpected: TLS has said goodbye as well
			t.Errorf("after the close: %v", err)
		}
	})
}
