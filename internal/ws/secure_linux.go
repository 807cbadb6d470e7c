package ws

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"sockudo/internal/epoll"
)

const (
	// recordBytes is what a TLS record holds. More is not encrypted together, so
	// that little besides its queue is held for a client that does not read.
	recordBytes = 16 << 10
	// maxRest bounds what a pipe keeps: more than a record that the socket did
	// not take are answers of TLS itself to a client that asks for one after the
	// other and reads none.
	maxRest = 2 * recordBytes
)

// A secure connection is TLS on a loop. The handshake was made by net/http,
// which may wait; what follows never has to: reading stops at the end of what
// has come with a temporary error, after which crypto/tls can go on, and writing
// leaves what the socket does not take with the pipe.
type secure struct {
	tls  *tls.Conn
	pipe *pipe
}

// secured returns what TLS needs on a loop, or nil when nc is not TLS, or its
// socket is not one that a loop can take over.
func secured(nc net.Conn) *secure {
	t, ok := nc.(*tls.Conn)
	if !ok {
		return nil
	}
	p, ok := t.NetConn().(*pipe)
	if !ok {
		return nil
	}
	return &secure{t, p}
}

// read returns the next bytes of the peer. pause says that there are none now.
// Who has not asked for them since more came calls refill first.
func (s *secure) read(b []byte) (n int, pause bool, err error) {
	n, err = s.tls.Read(b)
	if n > 0 {
		return n, false, nil // an error will be there again when these have been handled
	}
	if why := s.pipe.failed(); why != nil {
		return 0, false, why
	}
	switch {
	case errors.Is(err, errNothingYet):
		return 0, true, nil
	case err == io.EOF:
		return 0, false, errHungUp
	}
	return 0, false, err
}

// write encrypts b and reports whether the socket is full. All of b is taken
// then, but nothing if the socket was full before.
func (s *secure) write(b []byte) (n int, full bool, err error) {
	if full, err = s.pipe.settle(); full || err != nil || len(b) == 0 {
		return 0, full, err
	}
	n, err = s.tls.Write(b[:min(len(b), recordBytes)])
	return n, s.pipe.owing(), err
}

// A pipe is the socket below TLS. net/http uses it like any other; once a loop
// has taken it over it never waits.
type pipe struct {
	net.Conn // gone when a loop has it

	// Set by the loop that takes it, owned by the loop's turn.
	fd  int // 0: no loop has it
	dry bool

	mu   sync.Mutex // guards what follows; a leaf
	rest []byte     // encrypted, and not taken by the socket yet
	err  error      // why no more is taken
}

// Quiet returns a listener whose connections cost the scheduler little, and
// which a loop can take over from below TLS. What is accepted for a
// tls.NewListener should come from it.
func Quiet(ln net.Listener) net.Listener { return quietListener{ln} }

type quietListener struct{ net.Listener }

// Accept returns a connection.
func (l quietListener) Accept() (net.Conn, error) {
	nc, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &pipe{Conn: quietly(nc)}, nil
}

// attach gives the pipe to a loop, with a descriptor that net does not know.
func (p *pipe) attach(fd int) {
	_ = p.Conn.Close()
	p.Conn, p.fd = gone{}, fd
}

// refill lets the next Read look at the socket, once.
func (p *pipe) refill() { p.dry = false }

// nothingYet is a temporary net.Error, after which TLS can be read again.
type nothingYet struct{}

func (nothingYet) Error() string   { return "nothing to read yet" }
func (nothingYet) Timeout() bool   { return true }
func (nothingYet) Temporary() bool { return true }

var errNothingYet net.Error = nothingYet{}

// Read looks at the socket once for every refill: that bounds what one client
// can make a loop do in a turn.
func (p *pipe) Read(b []byte) (int, error) {
	if p.fd == 0 {
		return p.Conn.Read(b)
	}
	if p.dry {
		return 0, errNothingYet
	}
	p.dry = true
	n, err := epoll.Recv(p.fd, b)
	switch {
	case n > 0:
		return n, nil
	case err == unix.EAGAIN || err == unix.EINTR:
		return 0, errNothingYet
	case err != 0:
		return 0, os.NewSyscallError("recv", err)
	}
	return 0, io.EOF
}

// Write takes all of b. It may be called by the flusher and, for answers of
// TLS itself, by the loop.
func (p *pipe) Write(b []byte) (int, error) {
	if p.fd == 0 {
		return p.Conn.Write(b)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	n := 0
	if len(p.rest) == 0 {
		var err error
		if n, err = sendSome(p.fd, b); err != nil {
			return 0, err
		}
	}
	if len(p.rest)+len(b)-n > maxRest {
		p.err = ErrSlow
		return 0, p.err
	}
	p.rest = append(p.rest, b[n:]...)
	return len(b), nil
}

// settle sends what the socket did not take and reports whether it is full.
func (p *pipe) settle() (full bool, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.rest) == 0 {
		return false, nil
	}
	n, err := sendSome(p.fd, p.rest)
	if p.rest = p.rest[n:]; len(p.rest) == 0 {
		p.rest = nil
	}
	return len(p.rest) > 0, err
}

// failed returns why no more can be written, which TLS tells only when it is
// written to the next time.
func (p *pipe) failed() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.err
}

func (p *pipe) owing() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.rest) > 0
}

// sendSome writes as much of b as the socket takes.
func sendSome(fd int, b []byte) (int, error) {
	n, err := epoll.Send(fd, b)
	if err != 0 && err != unix.EAGAIN && err != unix.EINTR {
		return 0, os.NewSyscallError("send", err)
	}
	return n, nil
}

// CloseWrite ends the sending.
func (p *pipe) CloseWrite() error { return closeWrite(p.Conn) }

// SetKeepAlive switches the kernel's probes.
func (p *pipe) SetKeepAlive(on bool) error {
	if q, ok := p.Conn.(*quiet); ok {
		return q.SetKeepAlive(on)
	}
	return nil
}

// gone is the connection of a pipe whose socket belongs to a loop. It holds no
// memory.
type gone struct{}

func (gone) Read([]byte) (int, error)         { return 0, net.ErrClosed }
func (gone) Write([]byte) (int, error)        { return 0, net.ErrClosed }
func (gone) Close() error                     { return nil }
func (gone) LocalAddr() net.Addr              { return nil }
func (gone) RemoteAddr() net.Addr             { return nil }
func (gone) SetDeadline(time.Time) error      { return nil }
func (gone) SetReadDeadline(time.Time) error  { return nil }
func (gone) SetWriteDeadline(time.Time) error { return nil }
