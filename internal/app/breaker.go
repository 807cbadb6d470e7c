package app

import (
	"sync"
	"time"

	"sockudo/internal/backoff"
)

// A breaker keeps lookups away from a store that does not answer: after a
// failure all fail at once but one, which finds out whether it is back.
type breaker struct {
	policy backoff.Policy

	mu       sync.Mutex // guards what follows
	failures int        // in a row; 0: the store is well
	next     time.Time  // when one may try again
}

// allow reports whether the store may be asked. Whoever is allowed while the
// store is down is alone until it reports or giveUp has passed.
func (b *breaker) allow(now time.Time, giveUp time.Duration) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.failures == 0 {
		return true
	}
	if now.Before(b.next) {
		return false
	}
	b.next = now.Add(giveUp)
	return true
}

// answered says that the store works; it returns whether that is news.
func (b *breaker) answered() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	news := b.failures > 0
	b.failures = 0
	return news
}

// failed says that the store did not answer; it returns whether that is news.
func (b *breaker) failed(now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.failures++
	b.next = now.Add(b.policy.Delay(b.failures))
	return b.failures == 1
}
