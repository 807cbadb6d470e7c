// Package origin decides which web pages may connect: it matches the Origin
// header of a WebSocket handshake with an app's allowed_origins patterns.
//
// The forms of a pattern, all compared without regard to ASCII case:
//
//	https://example.com:8443  that origin
//	example.com[:port]        that host with any scheme
//	*.example.com[:port]      that host and everything below it, any scheme
//	https://*.example.com     one * stands for any text
//	localhost:*               the same on host[:port], any scheme
//	*, any                    every origin, also a missing one
package origin

import (
	"errors"
	"fmt"
	"strings"
)

// A List is a parsed list of patterns. A nil List allows every origin. A List
// is immutable and safe for concurrent use.
type List struct {
	patterns []pattern
}

// Error tells what is wrong with one pattern of a list.
type Error struct {
	Index   int    // position in the list, from 0
	Pattern string // as it was given
	Reason  string
}

// Error names the pattern and the reason.
func (e *Error) Error() string {
	return fmt.Sprintf("origin pattern %q: %s", e.Pattern, e.Reason)
}

// Parse returns the list of patterns, nil if there are none. The error joins
// one *Error for each bad pattern.
func Parse(patterns []string) (*List, error) {
	l, errs := ParseLenient(patterns)
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return l, nil
}

// ParseLenient is Parse for lists that nobody can correct at the moment, such
// as a row of a database: bad patterns are dropped and returned as *Error
// each. Dropping never widens access, so a list of nothing but bad patterns
// denies every origin.
func ParseLenient(patterns []string) (*List, []error) {
	if len(patterns) == 0 {
		return nil, nil
	}
	l := &List{patterns: make([]pattern, 0, len(patterns))}
	var errs []error
	for i, text := range patterns {
		p, reason := parse(text)
		if reason != "" {
			errs = append(errs, &Error{Index: i, Pattern: text, Reason: reason})
			continue
		}
		l.patterns = append(l.patterns, p)
	}
	return l, errs
}

// Allows reports whether a connection from origin is allowed. present says
// whether there was an Origin header at all; a missing or empty one is allowed
// by a nil List and by the pattern * only.
func (l *List) Allows(origin string, present bool) bool {
	if l == nil {
		return true
	}
	if !present {
		origin = ""
	}
	o := split(lower(strings.TrimSpace(origin)))
	// Both spellings of the same origin are tried: a pattern may name the
	// default port although browsers leave it out.
	short := o.withoutDefaultPort()
	for i := range l.patterns {
		p := &l.patterns[i]
		if p.matches(o) || short != o && p.matches(short) {
			return true
		}
	}
	return false
}

// lower is strings.ToLower for ASCII only: no other letter may turn into an
// ASCII one (U+212A, the Kelvin sign, would become k).
func lower(s string) string {
	for i := range len(s) {
		if c := s[i]; 'A' <= c && c <= 'Z' {
			b := []byte(s)
			for ; i < len(b); i++ {
				if c := b[i]; 'A' <= c && c <= 'Z' {
					b[i] = c + 'a' - 'A'
				}
			}
			return string(b)
		}
	}
	return s
}

// parts is an origin or a pattern taken apart at "://".
type parts struct {
	scheme    string
	host      string // host[:port]; everything if there is no scheme
	hasScheme bool
}

func split(s string) parts {
	if scheme, rest, ok := strings.Cut(s, "://"); ok {
		return parts{scheme: scheme, host: strings.TrimSuffix(rest, "/"), hasScheme: true}
	}
	return parts{host: strings.TrimSuffix(s, "/")}
}

func (p parts) String() string {
	if p.hasScheme {
		return p.scheme + "://" + p.host
	}
	return p.host
}

// withoutDefaultPort drops :80 of http and :443 of https.
func (p parts) withoutDefaultPort() parts {
	port := ""
	switch {
	case !p.hasScheme:
		return p
	case p.scheme == "https":
		port = ":443"
	case p.scheme == "http":
		port = ":80"
	default:
		return p
	}
	host, ok := strings.CutSuffix(p.host, port)
	if !ok || host == "" || strings.Contains(host, ":") && !strings.HasSuffix(host, "]") {
		return p
	}
	// After a wildcard the port is all that limits it: https://*:443 must not
	// become https://*, which takes every port.
	if strings.HasSuffix(host, "*") {
		return p
	}
	p.host = host
	return p
}
