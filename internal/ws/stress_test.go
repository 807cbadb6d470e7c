package ws

import (
	"context"
	"encoding/binary"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

var stressFor = flag.Duration("ws.stress", 5*time.Second, "how long the stress test runs on each transport, at least")

// A stressed connection counts what it queued for its client.
type stressed struct {
	id  int64
	all *stressBook

	mu   sync.Mutex
	conn *Conn
	sent int // frames that Send took
	over bool
}

// A stressBook holds the connections that are open and what became of the others.
type stressBook struct {
	ids    atomic.Int64
	frames atomic.Int64

	mu     sync.Mutex
	open   map[int64]*stressed
	closed map[int64]*stressed
}

var stressPad = long(9000)

// send queues the next frame of a connection: its id, a number, and now and
// then a lot of padding.
func (s *stressed) send(pad int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conn.Send(TextFrame(fmt.Appendf(nil, "%d %d %s", s.id, s.sent, stressPad[:pad]))) {
		s.sent++
		s.all.frames.Add(1)
	}
}

func (s *stressed) Open(c *Conn) {
	s.conn = c
	s.all.mu.Lock()
	s.all.open[s.id] = s
	s.all.mu.Unlock()
	s.send(0)
}

func (s *stressed) Message(c *Conn, payload []byte) {
	switch string(payload) {
	case "close":
		c.Close(4200, "asked for")
	case "wait":
		c.Await(func() {
			s.send(10)
			time.Sleep(time.Duration(rand.IntN(1000)) * time.Microsecond)
			s.send(20)
		})
	case "wake":
		c.WakeAt(time.Now())
	default:
		s.send(len(payload))
	}
}

func (s *stressed) Wake(*Conn, time.Time) { s.send(30) }

func (s *stressed) Closed(_ *Conn, _ error) {
	s.all.mu.Lock()
	defer s.all.mu.Unlock()
	if s.over {
		panic("Closed was called twice")
	}
	s.over = true
	delete(s.all.open, s.id)
	s.all.closed[s.id] = s
}

// publish sends to all that are open, until ctx is done.
func (b *stressBook) publish(ctx context.Context, s *Server) {
	for ctx.Err() == nil {
		if err := s.Room(ctx, time.Second); err != nil {
			continue
		}
		b.mu.Lock()
		all := make([]*stressed, 0, len(b.open))
		for _, m := range b.open {
			all = append(all, m)
		}
		b.mu.Unlock()
		pad := 100
		if rand.IntN(10) == 0 {
			pad = len(stressPad)
		}
		for _, m := range all {
			m.send(pad)
		}
		time.Sleep(time.Duration(rand.IntN(300)) * time.Microsecond)
	}
}

// A stressClient reads numbered frames and notes the first thing that is wrong.
type stressClient struct {
	*peer
	id       int64 // -1: not known yet
	received int
}

// frame reads one frame and checks that it is the next one and for us.
func (p *stressClient) frame() (got, error) {
	f, err := p.next()
	if err != nil || f.opcode != opText {
		return f, err
	}
	var id int64
	var n int
	if _, err := fmt.Sscan(f.payload, &id, &n); err != nil {
		return f, fmt.Errorf("frame %.40q: %w", f.payload, err)
	}
	if p.id < 0 {
		p.id = id
	}
	if id != p.id || n != p.received {
		p.t.Errorf("connection %d got frame %d of connection %d, want %d", p.id, n, id, p.received)
	}
	p.received++
	return f, nil
}

// untilClose reads to the close frame.
func (p *stressClient) untilClose() (code uint16, err error) {
	for {
		f, err := p.frame()
		if err != nil {
			return 0, err
		}
		if f.opcode == opClose {
			if len(f.payload) < 2 {
				return 0, nil
			}
			return binary.BigEndian.Uint16([]byte(f.payload)), nil
		}
	}
}

// run is the life of one client. It returns whether every frame that the
// server took for it must have arrived.
func (p *stressClient) run(kind int, r *rand.Rand) (complete bool) {
	for range 1 + r.IntN(20) {
		if _, err := p.frame(); err != nil {
			p.t.Errorf("client of kind %d lost its connection: %v", kind, err)
			return false
		}
	}
	write := func(b ...[]byte) { _, _ = p.Write(cat(b...)) } // the server may have hung up
	switch kind {
	case 0: // keeps up and says goodbye
		for range r.IntN(50) {
			_, _ = p.frame()
		}
		write(raw(finBit|opClose, closeBody(1000, "")))
		code, err := p.untilClose()
		return err == nil && code == 1000
	case 1: // asks to be closed while others send
		write(text("x"), text("close"), text("ignored"))
		code, err := p.untilClose()
		write(raw(finBit|opClose, closeBody(code, "")))
		return err == nil && code == 4200
	case 2: // resets the connection
		_ = tcp(p.Conn).SetLinger(0)
	case 3: // closes in mid-frame
		write(text("hello, world")[:7])
	case 4: // stops reading, then reads what there is
		_ = tcp(p.Conn).SetReadBuffer(4 << 10)
		deadline := time.Now().Add(time.Duration(r.IntN(800)) * time.Millisecond)
		for time.Now().Before(deadline) {
			time.Sleep(10 * time.Millisecond)
		}
		for range 2000 {
			if f, err := p.frame(); err != nil || f.opcode == opClose {
				break
			}
		}
	case 5: // talks
		for range 20 {
			write(raw(finBit|opPing, []byte("p")), text("abc"), text("wait"), raw(opText, []byte("wa")), raw(finBit|opContinuation, []byte("ke")))
			for range 5 {
				_, _ = p.frame()
			}
		}
		write(raw(finBit|opClose, nil))
		code, err := p.untilClose()
		return err == nil && code == 0
	case 6: // breaks the protocol
		write(text("a"), []byte{0xff, 0xff})
		if code, err := p.untilClose(); err == nil && code != 1002 && code != slowCode {
			p.t.Errorf("a violation was closed with %d", code)
		}
	}
	return false
}

const slowCode = 4100

// TestEveryMessageIsAccountedForUnderStress runs readers that keep up, stop,
// reset, close in mid-frame or break the protocol against senders, closers and
// descriptors that are used again at once. No client may get a frame that is
// not its next one; those that end in order must get every frame.
func TestEveryMessageIsAccountedForUnderStress(t *testing.T) {
	onAll(t, func(t *testing.T, opts Options) {
		opts.MaxQueuedBytes = 256 << 10
		opts.MaxQueueAge = 500 * time.Millisecond
		opts.CloseTimeout = 500 * time.Millisecond
		opts.SlowReason = "slow"
		book := &stressBook{open: map[int64]*stressed{}, closed: map[int64]*stressed{}}
		s, addr := startTight(t, opts, func(r *http.Request) (Handler, *Refusal) {
			return &stressed{id: book.ids.Add(1), all: book}, nil
		})
		publishing, stopPublishing := context.WithCancel(t.Context())
		defer stopPublishing()
		var publishers sync.WaitGroup
		for range 2 {
			publishers.Go(func() { book.publish(publishing, s) })
		}
		var wg sync.WaitGroup
		var mu sync.Mutex
		complete := map[int64]int{}
		began := time.Now()
		over := func() bool { // on a slow machine it takes longer to see enough
			mu.Lock()
			defer mu.Unlock()
			ran := time.Since(began)
			return ran > *stressFor && len(complete) >= 10 && s.Stats().Slow > 0 || ran > *stressFor+time.Minute
		}
		for worker := range 24 {
			wg.Go(func() {
				r := rand.New(rand.NewPCG(uint64(worker), 7))
				for !over() {
					p := &stressClient{peer: connect(t, addr), id: -1}
					done := p.run(r.IntN(7), r)
					_ = p.Close()
					if done {
						mu.Lock()
						complete[p.id] = p.received
						mu.Unlock()
					}
				}
			})
		}
		wg.Wait()
		stopPublishing()
		publishers.Wait()
		eventually(t, func() bool { return s.Stats().Connections == 0 })
		if st := s.Stats(); st.WaitingBytes != 0 || st.StuckBytes != 0 {
			t.Errorf("bytes are still booked: %+v", st)
		}
		book.mu.Lock()
		defer book.mu.Unlock()
		if len(book.open) != 0 || int64(len(book.closed)) != book.ids.Load() {
			t.Errorf("%d connections, %d closed, %d open", book.ids.Load(), len(book.closed), len(book.open))
		}
		for id, received := range complete {
			if sent := book.closed[id].sent; sent != received {
				t.Errorf("connection %d got %d of %d frames", id, received, sent)
			}
		}
		if slow := s.Stats().Slow; len(complete) < 10 || slow == 0 {
			t.Errorf("%d connections ended in order, %d did not read; both are to be tested", len(complete), slow)
		}
		t.Logf("%d connections, %d ended in order, %d frames, %d slow", book.ids.Load(), len(complete), book.frames.Load(), s.Stats().Slow)
	})
}
