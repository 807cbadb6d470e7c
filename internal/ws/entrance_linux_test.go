package ws

import (
	"net"
	"net/http"
	"path/filepath"
	"testing"
)

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
