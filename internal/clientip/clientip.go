// Package clientip finds the address of the caller when the server stands
// behind a known number of trusted proxies.
package clientip

import (
	"net/http"
	"net/netip"
	"strings"
)

// From returns the address of the caller. peer is the other end of the TCP
// connection, the zero Addr for a Unix socket; trustHops is the number of
// trusted proxies in front of the server.
//
// With no trusted proxy the headers are not looked at. With N of them, the
// N-th entry of X-Forwarded-For from the right counts, because each proxy
// appends the address it saw and what is further left was written by the
// caller; with fewer entries it is the left-most. If that is no address,
// X-Real-IP counts, then peer. A Unix socket only has proxies as peers, so one
// trusted proxy is the least. The result is zero if nothing was usable; IPv4
// addresses in IPv6 form are folded to IPv4.
func From(peer netip.Addr, h http.Header, trustHops int) netip.Addr {
	hops := effective(peer, trustHops)
	if hops > 0 {
		if a, ok := parse(fromRight(h["X-Forwarded-For"], hops)); ok {
			return a
		}
		if a, ok := parse(h.Get("X-Real-Ip")); ok {
			return a
		}
	}
	return canonical(peer)
}

// Secure reports whether a trusted proxy says, in X-Forwarded-Proto, that the
// caller came over TLS. Parameters as for From.
func Secure(peer netip.Addr, h http.Header, trustHops int) bool {
	hops := effective(peer, trustHops)
	if hops == 0 {
		return false
	}
	proto := fromRight(h["X-Forwarded-Proto"], hops)
	return strings.EqualFold(proto, "https") || strings.EqualFold(proto, "wss")
}

// Key returns the text by which limits count an address: its canonical form,
// or "unix" for the zero Addr.
func Key(a netip.Addr) string {
	if !a.IsValid() {
		return "unix"
	}
	return canonical(a).String()
}

func effective(peer netip.Addr, trustHops int) int {
	if !peer.IsValid() {
		return max(1, trustHops)
	}
	return max(0, trustHops)
}

func canonical(a netip.Addr) netip.Addr { return a.Unmap().WithZone("") }

// fromRight returns the n-th entry from the right of a header that is a comma
// separated list over one or more lines; the left-most if there are fewer.
func fromRight(lines []string, n int) string {
	entry := ""
	for i := len(lines) - 1; i >= 0; i-- {
		for rest, more := lines[i], true; more; n-- {
			if n == 0 {
				return entry
			}
			cut := strings.LastIndexByte(rest, ',')
			more = cut >= 0
			entry = strings.TrimSpace(rest[cut+1:])
			if more {
				rest = rest[:cut]
			}
		}
	}
	return entry
}

// parse reads an address with or without port and brackets.
func parse(s string) (netip.Addr, bool) {
	s = strings.TrimSpace(s)
	if inner, ok := strings.CutPrefix(s, "["); ok {
		s, _, _ = strings.Cut(inner, "]")
	} else if strings.Count(s, ":") == 1 {
		s, _, _ = strings.Cut(s, ":")
	}
	a, err := netip.ParseAddr(s)
	if err != nil {
		return netip.Addr{}, false
	}
	return canonical(a), true
}
