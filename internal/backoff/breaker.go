package backoff

import (
	"sync"
	"time"
)

// A Breaker keeps callers away from a server that does not answer: after a
// failure all are refused at once, but for one now and then who finds out
// whether it is back.
type Breaker struct {
	policy Policy
	probe  time.Duration

	mu       sync.Mutex // guards what follows
	ticket   Ticket     // of those who may ask now
	failures int        // in a row; 0: the server is well
	next     time.Time  // when one may try again
}

// A Ticket is the permission to ask the server.
type Ticket uint64

// NewBreaker returns a Breaker that lets one caller try after the pauses of p.
// Who does not report within probe is taken for lost, and another may try.
func NewBreaker(p Policy, probe time.Duration) *Breaker { return &Breaker{policy: p, probe: probe} }

// Allow reports whether the server may be asked. Who is allowed reports the
// outcome by Answered or Failed.
func (b *Breaker) Allow() (Ticket, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.failures == 0 {
		return b.ticket, true
	}
	now := time.Now()
	if now.Before(b.next) {
		return 0, false
	}
	b.next = now.Add(b.probe)
	b.ticket++
	return b.ticket, true
}

// Answered says that the server works. It returns whether that is news.
func (b *Breaker) Answered() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	news := b.failures > 0
	b.failures = 0
	return news
}

// Failed says that the server did not answer the holder of t. It returns
// whether that is news. Of those who asked at the same time only the first counts.
func (b *Breaker) Failed(t Ticket) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if t != b.ticket {
		return false
	}
	b.ticket++
	b.failures++
	b.next = time.Now().Add(b.policy.Delay(b.failures))
	return b.failures == 1
}
