package servicetest

import (
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

// Port returns a TCP port of the loopback interface that nothing listens on. It
// is below those that systems give to outgoing connections: whoever listens on
// it can leave it and come back, and nobody who dials it meanwhile is connected
// to itself. No other caller in this process gets it.
func Port(t testing.TB) int {
	t.Helper()
	const first, count = 22000, 10000 // above those of test/services
	ports.Lock()
	defer ports.Unlock()
	var err error
	for range 100 {
		p := first + rand.IntN(count)
		if ports.given[p] {
			continue
		}
		var ln net.Listener
		if ln, err = net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(p))); err != nil {
			continue
		}
		if err = ln.Close(); err != nil {
			break
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
