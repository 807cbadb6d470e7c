package ws

import (
	"io"
	"net"
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"sockudo/internal/epoll"
)

// A quiet connection reads and writes past the scheduler and waits in Go's
// poller as any other. The ordinary calls of net announce themselves to the
// scheduler; after a pause that wakes sysmon, which then polls for a
// millisecond: at 20 publishes a second, 1 to 2.5 µs for each of 1,000
// deliveries.
type quiet struct {
	net.Conn
	raw  syscall.RawConn
	full func() // called when a write waits for the peer; nil: nobody is told

	rd, wr call
}

// A call is one direction of a quiet connection.
type call struct {
	mu   sync.Mutex // held during a Read or a Write; guards what follows
	b    []byte
	n    int
	err  syscall.Errno
	step func(fd uintptr) (done bool) // made once, so that calls allocate nothing
}

// quietly returns a quiet connection for a plain socket, and others as they are.
func quietly(nc net.Conn) net.Conn {
	sc, ok := nc.(syscall.Conn)
	if !ok {
		return nc
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return nc
	}
	q := &quiet{Conn: nc, raw: raw}
	q.rd.step = func(fd uintptr) bool {
		for {
			q.rd.n, q.rd.err = epoll.Recv(int(fd), q.rd.b)
			if q.rd.err != unix.EINTR {
				return q.rd.err != unix.EAGAIN
			}
		}
	}
	q.wr.step = func(fd uintptr) bool {
		for q.wr.n < len(q.wr.b) {
			n, err := epoll.Send(int(fd), q.wr.b[q.wr.n:])
			q.wr.n += n
			switch err {
			case 0, unix.EINTR:
				q.wr.err = 0
			case unix.EAGAIN:
				if q.full != nil {
					q.full()
				}
				return false
			default:
				q.wr.err = err
				return true
			}
		}
		return true
	}
	return q
}

// whenFull has f called by writes that wait for the peer, from the next one on.
// It returns false when that cannot be known.
func whenFull(nc net.Conn, f func()) bool {
	if p, ok := nc.(*pipe); ok {
		nc = p.Conn
	}
	q, ok := nc.(*quiet)
	if ok {
		q.full = f
	}
	return ok
}

// Read reads what there is, or waits for it.
func (q *quiet) Read(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	q.rd.mu.Lock()
	defer q.rd.mu.Unlock()
	n, err := q.rd.do(b, q.raw.Read)
	if n == 0 && err == nil {
		return 0, io.EOF
	}
	return n, q.wrap("read", err)
}

// Write writes all of b.
func (q *quiet) Write(b []byte) (int, error) {
	q.wr.mu.Lock()
	defer q.wr.mu.Unlock()
	n, err := q.wr.do(b, q.raw.Write)
	return n, q.wrap("write", err)
}

// do runs step for b whenever the descriptor is ready; mu is held.
func (c *call) do(b []byte, whenReady func(func(uintptr) bool) error) (int, error) {
	c.b, c.n, c.err = b, 0, 0
	err := whenReady(c.step)
	n := max(c.n, 0)
	if err == nil && c.err != 0 {
		err = os.NewSyscallError("socket", c.err)
	}
	c.b = nil
	return n, err
}

func (q *quiet) wrap(op string, err error) error {
	if err == nil {
		return nil
	}
	if _, ok := err.(*net.OpError); ok { // a deadline, or closed
		return err
	}
	return &net.OpError{Op: op, Net: q.LocalAddr().Network(), Addr: q.RemoteAddr(), Err: err}
}

// SetKeepAlive switches the kernel's probes of a TCP connection.
func (q *quiet) SetKeepAlive(on bool) error {
	if tcp, ok := q.Conn.(*net.TCPConn); ok {
		return tcp.SetKeepAlive(on)
	}
	return nil
}

// CloseWrite ends the sending.
func (q *quiet) CloseWrite() error { return closeWrite(q.Conn) }

// SyscallConn returns the socket.
func (q *quiet) SyscallConn() (syscall.RawConn, error) { return q.raw, nil }
