package bench

import (
	"slices"
	"sync"
	"sync/atomic"
)

// A track is what one receiver has got of one stream. Numbers begin at 0 and
// come one after the other unless something is wrong.
type track struct {
	next    uint32 // the first number that has not come, but for the gaps
	skipped []span // numbers below next that have not come, in order
}

// unseen is the next number of a track that begins with whatever comes first.
const unseen = ^uint32(0)

// A span is the numbers from, up to and without to.
type span struct{ from, to uint32 }

// What a number is to a track.
type verdict uint8

const (
	inOrder   verdict = iota
	late              // it was skipped before: out of order
	duplicate         // it had come already
)

// see notes that a number has come.
func (t *track) see(seq uint32) verdict {
	if seq == t.next {
		t.next++
		return inOrder
	}
	return t.odd(seq)
}

func (t *track) odd(seq uint32) verdict {
	if seq > t.next {
		t.skipped = append(t.skipped, span{t.next, seq})
		t.next = seq + 1
		return inOrder // it is those before it that may be late
	}
	i, found := slices.BinarySearchFunc(t.skipped, seq, func(s span, seq uint32) int {
		switch {
		case s.to <= seq:
			return -1
		case s.from > seq:
			return 1
		}
		return 0
	})
	if !found {
		return duplicate
	}
	s := t.skipped[i]
	switch {
	case s.from+1 == s.to:
		t.skipped = slices.Delete(t.skipped, i, i+1)
	case seq == s.from:
		t.skipped[i].from++
	case seq == s.to-1:
		t.skipped[i].to--
	default:
		t.skipped[i].to = seq
		t.skipped = slices.Insert(t.skipped, i+1, span{seq + 1, s.to})
	}
	return late
}

// missing returns how many of the numbers below end have not come, without
// those that were refused, and how many of the refused ones have come although
// they were.
func (t *track) missing(first, end uint32, refused []uint32) (lost, unexpected int) {
	gone := 0
	absent := func(s span) {
		s.from, s.to = max(s.from, first), min(s.to, end)
		if s.from >= s.to {
			return
		}
		lost += int(s.to - s.from)
		lo, _ := slices.BinarySearch(refused, s.from)
		hi, _ := slices.BinarySearch(refused, s.to)
		gone += hi - lo
	}
	for _, s := range t.skipped {
		absent(s)
	}
	absent(span{t.next, max(t.next, end)})
	lo, _ := slices.BinarySearch(refused, first)
	hi, _ := slices.BinarySearch(refused, end)
	return lost - gone, hi - lo - gone
}

// A stream is a sequence of messages that its receivers should see in order:
// what one HTTP connection or one client publishes on one channel.
type stream struct {
	id      int
	channel string
	node    int     // index of the URL that it publishes through
	receive int     // how many get each message
	own     *client // who sends, and does not get it; nil: it comes over HTTP

	sent atomic.Uint32 // numbers given out

	// slots watch the last messages until all receivers have got them; their
	// number is a power of two.
	slots []slot

	mu      sync.Mutex // guards what follows
	refused []uint32   // numbers that the server did not take, in order
}

// A slot is one message on its way.
type slot struct {
	seq  atomic.Uint32 // plus one; 0: unused
	left atomic.Int32  // receivers that have not got it
	at   atomic.Int64  // when it was due
}

func newStream(id int, channel string, node, receive, slots int) *stream {
	return &stream{id: id, channel: channel, node: node, receive: receive, slots: make([]slot, slots)}
}

// begin gives out the next number, to a message that is due at a moment.
func (s *stream) begin(at int64) uint32 {
	seq := s.sent.Load()
	sl := &s.slots[int(seq)&(len(s.slots)-1)]
	sl.at.Store(at)
	sl.left.Store(int32(s.receive))
	sl.seq.Store(seq + 1)
	s.sent.Store(seq + 1)
	return seq
}

// due returns when a message was due, if it is still followed.
func (s *stream) due(seq uint32) (at int64, ok bool) {
	sl := &s.slots[int(seq)&(len(s.slots)-1)]
	at = sl.at.Load()
	return at, sl.seq.Load() == seq+1
}

// gaps returns how many numbers have been skipped, without those that were
// refused.
func (t *track) gaps(refused []uint32) int {
	lost := 0
	for _, s := range t.skipped {
		lo, _ := slices.BinarySearch(refused, s.from)
		hi, _ := slices.BinarySearch(refused, s.to)
		lost += int(s.to-s.from) - (hi - lo)
	}
	return lost
}

// got notes one receiver of a message and reports whether it was the last one.
func (s *stream) got(seq uint32) bool {
	sl := &s.slots[int(seq)&(len(s.slots)-1)]
	return sl.seq.Load() == seq+1 && sl.left.Add(-1) == 0
}

// refuse notes that the server did not take a message.
func (s *stream) refuse(seq uint32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	i, found := slices.BinarySearch(s.refused, seq)
	if !found {
		s.refused = slices.Insert(s.refused, i, seq)
	}
}

func (s *stream) refusals() []uint32 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.refused)
}

// A tally says what became of all messages.
type tally struct {
	Expected   int // by all receivers together
	Delivered  int // of these, once
	Lost       int
	Duplicated int
	Reordered  int // came after a later one of their stream
	Unexpected int // were refused, and came all the same
}

func (t *tally) add(o tally) {
	t.Expected += o.Expected
	t.Delivered += o.Delivered
	t.Lost += o.Lost
	t.Duplicated += o.Duplicated
	t.Reordered += o.Reordered
	t.Unexpected += o.Unexpected
}
