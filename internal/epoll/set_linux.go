package epoll

import (
	"os"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A Set is an epoll set. Go's own poller watches its descriptor, so that a loop
// that waits is a parked goroutine and not a blocked thread, and a wake-up costs
// no thread.
type Set struct {
	fd     int
	files  []*os.File
	raw    syscall.RawConn // of fd
	breath syscall.RawConn // of an eventfd
	waited bool            // by Breathe, for its event
	step   func(fd uintptr) (done bool)
}

// Open makes a set.
func Open() (s *Set, err error) {
	s = &Set{}
	defer func() {
		if err != nil {
			s.Close()
		}
	}()
	if s.fd, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	if s.raw, err = s.watch(s.fd, "epoll"); err != nil {
		return nil, err
	}
	event, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("eventfd", err)
	}
	s.step = s.breathe
	s.breath, err = s.watch(event, "eventfd")
	return s, err
}

// watch has Go's poller watch a descriptor, and Close close it.
func (s *Set) watch(fd int, name string) (syscall.RawConn, error) {
	if err := unix.SetNonblock(fd, true); err != nil { // or os.NewFile would not poll it
		_ = unix.Close(fd)
		return nil, os.NewSyscallError("fcntl", err)
	}
	f := os.NewFile(uintptr(fd), name)
	s.files = append(s.files, f)
	if !Polled(f) {
		return nil, &os.PathError{Op: "poll", Path: name, Err: os.ErrNoDeadline}
	}
	return f.SyscallConn()
}

// Polled reports whether Go's poller watches a file. Without it, waiting for the
// file ends at once: the system may have refused to watch one more.
func Polled(f *os.File) bool { return f.SetDeadline(time.Time{}) == nil }

// Close closes the set and ends Run. Nobody may use the set any more: its number
// can become another one's.
func (s *Set) Close() {
	for _, f := range s.files {
		_ = f.Close() // of a descriptor that is open
	}
}

// FD returns the descriptor of the set.
func (s *Set) FD() int { return s.fd }

// Add puts a descriptor into the set.
func (s *Set) Add(fd int, ev unix.EpollEvent) error {
	return os.NewSyscallError("epoll_ctl", unix.EpollCtl(s.fd, unix.EPOLL_CTL_ADD, fd, &ev))
}

// Change changes what is asked of a descriptor. It cannot fail while it is in
// the set.
func (s *Set) Change(fd int, ev unix.EpollEvent) {
	_ = unix.EpollCtl(s.fd, unix.EPOLL_CTL_MOD, fd, &ev)
}

// Run calls f whenever there are events, until the set is closed. f takes events
// until there are none: the registration with Go's poller is edge-triggered.
func (s *Set) Run(f func()) {
	_ = s.raw.Read(func(uintptr) bool {
		f()
		return false
	})
}

// Events fills events with those of this moment and returns how many there are.
func (s *Set) Events(events []unix.EpollEvent) int {
	n, _, err := syscall.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(s.fd), uintptr(unsafe.Pointer(unsafe.SliceData(events))),
		uintptr(len(events)), 0, 0, 0)
	if err != 0 {
		return 0
	}
	return int(n)
}

// Breathe lets those goroutines run that wait in Go's poller, such as those of
// net/http. While any goroutine can run, one that only yields among them, the
// scheduler looks there no more often than every 10 ms. So a goroutine that is
// always busy waits there itself, for what has happened already. One goroutine
// at a time calls it.
func (s *Set) Breathe() {
	s.waited = false
	_ = s.breath.Read(s.step)
}

func (s *Set) breathe(fd uintptr) (done bool) {
	n := uint64(1)
	call := uintptr(unix.SYS_WRITE)
	if s.waited {
		call = unix.SYS_READ
	}
	_, _, err := syscall.RawSyscall(call, fd, uintptr(unsafe.Pointer(&n)), unsafe.Sizeof(n))
	done = s.waited || err != 0
	s.waited = true
	return done
}
