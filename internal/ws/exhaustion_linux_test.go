package ws

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
)

// leaveDescriptors lets the process open n more descriptors until the test ends.
func leaveDescriptors(t *testing.T, n int) {
	t.Helper()
	var old syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &old); err != nil {
		t.Fatal(err)
	}
	open, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	limit := old
	limit.Cur = uint64(len(open) + n)
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Setrlimit(syscall.RLIMIT_NOFILE, &old) })
}

// A failing entrance fails as often as it has errors.
type failingEntrance struct{ errs []error }

func (e *failingEntrance) next() error {
	err := e.errs[0]
	e.errs = e.errs[1:]
	return os.NewSyscallError("accept4", err)
}

func (*failingEntrance) welcome(*Server, reception) { panic("nobody came") }

func (*failingEntrance) close() {}

// Accepting can fail because of what happened to that one connection. Nobody
// else is to suffer from it.
func TestErrorsOfOneConnectionDoNotEndAccepting(t *testing.T) {
	var log syncBuffer
	s := NewServer(nil, Options{Log: slog.New(slog.NewTextHandler(&log, nil))})
	in := &failingEntrance{[]error{syscall.ECONNABORTED, syscall.EPROTO, syscall.EHOSTUNREACH, syscall.ENETDOWN, syscall.EINVAL, nil}}
	if err := s.acceptAll(in, reception{}); !errors.Is(err, syscall.EINVAL) || len(in.errs) != 1 {
		t.Errorf("accepting ended with %v", err)
	}
	if log.String() != "" {
		t.Errorf("log: %s", log.String())
	}
}

func TestServerWithoutDescriptorsServesTheAPIAndRecovers(t *testing.T) {
	onAll(t, func(t *testing.T, opts Options) {
		var log syncBuffer
		opts.Log = slog.New(slog.NewTextHandler(&log, nil))
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		s := NewServer(handled(&echo{}), opts)
		serveOn(t, s, secureIf(t, ln))
		mode := "fill"
		if overTLS(t) {
			mode = "fill-tls"
		}
		p := dialRaw(t, ln.Addr().String())
		p.request("GET /before HTTP/1.1\r\nHost: x\r\n\r\n")
		p.response()
		leaveDescriptors(t, 60)

		t.Run("full", func(t *testing.T) {
			var upgraded, refused, silent, api int
			if _, err := fmt.Sscan(child(t, mode, ln.Addr(), 100), &upgraded, &refused, &silent, &api); err != nil {
				t.Fatal(err)
			}
			if upgraded < 20 || refused < 20 || silent != 0 || api != 200 {
				t.Errorf("%d upgraded, %d refused with 503, %d not answered, the API says %d", upgraded, refused, silent, api)
			}
			if st := s.Stats(); st.Connections != upgraded || st.Crowded != int64(refused) {
				t.Errorf("stats %+v", st)
			}
		})
		eventually(t, func() bool { return s.Stats().Connections == 0 })
		q := connect(t, ln.Addr().String())
		q.send(text("again"))
		q.expect(opText, "again")
		if n := strings.Count(log.String(), "out of file descriptors"); n != 1 {
			t.Errorf("the operator was told %d times:\n%s", n, log.String())
		}
		if !strings.Contains(log.String(), "free again") {
			t.Errorf("the end was not told:\n%s", log.String())
		}
	})
}
