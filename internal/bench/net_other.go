//go:build !linux

package bench

import (
	"sync"
	"time"
)

func newNetwork([]*lane) (network, error) { return newStreamNetwork(nil), nil }

// A pacer waits for moments.
type pacer struct {
	clock clock
	once  sync.Once
	quit  chan struct{}
}

func newPacer(c clock) (*pacer, error) { return &pacer{clock: c, quit: make(chan struct{})}, nil }

// until waits for a moment. It returns false when the pacer was closed.
func (p *pacer) until(moment int64) bool {
	wait := moment - p.clock.now()
	if wait <= 0 {
		return true
	}
	select {
	case <-time.After(time.Duration(wait)):
		return true
	case <-p.quit:
		return false
	}
}

func (p *pacer) close() { p.once.Do(func() { close(p.quit) }) }
