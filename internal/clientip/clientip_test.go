package clientip

import (
	"net/http"
	"net/netip"
	"strings"
	"testing"
)

func TestAddressIsFoundBehindTrustedProxies(t *testing.T) {
	const chain = "203.0.113.9, 10.0.0.5, 10.0.0.6"
	for _, c := range []struct {
		name, peer, forwarded, realIP string // forwarded: lines separated by |
		hops                          int
		want                          string
	}{
		{"no proxy trusted", "10.0.0.7", chain, "198.51.100.1", 0, "10.0.0.7"},
		{"one hop", "10.0.0.7", chain, "", 1, "10.0.0.6"},
		{"two hops", "10.0.0.7", chain, "", 2, "10.0.0.5"},
		{"three hops", "10.0.0.7", chain, "", 3, "203.0.113.9"},
		{"more hops than entries", "10.0.0.7", chain, "", 9, "203.0.113.9"},
		{"several header lines", "10.0.0.7", "203.0.113.9|10.0.0.5,10.0.0.6", "", 2, "10.0.0.5"},
		{"several header lines, across", "10.0.0.7", "203.0.113.9|10.0.0.5,10.0.0.6", "", 3, "203.0.113.9"},
		{"no header", "10.0.0.7", "", "", 1, "10.0.0.7"},
		{"real ip when no list", "10.0.0.7", "", "198.51.100.1", 1, "198.51.100.1"},
		{"real ip when entry is no address", "10.0.0.7", "203.0.113.9, unknown", "198.51.100.1", 1, "198.51.100.1"},
		{"list wins over real ip", "10.0.0.7", "203.0.113.9", "198.51.100.1", 1, "203.0.113.9"},
		{"peer when nothing is an address", "10.0.0.7", "unknown", "nobody", 1, "10.0.0.7"},
		{"empty entry", "10.0.0.7", "203.0.113.9,", "", 1, "10.0.0.7"},
		{"port", "10.0.0.7", "203.0.113.9:4711", "", 1, "203.0.113.9"},
		{"brackets and port", "10.0.0.7", "[2001:DB8::0001]:4711", "", 1, "2001:db8::1"},
		{"brackets", "10.0.0.7", "[2001:db8::1]", "", 1, "2001:db8::1"},
		{"plain v6", "10.0.0.7", "2001:db8::1", "", 1, "2001:db8::1"},
		{"mapped v4", "10.0.0.7", "::ffff:203.0.113.9", "", 1, "203.0.113.9"},
		{"mapped peer", "::ffff:10.0.0.7", "", "", 0, "10.0.0.7"},
		{"zone", "fe80::1%eth0", "", "", 0, "fe80::1"},
		{"negative hops", "10.0.0.7", chain, "", -1, "10.0.0.7"},
		{"unix socket", "", chain, "", 0, "10.0.0.6"},
		{"unix socket, two hops", "", chain, "", 2, "10.0.0.5"},
		{"unix socket, real ip", "", "", "198.51.100.1", 0, "198.51.100.1"},
		{"unix socket, nothing", "", "", "", 0, "unix"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := Key(From(addr(t, c.peer), headers(c.forwarded, c.realIP), c.hops)); got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
		})
	}
}

func TestOnlyATrustedProxyCanClaimTLS(t *testing.T) {
	for _, c := range []struct {
		peer, proto string
		hops        int
		want        bool
	}{
		{"10.0.0.7", "https", 0, false},
		{"10.0.0.7", "https", 1, true},
		{"10.0.0.7", "WSS", 1, true},
		{"10.0.0.7", "http", 1, false},
		{"10.0.0.7", "", 1, false},
		{"10.0.0.7", "https, http", 1, false},
		{"10.0.0.7", "https, http", 2, true},
		{"", "https", 0, true},
	} {
		h := http.Header{}
		if c.proto != "" {
			h.Set("X-Forwarded-Proto", c.proto)
		}
		if got := Secure(addr(t, c.peer), h, c.hops); got != c.want {
			t.Errorf("peer %q proto %q hops %d: got %v, want %v", c.peer, c.proto, c.hops, got, c.want)
		}
	}
}

func FuzzForwardedHeader(f *testing.F) {
	f.Add("203.0.113.9, 10.0.0.5|10.0.0.6", "198.51.100.1", 2)
	f.Add("[::1]:80,,", "", 1)
	f.Add(":|,|[", "]", 3)
	peer := netip.MustParseAddr("192.0.2.77")
	f.Fuzz(func(t *testing.T, forwarded, realIP string, hops int) {
		h := headers(forwarded, realIP)
		got := From(peer, h, hops)
		if hops <= 0 && got != peer {
			t.Fatalf("headers were believed without a trusted proxy: %v", got)
		}
		if !got.IsValid() || got.Is4In6() || got.Zone() != "" {
			t.Fatalf("not canonical: %v", got)
		}
		// What stands left of the trusted entries is the caller's own text and
		// must not matter once there are enough of them.
		if n := strings.Count(forwarded, ",") + strings.Count(forwarded, "|") + 1; hops > 0 && n >= hops && forwarded != "" {
			if forged := From(peer, headers("198.51.100.200,"+forwarded, realIP), hops); forged != got {
				t.Fatalf("a forged entry changed %v to %v", got, forged)
			}
		}
	})
}

func headers(forwarded, realIP string) http.Header {
	h := http.Header{}
	if forwarded != "" {
		h["X-Forwarded-For"] = strings.Split(forwarded, "|")
	}
	if realIP != "" {
		h.Set("X-Real-IP", realIP)
	}
	return h
}

func addr(t *testing.T, s string) netip.Addr {
	t.Helper()
	if s == "" {
		return netip.Addr{}
	}
	a, err := netip.ParseAddr(s)
	if err != nil {
		t.Fatal(err)
	}
	return a
}
