// Package health runs named checks in parallel, each within a bound, and says
// how well the node is.
package health

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

// A Status is the answer of GET /up (protocol 5.10).
type Status string

// The states of a node.
const (
	OK       Status = "OK"
	Degraded Status = "DEGRADED"  // a dependency that is not critical fails
	Error    Status = "ERROR"     // a critical dependency fails
	NotFound Status = "NOT_FOUND" // of GET /up/{app}: there is no such app
	Draining Status = "DRAINING"  // the node is stopping
)

// DefaultTimeout bounds a check when nothing else is configured.
const DefaultTimeout = 400 * time.Millisecond

var errLate = errors.New("no answer in time")

// Health holds the checks of a node. Add them before the first Run.
type Health struct {
	timeout  time.Duration
	log      *slog.Logger
	checks   []*check
	draining atomic.Bool
}

// New returns a Health whose checks may take timeout each; 0 stands for
// DefaultTimeout.
func New(timeout time.Duration, log *slog.Logger) *Health {
	if timeout <= 0 {
		timeout = DefaultTimeout
	}
	return &Health{timeout: timeout, log: log.With("component", "health")}
}

// Timeout returns the bound of one check.
func (h *Health) Timeout() time.Duration { return h.timeout }

// Add adds a check. When a critical one fails, the node is not well. ask
// should give up when its context is done, but is not waited for beyond that.
func (h *Health) Add(name string, critical bool, ask func(ctx context.Context) error) {
	h.checks = append(h.checks, &check{name: name, critical: critical, ask: ask})
}

// SetDraining makes Run answer Draining from now on.
func (h *Health) SetDraining() { h.draining.Store(true) }

// IsDraining reports whether SetDraining was called.
func (h *Health) IsDraining() bool { return h.draining.Load() }

// Run asks all checks at the same time and returns within the bound of one,
// even when a check hangs. What begins to be wrong goes to the log, and what is well
// again. Callers that come
// while a check runs share its answer: probes, which nobody has to sign, cost a
// dependency one question at a time, and one that hangs costs one goroutine.
func (h *Health) Run(ctx context.Context) Status {
	if h.draining.Load() {
		return Draining
	}
	ctx, cancel := context.WithTimeout(ctx, h.timeout)
	defer cancel()
	rounds := make([]*round, len(h.checks))
	for i, c := range h.checks {
		rounds[i] = h.start(ctx, c)
	}
	status := OK
	for i, r := range rounds {
		select {
		case <-r.done:
		case <-ctx.Done():
		}
		switch c := h.checks[i]; {
		case r.passed():
		case c.critical:
			status = Error
		case status == OK:
			status = Degraded
		}
	}
	return status
}

// A check is one dependency.
type check struct {
	name     string
	critical bool
	ask      func(ctx context.Context) error

	mu  sync.Mutex // guards what follows
	now *round     // nil: nobody asks

	failing atomic.Bool // and that was said
}

// A round is one question to a dependency.
type round struct {
	done chan struct{} // closed when err is there
	err  error
}

// passed reports whether the answer has come and is a good one.
func (r *round) passed() bool {
	select {
	case <-r.done:
		return r.err == nil
	default:
		return false
	}
}

// start returns the round of a check that runs now, or begins one. It is bound
// by time alone: whoever began it may hang up while others wait for it.
func (h *Health) start(ctx context.Context, c *check) *round {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.now != nil {
		return c.now
	}
	r := &round{done: make(chan struct{})}
	c.now = r
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), h.timeout)
	late := time.AfterFunc(h.timeout, func() { h.failed(c, errLate) })
	go func() {
		defer cancel()
		r.err = c.run(ctx)
		switch {
		case !late.Stop():
		case r.err != nil:
			h.failed(c, r.err)
		case c.failing.CompareAndSwap(true, false):
			h.log.Info("health check passes again", "check", c.name)
		}
		c.mu.Lock()
		c.now = nil
		c.mu.Unlock()
		close(r.done)
	}()
	return r
}

// run asks; a panic is a failed check, not the end of the node.
func (c *check) run(ctx context.Context) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v", p)
		}
	}()
	return c.ask(ctx)
}

// failed says that a check began to fail. Probes come every few seconds, so it is
// said once.
func (h *Health) failed(c *check, err error) {
	if c.failing.Swap(true) {
		return
	}
	level := slog.LevelWarn
	if c.critical {
		level = slog.LevelError
	}
	h.log.Log(context.Background(), level, "health check failed", "check", c.name, "critical", c.critical, "err", err)
}
