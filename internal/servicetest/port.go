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
	const first, count, above = 10100, 1900, 10000 // test/services begins at 12000
	var err error
	for range 100 {
		p := first + rand.IntN(count)
		var claim io.Closer
		if claim, err = claimed(p); err != nil {
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

// claimed takes the UDP port of the same number, which no test uses: it keeps
// other tests from a TCP port while nobody listens there.
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
