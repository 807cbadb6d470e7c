package natsbus

import (
	"context"
	"hash/maphash"
	"net"
	"sync"
	"sync/atomic"

	"github.com/nats-io/nats.go"

	"sockudo/internal/cluster"
)

const (
	// readers deliver at once; a topic always has the same one.
	readers = 2
	// queueSize is how many messages a reader's queue takes. The library drops
	// what does not fit, so the connection is not read while more than a quarter
	// waits: what one read of 32 KiB and the rest of a TLS record bring fits.
	queueSize = 8192
	maxQueued = queueSize / 4
	// maxQueuedBytes holds up reading too, because messages may be large.
	maxQueuedBytes = 32 << 20
)

// An inbox takes what arrives, hands it over, and holds up the connection when
// that is too slow. Then the server sees a slow consumer and closes the
// connection in the end, so that no loss stays unnoticed.
type inbox struct {
	// Fixed at creation.
	seed   maphash.Seed
	queues [readers]chan *nats.Msg

	handled atomic.Uint64 // bytes
	stalled atomic.Bool   // somebody waits for room

	mu     sync.Mutex // guards what follows
	closed bool
	room   *sync.Cond
}

func newInbox() *inbox {
	in := &inbox{seed: maphash.MakeSeed()}
	in.room = sync.NewCond(&in.mu)
	for i := range in.queues {
		in.queues[i] = make(chan *nats.Msg, queueSize)
	}
	return in
}

// queue is where the messages of a subject arrive.
func (in *inbox) queue(subject string) chan *nats.Msg {
	return in.queues[maphash.String(in.seed, subject)%readers]
}

// run hands messages over until ctx is done.
func (in *inbox) run(ctx context.Context, on cluster.Events) {
	var running sync.WaitGroup
	for _, q := range in.queues {
		running.Go(func() {
			for {
				select {
				case m := <-q:
					on.Message(topic(m.Subject), m.Data)
					in.handled.Add(uint64(len(m.Data)))
					if in.stalled.Load() {
						in.call()
					}
				case <-ctx.Done():
					return
				}
			}
		})
	}
	running.Wait()
}

func (in *inbox) call() {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.room.Broadcast()
}

// close lets everybody go who waits for room.
func (in *inbox) close() {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.closed = true
	in.room.Broadcast()
}

// full says whether more should wait; received counts the bytes that arrived.
func (in *inbox) full(received uint64) bool {
	most := 0
	for _, q := range in.queues {
		most = max(most, len(q))
	}
	if most == 0 {
		// The count includes what nobody wanted any more.
		in.handled.Store(received)
		return false
	}
	return most > maxQueued || int64(received-in.handled.Load()) > maxQueuedBytes
}

// wait returns when there is room.
func (in *inbox) wait(received func() uint64) {
	if !in.full(received()) {
		return
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	in.stalled.Store(true)
	for in.full(received()) && !in.closed {
		in.room.Wait()
	}
	in.stalled.Store(false)
}

// A gated connection is read when the inbox has room.
type gated struct {
	net.Conn
	in       *inbox
	received func() uint64
}

func (g *gated) Read(p []byte) (int, error) {
	g.in.wait(g.received)
	return g.Conn.Read(p)
}
