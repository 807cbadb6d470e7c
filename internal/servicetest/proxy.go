package servicetest

import (
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// A Proxy passes TCP connections on to a server until it is told otherwise.
type Proxy struct {
	addr   string
	passed atomic.Int64
	delay  atomic.Int64 // nanoseconds

	mu      sync.Mutex // guards what follows
	target  string
	ln      net.Listener
	conns   map[net.Conn]bool
	held    chan struct{} // not nil: nothing passes until it is closed
	running sync.WaitGroup
}

// NewProxy listens on a free port in front of target, host:port.
func NewProxy(t testing.TB, target string) *Proxy {
	t.Helper()
	ln, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(Port(t))))
	if err != nil {
		t.Fatal(err)
	}
	p := &Proxy{target: target, addr: ln.Addr().String(), ln: ln, conns: map[net.Conn]bool{}}
	p.running.Go(func() { p.accept(ln) })
	t.Cleanup(func() {
		p.Refuse()
		p.running.Wait()
	})
	return p
}

// Addr is where the proxy listens, host:port.
func (p *Proxy) Addr() string { return p.addr }

// Bytes returns how much has passed so far, in both directions.
func (p *Proxy) Bytes() int64 { return p.passed.Load() }

// Cut ends all connections, in the middle of whatever passes. New ones are accepted.
func (p *Proxy) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cut()
}

func (p *Proxy) cut() {
	for c := range p.conns {
		if tcp, ok := c.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0) // a reset, as when a machine dies
		}
		_ = c.Close()
	}
	clear(p.conns)
	if p.held != nil {
		close(p.held)
		p.held = nil
	}
}

// Refuse ends all connections and accepts no new ones until Accept.
func (p *Proxy) Refuse() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ln != nil {
		_ = p.ln.Close()
		p.ln = nil
	}
	p.cut()
}

// Accept listens again after Refuse.
func (p *Proxy) Accept(t testing.TB) {
	t.Helper()
	ln, err := net.Listen("tcp", p.addr)
	if err != nil {
		t.Fatal(err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ln = ln
	p.running.Go(func() { p.accept(ln) })
}

// Hold lets connections stay and new ones be accepted, but no byte passes
// until Release: a network that swallows everything.
func (p *Proxy) Hold() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.held == nil {
		p.held = make(chan struct{})
	}
}

// Release lets bytes pass again.
func (p *Proxy) Release() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.held != nil {
		close(p.held)
		p.held = nil
	}
}

// Slow has what passes wait for so long, in each direction: a network that is far
// or busy.
func (p *Proxy) Slow(d time.Duration) { p.delay.Store(int64(d)) }

// Lead passes new connections on to another server, as when a name is given to
// it. Those that are open stay.
func (p *Proxy) Lead(target string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.target = target
}

// Open returns how many connections pass through now.
func (p *Proxy) Open() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.conns) / 2
}

func (p *Proxy) accept(ln net.Listener) {
	for {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		p.mu.Lock()
		target := p.target
		p.mu.Unlock()
		server, err := net.Dial("tcp", target)
		if err != nil {
			_ = c.Close()
			continue
		}
		if !p.track(c, server, ln) {
			return
		}
		p.running.Go(func() { p.pass(c, server) })
		p.running.Go(func() { p.pass(server, c) })
	}
}

func (p *Proxy) track(a, b net.Conn, ln net.Listener) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ln != ln { // was refused meanwhile
		_, _ = a.Close(), b.Close()
		return false
	}
	p.conns[a], p.conns[b] = true, true
	return true
}

func (p *Proxy) pass(from, to net.Conn) {
	defer func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		for _, c := range []net.Conn{from, to} {
			_ = c.Close()
			delete(p.conns, c)
		}
	}()
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		time.Sleep(time.Duration(p.delay.Load()))
		p.mu.Lock()
		held := p.held
		p.mu.Unlock()
		if held != nil {
			<-held
		}
		if n > 0 {
			if _, err := to.Write(buf[:n]); err != nil {
				return
			}
			p.passed.Add(int64(n))
		}
		if err != nil {
			return
		}
	}
}
