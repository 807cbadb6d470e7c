package httpapi

import (
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"sockudo/internal/metrics"
)

// In no second, wherever it begins, more than the limit is admitted; and a
// caller who waits as long as told is admitted.
func TestPerSecondLimitIsExact(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for _, limit := range []int{1, 2, 7, 100} {
		var p perSecond
		type admission struct {
			at    time.Time
			units int
		}
		var admitted []admission
		now := clock
		for range 3000 {
			now = now.Add(time.Duration(random.Int64N(int64(4 * time.Second / time.Duration(limit*3)))))
			n := 1 + random.IntN(min(limit, 5))
			ok, wait := p.take(n, limit, now)
			if !ok {
				if wait <= 0 || wait > time.Second {
					t.Fatalf("limit %d: wait %v", limit, wait)
				}
				now = now.Add(wait)
				if ok, _ = p.take(n, limit, now); !ok {
					t.Fatalf("limit %d: refused after the wait of %v", limit, wait)
				}
			}
			admitted = append(admitted, admission{now, n})
			sum := 0
			for i := len(admitted) - 1; i >= 0 && now.Sub(admitted[i].at) < time.Second; i-- {
				sum += admitted[i].units
			}
			if sum > limit {
				t.Fatalf("limit %d: %d in one second", limit, sum)
			}
		}
		if len(p.spans) > 1001 {
			t.Errorf("limit %d: %d spans are kept", limit, len(p.spans))
		}
	}
}

func TestMemoryOfALimitIsBounded(t *testing.T) {
	var p perSecond
	now := clock
	for range 100_000 {
		now = now.Add(50 * time.Microsecond)
		p.take(1, 1<<30, now)
	}
	if len(p.spans) > 1001 {
		t.Errorf("%d spans are kept", len(p.spans))
	}
}

func TestMoreThanTheLimitAtOnceIsNeverAdmitted(t *testing.T) {
	var p perSecond
	if ok, wait := p.take(4, 3, clock); ok || wait != time.Second {
		t.Errorf("%v, wait %v", ok, wait)
	}
	if ok, _ := p.take(3, 3, clock); !ok {
		t.Error("what was refused was counted")
	}
}

func TestLimitsOfAnApp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := metrics.New(metrics.Options{})
		a := newAPI(t, Options{EnforceLimits: true, Metrics: m})
		const event = `{"name":"e","channel":"x","data":"1"}`
		batch := func(n int) string {
			return `{"batch":[` + strings.TrimSuffix(strings.Repeat(event+",", n), ",") + `]}`
		}
		// Three events and two reads in a second; each item of a batch counts.
		want(t, a.post("/apps/slow-id/batch_events", batch(2)), 200, "")
		want(t, a.post("/apps/slow-id/events", `{"name":"e"}`), 400, "invalid_input") // published nothing, counts for nothing
		want(t, a.post("/apps/slow-id/events", event), 200, "")
		w := a.post("/apps/slow-id/events", event)
		want(t, w, 429, "rate_limited")
		for name, value := range map[string]string{"X-RateLimit-Limit": "3", "X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "1", "Retry-After": "1"} {
			if got := w.Header().Get(name); got != value {
				t.Errorf("%s: %q, want %s", name, got, value)
			}
		}
		want(t, a.get("/apps/slow-id/channels"), 200, "")
		want(t, a.get("/apps/slow-id/channels/x"), 200, "")
		want(t, a.get("/apps/slow-id/channels/presence-x/users"), 429, "rate_limited")
		for range 10 { // neither another app nor calls that are no reads
			want(t, a.post("/apps/app-id/events", event), 200, "")
			want(t, a.post("/apps/slow-id/users/x/terminate_connections", ""), 200, "")
		}
		seconds, err := strconv.Atoi(w.Header().Get("Retry-After"))
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(seconds) * time.Second)
		want(t, a.post("/apps/slow-id/batch_events", batch(3)), 200, "")
		want(t, a.get("/apps/slow-id/channels"), 200, "")

		off := newAPI(t, Options{})
		for range 10 {
			want(t, off.get("/apps/slow-id/channels"), 200, "")
		}
	})
}
