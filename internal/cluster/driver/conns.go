package driver

import (
	"context"
	"crypto/tls"
	"net"
	"sync"
)

// Conns are all connections to one broker, made and in the making. Libraries
// wait for a broker that does not answer when they dial, greet and say goodbye;
// once Conns are closed, nothing waits.
type Conns struct {
	mu     sync.Mutex // guards what follows
	closed bool
	ends   map[any]func()
}

// NewConns returns the connections to one broker: none.
func NewConns() *Conns { return &Conns{ends: map[any]func(){}} }

// Dial calls dial and keeps an eye on the connection it returns.
func (c *Conns) Dial(ctx context.Context, dial func(context.Context) (net.Conn, error)) (net.Conn, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	dialling := new(int)
	if !c.add(dialling, cancel) {
		return nil, net.ErrClosed
	}
	conn, err := dial(ctx)
	c.drop(dialling)
	if err != nil {
		return nil, err
	}
	kept := &keptConn{Conn: conn, by: c}
	if !c.add(kept, kept.cut) {
		kept.cut()
		return nil, net.ErrClosed
	}
	return kept, nil
}

func (c *Conns) add(key any, end func()) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.closed {
		c.ends[key] = end
	}
	return !c.closed
}

func (c *Conns) drop(key any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.ends, key)
}

// Close cuts all connections and lets no new ones be.
func (c *Conns) Close() {
	c.mu.Lock()
	c.closed = true
	ends := c.ends
	c.ends = nil
	c.mu.Unlock()
	for _, end := range ends {
		end()
	}
}

// Cut cuts all connections; new ones may be made.
func (c *Conns) Cut() {
	c.mu.Lock()
	var ends []func()
	for _, end := range c.ends {
		ends = append(ends, end)
	}
	c.mu.Unlock()
	for _, end := range ends {
		end()
	}
}

type keptConn struct {
	net.Conn
	by *Conns
}

func (c *keptConn) Close() error {
	c.by.drop(c)
	return c.Conn.Close()
}

// cut ends the connection without a goodbye, which TLS would wait for.
func (c *keptConn) cut() {
	if t, ok := c.Conn.(*tls.Conn); ok {
		_ = t.NetConn().Close()
		return
	}
	_ = c.Conn.Close()
}
