package ws

import (
	"crypto/tls"
	"net"
	"sync"
	"time"
)

const (
	// Bytes of a reader's buffer; larger frames collect in the decoder. TLS has
	// a buffer of its own below it.
	streamBuffer = 2 << 10
	tlsBuffer    = 512
	// streamBatch bounds the bytes that are copied together: a TLS record. A
	// client that does not read holds on to them besides its queue.
	streamBatch = 16 << 10
)

var scratches = sync.Pool{New: func() any { b := make([]byte, 0, streamBatch); return &b }}

// A stream is the transport with a reader goroutine per connection. It serves
// what no loop can take.
type stream struct {
	c       *Conn
	nc      net.Conn
	turn    sync.Mutex // the turn of the connection
	home    home
	tells   bool          // full is called when the socket is full
	resumed chan struct{} // tells the reader that an Await or the connection is over; holds one
	writer  func()        // write, made once so that starting it allocates nothing
}

// stream opens a connection and serves it with goroutines of its own.
func (s *Server) stream(c *Conn, nc net.Conn, answer *Frame, early []byte) {
	if tcp, ok := plain(nc).(interface{ SetKeepAlive(bool) error }); ok {
		_ = tcp.SetKeepAlive(false) // as in the poll transport
	}
	st := &stream{c: c, nc: nc, resumed: make(chan struct{}, 1)}
	st.writer = st.write
	st.tells = whenFull(plain(nc), st.full)
	st.home = home{srv: s, link: st, shard: &s.streams, turn: &st.turn}
	c.home = &st.home
	st.turn.Lock()
	defer st.turn.Unlock()
	if !s.began(c) {
		_ = nc.Close()
		return
	}
	s.streamed.Store(c, struct{}{})
	c.open(answer, early)
	st.flush(c)
	s.work.Go(st.read)
}

// plain returns what is below TLS.
func plain(nc net.Conn) net.Conn {
	if t, ok := nc.(*tls.Conn); ok {
		return t.NetConn()
	}
	return nc
}

// read hands over what comes until the connection is over.
func (st *stream) read() {
	c := st.c
	size := streamBuffer
	if _, ok := st.nc.(*tls.Conn); ok {
		size = tlsBuffer
	}
	buf := make([]byte, size)
	for over, flooding := false, false; !over; {
		n, err := st.nc.Read(buf)
		if n > 0 {
			err = nil // it will be there again when these have been handled
		}
		st.turn.Lock()
		for c.waiting && !c.released {
			st.turn.Unlock()
			<-st.resumed
			st.turn.Lock()
		}
		if n > 0 && !c.released {
			now := c.srv.now()
			c.lastRead.Store(now)
			flooding = c.meter.spend(c.input(buf[:n]), now)
		}
		if err != nil {
			c.lose(err)
		}
		over = c.released || err != nil
		st.turn.Unlock()
		if flooding && !over {
			time.Sleep(meterEvery)
		}
	}
	_ = st.nc.Close() // under TLS it says so
}

// flush starts the writer: the connection was clean.
func (st *stream) flush(c *Conn) {
	c.srv.work.Add(1)
	go st.writer()
}

// write sends the queue, all that waits at once, until it is empty.
func (st *stream) write() {
	defer st.c.srv.work.Done()
	var scratch *[]byte // nil until frames have to be put together
	for st.writeOnce(&scratch) {
	}
	if scratch != nil {
		scratches.Put(scratch)
	}
	st.c.srv.relief.ring()
}

// writeOnce reports whether there may be more to write.
func (st *stream) writeOnce(scratch **[]byte) (more bool) {
	c := st.c
	st.writeBatch(scratch)
	c.mu.Lock()
	then := c.then()
	if then == hangUp {
		c.cut(nil)
	}
	cut := c.state == stateCut
	if cut {
		c.drop()
	}
	more = !cut && (c.queue.n > 0 || c.farewell != nil)
	c.dirty = more
	c.mu.Unlock()
	switch {
	case cut:
		st.turn.Lock()
		st.release(c)
		st.turn.Unlock()
	case then == halfClose:
		_ = closeWrite(st.nc)
	}
	return more
}

// writeBatch writes what fits into one batch.
func (st *stream) writeBatch(scratch **[]byte) {
	c := st.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.state == stateCut {
		return
	}
	var room []byte
	if c.queue.n > 0 && (c.queue.n > 1 || c.farewell != nil) {
		if *scratch == nil {
			*scratch = scratches.Get().(*[]byte)
		}
		room = **scratch
	}
	b := c.collect(room)
	if len(b) == 0 {
		return
	}
	c.writing = true
	if !st.tells {
		c.block(true)
		c.mark()
	}
	c.mu.Unlock()
	n, err := st.nc.Write(b)
	c.mu.Lock()
	c.writing = false
	c.sent(n)
	c.block(false)
	if err != nil {
		c.cut(err)
	}
}

// full notes that the write that is going on waits for the client.
func (st *stream) full() {
	c := st.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.writing { // else it is the reader's: TLS answers some records
		c.block(true)
		c.mark()
	}
}

func (st *stream) resume(c *Conn) {
	c.meter.spend(c.inputHeld(), c.srv.now()) // its reader looks at the next read
	st.signal()
}

func (st *stream) signal() {
	select {
	case st.resumed <- struct{}{}:
	default:
	}
}

// release ends the reader, and the writer if it is at it. After a complete
// close handshake the reader hangs up politely; otherwise closing must not
// wait, as it may under TLS.
func (st *stream) release(c *Conn) {
	c.mu.Lock()
	writing, polite := c.writing, c.told && c.bytes == 0
	c.mu.Unlock()
	if polite {
		_ = st.nc.SetReadDeadline(time.Unix(1, 0))
	} else {
		_ = plain(st.nc).Close()
	}
	st.signal()
	if writing {
		return
	}
	if !c.released {
		c.released = true
		c.srv.streamed.Delete(c)
	}
	c.end()
}
