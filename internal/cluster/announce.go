package cluster

import (
	"context"
	"errors"
)

// Announce tells the nodes of a cluster that apps have changed, from a process
// that is none of them. It runs bus, which must not run yet, for as long as
// that takes; bus cannot be used after it.
func Announce(ctx context.Context, bus Bus, opts Options, apps []string) error {
	c := New(bus, opts)
	if c.invalid != nil {
		return c.invalid
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	ran := make(chan error, 1)
	go func() { ran <- bus.Run(ctx, deaf{}) }()
	var err error
	for _, id := range apps {
		if err = c.AppChanged(ctx, id); err != nil {
			break
		}
	}
	// It says no goodbye: on its way, that might overtake what was told.
	stop()
	return errors.Join(err, <-ran)
}

// deaf is for who only speaks.
type deaf struct{}

// Message, Lost and Restored pass by.
func (deaf) Message(string, []byte) {}
func (deaf) Lost()                  {}
func (deaf) Restored()              {}
