package bench

import (
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

func TestStampSurvives(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := stamp{
			rapid.IntRange(0, maxStreams-1).Draw(t, "stream"),
			rapid.IntRange(0, maxSeq-1).Draw(t, "seq"),
			rapid.Int64Range(0, 1<<48-1).Draw(t, "at"),
		}
		b := make([]byte, stampBytes)
		want.put(b)
		if got, ok := readStamp(b); !ok || got != want {
			t.Fatalf("%s is %+v, %v, want %+v", b, got, ok, want)
		}
		i := rapid.IntRange(0, stampBytes-1).Draw(t, "broken")
		b[i] = '"'
		if _, ok := readStamp(b); ok {
			t.Fatalf("%q is a stamp", b)
		}
	})
	if _, ok := readStamp([]byte("#~0")); ok {
		t.Error("half a stamp is one")
	}
}

// TestTrackAgreesWithAPlainList checks verdicts and losses against lists, for
// any order, loss and repetition.
func TestTrackAgreesWithAPlainList(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const most = 40
		seqs := rapid.SliceOf(rapid.Uint32Range(0, most-1)).Draw(t, "seqs")
		refused := rapid.SliceOfNDistinct(rapid.Uint32Range(0, most-1), 0, 10, rapid.ID).Draw(t, "refused")
		slices.Sort(refused)
		var tr track
		seen, top := map[uint32]bool{}, -1
		for _, seq := range seqs {
			want := inOrder
			switch {
			case seen[seq]:
				want = duplicate
			case int(seq) < top:
				want = late
			}
			if got := tr.see(seq); got != want {
				t.Fatalf("%v: %d is %d, want %d", seqs, seq, got, want)
			}
			seen[seq], top = true, max(top, int(seq))
		}
		first := rapid.Uint32Range(0, most).Draw(t, "first")
		end := rapid.Uint32Range(first, most).Draw(t, "end")
		lost, unexpected := 0, 0
		for seq := first; seq < end; seq++ {
			switch {
			case slices.Contains(refused, seq):
				if seen[seq] {
					unexpected++
				}
			case !seen[seq]:
				lost++
			}
		}
		gotLost, gotUnexpected := tr.missing(first, end, refused)
		if gotLost != lost || gotUnexpected != unexpected {
			t.Fatalf("%v without %v from %d to %d: lost %d, unexpected %d, want %d, %d", seqs, refused, first, end, gotLost, gotUnexpected, lost, unexpected)
		}
	})
}

func TestLastReceiverIsTold(t *testing.T) {
	s := newStream(0, "c", 0, 3, 4)
	for round := range 10 {
		seq := s.begin(0)
		got := fmt.Sprint(s.got(seq), s.got(seq), s.got(seq))
		if got != "false false true" {
			t.Errorf("message %d: %s", round, got)
		}
	}
	old := s.begin(0)
	for range 4 {
		s.begin(0)
	}
	for range 3 {
		if s.got(old) {
			t.Error("a message whose place was taken is followed all the same")
		}
	}
}
