package epoll

import (
	"os"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

func pair(t *testing.T) (a, b int) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { Close(fds[0]); Close(fds[1]) })
	return fds[0], fds[1]
}

func open(t *testing.T) *Set {
	t.Helper()
	s, err := Open()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// A file that nobody watches would end Run at its first wait, without a word.
func TestFileThatCannotBePolledIsRefused(t *testing.T) {
	fd, err := unix.Open("/proc/self/stat", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	s := &Set{}
	defer s.Close()
	if _, err := s.watch(fd, "stat"); err == nil {
		t.Error("it was taken")
	}
}

func TestRunIsCalledForEventsUntilTheSetIsClosed(t *testing.T) {
	s := open(t)
	a, b := pair(t)
	if err := s.Add(a, unix.EpollEvent{Fd: int32(a), Events: unix.EPOLLIN}); err != nil {
		t.Fatal(err)
	}
	got, done := make(chan string), make(chan struct{})
	go func() {
		defer close(done)
		events := make([]unix.EpollEvent, 4)
		s.Run(func() {
			for n := s.Events(events); n > 0; n = s.Events(events) {
				buf := make([]byte, 10)
				size, err := Recv(a, buf)
				if n != 1 || events[0].Fd != int32(a) || err != 0 {
					t.Errorf("%d events, %v, recv: %v", n, events[0], err)
				}
				got <- string(buf[:size])
			}
		})
	}()
	for _, message := range []string{"one", "two"} {
		if n, err := Send(b, []byte(message)); n != 3 || err != 0 {
			t.Fatal(n, err)
		}
		if text := <-got; text != message {
			t.Errorf("got %q, want %q", text, message)
		}
	}
	s.Close()
	<-done
}

func TestADescriptorThatIsNotOpenIsRefused(t *testing.T) {
	s := open(t)
	defer s.Close()
	if err := s.Add(1<<20, unix.EpollEvent{Events: unix.EPOLLIN}); err == nil {
		t.Error("no error")
	}
}

// The other goroutine is ready all the time, and the only processor never idle,
// so that nothing but Breathe makes the scheduler look at the pipe within 10 ms.
func TestBreatheLetsThoseRunWhoWaitForIO(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	s := open(t)
	defer s.Close()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	in := make(chan byte, 100)
	go func() {
		b := make([]byte, 1)
		for {
			if _, err := r.Read(b); err != nil {
				close(in)
				return
			}
			in <- b[0]
		}
	}()
	runtime.Gosched() // it reads now
	s.Breathe()
	missed := 0
	for i := range 50 {
		if _, err := w.Write([]byte{byte(i)}); err != nil {
			t.Fatal(err)
		}
		s.Breathe()
		select {
		case b := <-in:
			if b != byte(i) {
				t.Fatalf("got %d, want %d", b, i)
			}
		default:
			missed++
			<-in
		}
	}
	if missed > 10 { // whoever else looks at the poller can take the event away
		t.Errorf("in %d of 50 cases the reader had not run", missed)
	}
}

func BenchmarkBreathe(b *testing.B) {
	s, err := Open()
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	for b.Loop() {
		s.Breathe()
	}
}
