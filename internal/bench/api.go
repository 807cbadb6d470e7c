package bench

import (
	"bytes"
	"crypto/hmac"
	"crypto/md5"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"hash"
	"net/netip"
	"net/url"
	"strconv"
	"sync"
	"time"
)

// An app is the identity that the generator has.
type identity struct{ id, key, secret string }

// A signer writes signed requests of an app without allocating. It is for one
// goroutine.
type signer struct {
	app   identity
	host  string
	mac   hash.Hash
	text  []byte // to sign
	sum   [sha256.Size]byte
	query string // of the key, escaped
}

func newSigner(app identity, host string) *signer {
	return &signer{app: app, host: host, mac: hmac.New(sha256.New, []byte(app.secret)), query: "auth_key=" + url.QueryEscape(app.key)}
}

// appendRequest appends a request to dst. extra are further query parameters,
// sorted, that come behind those of the signature in the alphabet and need no
// escapes.
func (s *signer) appendRequest(dst []byte, method, path, extra string, body []byte, now time.Time) []byte {
	dst = append(append(append(append(dst, method...), ' '), path...), '?')
	dst = append(dst, s.query...)
	start := len(dst)
	dst = append(dst, "&auth_timestamp="...)
	dst = strconv.AppendInt(dst, now.Unix(), 10)
	dst = append(dst, "&auth_version=1.0"...)
	if len(body) > 0 {
		sum := md5.Sum(body)
		dst = append(dst, "&body_md5="...)
		dst = hex.AppendEncode(dst, sum[:])
	}
	dst = append(dst, extra...)
	s.text = append(append(append(append(s.text[:0], method...), '\n'), path...), "\nauth_key="...)
	s.text = append(append(s.text, s.app.key...), dst[start:]...)
	s.mac.Reset()
	s.mac.Write(s.text)
	dst = append(dst, "&auth_signature="...)
	dst = hex.AppendEncode(dst, s.mac.Sum(s.sum[:0]))
	dst = append(append(append(dst, " HTTP/1.1\r\nHost: "...), s.host...), "\r\n"...)
	if len(body) > 0 {
		dst = append(dst, "Content-Type: application/json\r\nContent-Length: "...)
		dst = strconv.AppendInt(dst, int64(len(body)), 10)
		dst = append(dst, "\r\n"...)
	}
	return append(append(dst, "\r\n"...), body...)
}

// A request is one that has not been answered.
type request struct {
	at     int64   // when it should have been sent
	stream *stream // nil: it is no publish
	seq    uint32
}

// An api is one keep-alive HTTP connection, on which requests are sent without
// waiting for answers.
type api struct {
	lane *lane
	net  network
	addr netip.AddrPort
	from netip.Addr
	host string
	raw  bool // the floor program: no HTTP, and nothing is answered

	// done is told of every answer: the request and its status, 0 when there
	// was none. dead is told when the server cannot be asked any more. Both run
	// with lane.mu held.
	done func(a *api, r request, status int, body []byte, now int64)
	dead func(a *api, err error)

	// Under lane.mu.
	rest  []byte
	ended error // why the last connection ended
	tries int   // connections in a row that were made to ask and gave no answer

	mu       sync.Mutex // guards what follows
	link     link       // nil while not connected
	dialling bool
	queue    []byte    // to send when connected
	open     []request // waiting for their answer, the oldest first
	quit     bool
}

// mostTries is after how many connections without an answer an api gives up.
const mostTries = 3

// connect begins to connect.
func (a *api) connect() {
	a.mu.Lock()
	begin := !a.dialling && !a.quit
	a.dialling = a.dialling || begin
	a.mu.Unlock()
	if begin {
		a.net.dial(a.lane, a, a.addr, a.from)
	}
}

// send sends the bytes of requests. A connection that the server has closed
// meanwhile is made again.
func (a *api) send(b []byte, rs ...request) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.raw {
		a.open = append(a.open, rs...)
	}
	if a.link != nil {
		a.link.send(b)
		return
	}
	a.queue = append(a.queue, b...)
	if !a.dialling {
		go a.connect() // not here: dialling takes the lane
	}
}

// waiting returns how many requests have no answer.
func (a *api) waiting() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.open)
}

func (a *api) up(k link, _ int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.link, a.dialling = k, false
	if a.raw {
		k.send([]byte{floorSender})
	}
	if len(a.queue) > 0 {
		k.send(a.queue)
		a.queue = nil
	}
}

func (a *api) timed() bool { return true }

// down answers what is open with 0.
func (a *api) down(err error) {
	a.mu.Lock()
	failed, open, quit := a.link == nil, a.open, a.quit
	a.link, a.dialling, a.open, a.queue = nil, false, nil, nil
	a.mu.Unlock()
	a.ended, a.rest = err, nil
	now := a.lane.clock.now()
	for _, r := range open {
		a.done(a, r, 0, nil, now)
	}
	if failed || len(open) > 0 {
		a.tries++
	}
	if (a.tries >= mostTries || a.raw) && !quit {
		a.dead(a, err)
	}
}

// end keeps the api from connecting again.
func (a *api) end() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.quit = true
}

func (a *api) input(b []byte, now int64) error {
	if len(a.rest) > 0 {
		a.rest = append(a.rest, b...)
		b = a.rest
	}
	for len(b) > 0 {
		status, body, size, err := parseAnswer(b)
		if err != nil {
			return err
		}
		if size == 0 {
			break
		}
		b = b[size:]
		a.mu.Lock()
		if len(a.open) == 0 {
			a.mu.Unlock()
			return errors.New("an answer to no request")
		}
		r := a.open[0]
		a.open = a.open[1:]
		a.mu.Unlock()
		a.tries = 0
		a.done(a, r, status, body, now)
	}
	a.rest = keep(a.rest, b)
	return nil
}

var (
	errAnswer = errors.New("an answer that is not HTTP/1.1")
	errLength = errors.New("an answer with neither Content-Length nor chunks")
)

// parseAnswer reads an HTTP answer from the front of b. size is 0 when b does
// not hold all of it.
func parseAnswer(b []byte) (status int, body []byte, size int, err error) {
	end := bytes.Index(b, []byte("\r\n\r\n"))
	if end < 0 {
		if len(b) > 64<<10 {
			return 0, nil, 0, errAnswer
		}
		return 0, nil, 0, nil
	}
	if len(b) < 12 || string(b[:7]) != "HTTP/1." {
		return 0, nil, 0, errAnswer
	}
	if status, err = strconv.Atoi(string(b[9:12])); err != nil {
		return 0, nil, 0, errAnswer
	}
	length, chunked := -1, false
	head := b[:end]
	for {
		i := bytes.IndexByte(head, '\n')
		if i < 0 {
			break
		}
		head = head[i+1:]
		line := head
		if j := bytes.IndexByte(line, '\r'); j >= 0 {
			line = line[:j]
		}
		name, value, _ := bytes.Cut(line, []byte(":"))
		switch {
		case len(name) == 14 && bytes.EqualFold(name, []byte("content-length")):
			if length, err = strconv.Atoi(string(bytes.TrimSpace(value))); err != nil || length < 0 {
				return 0, nil, 0, errLength
			}
		case len(name) == 17 && bytes.EqualFold(name, []byte("transfer-encoding")):
			chunked = true
		}
	}
	end += 4
	switch {
	case chunked:
		body, size, err = parseChunks(b[end:])
		if size > 0 {
			size += end
		}
		return status, body, size, err
	case length < 0 && (status == 204 || status == 304):
		length = 0
	case length < 0:
		return 0, nil, 0, errLength
	}
	if len(b) < end+length {
		return 0, nil, 0, nil
	}
	return status, b[end : end+length], end + length, nil
}

// parseChunks reads a chunked body without trailers.
func parseChunks(b []byte) (body []byte, size int, err error) {
	for at := 0; ; {
		i := bytes.Index(b[at:], []byte("\r\n"))
		if i < 0 {
			return nil, 0, nil
		}
		digits, _, _ := bytes.Cut(b[at:at+i], []byte(";"))
		n, err := strconv.ParseUint(string(digits), 16, 26)
		if err != nil {
			return nil, 0, errAnswer
		}
		at += i + 2
		if len(b) < at+int(n)+2 {
			return nil, 0, nil
		}
		body = append(body, b[at:at+int(n)]...)
		at += int(n) + 2
		if n == 0 {
			return body, at, nil
		}
	}
}
