package ws

import (
	"bytes"
	"math/rand/v2"
	"testing"
	"time"
)

func TestQueueKeepsOrderAtEveryLength(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	var q fifo
	var model []*Frame
	for step := range 20000 {
		switch grow := step/500%2 == 0; {
		case len(model) == 0 || r.IntN(5) < 3 == grow:
			f := TextFrame([]byte{byte(step), byte(step >> 8)})
			q.push(f)
			model = append(model, f)
		default:
			if got := q.front(); got != model[0] {
				t.Fatalf("step %d: front is %x, want %x", step, got.wire, model[0].wire)
			}
			q.pop()
			model = model[1:]
		}
		if int(q.n) != len(model) {
			t.Fatalf("step %d: %d frames, want %d", step, q.n, len(model))
		}
		if step%97 == 0 && len(model) > 0 {
			room := r.IntN(600)
			if got := q.appendTo(make([]byte, 0, room), 0); !bytes.Equal(got, wantFrom(model, room)) {
				t.Fatalf("step %d: appendTo(%d) = %x", step, room, got)
			}
		}
	}
	for q.n > 0 {
		q.pop()
	}
	if q != (fifo{read: q.read, write: q.write}) {
		t.Errorf("an empty queue holds on to something: %+v", q)
	}
}

// wantFrom is what appendTo should return: whole frames while they fit.
func wantFrom(frames []*Frame, room int) []byte {
	var b []byte
	for _, f := range frames {
		if len(b)+len(f.wire) > room {
			break
		}
		b = append(b, f.wire...)
	}
	return b
}

func TestQueueSkipsWhatIsWrittenOfItsFront(t *testing.T) {
	for _, n := range []int{1, 2, 65, 200} {
		var q fifo
		var all []byte
		for i := range n {
			f := TextFrame([]byte{byte(i), 1, 2, 3})
			q.push(f)
			all = append(all, f.wire...)
		}
		if got := q.appendTo(make([]byte, 0, 4096), 3); !bytes.Equal(got, all[3:]) {
			t.Errorf("%d frames: %d bytes, want %d", n, len(got), len(all)-3)
		}
	}
}

func TestWheelGivesOutEveryConnectionOnceAndInTime(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	var w wheel
	at := map[*Conn]int64{}
	var now int64
	var due []*Conn
	for tick := range 5000 {
		for range r.IntN(5) {
			c := &Conn{}
			at[c] = now + r.Int64N(int64(200*time.Second))
			w.put(c, at[c])
			if r.IntN(4) == 0 { // a new wish
				at[c] = now + r.Int64N(int64(time.Second))
				w.put(c, at[c])
			}
			if r.IntN(8) == 0 {
				w.remove(c)
				delete(at, c)
			}
		}
		now += int64(wheelTick) + r.Int64N(1000)
		if tick%1000 == 999 { // the clock was held up for longer than a turn
			now += int64(wheelSlots+5) * int64(wheelTick)
		}
		due = w.advance(now, due[:0])
		for _, c := range due {
			moment, known := at[c]
			if !known {
				t.Fatalf("tick %d: a connection that was taken out came out", tick)
			}
			if moment > now { // further ahead than a turn
				w.put(c, moment)
				continue
			}
			if late := time.Duration(now - moment); late > 2*wheelTick+time.Millisecond && tick%1000 != 999 {
				t.Fatalf("tick %d: %v late", tick, late)
			}
			delete(at, c)
		}
	}
	for _, moment := range at {
		if moment < now-int64(2*wheelTick) {
			t.Errorf("forgotten: due %v ago", time.Duration(now-moment))
		}
	}
}

func TestCloseReasonIsCutAtACharacter(t *testing.T) {
	for _, c := range []struct {
		reason string
		want   int
	}{{"", 0}, {long(123), 123}, {long(124), 123}, {long(121) + "é", 123}, {long(122) + "é", 122}, {long(120) + "😀", 120}} {
		f := closeFrame(1000, c.reason)
		if got := f.Size() - 2; got != c.want {
			t.Errorf("reason of %d bytes became %d, want %d", len(c.reason), got, c.want)
		}
	}
}

func TestMaskIsItsOwnInverseAtEveryLengthAndOffset(t *testing.T) {
	key := [4]byte{1, 2, 3, 4}
	for n := range 40 {
		for offset := range 5 {
			b := make([]byte, n)
			maskFrom(b, key, offset)
			for i := range b {
				if b[i] != key[(offset+i)%4] {
					t.Fatalf("byte %d of %d at offset %d is %d", i, n, offset, b[i])
				}
			}
			maskFrom(b, key, offset)
			if !bytes.Equal(b, make([]byte, n)) {
				t.Fatalf("%d bytes at offset %d: %x", n, offset, b)
			}
		}
	}
}
