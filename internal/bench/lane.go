package bench

import (
	"net/netip"
	"sync"
	"time"
)

// A clock counts nanoseconds from a moment of its own.
type clock struct{ base time.Time }

func newClock() clock { return clock{time.Now()} }

func (c clock) now() int64 { return int64(time.Since(c.base)) }

// A peer is the generator's end of one connection. Its methods are called with
// its lane's mu held and must not wait.
type peer interface {
	up(k link, now int64)            // the connection is there
	input(b []byte, now int64) error // what arrived; an error hangs up
	down(err error)                  // the connection failed or ended; nothing follows
	timed() bool                     // its answers are timed, and looked at before what others get
}

// A link is what a peer sends through. send may be called by any goroutine;
// what the socket does not take is kept and sent later. close is called with
// the lane's mu held, and down follows from it.
type link interface {
	send(b []byte)
	close(err error)
}

// A network makes connections. dial returns at once.
type network interface {
	dial(l *lane, p peer, to netip.AddrPort, from netip.Addr)
	stop()
}

// A lane is a share of the connections that are read one after the other, with
// what was counted of them. On Linux it is an event loop.
type lane struct {
	clock clock
	mu    sync.Mutex // guards what follows, and what belongs to the lane's peers

	delivered uint64 // messages with a stamp, without duplicates
	counted   uint64 // of these, to receivers that are part of the tally
	bytes     uint64 // of everything that arrived
	tally     tally  // Duplicated and Reordered only
	foreign   uint64 // messages that nobody sent in this run
	gaps      uint64 // numbers that those that join and leave have missed in between
	busy      int64  // nanoseconds spent on reading and handling

	opened hist // from when a connection should have been begun to connection_established
	joined hist // and to the answer to its subscription

	windows []*window
}

// A window is a measured part of a run, by the time at which messages should
// have been sent.
type window struct {
	from, to int64

	latency hist // of every delivery
	remote  hist // of those that were published through another node
	last    hist // of the last receiver of every message
	answer  hist // of HTTP requests that publish
	query   hist // of HTTP requests that ask
	ping    hist // of pusher:ping
	join    hist // from pusher:subscribe to the answer
	lag     hist // of the generator: from when a message should have been sent to when it was
}

func (w *window) merge(o *window) {
	w.latency.merge(&o.latency)
	w.remote.merge(&o.remote)
	w.last.merge(&o.last)
	w.answer.merge(&o.answer)
	w.query.merge(&o.query)
	w.ping.merge(&o.ping)
	w.join.merge(&o.join)
	w.lag.merge(&o.lag)
}

// at returns the window that a moment belongs to, or nil.
func (l *lane) at(moment int64) *window {
	for _, w := range l.windows {
		if moment >= w.from && moment < w.to {
			return w
		}
	}
	return nil
}
