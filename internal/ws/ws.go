// Package ws is the WebSocket engine: the handshake, the reading of frames, and
// frames that are encoded once and shared by all receivers. It knows nothing of
// Pusher.
//
// A connection is served by one of two transports, and nobody outside can tell
// which. The poll transport (Linux: TCP, TLS after its handshake, Unix sockets)
// keeps no goroutine and no buffer for a silent connection. The stream transport
// (other systems) has one reader goroutine per connection, and a writer while
// something is queued.
//
// # Ownership
//
// Whoever holds a connection's turn runs its callbacks and owns what is read.
// The turn of a poll connection is its loop's, shared by all connections of the
// loop; that of a stream connection is its own. The turn may be taken by any
// goroutine of this package that holds no other lock: the loop, a flusher that
// looks after its loop, the clock, the end of an Await. The queue belongs to
// Conn.mu, so that Send, Close and WakeAt never need a turn. The descriptor is
// written by one goroutine, the flusher of its loop or the connection's writer,
// and closed under the turn while Conn.mu says that nobody writes.
//
// Lock order: turn → the locks of handlers → Conn.mu → wheel.mu or loop.mu,
// which are leaves. Server.mu is a leaf too. Conn.mu → the locks of crypto/tls →
// pipe.mu. No callback runs under Conn.mu.
package ws

import (
	"log/slog"
	"net/http"
	"time"
)

// A Handler is what a connection's messages go to. The callbacks of one
// connection never run at the same time and must not wait: see Conn.Await.
type Handler interface {
	// Open is called once, before anything is read. The answer to the upgrade
	// request is queued; what Open sends follows it.
	Open(c *Conn)
	// Message is called with a complete text message, or with a binary one that
	// is valid UTF-8. The payload is valid only during the call.
	Message(c *Conn, payload []byte)
	// Wake is called at the moment that WakeAt asked for, up to 250 ms late and
	// never early.
	Wake(c *Conn, now time.Time)
	// Closed is called once, last, even if the client was gone before Open. err
	// says why: a *CloseError when the client closed, ErrClosed when this side
	// did, ErrSlow, or what was lost.
	Closed(c *Conn, err error)
}

// A Limiter is a Handler that says how large the messages of its connection
// may be. It is asked once, before Open.
type Limiter interface {
	// MaxMessageBytes is what Options.MaxMessageBytes is for the others; 0 leaves
	// it at that.
	MaxMessageBytes() int
}

// A Leaver is a Handler that wants to know when its connection has begun to
// close, which can last for Options.CloseTimeout if the client is not there or
// does not read.
type Leaver interface {
	// Leave is called once, up to 250 ms later, unless Closed was called before.
	// Only Wake and Closed follow it.
	Leave(c *Conn)
}

// Accept decides about a valid upgrade request. It may wait, until the
// request's context is done. Either the handler of the connection is returned,
// or the answer that refuses it over HTTP.
type Accept func(r *http.Request) (Handler, *Refusal)

// A Refusal is an HTTP answer to an upgrade request.
type Refusal struct {
	Status int
	Header http.Header
	Body   string
}

// Options are the parts of a server that have a default.
type Options struct {
	MaxMessageBytes  int           // larger messages close with 1009; 0: 64 KiB, <0: no limit
	MaxQueuedBytes   int           // of one connection, besides one frame that is larger; 0: 1 MiB
	MaxQueuedFrames  int           // of one connection; 0: 16,384
	MaxQueueAge      time.Duration // that bytes may wait for the client to read; 0: 10 s
	MaxWaitingBytes  int           // of one shard, at least; see Server.Full; 0: 4 MiB
	DropSlow         bool          // frames over a bound are dropped; false: the connection is closed
	SlowCode         uint16        // close code for it; 0: 4100
	SlowReason       string        // close reason for it
	HandshakeTimeout time.Duration // for the whole request; 0: 10 s
	CloseTimeout     time.Duration // for the peer to answer a close; 0: 5 s
	MaxHandshakes    int           // begun and unfinished at a time, the oldest gives way; 0: 1,024
	MaxHeaderBytes   int           // of the request; 0: 16 KiB
	ForceStream      bool          // use the stream transport for everything
	Log              *slog.Logger  // nil: nothing is logged
}

func (o *Options) setDefaults() {
	def(&o.MaxMessageBytes, 64<<10)
	def(&o.MaxQueuedBytes, 1<<20)
	def(&o.MaxQueuedFrames, 16<<10)
	def(&o.MaxQueueAge, 10*time.Second)
	def(&o.MaxWaitingBytes, 4<<20)
	def(&o.SlowCode, 4100)
	def(&o.HandshakeTimeout, 10*time.Second)
	def(&o.CloseTimeout, 5*time.Second)
	def(&o.MaxHandshakes, 1024)
	def(&o.MaxHeaderBytes, 16<<10)
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	o.Log = o.Log.With("component", "ws")
}

func def[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// Stats count what a server did and holds.
type Stats struct {
	Connections  int   // open
	Handshakes   int   // begun and unfinished
	WaitingBytes int64 // queued for clients whose sockets have room
	StuckBytes   int64 // queued for clients that do not read
	Slow         int64 // connections closed because the client did not read
	Dropped      int64 // frames dropped by DropSlow
	Crowded      int64 // connections and upgrades turned away at a bound of this server
}
