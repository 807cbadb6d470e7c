package server

import (
	"context"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// memoryEvery is how often the server looks whether it holds memory for nothing.
const memoryEvery = 5 * time.Second

// A memory is what the heap of the process looks like.
type memory struct {
	live  uint64 // what the last collection found in use
	held  uint64 // of the system's memory, with what is garbage and what is free
	total uint64 // ever allocated
}

func readMemory() memory {
	s := []metrics.Sample{
		{Name: "/gc/heap/live:bytes"},
		{Name: "/memory/classes/heap/objects:bytes"},
		{Name: "/memory/classes/heap/free:bytes"},
		{Name: "/gc/heap/allocs:bytes"},
	}
	metrics.Read(s)
	return memory{live: s[0].Value.Uint64(), held: s[1].Value.Uint64() + s[2].Value.Uint64(), total: s[3].Value.Uint64()}
}

// wasteful reports that little has happened since before, and that more is held
// than is worth keeping for what may come.
func (m memory) wasteful(before memory) bool {
	const calm, spare = 4 << 20, 8 << 20
	return m.total-before.total < calm && m.held > m.live+m.live/4+spare
}

// tidy gives memory back when a storm of connections is over, until ctx is
// done. The runtime keeps about as much as is in use for the next one: twice
// what an idle connection needs.
func tidy(ctx context.Context) error {
	tick := time.NewTicker(memoryEvery)
	defer tick.Stop()
	for before := readMemory(); ; {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		now := readMemory()
		if now.wasteful(before) {
			debug.FreeOSMemory() // collects too
			now = readMemory()
		}
		before = now
	}
}
