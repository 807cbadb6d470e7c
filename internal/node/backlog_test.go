package node

import (
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"sockudo/internal/cache"
	"sockudo/internal/hub"
)

// A jam is a channel that takes events only while it is open.
type jam struct {
	open atomic.Bool

	mu  sync.Mutex // guards what follows
	got []int
}

func (j *jam) take(i int) func() error {
	return func() error {
		j.mu.Lock()
		defer j.mu.Unlock()
		if !j.open.Load() {
			return hub.ErrBusy
		}
		j.got = append(j.got, i)
		return nil
	}
}

func upTo(n int) (all []int) {
	for i := range n {
		all = append(all, i)
	}
	return all
}

func TestABusyChannelDoesNotHoldUpOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var dropped atomic.Int64
		n := New(hub.New(hub.Options{}), cache.None{}, Options{Dropped: func(events int) { dropped.Add(int64(events)) }})
		busy, calm := &jam{}, &jam{}
		calm.open.Store(true)
		begin := time.Now()
		for i := range 100 {
			n.insist("app", "busy", 10, busy.take(i))
			n.insist("app", "calm", 10, calm.take(i))
		}
		if time.Since(begin) != 0 {
			t.Errorf("the one who delivers waited %v", time.Since(begin))
		}
		if !slices.Equal(calm.got, upTo(100)) {
			t.Errorf("the other channel got %v", calm.got)
		}
		time.Sleep(500 * time.Millisecond)
		synctest.Wait()
		busy.open.Store(true)
		time.Sleep(10 * time.Millisecond)
		n.insist("app", "busy", 10, busy.take(100))
		n.backlogs.work.Wait()
		if !slices.Equal(busy.got, upTo(101)) || dropped.Load() != 0 {
			t.Errorf("in the end it got %v, %d were dropped", busy.got, dropped.Load())
		}
		if some, bytes := n.backlogs.some.Load(), n.backlogs.bytes; some != 0 || bytes != 0 || len(n.backlogs.waiting) != 0 {
			t.Errorf("left: %d backlogs, %d bytes, %d channels", some, bytes, len(n.backlogs.waiting))
		}
	})
}

func TestWhatWaitsForABusyChannelIsBounded(t *testing.T) {
	for _, test := range []struct {
		name      string
		size      int
		channels  []string
		took, out int // of maxBacklog + 10 events for each
	}{
		{"events", 1, []string{"x"}, maxBacklog, 10},
		{"bytes", maxBacklogBytes / 8, []string{"x"}, 8, maxBacklog + 2},
		{"bytes of all", maxBacklogBytes, slices.Collect(letters(20)), maxBacklogs / maxBacklogBytes, 20*(maxBacklog+10) - maxBacklogs/maxBacklogBytes},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var dropped atomic.Int64
				n := New(hub.New(hub.Options{}), cache.None{}, Options{Dropped: func(events int) { dropped.Add(int64(events)) }})
				busy := &jam{}
				for i := range maxBacklog + 10 {
					for _, channel := range test.channels {
						n.insist("app", channel, test.size, busy.take(i))
					}
				}
				synctest.Wait()
				busy.open.Store(true)
				n.backlogs.work.Wait()
				if len(busy.got) != test.took || dropped.Load() != int64(test.out) {
					t.Errorf("%d events were published and %d dropped, want %d and %d", len(busy.got), dropped.Load(), test.took, test.out)
				}
			})
		})
	}
}

func letters(n int) func(func(string) bool) {
	return func(yield func(string) bool) {
		for i := range n {
			if !yield(string(rune('a' + i))) {
				return
			}
		}
	}
}

func TestWhatWaitsTooLongIsDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var dropped atomic.Int64
		n := New(hub.New(hub.Options{}), cache.None{}, Options{Dropped: func(events int) { dropped.Add(int64(events)) }})
		busy := &jam{}
		for i := range 3 {
			n.insist("app", "x", 1, busy.take(i))
		}
		begin := time.Now()
		n.backlogs.work.Wait()
		if d := time.Since(begin); dropped.Load() != 3 || d < 3*roomFor || d > 4*roomFor {
			t.Errorf("%d were dropped after %v, want 3 after 3 times %v", dropped.Load(), d, roomFor)
		}
	})
}
