package servicetest

import (
	"errors"
	"math/rand/v2"
	"net"
	"strconv"
	"sync"
	"testing"
)

var ports struct {
	sync.Mutex
	given map[int]bool
}

// Port returns a TCP port of the loopback interface that nothing listens on; the
// one ten thousand above, where a node's admin listener is, is free too. Both
// are below those that systems give to outgoing connections: whoever listens
// there can leave and come back, and nobody who dials meanwhile is connected to
// itself. No other caller in this process gets them.
func Port(t testing.TB) int {
	t.Helper()
	const first, count, above = 10100, 1900, 10000 // test/services begins at 12000
	ports.Lock()
	defer ports.Unlock()
	var err error
	for range 100 {
		p := first + rand.IntN(count)
		if ports.given[p] {
			continue
		}
		if err = errors.Join(listened(p), listened(p+above)); err != nil {
			continue
		}
		if ports.given == nil {
			ports.given = map[int]bool{}
		}
		ports.given[p] = true
		return p
	}
	t.Fatalf("no free port: %v", err)
	return 0
}

// listened tries whether a port is free.
func listened(port int) error {
	ln, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil {
		return err
	}
	return ln.Close()
}
