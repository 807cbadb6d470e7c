package bench

import (
	"math/bits"
	"time"
)

// subBits is the precision of a histogram: 2^subBits steps in every power of
// two, so that a value is off by less than 1/128.
const subBits = 7

// histBuckets reach up to 2^43 ns, more than two hours.
const histBuckets = (44 - subBits) << subBits

// A hist counts durations in steps that grow with them (a high dynamic range
// histogram). It is our own because it is a page long, adds a value in 2 ns
// and no branch that can go wrong, and merges by addition; the library of that
// name does the same with a check of bounds and a dependency.
type hist struct {
	counts [histBuckets]uint64
	n      uint64
	sum    int64
	min    int64
	max    int64
}

// bucket returns where a value is counted.
func bucket(v int64) int {
	u := uint64(max(v, 0))
	shift := bits.Len64(u >> subBits)
	if shift > 0 {
		shift--
	}
	return min(shift<<subBits+int(u>>shift), histBuckets-1)
}

// bucketTop returns the largest value that is counted in a bucket.
func bucketTop(i int) int64 {
	shift := max(i>>subBits-1, 0)
	return int64(i-shift<<subBits+1)<<shift - 1
}

// add counts a number of nanoseconds; a negative one counts as 0.
func (h *hist) add(ns int64) {
	ns = max(ns, 0)
	h.counts[bucket(ns)]++
	if h.n == 0 || ns < h.min {
		h.min = ns
	}
	h.n++
	h.sum += ns
	h.max = max(h.max, ns)
}

func (h *hist) merge(o *hist) {
	if o.n == 0 {
		return
	}
	for i, c := range o.counts {
		h.counts[i] += c
	}
	if h.n == 0 || o.min < h.min {
		h.min = o.min
	}
	h.n += o.n
	h.sum += o.sum
	h.max = max(h.max, o.max)
}

// quantile returns the value that a share q of all values does not exceed,
// and 0 if there are none.
func (h *hist) quantile(q float64) time.Duration {
	if h.n == 0 {
		return 0
	}
	rank := uint64(q*float64(h.n) + 0.999999)
	rank = min(max(rank, 1), h.n)
	var seen uint64
	for i, c := range h.counts {
		if seen += c; seen >= rank {
			return time.Duration(min(max(bucketTop(i), h.min), h.max))
		}
	}
	return time.Duration(h.max)
}

func (h *hist) mean() time.Duration {
	if h.n == 0 {
		return 0
	}
	return time.Duration(h.sum / int64(h.n))
}
