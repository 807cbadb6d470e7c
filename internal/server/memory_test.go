package server

import (
	"runtime"
	"runtime/debug"
	"testing"
)

func TestMemoryIsGivenBackWhenLittleHappens(t *testing.T) {
	const mib = 1 << 20
	for _, c := range []struct {
		name        string
		before, now memory
		want        bool
	}{
		{"after a storm", memory{total: 100 * mib}, memory{live: 20 * mib, held: 45 * mib, total: 101 * mib}, true},
		{"in the middle of one", memory{total: 100 * mib}, memory{live: 20 * mib, held: 45 * mib, total: 140 * mib}, false},
		{"little to give", memory{}, memory{live: 20 * mib, held: 30 * mib}, false},
		{"a small server", memory{}, memory{live: 2 * mib, held: 9 * mib}, false},
	} {
		if got := c.now.wasteful(c.before); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}

	kept := make([][]byte, 0, 64)
	for range cap(kept) {
		kept = append(kept, make([]byte, mib))
	}
	runtime.KeepAlive(kept)
	kept = nil
	runtime.GC()
	full := readMemory()
	debug.FreeOSMemory()
	if now := readMemory(); full.held < now.held+32*mib {
		t.Errorf("%d MiB are held, then %d", full.held/mib, now.held/mib)
	}
}
