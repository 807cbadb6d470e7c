// Package health runs named checks in parallel, each within a bound, and says
// how well the node is.
package health

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"
)

// A Status is the answer of GET /up.
type Status string

// The states of a node.
const (
	OK       Status = "OK"
	Degraded Status = "DEGRADED" // a dependency that is not critical fails
	Error    Status = "ERROR"    // a critical dependency fails
	NotFound Status = "NOT_FOUND"
	Draining Status = "DRAINING"
)

// A Check asks one dependency. It should give up when ctx is done, but is not
// waited for beyond that.
type Check func(ctx context.Context) error

// Health holds the checks of a node. Add them before the first Run.
type Health struct {
	timeout  time.Duration
	log      *slog.Logger
	checks   []check
	draining atomic.Bool
}

type check struct {
	name     string
	critical bool
	ask      Check
}

// New returns a Health whose checks may take timeout each.
func New(timeout time.Duration, log *slog.Logger) *Health {
	return &Health{timeout: timeout, log: log.With("component", "health")}
}

// Add adds a check.
func (h *Health) Add(name string, critical bool, ask Check) {
	h.checks = append(h.checks, check{name, critical, ask})
}

// SetDraining makes Run answer Draining from now on.
func (h *Health) SetDraining() { h.draining.Store(true) }

// IsDraining reports whether SetDraining was called.
func (h *Health) IsDraining() bool { return h.draining.Load() }

// Run asks all checks at the same time and returns within the bound of one,
// even when a check hangs. What is wrong goes to the log.
func (h *Health) Run(ctx context.Context) Status {
	if h.draining.Load() {
		return Draining
	}
	ctx, cancel := context.WithTimeout(ctx, h.timeout)
	defer cancel()
	type answer struct {
		check check
		err   error
	}
	answers := make(chan answer, len(h.checks)) // room for all: a late one blocks nobody
	for _, c := range h.checks {
		go func() {
			defer func() {
				if p := recover(); p != nil {
					answers <- answer{c, fmt.Errorf("panic: %v", p)}
				}
			}()
			answers <- answer{c, c.ask(ctx)}
		}()
	}
	status := OK
	fail := func(c check, err error) {
		h.log.Warn("health check failed", "check", c.name, "critical", c.critical, "err", err)
		if c.critical {
			status = Error
		} else if status == OK {
			status = Degraded
		}
	}
	waiting := append([]check(nil), h.checks...)
	for len(waiting) > 0 {
		select {
		case a := <-answers:
			waiting = without(waiting, a.check.name)
			if a.err != nil {
				fail(a.check, a.err)
			}
		case <-ctx.Done():
			for _, c := range waiting {
				fail(c, errors.New("no answer in time"))
			}
			return status
		}
	}
	return status
}

func without(list []check, name string) []check {
	for i, c := range list {
		if c.name == name {
			return append(list[:i], list[i+1:]...)
		}
	}
	return list
}
