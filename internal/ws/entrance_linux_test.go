package ws

import (
	"errors"
	"net"
	"net/http"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// tighten gives the connections of a listener little room in the kernel. They
// inherit it here, so that the listener stays one that the loops accept from.
func tighten(t testing.TB, ln net.Listener) net.Listener {
	t.Helper()
	raw, err := ln.(*net.TCPListener).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var refused error
	err = raw.Control(func(fd uintptr) {
		refused = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_SNDBUF, tightBuffer)
	})
	if err = errors.Join(err, refused); err != nil {
		t.Fatal(err)
	}
	return ln
}

func TestAcceptSeesTheAddressOfTheClient(t *testing.T) {
	for _, test := range []struct{ network, listen, dial string }{
		{"tcp", "127.0.0.1:0", "127.0.0.1"},
		{"tcp", "[::1]:0", "::1"},
		{"tcp", "[::]:0", "127.0.0.1"}, // IPv4 on an IPv6 socket
		{"unix", filepath.Join(t.TempDir(), "s"), ""},
	} {
		for _, stream := range []bool{false, true} {
			name := map[bool]string{false: "poll", true: "stream"}[stream]
			t.Run(test.network+" "+test.dial+" "+name, func(t *testing.T) {
				seen := make(chan string, 1)
				s := NewServer(func(r *http.Request) (Handler, *Refusal) {
					seen <- r.RemoteAddr
					return &echo{}, nil
				}, Options{ForceStream: stream})
				ln, err := net.Listen(test.network, test.listen)
				if err != nil {
					t.Fatal(err)
				}
				serveOn(t, s, ln)
				addr := ln.Addr().String()
				if test.network == "tcp" {
					_, port, _ := net.SplitHostPort(addr)
					addr = net.JoinHostPort(test.dial, port)
				}
				nc, err := net.Dial(test.network, addr)
				if err != nil {
					t.Fatal(err)
				}
				defer nc.Close()
				if _, err := nc.Write([]byte(upgradeRequest)); err != nil {
					t.Fatal(err)
				}
				want := nc.LocalAddr().String()
				if test.network == "unix" {
					want = "@"
				}
				if got := <-seen; got != want {
					t.Errorf("address %q, want %q", got, want)
				}
			})
		}
	}
}
