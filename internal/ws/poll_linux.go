package ws

import (
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"sockudo/internal/epoll"
)

// userTimeout is how long the kernel tries to deliver bytes that the peer does
// not acknowledge.
const userTimeout = 30 * time.Second

// A poller is the poll transport: one loop a core. A silent connection costs
// no goroutine and no buffer.
type poller struct {
	srv   *Server
	loops []*loop
	next  atomic.Uint32
	table table

	unwatched sync.Once // said that the kernel watches no more
}

func newPoller(s *Server) (*poller, error) {
	p := &poller{srv: s}
	for range runtime.GOMAXPROCS(0) {
		l, err := newLoop(p)
		if err != nil {
			for _, l := range p.loops {
				l.set.Close()
			}
			return nil, err
		}
		p.loops = append(p.loops, l)
	}
	for _, l := range p.loops {
		s.work.Go(l.run)
		s.work.Go(l.flushAll)
	}
	return p, nil
}

// stop ends the loops; their connections are gone.
func (p *poller) stop() {
	for _, l := range p.loops {
		l.stop()
	}
}

// shards returns what the clock and Room look after.
func (p *poller) shards() []*shard {
	all := make([]*shard, len(p.loops))
	for i, l := range p.loops {
		all[i] = &l.shard
	}
	return all
}

// take moves a connection from net to a loop and opens it. It returns false when
// the connection is neither a plain socket nor TLS over a Quiet one, or when
// there is no descriptor left to do it with.
func (p *poller) take(c *Conn, nc net.Conn, answer *Frame, early []byte) bool {
	socket := nc
	if c.secure = secured(nc); c.secure != nil {
		socket = c.secure.pipe.Conn
	}
	fd := duplicate(socket)
	if fd >= 0 && !p.table.has(fd) {
		epoll.Close(fd)
		fd = -1
	}
	if fd < 0 {
		c.secure = nil
		return false
	}
	if c.secure != nil {
		c.secure.pipe.attach(fd)
	} else {
		_ = nc.Close()
	}
	// Silent peers are the handler's to ping, and the kernel's probes every 15 s
	// would keep radios awake. A Unix socket has neither option.
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_KEEPALIVE, 0)
	setUserTimeout(fd)
	p.adopt(c, fd, answer, early)
	return true
}

// adopt gives a socket that net does not know to a loop and opens it.
func (p *poller) adopt(c *Conn, fd int, answer *Frame, early []byte) {
	l := p.loops[p.next.Add(1)%uint32(len(p.loops))]
	c.fd, c.home = int32(fd), &l.home
	l.turn.Lock()
	defer l.turn.Unlock()
	if !p.srv.began(c) {
		epoll.Close(fd)
		return
	}
	p.table.put(c)
	if err := l.set.Add(fd, c.interest()); err != nil {
		p.unwatched.Do(func() {
			p.srv.opts.Log.Error("the kernel does not watch a new connection, it and others like it are closed", "err", err, "limit", "fs.epoll.max_user_watches")
		})
		c.lose(err)
		return
	}
	held := c.hold()
	c.open(answer, early)
	l.reply(c, held)
	if c.secure != nil && !c.released {
		l.readSecure(c, p.srv.now()) // what TLS has read already
	}
}

// duplicate returns a descriptor of the socket of a connection or listener that
// net's poller does not know of, or -1. There is no other way to make it forget
// one.
func duplicate(of any) int {
	sc, ok := of.(syscall.Conn)
	if !ok {
		return -1
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return -1
	}
	fd := -1
	_ = raw.Control(func(old uintptr) {
		if n, err := unix.FcntlInt(old, unix.F_DUPFD_CLOEXEC, 0); err == nil {
			fd = n
		}
	})
	return fd
}

const (
	tableChunk  = 1024
	tableChunks = 4096
)

// A table finds connections by descriptor. Its chunks stay where they are once
// made, so that looking up needs no lock. The loop that owns a connection puts
// it in before epoll knows the descriptor and takes it out before the number
// can be used again; a connection's generation tells its events from those of
// an earlier owner.
type table struct {
	chunks [tableChunks]atomic.Pointer[[tableChunk]atomic.Pointer[Conn]]
	gen    atomic.Uint32
	mu     sync.Mutex // held while a chunk is made
}

// has reports whether the table has room for a descriptor.
func (t *table) has(fd int) bool { return fd < tableChunk*tableChunks }

func (t *table) put(c *Conn) {
	c.gen = t.gen.Add(1)
	at := &t.chunks[c.fd/tableChunk]
	if at.Load() == nil {
		t.mu.Lock()
		if at.Load() == nil {
			at.Store(new([tableChunk]atomic.Pointer[Conn]))
		}
		t.mu.Unlock()
	}
	at.Load()[c.fd%tableChunk].Store(c)
}

func (t *table) get(fd int32, gen uint32) *Conn {
	chunk := t.chunks[fd/tableChunk].Load()
	if chunk == nil {
		return nil
	}
	c := chunk[fd%tableChunk].Load()
	if c == nil || c.gen != gen {
		return nil
	}
	return c
}

func (t *table) remove(c *Conn) { t.chunks[c.fd/tableChunk].Load()[c.fd%tableChunk].Store(nil) }

// all calls yield for every connection of the table.
func (t *table) all(yield func(*Conn) bool) {
	for i := range t.chunks {
		chunk := t.chunks[i].Load()
		if chunk == nil {
			continue
		}
		for j := range chunk {
			if c := chunk[j].Load(); c != nil && !yield(c) {
				return
			}
		}
	}
}

// each calls yield for every connection of the transport.
func (p *poller) each(yield func(*Conn) bool) { p.table.all(yield) }
