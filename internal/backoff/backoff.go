// Package backoff tries again what failed, with pauses that grow, and keeps
// callers away from what is down.
package backoff

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"
)

// A Policy says how long to pause between attempts. The zero value pauses
// 100 ms first and at most 10 s, each 20 % shorter or longer by chance.
type Policy struct {
	First  time.Duration // pause after the first failure; 0: 100 ms
	Max    time.Duration // longest pause before chance is added; 0: 100 times First
	Jitter float64       // share of a pause that is up to chance, 0 to 1; 0: 0.2, below 0: none
}

const (
	defaultFirst  = 100 * time.Millisecond
	defaultRange  = 100
	defaultJitter = 0.2
)

// Delay returns the pause after the attempt-th failure in a row, counted from
// 1: First doubled each time, at most Max, plus or minus the jitter.
func (p Policy) Delay(attempt int) time.Duration {
	first, most := p.First, p.Max
	if first <= 0 {
		first = defaultFirst
	}
	if most <= 0 {
		most = defaultRange * first
	}
	d := min(first, most)
	for i := 1; i < attempt && d < most; i++ {
		d = min(2*d, most)
	}
	jitter := p.Jitter
	if jitter == 0 {
		jitter = defaultJitter
	}
	if jitter < 0 {
		return d
	}
	return time.Duration(float64(d) * (1 + min(jitter, 1)*(2*rand.Float64()-1)))
}

type permanent struct{ error }

func (p permanent) Unwrap() error { return p.error }

// Permanent marks err as one that trying again does not cure. Nil stays nil.
func Permanent(err error) error {
	if err == nil {
		return nil
	}
	return permanent{err}
}

// Retry calls try until it succeeds, returns an error marked by Permanent, or
// ctx is done or would be before the next attempt. It returns nil, the error
// without the mark, or the last error. Before each pause it calls failed, unless
// that is nil.
func Retry(ctx context.Context, p Policy, try func(context.Context) error, failed func(err error, pause time.Duration)) error {
	for attempt := 1; ; attempt++ {
		err := try(ctx)
		if err == nil {
			return nil
		}
		if mark, ok := errors.AsType[permanent](err); ok {
			if err == error(mark) {
				return mark.error
			}
			return err
		}
		pause := p.Delay(attempt)
		if end, ok := ctx.Deadline(); ok && time.Until(end) <= pause {
			// The time left would be spent waiting for nothing.
			return fmt.Errorf("%w (gave up after %d attempts)", err, attempt)
		}
		if failed != nil {
			failed(err, pause)
		}
		if Sleep(ctx, pause) != nil {
			return errors.Join(err, context.Cause(ctx))
		}
	}
}

// Sleep waits for d or until ctx is done, and then returns why.
func Sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.C:
		return nil
	}
}
