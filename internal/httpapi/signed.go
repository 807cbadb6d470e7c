package httpapi

import (
	"errors"
	"io"
	"net/http"
	"sync"
	"time"
	"unicode/utf8"

	"sockudo/internal/app"
	"sockudo/internal/sign"
)

// bodies are reused between calls; a large one is not kept.
var bodies = sync.Pool{New: func() any { b := make([]byte, 0, 4<<10); return &b }}

const keepBody = 256 << 10

// signed checks everything that stands before the work of a signed route, in
// the order of protocol 5.1, and books the call.
func (c *call) signed(rt *route, appID string) {
	known := false
	defer func() {
		id := "unknown"
		if known {
			id = c.app.ID
		}
		c.api.opts.Metrics.App(id).APICall(c.in, c.w.bytes)
	}()
	ok := c.lookup(appID)
	known = c.app != nil
	if !ok {
		return
	}
	req := sign.Request{Method: c.r.Method, Path: c.r.URL.EscapedPath(), RawQuery: c.r.URL.RawQuery, Prefix: c.api.prefix}
	params, err := req.CheckParams(c.app.Key, c.api.opts.Now())
	if err != nil {
		c.unauthorized(err)
		return
	}
	buf := bodies.Get().(*[]byte)
	defer func() {
		if cap(*buf) <= keepBody {
			*buf = (*buf)[:0]
			bodies.Put(buf)
		}
	}()
	if !c.readBody(buf) {
		return
	}
	req.Body = c.body
	if err := req.Verify(params, reveal(c.app)); err != nil {
		c.unauthorized(err)
		return
	}
	if rt.read && !c.allowed(readLimit, 1) {
		return
	}
	rt.serve(c)
}

func reveal(a *app.App) []string {
	secrets := make([]string, 0, 2)
	for _, s := range a.Secrets() {
		secrets = append(secrets, s.Reveal())
	}
	return secrets
}

func (c *call) unauthorized(err error) {
	c.api.opts.Metrics.App(c.app.ID).ConnectionError("authentication_failed")
	c.fail(http.StatusUnauthorized, "auth_failed", err.Error())
}

// readBody reads the body into buf, but not more than the limit of it.
func (c *call) readBody(buf *[]byte) bool {
	most := c.api.opts.MaxBodyBytes
	if c.r.ContentLength > most {
		c.bodyTooLarge()
		return false
	}
	b := *buf
	for {
		if len(b) == cap(b) {
			b = append(b, 0)[:len(b)]
		}
		n, err := c.r.Body.Read(b[len(b):cap(b)])
		b = b[:len(b)+n]
		*buf, c.body, c.in = b, b, len(b)
		switch {
		case int64(len(b)) > most:
			c.bodyTooLarge()
			return false
		case errors.Is(err, io.EOF):
			return true
		case err != nil:
			c.fail(http.StatusBadRequest, "invalid_input", "The body could not be read to its end")
			return false
		}
	}
}

func (c *call) bodyTooLarge() {
	c.w.Header().Set("Connection", "close")
	c.fail(http.StatusRequestEntityTooLarge, "payload_too_large", "The body is larger than http_api.request_limit_in_mb allows: "+
		sizeText(c.api.opts.MaxBodyBytes))
}

// text reports whether the body is valid UTF-8, and answers when it is not.
func (c *call) validText() bool {
	if utf8.Valid(c.body) {
		return true
	}
	c.invalid("The body is not valid UTF-8")
	return false
}

func (c *call) invalid(message string) { c.fail(http.StatusBadRequest, "invalid_input", message) }

// A perSecond limit admits so many units in any second, to the unit.
type perSecond struct {
	mu    sync.Mutex // guards what follows
	times []stamp    // admitted within the last second, the oldest first
	total int
}

type stamp struct {
	at time.Time
	n  int
}

// take admits n units or says how long to wait until it would.
func (p *perSecond) take(n, limit int, now time.Time) (ok bool, wait time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	old := 0
	for old < len(p.times) && now.Sub(p.times[old].at) >= time.Second {
		p.total -= p.times[old].n
		old++
	}
	p.times = append(p.times[:0], p.times[old:]...)
	if p.total+n > limit {
		if len(p.times) == 0 {
			return false, time.Second
		}
		return false, time.Second - now.Sub(p.times[0].at)
	}
	p.total += n
	// Units of one millisecond share a stamp: memory is bounded at any limit.
	if last := len(p.times) - 1; last >= 0 && now.Sub(p.times[last].at) < time.Millisecond {
		p.times[last].n += n
	} else {
		p.times = append(p.times, stamp{now, n})
	}
	return true, 0
}

type limitKind int

const (
	readLimit limitKind = iota
	eventLimit
)

type appLimiters [2]perSecond

// limiters are the per-second limits of apps on this node.
type limiters struct {
	mu   sync.Mutex // guards what follows
	apps map[string]*appLimiters
}

func (l *limiters) app(id string) *appLimiters {
	l.mu.Lock()
	defer l.mu.Unlock()
	a := l.apps[id]
	if a == nil {
		a = &appLimiters{}
		l.apps[id] = a
	}
	return a
}

// allowed counts n units against a per-second limit of the app and answers the
// call when they are too many.
func (c *call) allowed(kind limitKind, n int) bool {
	limit, name, setting := c.app.Limits.ReadRequestsPerSecond, "read_requests", "max_read_requests_per_second"
	if kind == eventLimit {
		limit, name, setting = c.app.Limits.BackendEventsPerSecond, "backend_events", "max_backend_events_per_second"
	}
	if limit <= 0 || !c.api.opts.EnforceLimits {
		return true
	}
	ok, wait := c.api.limits.app(c.app.ID)[kind].take(n, limit, time.Now())
	c.api.opts.Metrics.RateLimit(c.app.ID, name, "unknown", !ok)
	if !ok {
		c.tooMany(limit, wait, setting)
	}
	return ok
}
