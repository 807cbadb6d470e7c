package httpapi

import (
	"errors"
	"io"
	"net/http"
	"sync"
	"unicode/utf8"

	"sockudo/internal/app"
	"sockudo/internal/metrics"
	"sockudo/internal/sign"
)

// bodies are reused between calls; a large one is not kept.
var bodies = sync.Pool{New: func() any { b := make([]byte, 0, 4<<10); return &b }}

const keepBody = 256 << 10

// signed checks everything that stands before the work of a signed route, in
// the order of protocol 5.1, and books the call.
func (c *call) signed(rt *route, appID string) {
	defer c.book()
	if !c.lookup(appID) {
		return
	}
	req := sign.Request{Method: c.r.Method, Path: c.r.URL.EscapedPath(), RawQuery: c.r.URL.RawQuery, Prefix: c.api.prefix}
	var err error
	if c.params, err = req.CheckParams(c.app.Key, c.api.opts.Now()); err != nil {
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
	if err := req.Verify(c.params, reveal(c.app)); err != nil {
		c.unauthorized(err)
		return
	}
	if rt.read && !c.allowed(readLimit, 1) {
		return
	}
	rt.serve(c)
}

// book counts a finished call.
func (c *call) book() {
	id := metrics.Unknown
	if c.app != nil {
		id = c.app.ID
	}
	c.api.opts.Metrics.App(id).APICall(len(c.body), c.w.bytes)
}

// param returns a parameter of the query, "" when it is not there.
func (c *call) param(name string) string {
	value, _ := c.params.Get(name)
	return value
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
	if n := c.r.ContentLength; n >= int64(cap(b)) && n < keepBody { // what is announced is not believed beyond this
		b = make([]byte, 0, n+1)
	}
	for {
		if len(b) == cap(b) {
			b = append(b, 0)[:len(b)]
		}
		n, err := c.r.Body.Read(b[len(b):cap(b)])
		b = b[:len(b)+n]
		*buf, c.body = b, b
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

// validText reports whether the body is valid UTF-8, and answers when it is not.
func (c *call) validText() bool {
	if utf8.Valid(c.body) {
		return true
	}
	c.invalid("The body is not valid UTF-8")
	return false
}
