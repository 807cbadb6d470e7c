package bench

import (
	"context"
	"crypto/tls"
	"net"
	"net/netip"
	"sync"
)

// A streamNetwork has two goroutines per connection: for TLS, and for systems
// without epoll.
type streamNetwork struct {
	tls    *tls.Config // nil: plain
	ctx    context.Context
	cancel context.CancelFunc
	work   sync.WaitGroup
}

func newStreamNetwork(conf *tls.Config) *streamNetwork {
	n := &streamNetwork{tls: conf}
	n.ctx, n.cancel = context.WithCancel(context.Background())
	return n
}

func (n *streamNetwork) dial(l *lane, p peer, to netip.AddrPort, from netip.Addr) {
	n.work.Go(func() {
		nc, err := n.open(to, from)
		if err != nil {
			l.mu.Lock()
			defer l.mu.Unlock()
			p.down(outOfPorts(outOfFiles(err)))
			return
		}
		s := &streamLink{nc: nc, more: make(chan struct{}, 1), done: make(chan struct{})}
		n.work.Go(s.writeAll)
		stop := context.AfterFunc(n.ctx, func() { _ = nc.Close() })
		defer stop()
		s.readAll(l, p)
	})
}

func (n *streamNetwork) open(to netip.AddrPort, from netip.Addr) (net.Conn, error) {
	var d net.Dialer
	if from.IsValid() {
		d.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(from, 0))
	}
	if n.tls == nil {
		return d.DialContext(n.ctx, "tcp", to.String())
	}
	t := tls.Dialer{NetDialer: &d, Config: n.tls}
	return t.DialContext(n.ctx, "tcp", to.String())
}

// stop closes everything. It waits for the goroutines.
func (n *streamNetwork) stop() {
	n.cancel()
	n.work.Wait()
}

type streamLink struct {
	nc   net.Conn
	more chan struct{} // holds one
	done chan struct{} // closed when the reader has ended

	mu  sync.Mutex // guards what follows
	out []byte
	err error // why it was closed
}

func (s *streamLink) readAll(l *lane, p peer) {
	defer close(s.done)
	l.mu.Lock()
	p.up(s, l.clock.now())
	l.mu.Unlock()
	buf := make([]byte, 4<<10)
	for {
		n, err := s.nc.Read(buf)
		l.mu.Lock()
		if n > 0 {
			start := l.clock.now()
			l.bytes += uint64(n)
			if bad := p.input(buf[:n], start); bad != nil {
				err = bad
			}
			l.busy += l.clock.now() - start
		}
		if err != nil {
			_ = s.nc.Close()
			s.mu.Lock()
			if s.err != nil {
				err = s.err
			}
			s.mu.Unlock()
			p.down(err)
			l.mu.Unlock()
			return
		}
		l.mu.Unlock()
	}
}

func (s *streamLink) writeAll() {
	var b []byte
	for {
		select {
		case <-s.more:
		case <-s.done:
			return
		}
		s.mu.Lock()
		b, s.out = s.out, b[:0]
		s.mu.Unlock()
		if len(b) > 0 {
			_, _ = s.nc.Write(b) // the reader tells
		}
	}
}

func (s *streamLink) send(b []byte) {
	s.mu.Lock()
	s.out = append(s.out, b...)
	s.mu.Unlock()
	select {
	case s.more <- struct{}{}:
	default:
	}
}

func (s *streamLink) close(err error) {
	s.mu.Lock()
	if s.err == nil {
		s.err = err
	}
	s.mu.Unlock()
	_ = s.nc.Close()
}
