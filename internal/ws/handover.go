package ws

import (
	"net"
	"sync"
	"syscall"
)

// A handover is the listener that an API server accepts from.
type handover struct {
	addr  net.Addr
	conns chan net.Conn
	once  sync.Once
	done  chan struct{}
}

func newHandover(addr net.Addr) *handover {
	return &handover{addr: addr, conns: make(chan net.Conn), done: make(chan struct{})}
}

func (h *handover) give(nc net.Conn) {
	select {
	case h.conns <- nc:
	case <-h.done:
		_ = nc.Close()
	}
}

// Accept returns a connection whose first request is not an upgrade.
func (h *handover) Accept() (net.Conn, error) {
	select {
	case nc := <-h.conns:
		return nc, nil
	case <-h.done:
		return nil, net.ErrClosed
	}
}

// Close ends Accept.
func (h *handover) Close() error {
	h.once.Do(func() { close(h.done) })
	return nil
}

// Addr returns the address of the real listener.
func (h *handover) Addr() net.Addr { return h.addr }

// A prefixed connection gives back the bytes that were read already.
type prefixed struct {
	net.Conn
	head []byte
}

// Read returns the head first.
func (p *prefixed) Read(b []byte) (int, error) {
	if len(p.head) == 0 {
		return p.Conn.Read(b)
	}
	n := copy(b, p.head)
	if p.head = p.head[n:]; len(p.head) == 0 {
		p.head = nil
	}
	return n, nil
}

// CloseWrite ends the sending, so that net/http can hang up without a reset.
func (p *prefixed) CloseWrite() error { return closeWrite(p.Conn) }

// closeWrite shuts down the sending side of a TCP or Unix connection.
func closeWrite(nc net.Conn) error {
	if half, ok := nc.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return syscall.ENOTSUP
}
