package admin

import (
	"net"
	"sync"
)

// Bound is a listener whose connections are few: one more than that waits until
// another ends.
func Bound(ln net.Listener) net.Listener {
	return &bound{Listener: ln, slots: make(chan struct{}, maxConns), closed: make(chan struct{})}
}

type bound struct {
	net.Listener
	slots  chan struct{} // holds one for each open connection
	closed chan struct{}
	once   sync.Once
}

// Accept waits for a slot and for a connection.
func (b *bound) Accept() (net.Conn, error) {
	select {
	case b.slots <- struct{}{}:
	case <-b.closed:
		return nil, net.ErrClosed
	}
	c, err := b.Listener.Accept()
	if err != nil {
		<-b.slots
		return nil, err
	}
	return &boundConn{Conn: c, release: sync.OnceFunc(func() { <-b.slots })}, nil
}

// Close ends the listener.
func (b *bound) Close() error {
	b.once.Do(func() { close(b.closed) })
	return b.Listener.Close()
}

type boundConn struct {
	net.Conn
	release func()
}

// Close ends the connection and gives its slot back.
func (c *boundConn) Close() error {
	c.release()
	return c.Conn.Close()
}
