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

// Params are the query parameters of a request after CheckParams.
type Params struct {
	pairs     []pair
	signature string
	bodyMD5   *string
}

// CheckParams checks all that can be checked before the body is read: that the
// auth parameters are there once, their version, the key and the timestamp.
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
	version, err := p.once("auth_version")
	if err != nil {
		return nil, err
	}
	given, err := p.once("auth_key")
	if err != nil {
		return nil, err
	}
	stamp, err := p.once("auth_timestamp")
	if err != nil {
		return nil, err
	}
	if p.signature, err = p.once("auth_signature"); err != nil {
		return nil, err
	}
	switch {
	case version != "1.0":
		return nil, refuse("Unsupported auth_version %q: it must be 1.0", version)
	case !hmac.Equal([]byte(given), []byte(key)):
		return nil, refuse("Unknown auth_key %s", given)
	}
	if err := checkTime(stamp, now); err != nil {
		return nil, err
	}
	for _, q := range p.pairs {
		if q.key == "body_md5" {
			p.bodyMD5 = &q.decoded
		}
	}
	p.pairs = slices.DeleteFunc(p.pairs, func(q pair) bool { return q.key == "auth_signature" })
	slices.SortStableFunc(p.pairs, func(a, b pair) int { return strings.Compare(a.key, b.key) })
	return p, nil
}

// once returns the value of a parameter that must be there exactly once.
func (p *Params) once(key string) (string, error) {
	value, seen := "", 0
	for _, q := range p.pairs {
		if q.key == key {
			value = q.decoded
			seen++
		}
	}
	switch {
	case seen == 0 || value == "":
		return "", refuse("Missing query parameter %s", key)
	case seen > 1:
		return "", refuse("Query parameter %s is given %d times", key, seen)
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

// Verify checks the body's digest and the signature.
func (r *Request) Verify(p *Params, secrets []string) error {
	switch {
	case p.bodyMD5 == nil && len(r.Body) > 0:
		return refuse("Missing query parameter body_md5: a request with a body needs it")
	case p.bodyMD5 != nil:
		sum := md5.Sum(r.Body)
		if !strings.EqualFold(*p.bodyMD5, hex.EncodeToString(sum[:])) {
			return refuse("Invalid body_md5: it is not the MD5 of the body that was received")
		}
	}
	first := ""
	for _, path := range r.paths() {
		for _, raw := range []bool{false, true} {
			message := p.message(r.Method, path, raw)
			if first == "" {
				first = message
			}
			for _, secret := range secrets {
				if verify(p.signature, secret, message) == nil {
					return nil
				}
			}
		}
	}
	return refuse("Invalid signature: you should have sent HmacSHA256Hex(%q, your_secret_key), but you sent %q", first, p.signature)
}

// paths returns what clients may have signed as the path: with and without the
// mount prefix, escaped and not.
func (r *Request) paths() []string {
	paths := []string{r.Path}
	if plain, err := url.PathUnescape(r.Path); err == nil && plain != r.Path {
		paths = append(paths, plain)
	}
	if r.Prefix != "" {
		for _, p := range paths {
			if rest, ok := strings.CutPrefix(p, r.Prefix); ok {
				paths = append(paths, rest)
			} else {
				paths = append(paths, r.Prefix+p) // a proxy took it off
			}
		}
	}
	return paths
}

// message is the string that was signed.
func (p *Params) message(method, path string, raw bool) string {
	var b strings.Builder
	b.WriteString(strings.ToUpper(method))
	b.WriteByte('\n')
	b.WriteString(path)
	b.WriteByte('\n')
	for i, q := range p.pairs {
		if i > 0 {
			b.WriteByte('&')
		}
		b.WriteString(q.key)
		b.WriteByte('=')
		if raw {
			b.WriteString(q.raw)
		} else {
			b.WriteString(q.decoded)
		}
	}
	return b.String()
}

// Query returns the query of a signed request, for clients of the API.
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
	q.Set("auth_signature", HMAC(secret, p.message(method, path, false)))
	return q.Encode()
}
