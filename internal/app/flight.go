package app

import (
	"context"
	"fmt"
	"sync"
)

// flights let one caller per name look an app up while the others wait for
// what it finds.
type flights struct {
	mu sync.Mutex // guards what follows
	by map[string]*flight
}

type flight struct {
	done chan struct{} // closed when the rest is set
	app  *App
	err  error
}

// do returns what look finds for name, or what a call that is under way finds.
// The first caller runs look itself and is not stopped by its own ctx: the
// others rely on it, and look is bounded.
func (f *flights) do(ctx context.Context, name string, look func(context.Context) (*App, error)) (*App, error) {
	f.mu.Lock()
	if other := f.by[name]; other != nil {
		f.mu.Unlock()
		select {
		case <-other.done:
			return other.app, other.err
		case <-ctx.Done():
			return nil, fmt.Errorf("%w: %w", ErrUnavailable, context.Cause(ctx))
		}
	}
	own := &flight{done: make(chan struct{}), err: ErrUnavailable} // should look panic
	if f.by == nil {
		f.by = map[string]*flight{}
	}
	f.by[name] = own
	f.mu.Unlock()
	defer func() {
		f.mu.Lock()
		delete(f.by, name)
		f.mu.Unlock()
		close(own.done)
	}()
	own.app, own.err = look(context.WithoutCancel(ctx))
	return own.app, own.err
}
