package ws

import "testing"

func TestSendAllocatesNothing(t *testing.T) {
	onBoth(t, func(t *testing.T, opts Options) {
		s, _, conns := crowd(t, 4, opts)
		f := TextFrame(benchPayload)
		for _, burst := range []int{1, 64} {
			allocs := testing.AllocsPerRun(200, func() {
				for range burst {
					for _, c := range conns {
						if !c.Send(f) {
							t.Error("not sent")
						}
					}
				}
				settled(s)
			})
			// Under the race detector pools forget things on purpose.
			if sends := burst * len(conns); allocs >= float64(sends)/2 {
				t.Errorf("%v allocations for %d sends", allocs, sends)
			}
		}
	})
}
