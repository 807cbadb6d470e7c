package ws

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sockudo/internal/epoll"
)

// childVar makes the test binary a child: a process that plays many clients, so
// that benchmarks measure the server's CPU alone and have its descriptors and
// its scheduler to themselves. Its value is MODE NETWORK ADDRESS COUNT.
const childVar = "SOCKUDO_WS_CHILD"

// childMain reports whether this process is a child, whose work is done.
func childMain() bool {
	spec := os.Getenv(childVar)
	if spec == "" {
		return false
	}
	if err := runChild(spec); err != nil {
		fmt.Fprintln(os.Stderr, "child:", err)
		os.Exit(1)
	}
	return true
}

// runChild does what its mode says, after a line on standard output, until
// standard input ends.
func runChild(spec string) error {
	fields := strings.Fields(spec)
	mode, network, address := fields[0], fields[1], fields[2]
	n, err := strconv.Atoi(fields[3])
	if err != nil {
		return err
	}
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	if mode == "fill" || mode == "fill-tls" {
		return fill(strings.TrimPrefix(mode, "fill-"), network, address, n)
	}
	all, err := dialAll(mode, network, address, n)
	if err != nil {
		return err
	}
	switch mode {
	case "plain", "upgrade":
		return discard(all)
	case "tls":
		for _, nc := range all {
			go func() { _, _ = io.Copy(io.Discard, nc) }()
		}
		fmt.Println("ready")
		select {}
	case "flood":
		return flood(all)
	case "ping":
		return ping(all[0])
	case "api":
		return api(all[0])
	}
	return fmt.Errorf("mode %q", mode)
}

// fill connects as often as it is told, whatever the server says to it, and
// prints how many were upgraded, refused and not answered, and what the API
// says then.
func fill(mode, network, address string, n int) error {
	answers := map[string]int{}
	var all []net.Conn
	ask := func(request string) (string, error) {
		nc, err := dialMode(mode, network, address)
		if err != nil {
			return "", err
		}
		all = append(all, nc)
		_ = nc.SetDeadline(time.Now().Add(deadline))
		status := make([]byte, len("HTTP/1.1 101"))
		if _, err := io.WriteString(nc, request); err == nil {
			_, _ = io.ReadFull(nc, status)
		}
		return strings.TrimPrefix(string(status), "HTTP/1.1 "), nil
	}
	for range n {
		status, err := ask(upgradeRequest)
		if err != nil {
			return err
		}
		answers[status]++
	}
	api, err := ask("GET /api HTTP/1.1\r\nHost: x\r\n\r\n")
	if err != nil {
		return err
	}
	fmt.Println(answers["101"], answers["503"], n-answers["101"]-answers["503"], api)
	select {}
}

// dialAll makes n connections, many at a time, as a crowd does that comes back.
func dialAll(mode, network, address string, n int) ([]net.Conn, error) {
	all := make([]net.Conn, n)
	failed := make(chan error, n)
	var next atomic.Int64
	var wg sync.WaitGroup
	for range 32 {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				nc, err := dialMode(mode, network, address)
				if err == nil && mode != "plain" && mode != "api" {
					if _, err = io.WriteString(nc, upgradeRequest); err == nil {
						err = skipResponse(nc)
					}
				}
				if all[i] = nc; err != nil {
					failed <- err
				}
			}
		})
	}
	wg.Wait()
	select {
	case err := <-failed:
		return nil, err
	default:
		return all, nil
	}
}

func dialMode(mode, network, address string) (net.Conn, error) {
	if mode == "tls" {
		return tls.Dial(network, address, &tls.Config{InsecureSkipVerify: true})
	}
	return net.Dial(network, address)
}

// skipResponse reads to the end of an HTTP header and not a byte further.
func skipResponse(nc net.Conn) error {
	for seen, b := "", make([]byte, 1); !strings.HasSuffix(seen, "\r\n\r\n"); seen += string(b) {
		if _, err := nc.Read(b); err != nil {
			return err
		}
	}
	return nil
}

// discard reads from all connections and throws it away.
func discard(all []net.Conn) error {
	ep, err := unix.EpollCreate1(0)
	if err != nil {
		return err
	}
	for _, nc := range all {
		fd := duplicate(nc)
		if err := nc.Close(); err != nil {
			return err
		}
		if err := unix.EpollCtl(ep, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)}); err != nil {
			return err
		}
	}
	fmt.Println("ready")
	events := make([]unix.EpollEvent, 256)
	buf := make([]byte, 256<<10)
	for {
		n, err := unix.EpollWait(ep, events, -1)
		if err != nil && err != unix.EINTR {
			return err
		}
		for i := range max(n, 0) {
			for {
				if n, _ := epoll.Recv(int(events[i].Fd), buf); n < len(buf) {
					break
				}
			}
		}
	}
}

// flood sends empty messages as fast as the server takes them.
func flood(all []net.Conn) error {
	fmt.Println("ready")
	b := bytes.Repeat(text(""), 5000)
	failed := make(chan error)
	for _, nc := range all {
		go func() {
			for {
				if _, err := nc.Write(b); err != nil {
					failed <- err
					return
				}
			}
		}()
	}
	return <-failed
}

// ping measures pings, one every few milliseconds.
func ping(nc net.Conn) error {
	b := make([]byte, 2)
	return measure(func() error {
		if _, err := nc.Write(raw(finBit|opPing, nil)); err != nil {
			return err
		}
		_, err := io.ReadFull(nc, b)
		return err
	})
}

// api measures requests on one connection that is kept alive.
func api(nc net.Conn) error {
	br := bufio.NewReader(nc)
	return measure(func() error {
		if _, err := io.WriteString(nc, "GET /a HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
			return err
		}
		resp, err := http.ReadResponse(br, nil)
		if err != nil {
			return err
		}
		_, err = io.Copy(io.Discard, resp.Body)
		return err
	})
}

// measure prints the median and the 99th percentile of 200 round trips.
func measure(round func() error) error {
	var all []time.Duration
	for range 200 {
		start := time.Now()
		if err := round(); err != nil {
			return err
		}
		all = append(all, time.Since(start))
		time.Sleep(5 * time.Millisecond)
	}
	slices.Sort(all)
	fmt.Println(int64(all[100]), int64(all[198]))
	return nil
}

// child starts a child and stops it when the test ends. It returns the line
// that the child says.
func child(tb testing.TB, mode string, addr net.Addr, n int) string {
	tb.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^$")
	cmd.Env = append(os.Environ(), "GORACE=atexit_sleep_ms=0", fmt.Sprintf("%s=%s %s %s %d", childVar, mode, addr.Network(), addr.String(), n))
	in, err := cmd.StdinPipe()
	if err != nil {
		tb.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		tb.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		_ = in.Close()
		_ = cmd.Wait()
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		tb.Fatalf("child: %q, %v", line, err)
	}
	return line
}

// cpu returns the CPU time that this process has used.
func cpu() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// crowd serves n clients of a child and returns the server's ends.
func crowd(tb testing.TB, n int, opts Options) (*Server, net.Addr, []*Conn) {
	tb.Helper()
	return crowdOf(tb, "upgrade", n, opts)
}

// crowdOf is crowd with a mode for the child.
func crowdOf(tb testing.TB, mode string, n int, opts Options) (*Server, net.Addr, []*Conn) {
	tb.Helper()
	var mu sync.Mutex
	var conns []*Conn
	all := make(chan struct{})
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	var front net.Listener = ln
	if mode == "tls" {
		conf, _ := tlsConfigs(tb)
		front = tls.NewListener(Quiet(ln), conf)
	}
	s := NewServer(handled(&echo{
		on: func(*Conn, []byte) {},
		open: func(c *Conn) {
			mu.Lock()
			defer mu.Unlock()
			if conns = append(conns, c); len(conns) == n {
				close(all)
			}
		},
	}), opts)
	serveOn(tb, s, front)
	if n > 0 {
		child(tb, mode, ln.Addr(), n)
		<-all
	}
	return s, ln.Addr(), conns
}
