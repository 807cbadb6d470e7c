package backoff

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"
)

var errDown = errors.New("down")

func TestPausesDoubleUpToTheLongest(t *testing.T) {
	p := Policy{First: time.Second, Max: 5 * time.Second, Jitter: -1}
	want := []time.Duration{1, 2, 4, 5, 5}
	for i, w := range want {
		if got := p.Delay(i + 1); got != w*time.Second {
			t.Errorf("pause %d = %v, want %v", i+1, got, w*time.Second)
		}
	}
	if got := p.Delay(1 << 30); got != 5*time.Second {
		t.Errorf("pause of a very late attempt = %v, want 5s", got)
	}
}

func TestChanceStaysWithinTheJitter(t *testing.T) {
	p := Policy{First: time.Second, Max: time.Second, Jitter: 0.2}
	least, most := time.Hour, time.Duration(0)
	for range 1000 {
		d := p.Delay(3)
		least, most = min(least, d), max(most, d)
	}
	if least < 800*time.Millisecond || most > 1200*time.Millisecond || most-least < 100*time.Millisecond {
		t.Errorf("pauses between %v and %v, want them spread over 0.8s to 1.2s", least, most)
	}
}

func TestZeroPolicyWorks(t *testing.T) {
	if got := (Policy{}).Delay(1); got < 80*time.Millisecond || got > 120*time.Millisecond {
		t.Errorf("first pause = %v, want about 100ms", got)
	}
	if got := (Policy{}).Delay(100); got < 8*time.Second || got > 12*time.Second {
		t.Errorf("longest pause = %v, want about 10s", got)
	}
}

func TestRetryGoesOnUntilItWorks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start, tries, told := time.Now(), 0, 0
		err := Retry(t.Context(), Policy{First: time.Second, Jitter: -1}, func(context.Context) error {
			if tries++; tries < 4 {
				return errDown
			}
			return nil
		}, func(err error, _ time.Duration) {
			if err != errDown {
				t.Errorf("told of %v, want %v", err, errDown)
			}
			told++
		})
		if err != nil || tries != 4 || told != 3 {
			t.Errorf("err = %v after %d tries, told %d times; want nil, 4, 3", err, tries, told)
		}
		if got := time.Since(start); got != 7*time.Second {
			t.Errorf("took %v, want 1s+2s+4s", got)
		}
	})
}

func TestRetryStopsAtAPermanentError(t *testing.T) {
	tries := 0
	err := Retry(t.Context(), Policy{}, func(context.Context) error { tries++; return Permanent(errDown) }, nil)
	if err != errDown || tries != 1 {
		t.Errorf("err = %v after %d tries, want %v after 1", err, tries, errDown)
	}
	err = Retry(t.Context(), Policy{}, func(context.Context) error { return fmt.Errorf("open: %w", Permanent(errDown)) }, nil)
	if !errors.Is(err, errDown) || err.Error() != "open: down" {
		t.Errorf("err = %v, want it wrapped as it was", err)
	}
	if Permanent(nil) != nil {
		t.Error("Permanent(nil) is an error")
	}
}

func TestRetryEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(1500*time.Millisecond, cancel)
		start := time.Now()
		err := Retry(ctx, Policy{First: time.Second, Jitter: -1}, func(context.Context) error { return errDown }, nil)
		if !errors.Is(err, errDown) || !errors.Is(err, context.Canceled) {
			t.Errorf("err = %v, want the last error and why it ended", err)
		}
		if got := time.Since(start); got != 1500*time.Millisecond {
			t.Errorf("ended after %v, want at once", got)
		}
	})
}

func TestRetryDoesNotWaitForADeadlineInVain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		start := time.Now()
		err := Retry(ctx, Policy{First: 4 * time.Second, Jitter: -1}, func(context.Context) error { return errDown }, nil)
		if !errors.Is(err, errDown) {
			t.Errorf("err = %v, want %v", err, errDown)
		}
		if got := time.Since(start); got != 4*time.Second {
			t.Errorf("gave up after %v, want 4s: the next pause would have ended too late", got)
		}
	})
}
