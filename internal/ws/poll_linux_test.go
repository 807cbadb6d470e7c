package ws

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// A late event of a descriptor that has been closed must not reach the
// connection that has its number now.
func TestLateEventDoesNotReachTheNextOwner(t *testing.T) {
	var all table
	const fd = 3*tableChunk + 7
	first, second := &Conn{fd: fd}, &Conn{fd: fd}
	all.put(first)
	if got := all.get(fd, first.gen); got != first {
		t.Fatalf("got %p, want %p", got, first)
	}
	all.remove(first)
	if got := all.get(fd, first.gen); got != nil {
		t.Errorf("got %p after it was removed", got)
	}
	all.put(second)
	if got := all.get(fd, first.gen); got != nil {
		t.Errorf("an event of the first owner reaches %p", got)
	}
	if got := all.get(fd, second.gen); got != second {
		t.Errorf("got %p, want %p", got, second)
	}
	if got := all.get(fd+tableChunk, second.gen); got != nil {
		t.Errorf("got %p where nothing was put", got)
	}
}

func TestTableForgetsWhoIsGone(t *testing.T) {
	h := &echo{closed: make(chan error, 1)}
	s, addr := start(t, Options{}, handled(h))
	p := connect(t, addr)
	p.send(raw(finBit|opClose, nil))
	p.expectClose(0)
	waitClosed(t, h.closed)
	for c := range s.poll.each {
		t.Errorf("descriptor %d is still somebody's", c.fd)
	}
}

// A client that asks for too much is not listened to but when its time comes,
// and like any other once it is quiet.
func TestFloodIsReadWhenItsTimeComes(t *testing.T) {
	for _, name := range []string{"poll", "tls-poll"} {
		t.Run(name, func(t *testing.T) {
			conns := make(chan *Conn, 1)
			_, addr := start(t, Options{}, handled(&echo{open: func(c *Conn) { conns <- c }}))
			p := connect(t, addr)
			c := <-conns
			flooding := func() bool {
				c.turn.Lock()
				defer c.turn.Unlock()
				c.mu.Lock()
				defer c.mu.Unlock()
				if c.flooding != c.muted {
					t.Errorf("flooding: %v, muted: %v", c.flooding, c.muted)
				}
				return c.flooding
			}
			const pings = 10_000
			p.send(bytes.Repeat(raw(finBit|opPing, nil), pings))
			eventually(t, flooding)
			for range pings {
				p.expect(opPong, "")
			}
			eventually(t, func() bool { return !flooding() })
			p.send(text("quiet now"))
			p.expect(opText, "quiet now")
		})
	}
}

// Who is lost while the flusher is at it keeps the number, or that would write
// to whoever gets it next.
func TestDescriptorStaysOpenWhileItIsWritten(t *testing.T) {
	for _, name := range []string{"poll", "tls-poll"} {
		t.Run(name, func(t *testing.T) {
			conns := make(chan *Conn, 1)
			h := &echo{open: func(c *Conn) { conns <- c }, closed: make(chan error, 1)}
			s, addr := start(t, Options{}, handled(h))
			p := connect(t, addr)
			c := <-conns
			p.send(raw(finBit|opPing, nil))
			p.expect(opPong, "") // nobody writes any more
			eventually(t, func() bool {
				c.mu.Lock()
				defer c.mu.Unlock()
				if !c.writing && !c.dirty {
					c.writing = true
					return true
				}
				return false
			})
			_ = tcp(p.Conn).SetLinger(0)
			_ = plain(p.Conn).Close()
			eventually(t, func() bool {
				c.mu.Lock()
				defer c.mu.Unlock()
				return c.state == stateCut
			})
			c.turn.Lock()
			if c.released || s.poll.table.get(c.fd, c.gen) != c || len(h.closed) > 0 {
				t.Error("the descriptor was closed")
			}
			c.mu.Lock()
			c.writing = false
			c.mu.Unlock()
			c.link.release(c) // as the flusher does
			if !c.released || s.poll.table.get(c.fd, c.gen) != nil {
				t.Error("the descriptor was not closed")
			}
			c.turn.Unlock()
			waitClosed(t, h.closed)
		})
	}
}

// What the kernel does not watch is closed, which is said once.
func TestWhatIsNotWatchedIsClosed(t *testing.T) {
	var log bytes.Buffer
	opened := make(chan struct{}, 1)
	s, addr := start(t, Options{Log: slog.New(slog.NewTextHandler(&log, nil))}, handled(&echo{open: func(*Conn) { opened <- struct{}{} }}))
	connect(t, addr)
	<-opened
	for range 2 {
		f, err := os.CreateTemp(t.TempDir(), "") // as epoll does not take files
		if err != nil {
			t.Fatal(err)
		}
		fd, err := unix.Dup(int(f.Fd()))
		if err != nil {
			t.Fatal(err)
		}
		closed := make(chan error, 1)
		s.poll.adopt(s.conn(&echo{closed: closed}), fd, nil, nil)
		if err := <-closed; !errors.Is(err, unix.EPERM) {
			t.Errorf("closed with %v", err)
		}
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != unix.EBADF {
			t.Errorf("the descriptor is still open: %v", err)
		}
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	}
	if n := strings.Count(log.String(), "fs.epoll.max_user_watches"); n != 1 {
		t.Errorf("said %d times:\n%s", n, &log)
	}
}
