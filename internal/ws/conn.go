package ws

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

var (
	// ErrSlow says that the client did not read what was queued for it.
	ErrSlow = errors.New("websocket: client does not read fast enough")
	// ErrClosed says that this side closed the connection.
	ErrClosed = errors.New("websocket: closed by the server")

	errHungUp   = errors.New("websocket: connection lost")
	errNoAnswer = errors.New("websocket: client did not answer the close")
)

// A CloseError is the close frame of the peer.
type CloseError struct {
	Code   uint16 // 0: none was given
	Reason string
}

// Error returns the code and the reason.
func (e *CloseError) Error() string {
	return fmt.Sprintf("websocket: closed by the peer: %d %s", e.Code, e.Reason)
}

// States of a connection.
const (
	stateOpen    = iota
	stateClosing // a close frame is queued: nothing is queued behind it
	stateCut     // nothing is sent any more
)

// A Conn is one WebSocket connection of a client. Its methods may be called
// from any goroutine, except Await.
type Conn struct {
	// Fixed at creation.
	*home
	handler Handler
	limit   int     // bytes of a message; below 0: none
	secure  *secure // TLS on a loop; nil: it is plain, or a stream
	fd      int32   // poll transport only
	gen     uint32  // of the descriptor's number; poll transport only

	lastRead atomic.Int64 // like all moments, nanoseconds since the server was made

	// Guarded by turn.
	in       decoder
	held     []byte // read and not looked at yet, because a callback waits
	await    func() // what a callback has just asked for
	waiting  bool   // for an Await
	wakeDue  bool   // a Wake came meanwhile
	leaveDue bool   // a Leave came meanwhile
	deaf     bool   // the peer broke the protocol; what it sends is thrown away
	flooding bool   // it has asked for too much, and is read when there is time
	meter    meter
	released bool // the descriptor is closed
	ended    bool // Closed has been called

	timer timer // guarded by shard.wheel.mu

	mu       sync.Mutex // guards what follows
	state    uint8
	dirty    bool // the link knows that there is something to write
	writing  bool // the writer is at the descriptor
	blocked  bool // the socket is full; the link waits for room
	purging  bool // drop the queue when the writer is back
	told     bool // the peer's close frame has come
	failed   bool // the peer broke the protocol: nothing will answer the close frame
	leaving  bool // Leave is to be called
	crowded  bool // the client keeps up and half of a bound is queued
	muted    bool // input is not asked for, because a callback waits; poll transport only
	queue    fifo
	farewell *Frame // the close frame, until it follows the queue
	err      error  // why the connection ends
	off      int    // bytes of the queue's front that are written
	bytes    int    // of all frames in the queue, written or not
	huge     int    // bytes of one of them that is larger than the bound alone; 0: there is none
	markLeft int    // bytes to be written until the mark is passed; 0: there is no mark
	markAt   int64  // when the mark was set behind what was queued then
	wakeAt   int64  // 0: never
	closeBy  int64  // when a closing connection is cut; 0: not closing
	timerAt  int64  // when the wheel gives the connection out; 0: it does not have it
}

// A home is what a connection shares with the others of its loop, behind one
// pointer: what the garbage collector has to follow is most of its work.
type home struct {
	srv   *Server
	link  link
	shard *shard
	turn  *sync.Mutex
}

// A link moves bytes for a connection: the poll or the stream transport.
type link interface {
	// flush sees to it that the queue is written; it does not wait.
	flush(c *Conn)
	// resume goes on with c.held and reading. c.turn is held.
	resume(c *Conn)
	// release gives the descriptor back unless a writer is at it, who will come
	// back to it. The connection is cut, and c.turn is held.
	release(c *Conn)
}

// A shard is what connections share that are written by the same goroutine.
type shard struct {
	wheel   wheel
	conns   atomic.Int64
	waiting atomic.Int64 // bytes that the writer has to write
	stuck   atomic.Int64 // bytes of full sockets
	crowded atomic.Int64 // connections that keep up and have half of a bound queued
}

// Server returns the server that the connection belongs to.
func (c *Conn) Server() *Server { return c.srv }

// LastRead returns when the client was last heard of: a message, a ping, a
// pong, or a part of one.
func (c *Conn) LastRead() time.Time { return c.srv.time(c.lastRead.Load()) }

// QueuedBytes returns how many bytes wait for the client, headers included. A
// frame that is written in part counts whole.
func (c *Conn) QueuedBytes() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.bytes
}

// Send queues a frame and never waits. It returns false when the connection is
// closing, or when a bound of the queue would be exceeded, which ends the
// connection unless Options.DropSlow says otherwise.
func (c *Conn) Send(f *Frame) bool {
	c.mu.Lock()
	if c.state != stateOpen {
		c.mu.Unlock()
		return false
	}
	if c.over(len(f.wire)) {
		return c.refuse()
	}
	wake := c.push(f)
	c.mu.Unlock()
	if wake {
		c.link.flush(c)
	}
	return true
}

// Ping queues a control ping; payload is cut to 125 bytes.
func (c *Conn) Ping(payload []byte) {
	c.Send(newFrame(opPing, payload[:min(len(payload), maxControl)]))
}

// Close sends what is queued, then a close frame with code and reason, and ends
// the connection when the peer has answered or Options.CloseTimeout has passed.
// Sends that follow are refused. The reason is cut to 123 bytes; code 0 stands
// for a close frame without a body.
func (c *Conn) Close(code uint16, reason string) { c.shut(ErrClosed, nil, code, reason) }

// CloseAfter is Close with a last frame, which nothing of another goroutine can
// follow. It goes out even if the queue is full. False: the connection is
// closing already.
func (c *Conn) CloseAfter(last *Frame, code uint16, reason string) bool {
	return c.shut(ErrClosed, last, code, reason)
}

// shut starts the close handshake, unless it has begun.
func (c *Conn) shut(err error, last *Frame, code uint16, reason string) bool {
	c.mu.Lock()
	if c.state != stateOpen {
		c.mu.Unlock()
		return false
	}
	wake := last != nil && c.push(last)
	wake = c.sayBye(err, code, reason) || wake
	c.mu.Unlock()
	if wake {
		c.link.flush(c)
	}
	return true
}

// WakeAt asks for one Wake at t in place of an earlier wish; the zero time
// withdraws it.
func (c *Conn) WakeAt(t time.Time) {
	at := int64(0)
	if !t.IsZero() {
		at = max(int64(t.Sub(c.srv.base)), 1)
	}
	c.mu.Lock()
	c.wakeAt = at
	c.schedule()
	c.mu.Unlock()
}

// Await runs f, which may wait, on a goroutine of its own. It is called as the
// last thing in a callback: no other callback of this connection runs and
// nothing more is read until f has returned.
func (c *Conn) Await(f func()) { c.await = f }
