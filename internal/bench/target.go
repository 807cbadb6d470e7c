package bench

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
)

// A target is one URL that is loaded.
type target struct {
	base       string
	tls        *tls.Config // nil: plain
	addr       netip.AddrPort
	host       string // for the Host field
	socketPath string // of WebSocket, with the query
	apiPath    string // of the app's part of the API
}

// newTarget resolves a base URL.
func newTarget(ctx context.Context, base string, app identity, insecure bool) (*target, error) {
	u, err := url.Parse(base)
	if err != nil {
		return nil, fmt.Errorf("--url: %w", err)
	}
	port := map[string]string{"http": "80", "ws": "80", "https": "443", "wss": "443"}[u.Scheme]
	if port == "" || u.Host == "" {
		return nil, fmt.Errorf("--url %q: it must begin with http:// or https:// and a host", base)
	}
	if u.Port() != "" {
		port = u.Port()
	}
	number, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return nil, fmt.Errorf("--url %q: port %q", base, port)
	}
	ips, err := net.DefaultResolver.LookupNetIP(ctx, "ip", u.Hostname())
	if err != nil {
		return nil, fmt.Errorf("--url %q: %w", base, err)
	}
	ip := ips[0].Unmap()
	for _, other := range ips {
		if other.Unmap().Is4() {
			ip = other.Unmap()
			break
		}
	}
	prefix := strings.TrimSuffix(u.EscapedPath(), "/")
	t := &target{
		base: base, addr: netip.AddrPortFrom(ip, uint16(number)), host: u.Host,
		socketPath: prefix + "/app/" + url.PathEscape(app.key) + "?protocol=7&client=sockudo-bench&version=1",
		apiPath:    prefix + "/apps/" + url.PathEscape(app.id),
	}
	if u.Scheme == "https" || u.Scheme == "wss" {
		t.tls = &tls.Config{ServerName: u.Hostname(), InsecureSkipVerify: insecure}
	}
	return t, nil
}

// portsPerSource is how many connections one local address makes to one server.
// Of the 28,000 ports that Linux has by default it gives out every other one
// first; when those are gone, it looks at all of them again for each connection.
const portsPerSource = 12_000

// sources returns the local addresses to connect from. A single invalid one
// stands for whatever the system chooses.
func sources(want, connections int, to []*target) []netip.Addr {
	loopback := true
	for _, t := range to {
		loopback = loopback && t.addr.Addr().IsLoopback() && t.addr.Addr().Is4()
	}
	if want == 0 && loopback {
		want = (connections/len(to) + portsPerSource - 1) / portsPerSource
	}
	if want <= 1 || !loopback {
		return []netip.Addr{{}}
	}
	all := make([]netip.Addr, min(want, 250))
	for i := range all {
		all[i] = netip.AddrFrom4([4]byte{127, 0, 0, byte(1 + i)})
	}
	return all
}
