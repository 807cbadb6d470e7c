package bench

import (
	"context"
	"encoding/binary"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"sockudo/internal/epoll"
)

// ServeFloor is the least that a server can do: every frame that a sender sends
// goes to every receiver with one send each. No WebSocket, no HTTP, no queue.
// It runs until ctx is done.
func ServeFloor(ctx context.Context, address string) error {
	if _, hard := fileLimit(); hard > reservedFiles {
		_ = needFiles(int(hard) - reservedFiles) // as many as there may be
	}
	var lc net.ListenConfig
	ln, err := lc.Listen(ctx, "tcp", address)
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = ln.Close() })
	defer stop()
	var f floor
	for {
		nc, err := ln.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		var role [1]byte
		_ = nc.SetReadDeadline(time.Now().Add(5 * time.Second))
		n, _ := nc.Read(role[:])
		_ = nc.SetReadDeadline(time.Time{})
		switch {
		case n == 1 && role[0] == floorReceiver:
			if err := f.join(nc.(*net.TCPConn)); err != nil {
				return err
			}
		case n == 1 && role[0] == floorSender:
			go f.relay(nc.(*net.TCPConn))
		default:
			_ = nc.Close() // asked whether we are here
		}
	}
}

type floor struct {
	mu        sync.Mutex // guards what follows
	receivers []int
}

// join takes a connection away from Go's poller, so that nothing is left of it
// but its descriptor.
func (f *floor) join(nc *net.TCPConn) error {
	raw, err := nc.SyscallConn()
	if err != nil {
		return err
	}
	fd := -1
	_ = raw.Control(func(old uintptr) {
		fd, err = unix.FcntlInt(old, unix.F_DUPFD_CLOEXEC, 0)
	})
	if err != nil {
		return outOfFiles(os.NewSyscallError("fcntl", err))
	}
	_ = nc.Close()
	f.mu.Lock()
	defer f.mu.Unlock()
	f.receivers = append(f.receivers, fd)
	return nil
}

// relay sends what comes on nc to all receivers, frame by frame.
func (f *floor) relay(nc *net.TCPConn) {
	defer nc.Close()
	raw, err := nc.SyscallConn()
	if err != nil {
		return
	}
	buf := make([]byte, 256<<10)
	held := 0
	_ = raw.Read(func(fd uintptr) bool {
		for {
			n, errno := epoll.Recv(int(fd), buf[held:])
			if errno == unix.EAGAIN {
				return false
			}
			if n == 0 {
				return true
			}
			held += n
			b := buf[:held]
			for {
				size := frameSize(b)
				if size == 0 || size > len(b) {
					break
				}
				f.send(b[:size])
				b = b[size:]
			}
			held = copy(buf, b)
		}
	})
}

// frameSize returns the length of the unmasked frame at the front of b, 0 while
// its header is not complete.
func frameSize(b []byte) int {
	switch {
	case len(b) < 2:
		return 0
	case b[1] == 127:
		if len(b) < 10 {
			return 0
		}
		return 10 + int(binary.BigEndian.Uint64(b[2:]))
	case b[1] == 126:
		if len(b) < 4 {
			return 0
		}
		return 4 + int(binary.BigEndian.Uint16(b[2:]))
	}
	return 2 + int(b[1])
}

func (f *floor) send(frame []byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	gone := 0
	for i, fd := range f.receivers {
		if !sendWhole(fd, frame) {
			_ = unix.Close(fd)
			gone++
			continue
		}
		f.receivers[i-gone] = fd
	}
	f.receivers = f.receivers[:len(f.receivers)-gone]
}

// sendWhole sends a frame; a full socket is waited for.
func sendWhole(fd int, frame []byte) bool {
	for {
		n, errno := epoll.Send(fd, frame)
		switch {
		case errno == unix.EAGAIN:
			_, _ = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}, 1000)
			continue
		case errno != 0 && errno != unix.EINTR:
			return false
		}
		if frame = frame[n:]; len(frame) == 0 {
			return true
		}
	}
}
