package ws

import (
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
