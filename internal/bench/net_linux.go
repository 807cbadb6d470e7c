package bench

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"sockudo/internal/epoll"
)

// newNetwork returns the network for plain TCP: one epoll set per lane, no
// goroutine and no buffer per connection.
func newNetwork(lanes []*lane) (network, error) {
	n := &pollNetwork{loops: map[*lane]*pollLoop{}}
	for _, l := range lanes {
		p, err := newPollLoop(l)
		if err != nil {
			n.stop()
			return nil, err
		}
		n.loops[l] = p
		n.work.Go(p.run)
	}
	return n, nil
}

type pollNetwork struct {
	loops map[*lane]*pollLoop
	work  sync.WaitGroup
}

func (n *pollNetwork) dial(l *lane, p peer, to netip.AddrPort, from netip.Addr) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := n.loops[l].dial(p, to, from); err != nil {
		p.down(err)
	}
}

// stop closes everything. No peer is told.
func (n *pollNetwork) stop() {
	for _, p := range n.loops {
		p.close()
	}
	n.work.Wait()
	for _, p := range n.loops {
		p.lane.mu.Lock()
		p.stopped = true
		for _, s := range p.socks {
			if s != nil {
				s.mu.Lock()
				s.closed = true
				s.mu.Unlock()
				_ = unix.Close(s.fd)
			}
		}
		p.lane.mu.Unlock()
	}
}

// expressEvery is after how many sockets those are looked at that do not wait
// their turn.
const expressEvery = 16

// A pollLoop is the epoll set of a lane. A second one inside it is for those
// whose answers are timed and that must not wait behind thousands of deliveries
// to others, as no client on a machine of its own would.
type pollLoop struct {
	lane    *lane
	set     *epoll.Set
	express *epoll.Set

	// Under lane.mu.
	stopped bool
	socks   []*pollSock // by descriptor
	gen     int32
	events  [256]unix.EpollEvent
	urgent  [expressEvery]unix.EpollEvent
	buf     []byte
}

func newPollLoop(l *lane) (*pollLoop, error) {
	set, err := epoll.Open()
	if err != nil {
		return nil, outOfFiles(err)
	}
	express, err := epoll.Open()
	if err != nil {
		set.Close()
		return nil, outOfFiles(err)
	}
	if err := set.Add(express.FD(), unix.EpollEvent{Fd: int32(express.FD()), Events: unix.EPOLLIN}); err != nil {
		set.Close()
		express.Close()
		return nil, err
	}
	return &pollLoop{lane: l, set: set, express: express, buf: make([]byte, 256<<10)}, nil
}

func (p *pollLoop) close() {
	p.set.Close() // ends run
	p.express.Close()
}

// run reads whenever there is something, until the set is closed.
func (p *pollLoop) run() {
	p.set.Run(func() {
		for {
			start := p.lane.clock.now()
			p.lane.mu.Lock()
			n := p.poll()
			if n > 0 {
				p.lane.busy += p.lane.clock.now() - start
			}
			p.lane.mu.Unlock()
			if n == 0 {
				return
			}
			p.set.Breathe() // for those who send
		}
	})
}

func (p *pollLoop) poll() int {
	n := p.set.Events(p.events[:])
	for i := range n {
		if i%expressEvery == 0 {
			p.hurry()
		}
		p.handle(&p.events[i])
	}
	return n
}

// hurry reads those that do not wait their turn.
func (p *pollLoop) hurry() {
	for i := range p.express.Events(p.urgent[:]) {
		p.handle(&p.urgent[i])
	}
}

func (p *pollLoop) handle(ev *unix.EpollEvent) {
	s := p.socks[ev.Fd]
	if s == nil || s.gen != ev.Pad { // gone, or the express set
		return
	}
	if ev.Events&unix.EPOLLOUT != 0 && !s.writable() {
		return
	}
	if ev.Events&^unix.EPOLLOUT != 0 {
		s.read(ev.Events&^(unix.EPOLLOUT|unix.EPOLLIN) != 0)
	}
}

// A pollSock is one connection.
type pollSock struct {
	loop *pollLoop
	set  *epoll.Set
	peer peer
	fd   int
	gen  int32
	open bool // connected; under lane.mu

	mu     sync.Mutex // guards what follows
	out    []byte     // what the socket did not take
	armed  bool       // EPOLLOUT is asked for
	closed bool
}

func (p *pollLoop) dial(pr peer, to netip.AddrPort, from netip.Addr) error {
	if p.stopped {
		return net.ErrClosed
	}
	family := unix.AF_INET
	if to.Addr().Is6() {
		family = unix.AF_INET6
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return outOfFiles(os.NewSyscallError("socket", err))
	}
	if err := connect(fd, to, from); err != nil {
		_ = unix.Close(fd)
		return err
	}
	for len(p.socks) <= fd {
		p.socks = append(p.socks, make([]*pollSock, 1024)...)
	}
	p.gen++
	s := &pollSock{loop: p, set: p.set, peer: pr, fd: fd, gen: p.gen, armed: true}
	if pr.timed() {
		s.set = p.express
	}
	p.socks[fd] = s
	if err := s.set.Add(fd, s.interest()); err != nil {
		p.socks[fd] = nil
		_ = unix.Close(fd)
		return err
	}
	return nil
}

func connect(fd int, to netip.AddrPort, from netip.Addr) error {
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	if from.IsValid() {
		// The port is chosen with the destination known: 28,000 for each address.
		_ = unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1)
		if err := unix.Bind(fd, sockaddr(netip.AddrPortFrom(from, 0))); err != nil {
			return os.NewSyscallError("bind to "+from.String(), err)
		}
	}
	err := unix.Connect(fd, sockaddr(to))
	if err != nil && err != unix.EINPROGRESS {
		return outOfPorts(os.NewSyscallError("connect", err))
	}
	return nil
}

func sockaddr(a netip.AddrPort) unix.Sockaddr {
	if a.Addr().Is6() {
		return &unix.SockaddrInet6{Addr: a.Addr().As16(), Port: int(a.Port())}
	}
	return &unix.SockaddrInet4{Addr: a.Addr().As4(), Port: int(a.Port())}
}

func (s *pollSock) interest() unix.EpollEvent {
	ev := unix.EpollEvent{Fd: int32(s.fd), Pad: s.gen, Events: unix.EPOLLIN | unix.EPOLLRDHUP | unix.EPOLLET}
	if s.armed {
		ev.Events |= unix.EPOLLOUT
	}
	return ev
}

// arm changes whether room to write is asked for; mu is held.
func (s *pollSock) arm(on bool) {
	if s.armed != on && !s.closed {
		s.armed = on
		s.set.Change(s.fd, s.interest())
	}
}

// writable goes on with what is waiting for room. It returns false when the
// connection is over.
func (s *pollSock) writable() bool {
	if !s.open {
		code, err := unix.GetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_ERROR)
		if err == nil && code != 0 {
			err = syscall.Errno(code)
		}
		if err != nil {
			s.close(os.NewSyscallError("connect", err))
			return false
		}
		s.open = true
		s.mu.Lock()
		s.arm(false)
		s.mu.Unlock()
		s.peer.up(s, s.loop.lane.clock.now())
		return true
	}
	s.mu.Lock()
	s.write(nil)
	s.mu.Unlock()
	return true
}

// send writes b, or keeps what the socket does not take.
func (s *pollSock) send(b []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.write(b)
}

// write sends what is kept and then b; mu is held. A broken connection shows
// when it is read.
func (s *pollSock) write(b []byte) {
	if s.closed {
		return
	}
	if len(s.out) > 0 {
		s.out = append(s.out, b...)
		b = s.out
	}
	for len(b) > 0 {
		n, err := epoll.Send(s.fd, b)
		if err != 0 && err != unix.EINTR {
			if err != unix.EAGAIN {
				b = nil
			}
			break
		}
		b = b[n:]
	}
	s.out = append(s.out[:0], b...)
	s.arm(len(b) > 0)
	if len(b) == 0 {
		s.out = nil
	}
}

// read hands what has arrived to the peer; lane.mu is held. The registration is
// edge-triggered, so that epoll does not look at the socket a second time: all
// is read, and with ended the end too.
func (s *pollSock) read(ended bool) {
	for {
		n, errno := epoll.Recv(s.fd, s.loop.buf)
		switch {
		case n > 0:
			s.loop.lane.bytes += uint64(n)
			if err := s.peer.input(s.loop.buf[:n], s.loop.lane.clock.now()); err != nil {
				s.close(err)
				return
			}
			if n < len(s.loop.buf) && !ended {
				return
			}
		case errno == unix.EINTR:
		case errno == unix.EAGAIN:
			return
		case errno != 0:
			s.close(os.NewSyscallError("recv", errno))
			return
		default:
			s.close(io.EOF)
			return
		}
	}
}

func (s *pollSock) close(err error) {
	s.mu.Lock()
	closed := s.closed
	s.closed = true
	s.mu.Unlock()
	if closed {
		return
	}
	s.loop.socks[s.fd] = nil
	_ = unix.Close(s.fd)
	s.peer.down(err)
}

// A pacer waits for moments. Go's own timers are up to a millisecond late; a
// timer descriptor is not.
type pacer struct {
	clock clock
	fd    int
	file  *os.File
	raw   syscall.RawConn
}

func newPacer(c clock) (*pacer, error) {
	fd, err := unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_NONBLOCK|unix.TFD_CLOEXEC)
	if err != nil {
		return nil, outOfFiles(os.NewSyscallError("timerfd_create", err))
	}
	p := &pacer{clock: c, fd: fd, file: os.NewFile(uintptr(fd), "timerfd")}
	if p.raw, err = p.file.SyscallConn(); err != nil {
		return nil, errors.Join(err, p.file.Close())
	}
	return p, nil
}

// until waits for a moment. It returns false when the pacer was closed.
func (p *pacer) until(moment int64) bool {
	wait := moment - p.clock.now()
	if wait <= 0 {
		return true
	}
	spec := unix.ItimerSpec{Value: unix.NsecToTimespec(wait)}
	if err := unix.TimerfdSettime(p.fd, 0, &spec, nil); err != nil {
		time.Sleep(time.Duration(wait))
		return true
	}
	var ticks [8]byte
	err := p.raw.Read(func(fd uintptr) bool {
		_, err := unix.Read(int(fd), ticks[:])
		return err != unix.EAGAIN
	})
	return err == nil
}

func (p *pacer) close() { _ = p.file.Close() }
