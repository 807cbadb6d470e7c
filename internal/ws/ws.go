// Package ws is the WebSocket engine: the handshake, the reading of frames, and
// frames that are encoded once and shared by all receivers. It knows nothing of
// Pusher.
//
// A connection is served by one of two transports, and nobody outside can tell
// which. The poll transport (Linux, plain TCP and Unix sockets) keeps no
// goroutine and no buffer for a silent connection. The stream transport (TLS,
// other systems) has one reader goroutine per connection.
//
// The callbacks of a connection run under Conn.cb, one at a time. Lock order:
// Conn.cb → wheel.mu → Conn.mu. The lists of a loop are leaves.
package ws

import (
	"log/slog"
	"net/http"
	"time"
)

// A Handler is what a connection's messages go to. The callbacks of one
// connection never run at the same time and must not wait: see Conn.Await.
type Handler interface {
	// Open is called once, before anything is read.
	Open(c *Conn)
	// Message is called with a complete text message, or with a binary one that
	// is valid UTF-8. The payload is valid only during the call.
	Message(c *Conn, payload []byte)
	// Wake is called at the moment that WakeAt asked for, or a little later.
	Wake(c *Conn, now time.Time)
	// Closed is called once, last. err says why.
	Closed(c *Conn, err error)
}

// Accept decides about a valid upgrade request. It may wait. Either the handler
// of the connection is returned, or the answer that refuses it over HTTP.
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
	MaxQueuedBytes   int           // of one connection; 0: 1 MiB
	MaxQueuedFrames  int           // of one connection; 0: 16,384
	MaxQueueAge      time.Duration // without the client taking a byte; 0: 10 s
	DropSlow         bool          // frames over the bound are dropped; false: the connection is closed
	SlowCode         uint16        // close code for it; 0: 4100
	SlowReason       string        // close reason for it
	OnSlow           func(c *Conn) // told of it, on the sender's goroutine; nil: nobody is
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
	Connections int   // open
	Slow        int64 // closed because the client did not read
	Dropped     int64 // frames dropped by DropSlow
}
