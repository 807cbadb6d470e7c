package sign

import (
	"crypto/hmac"
	"crypto/md5"
	"encoding/hex"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Window is how far a request's timestamp may be from the server's clock.
const Window = 600 * time.Second

// A Request is an API request whose signature is to be checked (section 5.1).
type Request struct {
	Method   string
	Path     string // as received, still escaped
	RawQuery string // as received
	Body     []byte
	Prefix   string // mount prefix that clients may or may not have signed; "" for none
}

// An AuthError says why a request is not accepted. Its text goes to the client
// and never holds a signature that would have been right.
type AuthError struct{ Reason string }

// Error returns the reason.
func (e *AuthError) Error() string { return e.Reason }

func refuse(format string, args ...any) error { return &AuthError{fmt.Sprintf(format, args...)} }

// A pair is one query parameter, its name in lower case.
type pair struct{ key, decoded, raw string }

// Params are the query parameters of a request after CheckParams: the one
// reading of the query, so that nothing is acted on but what was signed.
type Params struct {
	pairs     []pair // sorted by key, without the signature
	signature string
}

// Get returns the decoded value of a parameter, the first one if it is
// repeated, and whether it is there. key is in lower case; the names that
// clients send count in any case.
func (p *Params) Get(key string) (value string, ok bool) {
	i, ok := slices.BinarySearchFunc(p.pairs, key, func(q pair, key string) int { return strings.Compare(q.key, key) })
	if !ok {
		return "", false
	}
	return p.pairs[i].decoded, true
}

// CheckParams checks all that can be checked before the body is read: that the
// auth parameters are there once, their version, the key and the timestamp.
// Its error is an *AuthError.
func (r *Request) CheckParams(key string, now time.Time) (*Params, error) {
	p := &Params{pairs: make([]pair, 0, 8)}
	for part := range strings.SplitSeq(r.RawQuery, "&") {
		if part == "" {
			continue
		}
		name, value, _ := strings.Cut(part, "=")
		name, err := url.QueryUnescape(name)
		if err != nil {
			return nil, refuse("Query parameter is not percent-encoded: %s", part)
		}
		decoded, err := url.QueryUnescape(value)
		if err != nil {
			decoded = value
		}
		p.pairs = append(p.pairs, pair{strings.ToLower(name), decoded, value})
	}
	slices.SortStableFunc(p.pairs, func(a, b pair) int { return strings.Compare(a.key, b.key) })
	return p, p.check(key, now)
}

// check makes checks 3 to 6 of section 5.1 and takes the signature out.
func (p *Params) check(key string, now time.Time) error {
	var auth [4]string
	for i, name := range []string{"auth_key", "auth_timestamp", "auth_version", "auth_signature"} {
		value, err := p.once(name)
		if err != nil {
			return err
		}
		auth[i] = value
	}
	if p.count("body_md5") > 1 {
		return refuse("Query parameter body_md5 is given more than once")
	}
	switch {
	case auth[2] != "1.0":
		return refuse("Unsupported auth_version %q: it must be 1.0", auth[2])
	case !hmac.Equal([]byte(auth[0]), []byte(key)):
		return refuse("Unknown auth_key %s", auth[0])
	}
	if err := checkTime(auth[1], now); err != nil {
		return err
	}
	p.signature = auth[3]
	p.pairs = slices.DeleteFunc(p.pairs, func(q pair) bool { return q.key == "auth_signature" })
	return nil
}

func (p *Params) count(key string) (n int) {
	for _, q := range p.pairs {
		if q.key == key {
			n++
		}
	}
	return n
}

// once returns the value of a parameter that must be there exactly once.
func (p *Params) once(key string) (string, error) {
	value, _ := p.Get(key)
	switch n := p.count(key); {
	case n > 1:
		return "", refuse("Query parameter %s is given %d times", key, n)
	case value == "":
		return "", refuse("Missing query parameter %s", key)
	}
	return value, nil
}

func checkTime(stamp string, now time.Time) error {
	n, err := strconv.ParseInt(stamp, 10, 64)
	if err != nil {
		return refuse("auth_timestamp must be an integer of Unix seconds, not %q", stamp)
	}
	// Compared as integers: a difference could overflow.
	server, window := now.Unix(), int64(Window/time.Second)
	if n < server-window || n > server+window {
		return refuse("Timestamp expired: Given timestamp (%s) not within %ds of server time (%s)",
			time.Unix(n, 0).UTC().Format(time.RFC3339), window, now.UTC().Format(time.RFC3339))
	}
	return nil
}

// Verify checks the body's digest and the signature, checks 8 and 9 of section
// 5.1. Its error is an *AuthError.
func (r *Request) Verify(p *Params, secrets []string) error {
	digest, given := p.Get("body_md5")
	switch {
	case !given && len(r.Body) > 0:
		return refuse("Missing query parameter body_md5: a request with a body needs it")
	case given:
		var want [2 * md5.Size]byte
		sum := md5.Sum(r.Body)
		hex.Encode(want[:], sum[:])
		if !strings.EqualFold(digest, string(want[:])) {
			return refuse("Invalid body_md5: it is not the MD5 of the body that was received")
		}
	}
	first, buf := "", make([]byte, 0, 512)
	for _, path := range r.paths() {
		for _, raw := range [...]bool{false, true} {
			if raw && !p.escaped() {
				continue // the same string again
			}
			buf = p.appendMessage(buf[:0], r.Method, path, raw)
			for _, secret := range secrets {
				if verify(p.signature, secret, buf) == nil {
					return nil
				}
			}
			if first == "" {
				first = string(buf)
			}
		}
	}
	return refuse("Invalid signature: you should have sent HmacSHA256Hex(%q, your_secret_key), but you sent %q", first, p.signature)
}

// escaped reports whether raw and decoded values differ anywhere.
func (p *Params) escaped() bool {
	return slices.ContainsFunc(p.pairs, func(q pair) bool { return q.raw != q.decoded })
}

// paths returns what clients may have signed as the path: with and without the
// mount prefix, escaped and not.
func (r *Request) paths() []string {
	paths := append(make([]string, 0, 4), r.Path)
	if plain, err := url.PathUnescape(r.Path); err == nil && plain != r.Path {
		paths = append(paths, plain)
	}
	if r.Prefix == "" {
		return paths
	}
	for _, p := range paths {
		if rest, ok := strings.CutPrefix(p, r.Prefix+"/"); ok {
			paths = append(paths, "/"+rest)
		} else {
			paths = append(paths, r.Prefix+p) // a proxy took it off
		}
	}
	return paths
}

// appendMessage appends the string that was signed, with the values raw or decoded.
func (p *Params) appendMessage(dst []byte, method, path string, raw bool) []byte {
	dst = append(dst, strings.ToUpper(method)...)
	dst = append(append(dst, '\n'), path...)
	sep := byte('\n')
	for _, q := range p.pairs {
		dst = append(append(append(dst, sep), q.key...), '=')
		if raw {
			dst = append(dst, q.raw...)
		} else {
			dst = append(dst, q.decoded...)
		}
		sep = '&'
	}
	return dst
}

// Query returns the query of a signed request, for clients of the API. path is
// as it stands on the request line.
func Query(key, secret, method, path string, params url.Values, body []byte, now time.Time) string {
	q := url.Values{}
	for k, v := range params {
		q[strings.ToLower(k)] = v
	}
	q.Set("auth_key", key)
	q.Set("auth_timestamp", strconv.FormatInt(now.Unix(), 10))
	q.Set("auth_version", "1.0")
	if len(body) > 0 {
		sum := md5.Sum(body)
		q.Set("body_md5", hex.EncodeToString(sum[:]))
	}
	p := &Params{}
	for k, values := range q {
		for _, v := range values {
			p.pairs = append(p.pairs, pair{key: k, decoded: v})
		}
	}
	slices.SortStableFunc(p.pairs, func(a, b pair) int { return strings.Compare(a.key, b.key) })
	q.Set("auth_signature", HMAC(secret, string(p.appendMessage(nil, method, path, false))))
	return q.Encode()
}
