package backoff

import (
	"testing"
	"testing/synctest"
	"time"
)

func newBreaker() *Breaker {
	return NewBreaker(Policy{First: time.Second, Max: 4 * time.Second, Jitter: -1}, 10*time.Second)
}

func TestAfterAFailureOneAtATimeMayAsk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBreaker()
		first, ok := b.Allow()
		if _, also := b.Allow(); !ok || !also {
			t.Fatal("refused while the server is well")
		}
		if !b.Failed(first) {
			t.Error("the first failure is no news")
		}
		for _, pause := range []time.Duration{1, 2, 4, 4} {
			time.Sleep(pause*time.Second - 1)
			if _, ok := b.Allow(); ok {
				t.Fatalf("allowed before the pause of %ds is over", pause)
			}
			time.Sleep(time.Nanosecond)
			probe, ok := b.Allow()
			if !ok {
				t.Fatalf("refused after the pause of %ds", pause)
			}
			if _, ok := b.Allow(); ok {
				t.Fatal("two may ask at once")
			}
			if b.Failed(probe) {
				t.Error("another failure is news")
			}
		}
		time.Sleep(4 * time.Second)
		if _, ok := b.Allow(); !ok {
			t.Fatal("refused")
		}
		if !b.Answered() || b.Answered() {
			t.Error("the first answer is news, the next is not")
		}
		if _, ok := b.Allow(); !ok {
			t.Error("refused while the server is well")
		}
	})
}

func TestFailuresOfOneMomentCountOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBreaker()
		var tickets []Ticket
		for range 100 {
			ticket, _ := b.Allow()
			tickets = append(tickets, ticket)
		}
		news := 0
		for _, ticket := range tickets {
			if b.Failed(ticket) {
				news++
			}
		}
		if news != 1 {
			t.Errorf("%d failures were news, want 1", news)
		}
		time.Sleep(time.Second)
		if _, ok := b.Allow(); !ok {
			t.Error("the pause grew with callers of the same moment")
		}
	})
}

func TestALostProbeBlocksNobodyForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBreaker()
		ticket, _ := b.Allow()
		b.Failed(ticket)
		time.Sleep(time.Second)
		b.Allow() // and never reports
		time.Sleep(10 * time.Second)
		if _, ok := b.Allow(); !ok {
			t.Error("refused although the probe is lost")
		}
	})
}
