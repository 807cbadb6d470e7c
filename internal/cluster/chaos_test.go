package cluster

import (
	"flag"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

var (
	simSeed   = flag.Uint64("sim.seed", 0, "simulate this seed alone and print what happened; 0: many")
	simSeeds  = flag.Uint64("sim.seeds", 2000, "how many seeds to simulate")
	simFrom   = flag.Uint64("sim.from", 1, "the first of them")
	simLength = flag.Duration("sim.length", 20*time.Second, "simulated time in which things go wrong")
)

// TestSimulation: whatever the broker and the nodes do, views converge, no
// subscriber is shown something impossible, and the bounds hold. A seed that
// fails is replayed, with all that happened, by
//
//	go test ./internal/cluster -run TestSimulation -sim.seed N
func TestSimulation(t *testing.T) {
	if *simSeed != 0 {
		w := simulate(*simSeed, *simLength, true)
		for _, line := range w.log {
			fmt.Println(line)
		}
		if w.fault != nil {
			t.Errorf("seed %d (%s): %v", *simSeed, w.profile.name, w.fault)
		}
		return
	}
	var next, steps, facts, mourned atomic.Uint64
	var failed atomic.Int32
	next.Store(*simFrom)
	var wg sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for failed.Load() < 5 {
				seed := next.Add(1) - 1
				if seed >= *simFrom+*simSeeds {
					return
				}
				w := simulate(seed, *simLength, false)
				steps.Add(uint64(w.steps))
				facts.Add(uint64(w.facts))
				mourned.Add(uint64(w.mourned))
				if w.fault != nil {
					failed.Add(1)
					t.Errorf("seed %d (%s): %v\nreplay: go test ./internal/cluster -run TestSimulation -sim.seed %d -sim.length %v", seed, w.profile.name, w.fault, seed, *simLength)
				}
			}
		})
	}
	wg.Wait()
	t.Logf("%d seeds, %d steps of nodes, %d facts, %d times subscribers were told of a death", *simSeeds, steps.Load(), facts.Load(), mourned.Load())
}
