package ws

import (
	"errors"
	"fmt"
	"runtime"
	"testing"
	"testing/synctest"
	"time"
)

func TestDetachedConnectionBehavesLikeAnyOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got []string
		woken := 0
		h := &echo{
			closed: make(chan error, 1),
			open:   func(c *Conn) { c.WakeAt(time.Now().Add(time.Minute)); c.Send(TextFrame([]byte("hello"))) },
			wake:   func(c *Conn, _ time.Time) { woken++; c.Close(1000, "") },
		}
		s := NewServer(nil, Options{ForceStream: true})
		c := s.Detached(h, func(f *Frame) { got = append(got, string(f.Payload())) })
		for i := range 3 {
			c.Send(TextFrame(fmt.Append(nil, i)))
		}
		if err := <-h.closed; !errors.Is(err, ErrClosed) || woken != 1 {
			t.Errorf("err = %v, woken %d times", err, woken)
		}
		if fmt.Sprint(got) != "[hello 0 1 2]" || c.QueuedBytes() != 0 || c.Send(TextFrame(nil)) {
			t.Errorf("got %q, %d bytes queued", got, c.QueuedBytes())
		}
		if err := s.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// BenchmarkDetached carries a million connections that are woken every two
// minutes: what the engine costs apart from sockets.
func BenchmarkDetached(b *testing.B) {
	const n = 1_000_000
	for b.Loop() {
		before := heap()
		s := NewServer(nil, Options{ForceStream: true})
		conns := make([]*Conn, n)
		for i := range conns {
			conns[i] = s.Detached(&echo{
				open: func(c *Conn) { c.WakeAt(time.Now().Add(time.Duration(i%120) * time.Second)) },
				wake: func(c *Conn, now time.Time) { c.WakeAt(now.Add(2 * time.Minute)) },
			}, nil)
		}
		b.ReportMetric(float64(heap()-before)/n, "B/conn")
		f := TextFrame([]byte("x"))
		start := time.Now()
		for _, c := range conns {
			c.Send(f)
		}
		b.ReportMetric(float64(time.Since(start))/n, "ns/send")
		start = time.Now()
		runtime.GC()
		b.ReportMetric(float64(time.Since(start))/1e6, "gc-ms")
		for _, c := range conns {
			c.Close(1000, "")
		}
		if err := s.Shutdown(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
}
