package bench

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"runtime"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
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
		_ = p.file.Close() // ends run
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

// A pollLoop is the epoll set of a lane. Its descriptor is watched by Go's own
// poller: a waiting loop is a parked goroutine, and a wake-up costs no thread.
type pollLoop struct {
	lane *lane
	ep   int
	file *os.File
	raw  syscall.RawConn

	// Under lane.mu.
	stopped bool
	socks   []*pollSock // by descriptor
	gen     int32
	events  [256]unix.EpollEvent
	buf     []byte
}

func newPollLoop(l *lane) (*pollLoop, error) {
	ep, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, outOfFiles(os.NewSyscallError("epoll_create1", err))
	}
	if err := unix.SetNonblock(ep, true); err != nil {
		_ = unix.Close(ep)
		return nil, os.NewSyscallError("fcntl", err)
	}
	p := &pollLoop{lane: l, ep: ep, file: os.NewFile(uintptr(ep), "epoll"), buf: make([]byte, 256<<10)}
	if p.raw, err = p.file.SyscallConn(); err != nil {
		return nil, errors.Join(err, p.file.Close())
	}
	return p, nil
}

// run reads whenever there is something, until the set is closed.
func (p *pollLoop) run() {
	_ = p.raw.Read(func(uintptr) bool {
		for {
			start := p.lane.clock.now()
			p.lane.mu.Lock()
			n := p.poll()
			if n > 0 {
				p.lane.busy += p.lane.clock.now() - start
			}
			p.lane.mu.Unlock()
			if n == 0 {
				return false
			}
			runtime.Gosched() // to whoever sends
		}
	})
}

func (p *pollLoop) poll() int {
	n := epollNow(p.ep, p.events[:])
	for i := range n {
		ev := &p.events[i]
		s := p.socks[ev.Fd]
		if s == nil || s.gen != ev.Pad {
			continue
		}
		if ev.Events&unix.EPOLLOUT != 0 && !s.writable() {
			continue
		}
		if ev.Events&^unix.EPOLLOUT != 0 {
			s.read(ev.Events&^(unix.EPOLLOUT|unix.EPOLLIN) != 0)
		}
	}
	return n
}

// A pollSock is one connection.
type pollSock struct {
	loop *pollLoop
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
	s := &pollSock{loop: p, peer: pr, fd: fd, gen: p.gen, armed: true}
	p.socks[fd] = s
	ev := s.interest()
	if err := unix.EpollCtl(p.ep, unix.EPOLL_CTL_ADD, fd, &ev); err != nil {
		p.socks[fd] = nil
		_ = unix.Close(fd)
		return os.NewSyscallError("epoll_ctl", err)
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
		ev := s.interest()
		_ = unix.EpollCtl(s.loop.ep, unix.EPOLL_CTL_MOD, s.fd, &ev) // cannot fail while it is in the set
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
		n, err := sendNow(s.fd, b)
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
		n, errno := recvNow(s.fd, s.loop.buf)
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

// The calls of the rest of this file cannot block and go past the scheduler,
// as those of package ws do.

func sendNow(fd int, b []byte) (int, syscall.Errno) {
	n, _, err := syscall.RawSyscall6(unix.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))),
		uintptr(len(b)), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, 0, 0)
	if err != 0 {
		return 0, err
	}
	return int(n), 0
}

func recvNow(fd int, b []byte) (int, syscall.Errno) {
	n, _, err := syscall.RawSyscall6(unix.SYS_RECVFROM, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))),
		uintptr(len(b)), unix.MSG_DONTWAIT, 0, 0)
	if err != 0 {
		return 0, err
	}
	return int(n), 0
}

func epollNow(ep int, events []unix.EpollEvent) int {
	n, _, err := syscall.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(ep), uintptr(unsafe.Pointer(unsafe.SliceData(events))),
		uintptr(len(events)), 0, 0, 0)
	if err != 0 {
		return 0
	}
	return int(n)
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
