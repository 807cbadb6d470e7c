package bench

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

func TestEveryDurationHasABucketAndTheErrorIsBounded(t *testing.T) {
	last := -1
	for v := int64(0); v < 1<<42; v += 1 + v/500 {
		i := bucket(v)
		if i < last {
			t.Fatalf("bucket(%d) = %d after %d", v, i, last)
		}
		last = i
		top := bucketTop(i)
		if top < v || float64(top-v) > float64(v)/128+1 {
			t.Fatalf("%d counts as %d", v, top)
		}
		if bucket(top) != i || bucket(top+1) != i+1 {
			t.Fatalf("bucket %d does not end at %d", i, top)
		}
	}
	for _, v := range []int64{-1, math.MinInt64, math.MaxInt64} {
		if i := bucket(v); i < 0 || i >= histBuckets {
			t.Errorf("bucket(%d) = %d", v, i)
		}
	}
}

func TestQuantilesAreThoseOfTheSortedValues(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for _, n := range []int{1, 2, 3, 10, 1000, 100_000} {
		var h, a, b hist
		values := make([]int64, n)
		for i := range values {
			values[i] = int64(math.Exp(r.Float64()*20) * 100)
			h.add(values[i])
			if i%3 == 0 {
				a.add(values[i])
			} else {
				b.add(values[i])
			}
		}
		slices.Sort(values)
		a.merge(&b)
		if a != h {
			t.Errorf("%d values: merged parts differ from the whole", n)
		}
		for _, q := range []float64{0.001, 0.5, 0.9, 0.99, 0.999, 1} {
			want := values[min(max(int(math.Ceil(q*float64(n)-1e-9)), 1), n)-1]
			got := int64(h.quantile(q))
			if got < want || float64(got-want) > float64(want)/128+1 {
				t.Errorf("%d values: quantile %v is %d, want %d", n, q, got, want)
			}
		}
		if h.quantile(1) != time.Duration(values[n-1]) || h.min != values[0] {
			t.Errorf("%d values: extremes %v, %v, want %v, %v", n, h.min, h.quantile(1), values[0], values[n-1])
		}
	}
	var none hist
	if none.quantile(0.5) != 0 || none.mean() != 0 {
		t.Error("an empty histogram has values")
	}
}

func BenchmarkHistogram(b *testing.B) {
	var h hist
	v := int64(12345)
	for b.Loop() {
		v = v*6364136223846793005 + 1442695040888963407
		h.add(v >> 40 & 0xfffffff)
	}
}
