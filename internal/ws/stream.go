package ws

import (
	"errors"
	"net"
	"os"
	"time"
)

// A stream is the transport with a reader goroutine per connection. It serves
// TLS, and plain connections where there is no poll transport.
type stream struct {
	nc net.Conn
}

const streamBuffer = 2 << 10 // bytes of a reader; larger frames collect in the parser

// serveStream runs a connection until it ends; early are bytes that came with
// the handshake.
func (s *Server) serveStream(c *Conn, nc net.Conn, early []byte) {
	st := &stream{nc: nc}
	c.link = st
	if !s.began(c) {
		_ = nc.Close()
		return
	}
	c.cb.Lock()
	c.guard(func() { c.handler.Open(c) })
	c.drainAwait()
	err := st.take(c, early)
	c.cb.Unlock()
	if err == nil {
		err = st.read(c)
	}
	c.fail(err)
	c.cb.Lock()
	c.end()
	c.cb.Unlock()
}

// read hands over what comes until the connection is over.
func (st *stream) read(c *Conn) error {
	buf := make([]byte, streamBuffer)
	for {
		c.runWake()
		n, err := st.nc.Read(buf)
		if n > 0 {
			c.cb.Lock()
			inErr := st.take(c, buf[:n])
			c.cb.Unlock()
			if inErr != nil {
				return inErr
			}
		}
		if err != nil {
			return err
		}
	}
}

// take feeds bytes to the parser and waits for what callbacks await; cb is held.
func (st *stream) take(c *Conn, b []byte) error {
	err := c.input(b)
	for err == errPaused {
		c.drainAwait()
		err = c.input(nil)
	}
	return err
}

func (st *stream) flush(c *Conn) {
	c.srv.work.Add(1)
	go func() {
		defer c.srv.work.Done()
		st.write(c)
	}()
}

// write sends the queue, all that waits at once, until it is empty.
func (st *stream) write(c *Conn) {
	for {
		c.mu.Lock()
		if len(c.queue) == 0 {
			then := c.flushed()
			c.mu.Unlock()
			half, ok := st.nc.(interface{ CloseWrite() error })
			switch {
			case then == hangUp, then == halfClose && !ok:
				_ = st.nc.Close()
			case then == halfClose:
				_ = half.CloseWrite()
			}
			return
		}
		batch := c.take(nil)
		c.mu.Unlock()
		_ = st.nc.SetWriteDeadline(time.Now().Add(c.srv.opts.MaxQueueAge))
		_, err := st.nc.Write(batch)
		c.written(len(batch))
		if err != nil {
			if errors.Is(err, os.ErrDeadlineExceeded) {
				err = ErrSlow
				c.srv.slow.Add(1)
			}
			c.fail(err) // drops the queue, so that the next turn is the last
		}
	}
}

func (st *stream) pause(*Conn)    {}
func (st *stream) resume(c *Conn) { c.runWake() }
func (st *stream) cut(*Conn)      { _ = st.nc.Close() }
