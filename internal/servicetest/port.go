package servicetest

import (
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"strconv"
	"testing"
)

// Port returns a TCP port of the loopback interface that nothing listens on; the
// one ten thousand above, where a node's admin listener is, is free too. Both
// are below those that systems give to outgoing connections: whoever listens
// there can leave and come back, and nobody who dials meanwhile is connected to
// itself. Nobody else gets them before the test ends, in other processes neither.
func Port(t testing.TB) int {
	t.Helper()
	const first, count = 10100, 1900 // test/services begins at 12000
	var err error
	for range 100 {
		p := first + rand.IntN(count)
		var claim io.Closer
		if claim, err = claimed(p + above); err != nil {
			continue
		}
		if err = errors.Join(listened(p), listened(p+above)); err != nil {
			_ = claim.Close()
			continue
		}
		t.Cleanup(func() { _ = claim.Close() })
		return p
	}
	t.Fatalf("no free port: %v", err)
	return 0
}

// above is how far the port of a node's admin listener is from that of the main one.
const above = 10000

// claimed takes a UDP port, which keeps other tests from the TCP ports while
// nobody listens there. That of the lower one may be wanted, for HTTP/3.
func claimed(port int) (io.Closer, error) { return net.ListenPacket("udp", local(port)) }

// listened tries whether a port is free.
func listened(port int) error {
	ln, err := net.Listen("tcp", local(port))
	if err != nil {
		return err
	}
	return ln.Close()
}

func local(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }
