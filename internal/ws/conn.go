package ws

import (
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"
)

var (
	// ErrSlow says that a client did not read what was queued for it.
	ErrSlow = errors.New("websocket: client does not read fast enough")
	// ErrClosed says that this side closed the connection.
	ErrClosed = errors.New("websocket: closed by the server")

	errAnswered = errors.New("websocket: client answered the close")
	errHungUp   = errors.New("websocket: connection lost")
	errGone     = errors.New("websocket: client closed the connection")
	errTimeout  = errors.New("websocket: client did not answer the close")
)

// States of a connection's outbox.
const (
	stateOpen    = iota
	stateClosing // the close frame is queued: nothing is queued behind it
	stateCut     // nothing is sent any more
)

// A Conn is one WebSocket connection of a client. Its methods may be called
// from any goroutine, except Await.
type Conn struct {
	// Fixed at creation.
	srv     *Server
	handler Handler
	remote  string
	link    link
	polled  polled // of the poll transport

	lastRead atomic.Int64 // Unix nanoseconds
	timer    timer        // guarded by the wheel

	cb sync.Mutex // one callback at a time; guards what follows
	in reader
	// await is what a callback wants to wait for; nil: nothing.
	await   func()
	discard bool // the peer's messages do not count any more
	ended   bool // Closed has been called

	wakeDue atomic.Bool // a Wake came while cb was held

	mu      sync.Mutex // guards what follows
	state   uint8
	stalled bool // the socket took nothing more: the queue's age counts
	deaf    bool // nothing that the peer says counts any more, not even its answer to the close
	dirty   bool // the link has been told to flush and has not found the queue empty since
	bytes   int  // queued and not written yet
	queue   []*Frame
	first   [1]*Frame // the queue's memory while one frame waits
	since   int64     // when what is at the front was queued, Unix nanoseconds
	wakeAt  int64     // 0: never
	closeBy int64     // when a closing connection is cut; 0: not closing
	err     error     // why the connection ends
}

// A link moves bytes for a connection: the poll or the stream transport.
type link interface {
	// flush sees to it that the queue is written; it does not wait.
	flush(c *Conn)
	// pause and resume stop and restart reading, around Await.
	pause(c *Conn)
	resume(c *Conn)
	// cut ends the connection at once and leads to Conn.end.
	cut(c *Conn)
}

// Handler returns the handler of the connection.
func (c *Conn) Handler() Handler { return c.handler }

// RemoteAddr returns the address of the peer, or "" on a Unix socket.
func (c *Conn) RemoteAddr() string { return c.remote }

// LastRead returns when the client was last heard of.
func (c *Conn) LastRead() time.Time { return time.Unix(0, c.lastRead.Load()) }

// QueuedBytes returns how many bytes wait for the client.
func (c *Conn) QueuedBytes() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.bytes
}

// Send queues a frame and never waits. It returns false when the connection is
// closing or the client does not read fast enough.
func (c *Conn) Send(f *Frame) bool {
	c.mu.Lock()
	if c.state != stateOpen {
		c.mu.Unlock()
		return false
	}
	if c.bytes+len(f.wire) > c.srv.opts.MaxQueuedBytes || len(c.queue) >= c.srv.opts.MaxQueuedFrames {
		if c.srv.opts.DropSlow {
			c.mu.Unlock()
			c.srv.dropped.Add(1)
			return false
		}
		c.slow() // unlocks
		return false
	}
	wake := c.enqueue(f)
	c.mu.Unlock()
	if wake {
		c.link.flush(c)
	}
	return true
}

// enqueue adds a frame and reports whether the link must be told; mu is held.
func (c *Conn) enqueue(f *Frame) bool {
	if len(c.queue) == 0 {
		if c.queue == nil {
			c.queue = c.first[:0]
		}
		if c.bytes == 0 {
			c.since = c.srv.wheel.now()
		}
	}
	c.queue = append(c.queue, f)
	c.bytes += len(f.wire)
	wake := !c.dirty
	c.dirty = true
	return wake
}

// slow gives a client up that does not read: what waits for it is dropped, and
// a close frame goes out if the socket still takes it. mu is held and released.
func (c *Conn) slow() {
	c.drop()
	c.err = ErrSlow
	wake := c.shut(c.srv.opts.SlowCode, c.srv.opts.SlowReason)
	c.mu.Unlock()
	c.srv.slow.Add(1)
	c.srv.wheel.schedule(c)
	if wake {
		c.link.flush(c)
	}
	if c.srv.opts.OnSlow != nil {
		c.srv.opts.OnSlow(c)
	}
}

// drop forgets the queue; mu is held.
func (c *Conn) drop() {
	for _, f := range c.queue {
		c.bytes -= len(f.wire)
	}
	clear(c.queue)
	c.queue = nil
}

// maxBatch bounds the bytes that are written at once.
const maxBatch = 64 << 10

// take moves frames from the queue to the end of buf, up to about maxBatch
// bytes; mu is held. Their bytes count as queued until written says otherwise.
func (c *Conn) take(buf []byte) []byte {
	n := 0
	for n < len(c.queue) && (n == 0 || len(buf)+len(c.queue[n].wire) <= maxBatch) {
		buf = append(buf, c.queue[n].wire...)
		c.queue[n] = nil
		n++
	}
	if c.queue = c.queue[n:]; len(c.queue) == 0 {
		c.queue = nil
	}
	return buf
}

// written takes bytes off what is queued.
func (c *Conn) written(n int) {
	c.mu.Lock()
	c.bytes -= n
	if n > 0 {
		c.since = c.srv.wheel.now()
		c.stalled = false
	}
	c.mu.Unlock()
}

// shut queues the close frame as the last one and starts the time that the
// peer has; mu is held. It reports whether the link must be told.
func (c *Conn) shut(code uint16, reason string) bool {
	c.state = stateClosing
	c.closeBy = c.srv.wheel.now() + int64(c.srv.opts.CloseTimeout)
	return c.enqueue(closeFrame(code, reason))
}

// Ping queues a control ping; payload has at most 125 bytes.
func (c *Conn) Ping(payload []byte) {
	c.Send(newFrame(opPing, payload[:min(len(payload), maxControl)]))
}

// Close sends what is queued, then a close frame with code and reason, and ends
// the connection when the peer has answered or CloseTimeout has passed.
func (c *Conn) Close(code uint16, reason string) {
	c.begin(ErrClosed, code, reason)
}

// WakeAt asks for one Wake at t in place of an earlier wish; the zero time
// withdraws it.
func (c *Conn) WakeAt(t time.Time) {
	c.mu.Lock()
	c.wakeAt = 0
	if !t.IsZero() {
		c.wakeAt = t.UnixNano()
	}
	c.mu.Unlock()
	c.srv.wheel.schedule(c)
}

// Await runs f, which may wait, outside the event loop. It is called as the
// last thing in a callback; no other callback of this connection runs, and
// nothing more is read, until f has returned.
func (c *Conn) Await(f func()) { c.await = f }

// due returns when tick has something to do, 0 for never. It looks at the
// queue's age too.
func (c *Conn) due() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.state == stateCut {
		return 0
	}
	at := c.wakeAt
	if c.closeBy != 0 && (at == 0 || c.closeBy < at) {
		at = c.closeBy
	}
	if by := c.since + int64(c.srv.opts.MaxQueueAge); c.stalled && (at == 0 || by < at) {
		at = by
	}
	return at
}

// tick does what is due now. It is called by the wheel.
func (c *Conn) tick(now int64) {
	c.mu.Lock()
	late := c.closeBy != 0 && now >= c.closeBy
	wake := c.wakeAt != 0 && now >= c.wakeAt
	if wake {
		c.wakeAt = 0
	}
	if c.stalled && now >= c.since+int64(c.srv.opts.MaxQueueAge) {
		c.stalled = false
		c.srv.slow.Add(1)
		c.mu.Unlock()
		c.fail(ErrSlow)
		return
	}
	c.mu.Unlock()
	if late {
		c.fail(errTimeout)
		return
	}
	if wake {
		c.wakeDue.Store(true)
		c.runWake()
	}
	c.srv.wheel.schedule(c)
}

// runWake calls Wake unless another callback is running; that one will.
func (c *Conn) runWake() {
	for c.wakeDue.Load() && c.cb.TryLock() {
		c.callWake()
		c.leave()
	}
}

func (c *Conn) callWake() {
	if c.wakeDue.Swap(false) && !c.ended {
		c.guard(func() { c.handler.Wake(c, time.Unix(0, c.srv.wheel.now())) })
	}
}

// leave ends a callback: it releases cb, unless the callback wants to wait.
func (c *Conn) leave() {
	if c.await == nil {
		c.cb.Unlock()
		return
	}
	c.link.pause(c)
	c.srv.work.Add(1)
	go func() {
		defer c.srv.work.Done()
		c.drainAwait()
		c.callWake()
		c.cb.Unlock()
		c.link.resume(c)
	}()
}

// drainAwait runs what callbacks wait for; cb is held.
func (c *Conn) drainAwait() {
	for c.await != nil {
		f := c.await
		c.await = nil
		c.guard(f)
	}
}

// guard calls f; a panic in it costs this connection and no more.
func (c *Conn) guard(f func()) {
	defer func() {
		if p := recover(); p != nil {
			c.srv.opts.Log.Error("connection handler panicked", "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
			c.await = nil
			c.Close(1011, "Internal error")
		}
	}()
	f()
}

// input takes bytes of the client; cb is held. It returns errPaused when a
// callback wants to wait, and any other error when the connection is to be cut.
func (c *Conn) input(b []byte) error {
	c.lastRead.Store(c.srv.wheel.now())
	if c.discard {
		return nil
	}
	err := c.in.feed(b, c.srv.opts.MaxMessageBytes, c.receive)
	if err == nil || err == errPaused || err == errAnswered {
		return err
	}
	// The peer is told, or has been answered. What it goes on sending is read
	// and thrown away until it hangs up: closing with bytes unread would reset
	// the connection and take the close frame with it.
	c.discard = true
	c.in = reader{}
	var v *protocolError
	if errors.As(err, &v) {
		c.mu.Lock()
		c.deaf = true
		c.mu.Unlock()
		c.begin(err, v.code, v.reason)
	}
	return nil
}

// receive handles one message or control frame.
func (c *Conn) receive(opcode byte, payload []byte) error {
	switch opcode {
	case opText:
		if c.closing() {
			return nil
		}
		c.guard(func() { c.handler.Message(c, payload) })
		if c.await != nil {
			return errPaused
		}
		return nil
	case opPing:
		c.Send(newFrame(opPong, payload))
		return nil
	case opClose:
		return c.peerClosed(payload)
	}
	return nil // a pong: that it came is all it says
}

func (c *Conn) closing() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.state != stateOpen
}

// peerClosed answers a close frame. The connection ends when the answer is
// written, or at once when this side had begun.
func (c *Conn) peerClosed(body []byte) error {
	code, _, err := parseClose(body)
	if err != nil {
		return err
	}
	if c.begin(errGone, code, "") {
		return errGone
	}
	return errAnswered
}

// begin starts the close handshake unless it has begun, and reports whether it did.
func (c *Conn) begin(err error, code uint16, reason string) bool {
	c.mu.Lock()
	if c.state != stateOpen {
		c.mu.Unlock()
		return false
	}
	c.err = err
	wake := c.shut(code, reason)
	c.mu.Unlock()
	c.srv.wheel.schedule(c)
	if wake {
		c.link.flush(c)
	}
	return true
}

// What a link does when the queue of a connection has run empty.
const (
	keepOpen  = iota
	hangUp    // close the descriptor: the peer closed first and has its answer
	halfClose // end the sending half: the peer sees that nothing follows the close frame
)

// flushed says what to do now that the queue is empty; mu is held.
func (c *Conn) flushed() int {
	c.dirty = false
	switch {
	case c.state != stateClosing:
		return keepOpen
	case c.err == errGone:
		return hangUp
	case c.deaf:
		return halfClose
	}
	return keepOpen
}

// fail cuts the connection.
func (c *Conn) fail(err error) {
	c.mu.Lock()
	if c.err == nil {
		c.err = err
	}
	c.state = stateCut
	c.drop()
	c.mu.Unlock()
	c.link.cut(c)
}

// end tells the handler that the connection is over; cb is held. The link has
// let go of the descriptor.
func (c *Conn) end() {
	if c.ended {
		return
	}
	c.drainAwait()
	c.ended = true
	c.mu.Lock()
	c.state = stateCut
	c.drop()
	err := c.err
	c.mu.Unlock()
	c.srv.wheel.remove(c)
	c.in = reader{}
	c.guard(func() { c.handler.Closed(c, err) })
	c.srv.ended(c)
}
