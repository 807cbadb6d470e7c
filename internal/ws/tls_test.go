package ws

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
)

// tlsConfigs returns the two ends of a TLS connection to a throw-away server.
func tlsConfigs(t testing.TB) (server, client *tls.Config) {
	t.Helper()
	ts := httptest.NewUnstartedServer(nil)
	ts.StartTLS()
	defer ts.Close()
	server = ts.TLS.Clone()
	server.NextProtos = []string{"http/1.1"}
	client = ts.Client().Transport.(*http.Transport).TLSClientConfig.Clone()
	return server, client
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
		serveOn(t, s, tls.NewListener(ln, serverTLS))
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
