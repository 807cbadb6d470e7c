package ws

import (
	"net"
	"net/netip"
	"os"
	"runtime"
	"strconv"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"sockudo/internal/epoll"
)

const (
	// deferSeconds is how long the kernel keeps a connection to itself that has
	// not sent anything. Those of clients that send at once, as HTTP wants it,
	// come with their request.
	deferSeconds = 1
	// mostResting bounds the goroutines that wait for the next visit: they spare
	// it a new stack that has to grow.
	mostResting = 16
)

// A rawEntrance accepts plain sockets past the scheduler and without making
// them known to net, which for a WebSocket would only have to be undone.
type rawEntrance struct {
	file   *os.File
	raw    syscall.RawConn
	step   func(fd uintptr) (done bool) // made once, so that calls allocate nothing
	visits chan visit
	rest   chan struct{} // holds one for each goroutine that waits for a visit

	// Of the accept that runs.
	fd    int
	from  unix.RawSockaddrAny
	errno syscall.Errno
}

// A visit is a connection that nobody has read from.
type visit struct {
	fd   int
	addr string
	reception
}

// newEntrance returns a rawEntrance for a listener of plain sockets, and one
// that uses net for others. It takes connections off a descriptor of its own,
// because net does not let go of its one.
func newEntrance(s *Server, ln net.Listener) entrance {
	if s.poll == nil {
		return &netEntrance{ln: ln}
	}
	switch ln.(type) {
	case *net.TCPListener:
	case *net.UnixListener:
	default:
		return &netEntrance{ln: ln}
	}
	fd := duplicate(ln)
	if fd < 0 {
		return &netEntrance{ln: ln}
	}
	e := &rawEntrance{file: os.NewFile(uintptr(fd), "listener"), visits: make(chan visit), rest: make(chan struct{}, mostResting)}
	var err error
	if e.raw, err = e.file.SyscallConn(); err != nil {
		_ = e.file.Close()
		return &netEntrance{ln: ln}
	}
	if !epoll.Polled(e.file) {
		_ = e.file.Close()
		return &netEntrance{ln: ln}
	}
	e.step = e.try
	// What is accepted inherits the options. A Unix socket has none of them.
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_DEFER_ACCEPT, deferSeconds)
	setUserTimeout(fd)
	return e
}

// setUserTimeout gives up on a peer that does not acknowledge. A Unix socket
// does not have it.
func setUserTimeout(fd int) {
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(userTimeout.Milliseconds()))
}

func (e *rawEntrance) close() { _ = e.file.Close() }

// next accepts a connection.
func (e *rawEntrance) next() error {
	if err := e.raw.Read(e.step); err != nil {
		return net.ErrClosed
	}
	if e.errno != 0 {
		return os.NewSyscallError("accept4", e.errno)
	}
	return nil
}

// welcome has the connection received by a goroutine that is there for it, or
// by a new one.
func (e *rawEntrance) welcome(s *Server, r reception) {
	v := visit{e.fd, e.address(), r}
	for range 2 {
		select {
		case e.visits <- v:
			return
		default:
			runtime.Gosched() // to those who are about to rest
		}
	}
	s.work.Go(func() { e.receiveAll(s, v) })
}

// try accepts, and reports whether there is a result.
func (e *rawEntrance) try(fd uintptr) bool {
	for {
		size := uint32(unsafe.Sizeof(e.from))
		n, _, errno := syscall.RawSyscall6(unix.SYS_ACCEPT4, fd, uintptr(unsafe.Pointer(&e.from)), uintptr(unsafe.Pointer(&size)),
			unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0, 0)
		switch errno {
		case unix.EINTR:
			continue
		case unix.EAGAIN:
			return false
		}
		e.fd, e.errno = int(n), errno
		return true
	}
}

// address returns who has been accepted, as net writes it.
func (e *rawEntrance) address() string {
	switch e.from.Addr.Family {
	case unix.AF_INET:
		a := (*unix.RawSockaddrInet4)(unsafe.Pointer(&e.from))
		return netip.AddrPortFrom(netip.AddrFrom4(a.Addr), port(&a.Port)).String()
	case unix.AF_INET6:
		a := (*unix.RawSockaddrInet6)(unsafe.Pointer(&e.from))
		ip := netip.AddrFrom16(a.Addr).Unmap()
		if a.Scope_id != 0 {
			zone := strconv.Itoa(int(a.Scope_id))
			if ifi, err := net.InterfaceByIndex(int(a.Scope_id)); err == nil {
				zone = ifi.Name
			}
			ip = ip.WithZone(zone)
		}
		return netip.AddrPortFrom(ip, port(&a.Port)).String()
	}
	return "@"
}

// port reads a port, which is in network order.
func port(p *uint16) uint16 {
	b := (*[2]byte)(unsafe.Pointer(p))
	return uint16(b[0])<<8 | uint16(b[1])
}

// receiveAll receives a visit, and more of them as long as it may rest in
// between.
func (e *rawEntrance) receiveAll(s *Server, v visit) {
	buf := make([]byte, min(2<<10, s.opts.MaxHeaderBytes))
	for {
		s.receive(v, buf)
		select {
		case e.rest <- struct{}{}:
		default:
			return
		}
		select {
		case v = <-e.visits:
			<-e.rest
		case <-v.ctx.Done():
			return
		}
	}
}

// receive upgrades a visit whose request is there. All others are made known to
// net and may take their time.
func (s *Server) receive(v visit, buf []byte) {
	n, _ := epoll.Recv(v.fd, buf)
	head := buf[:max(n, 0)]
	end := headEnd(head, 0)
	r := parseUpgrade(head[:end])
	if r == nil || !s.poll.table.has(v.fd) {
		if nc := known(v.fd); nc != nil {
			s.meet(nc, append(make([]byte, 0, 1024), head...), v.reception)
		}
		return
	}
	r = r.WithContext(v.ctx)
	r.RemoteAddr = v.addr
	h, refusal := s.decide(r, v.full)
	if refusal != nil {
		_, _ = epoll.Send(v.fd, appendRefusal(nil, refusal)) // the client may be gone
		epoll.Close(v.fd)
		return
	}
	s.poll.adopt(s.conn(h), v.fd, answerTo(r), head[end:])
}

// known returns net's connection for a socket, or nil if there is no descriptor
// left for it.
func known(fd int) net.Conn {
	f := os.NewFile(uintptr(fd), "socket")
	defer f.Close() // net has made a duplicate
	nc, err := net.FileConn(f)
	if err != nil {
		return nil
	}
	if tcp, ok := nc.(*net.TCPConn); ok {
		_ = tcp.SetKeepAlive(false) // as the listener has it
	}
	return nc
}
