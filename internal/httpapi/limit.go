package httpapi

import (
	"net/http"
	"strconv"
	"sync"
	"time"
)

// A perSecond limit admits so many units in any second and no more.
type perSecond struct {
	mu    sync.Mutex // guards what follows
	spans []span     // admitted within the last second, the oldest first
	total int        // of their units
}

// A span is units that were admitted within one millisecond, counted together
// so that memory is bounded at any limit.
type span struct {
	first, last time.Time
	units       int
}

// take admits n units or says how long to wait until it would.
func (p *perSecond) take(n, limit int, now time.Time) (ok bool, wait time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for len(p.spans) > 0 && now.Sub(p.spans[0].last) >= time.Second {
		p.total -= p.spans[0].units
		p.spans = p.spans[1:] // append moves the rest to the front when it runs out of room
	}
	if p.total+n > limit {
		return false, p.wait(n, limit, now)
	}
	p.total += n
	if i := len(p.spans) - 1; i >= 0 && now.Sub(p.spans[i].first) < time.Millisecond {
		p.spans[i].last = now
		p.spans[i].units += n
	} else {
		p.spans = append(p.spans, span{now, now, n})
	}
	return true, 0
}

// wait returns when n units will fit, if nobody else takes any. More units than
// the limit never do; the answer for them is a whole second.
func (p *perSecond) wait(n, limit int, now time.Time) time.Duration {
	left := p.total
	for _, s := range p.spans {
		if left -= s.units; left+n <= limit {
			return time.Second - now.Sub(s.last)
		}
	}
	return time.Second
}

// A limitKind is one of the per-second limits of an app.
type limitKind int

const (
	readLimit limitKind = iota
	eventLimit
	limitKinds
)

type appLimiters [limitKinds]perSecond

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

// tooMany answers a call that is over a per-second limit.
func (c *call) tooMany(limit int, wait time.Duration, setting string) {
	seconds := strconv.Itoa(int((wait + time.Second - 1) / time.Second))
	h := c.w.Header()
	h.Set("X-RateLimit-Limit", strconv.Itoa(limit))
	h.Set("X-RateLimit-Remaining", "0")
	h.Set("X-RateLimit-Reset", seconds)
	h.Set("Retry-After", seconds)
	c.fail(http.StatusTooManyRequests, "rate_limited", "Too many requests: "+setting+" is "+strconv.Itoa(limit))
}
