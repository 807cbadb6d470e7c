package session

import (
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sockudo/internal/node"
	"sockudo/internal/protocol"
	"sockudo/internal/ws"
)

// A reader takes what comes as fast as it can and remembers the order.
type reader struct {
	*ws.Client
	got     []string // marks of the events, in the order in which they came
	n       atomic.Int64
	refused atomic.Int64 // client events
	err     error
	done    chan struct{}
}

const (
	padding  = 4_000 // bytes of an event's data
	overload = 20    // events: more than a queue holds, and no more than a socket does
)

// A roomyListener makes connections whose kernel takes the whole of a test, so
// that it does not matter how busy the machine is: a client has always read
// what the server has written.
type roomyListener struct{ net.Listener }

func (l roomyListener) Accept() (net.Conn, error) {
	nc, err := l.Listener.Accept()
	if err == nil {
		err = nc.(*net.TCPConn).SetWriteBuffer(2 * overload * padding)
	}
	return nc, err
}

// readers joins n clients to a channel.
func readers(t *testing.T, addr, channel string, n int) []*reader {
	t.Helper()
	all := make([]*reader, n)
	for i := range all {
		c, err := ws.Dial(t.Context(), "ws://"+addr+"/app/key?protocol=7", ws.DialOptions{})
		if err != nil {
			t.Fatal(err)
		}
		r := &reader{Client: c, done: make(chan struct{})}
		all[i] = r
		id := ""
		for joined := false; !joined; {
			message, err := c.Read()
			if err != nil {
				t.Fatal(err)
			}
			m, err := protocol.Decode(message)
			switch {
			case err != nil:
				t.Fatal(err)
			case m.Event == "pusher:connection_established":
				id = strings.Split(m.Data.Text(), `"`)[3]
				join := fmt.Sprintf(`{"event":"pusher:subscribe","data":{"channel":%q,"auth":%q}}`, channel, owner.SignChannel(id, channel))
				if err := c.Write([]byte(join)); err != nil {
					t.Fatal(err)
				}
			default:
				joined = m.Event == "pusher_internal:subscription_succeeded"
			}
		}
		go r.read()
	}
	t.Cleanup(func() {
		for _, r := range all {
			_ = r.Close()
			<-r.done
		}
	})
	return all
}

func (r *reader) read() {
	defer close(r.done)
	for {
		message, err := r.Read()
		if err != nil {
			r.err = err
			return
		}
		switch m, err := protocol.Decode(message); {
		case err == nil && len(m.Data.Raw) == padding:
			r.got = append(r.got, strings.TrimRight(m.Data.Text(), "."))
			r.n.Add(1)
		case err == nil && m.Event == "pusher:error":
			r.refused.Add(1)
		}
	}
}

// everything waits until every reader has n events. They must have come to all
// in the same order.
func everything(t *testing.T, all []*reader, n int64) {
	t.Helper()
	for end := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		missing := 0
		for i, r := range all {
			select {
			case <-r.done:
				if !errors.Is(r.err, net.ErrClosed) {
					t.Fatalf("reader %d, which keeps up, was closed after %d of %d events: %v", i, r.n.Load(), n, r.err)
				}
			default:
			}
			if r.n.Load() != n {
				missing++
			}
		}
		if missing == 0 {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("%d of %d readers do not have all %d events", missing, len(all), n)
		}
	}
	for i, r := range all {
		if order := strings.Join(all[0].got[:n], " "); order != strings.Join(r.got[:n], " ") {
			t.Errorf("readers 0 and %d got the events in different orders", i)
		}
	}
}

// overloaded runs a test with few and with many subscribers, who are sent to by
// the publisher itself and by a goroutine, on both transports and with queues
// that five events fill.
func overloaded(t *testing.T, test func(t *testing.T, w *house, n int)) {
	for _, stream := range []bool{false, true} {
		for _, n := range []int{20, 270} {
			t.Run(fmt.Sprintf("stream=%v/%d", stream, n), func(t *testing.T) {
				w := build(t, oneApp(t, nil), Options{}, ws.Options{ForceStream: stream, MaxQueuedBytes: 5 * (padding + 200)}, func(ln net.Listener) net.Listener { return roomyListener{ln} })
				test(t, w, n)
			})
		}
	}
}

// Publishers who together are faster than the sockets are held up or refused;
// nobody who keeps up is taken for a slow client, and nobody misses an event.
func TestPublishersFasterThanTheSocketsHarmNobody(t *testing.T) {
	overloaded(t, func(t *testing.T, w *house, n int) {
		all := readers(t, w.addr, "private-busy", n)
		a, err := w.gate.apps.ByID(t.Context(), owner.ID)
		if err != nil {
			t.Fatal(err)
		}
		var accepted atomic.Int64
		var publishing sync.WaitGroup
		for i := range overload {
			publishing.Go(func() {
				p := node.Publication{Name: "tick", Channels: []string{"private-busy"}, Data: fmt.Appendf(nil, "%d%s", i, strings.Repeat(".", padding))[:padding]}
				switch err := w.node.Publish(t.Context(), a, &p); {
				case err == nil:
					accepted.Add(1)
				case !errors.Is(err, node.ErrUnavailable):
					t.Error(err)
				}
			})
		}
		publishing.Wait()
		if accepted.Load() == 0 {
			t.Error("no event was accepted")
		}
		everything(t, all, accepted.Load())
		if st := w.sockets.Stats(); st.Slow != 0 {
			t.Errorf("%d clients are said to be slow", st.Slow)
		}
	})
}

// A client who sends faster than the others can be written to is not read for a
// while: what it sends arrives in its order, and nobody is closed.
func TestClientFasterThanTheSocketsHarmsNobody(t *testing.T) {
	overloaded(t, func(t *testing.T, w *house, n int) {
		all := readers(t, w.addr, "private-busy", n)
		sender := readers(t, w.addr, "private-busy", 1)[0]
		for i := range overload {
			data := (fmt.Sprint(i) + strings.Repeat(".", padding))[:padding]
			if err := sender.Write([]byte(`{"event":"client-x","channel":"private-busy","data":"` + data + `"}`)); err != nil {
				t.Fatal(err)
			}
		}
		for end := time.Now().Add(time.Minute); all[0].n.Load()+sender.refused.Load() < overload; time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("%d of %d events came, %d were refused", all[0].n.Load(), overload, sender.refused.Load())
			}
		}
		accepted := overload - sender.refused.Load()
		everything(t, all, accepted)
		last := -1
		for _, mark := range all[0].got {
			n, err := strconv.Atoi(mark)
			if err != nil || n <= last {
				t.Fatalf("event %s after event %d", mark, last)
			}
			last = n
		}
		if st := w.sockets.Stats(); st.Slow != 0 || accepted == 0 {
			t.Errorf("%d clients are said to be slow, %d events were accepted", st.Slow, accepted)
		}
	})
}
