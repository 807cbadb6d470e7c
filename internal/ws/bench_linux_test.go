package ws

import (
	"fmt"
	"net"
	"os"
	"runtime"
	"runtime/debug"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sockudo/internal/epoll"
)

// benchPayload makes frames of about 150 bytes.
var benchPayload = []byte(`{"event":"tick","channel":"prices","data":"{\"symbol\":\"ACME\",\"bid\":\"101.25\",\"ask\":\"101.30\",\"at\":1763900000,\"seq\":123456}"}` + long(20))

func settled(s *Server) {
	for st := s.Stats(); st.WaitingBytes+st.StuckBytes > 0; st = s.Stats() {
		runtime.Gosched()
	}
}

// plainSockets returns the descriptors of n sockets whose other ends are read.
func plainSockets(b *testing.B, n int) []int {
	b.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer ln.Close()
	all := make(chan []int)
	go func() {
		var fds []int
		for range n {
			nc, err := ln.Accept()
			if err != nil {
				break
			}
			fds = append(fds, duplicate(nc))
			_ = nc.Close()
		}
		all <- fds
	}()
	child(b, "plain", ln.Addr(), n)
	fds := <-all
	b.Cleanup(func() {
		for _, fd := range fds {
			epoll.Close(fd)
		}
	})
	return fds
}

// sendAll is the loop that nothing can beat.
func sendAll(fds []int, frame []byte) {
	for _, fd := range fds {
		for {
			if _, err := epoll.Send(fd, frame); err != unix.EAGAIN {
				break
			}
			time.Sleep(time.Millisecond)
		}
	}
}

// BenchmarkSendFloor is a bare loop of send over plain sockets: what one
// delivered message costs the kernel, whoever calls it.
func BenchmarkSendFloor(b *testing.B) {
	frame := TextFrame(benchPayload).wire
	for _, n := range []int{1, 100, 1000, 10000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			fds := plainSockets(b, n)
			start := cpu()
			for b.Loop() {
				sendAll(fds, frame)
			}
			report(b, n, start)
		})
	}
}

// BenchmarkPaced compares the transports with the floor at 20 broadcasts a
// second to 1,000 subscribers. Run it with -benchtime 60x.
func BenchmarkPaced(b *testing.B) {
	const n = 1000
	paced := func(b *testing.B, publish func()) {
		tick := time.NewTicker(50 * time.Millisecond)
		defer tick.Stop()
		start := cpu()
		for b.Loop() {
			<-tick.C
			publish()
		}
		report(b, n, start)
	}
	b.Run("floor", func(b *testing.B) {
		fds, frame := plainSockets(b, n), TextFrame(benchPayload).wire
		paced(b, func() { sendAll(fds, frame) })
	})
	for _, transport := range transports {
		b.Run(transport.name, func(b *testing.B) {
			_, _, conns := crowd(b, n, Options{ForceStream: transport.stream})
			f := TextFrame(benchPayload)
			paced(b, func() {
				for _, c := range conns {
					c.Send(f)
				}
			})
		})
	}
}

func report(b *testing.B, subscribers int, start time.Duration) {
	deliveries := float64(b.N) * float64(subscribers)
	b.ReportMetric(float64(cpu()-start)/deliveries, "cpu-ns/delivery")
	b.ReportMetric(float64(b.Elapsed())/deliveries, "ns/delivery")
}

// BenchmarkBroadcast sends one frame to all and waits until it is written.
func BenchmarkBroadcast(b *testing.B) {
	for _, kind := range []struct {
		name, mode string
		stream     bool
	}{{"poll", "upgrade", false}, {"stream", "upgrade", true}, {"tls-poll", "tls", false}, {"tls-stream", "tls", true}} {
		for _, n := range []int{1, 100, 1000, 10000} {
			if kind.name != "poll" && n > 1000 {
				continue
			}
			b.Run(fmt.Sprintf("%s/%d", kind.name, n), func(b *testing.B) {
				s, _, conns := crowdOf(b, kind.mode, n, Options{ForceStream: kind.stream})
				f := TextFrame(benchPayload)
				b.ReportAllocs()
				start := cpu()
				for b.Loop() {
					for _, c := range conns {
						c.Send(f)
					}
					settled(s)
				}
				report(b, n, start)
			})
		}
	}
}

// BenchmarkBroadcastSaturated lets 64 frames wait for every connection.
func BenchmarkBroadcastSaturated(b *testing.B) {
	for _, transport := range transports {
		for _, n := range []int{1, 100, 1000, 10000} {
			if transport.stream && n > 1000 {
				continue
			}
			b.Run(fmt.Sprintf("%s/%d", transport.name, n), func(b *testing.B) {
				s, _, conns := crowd(b, n, Options{ForceStream: transport.stream})
				f := TextFrame(benchPayload)
				bound := int64(64 * n * len(f.wire))
				b.ReportAllocs()
				start := cpu()
				for b.Loop() {
					for st := s.Stats(); st.WaitingBytes+st.StuckBytes > bound; st = s.Stats() {
						time.Sleep(100 * time.Microsecond)
					}
					for _, c := range conns {
						c.Send(f)
					}
				}
				settled(s)
				report(b, n, start)
			})
		}
	}
}

// BenchmarkPing reports how long a client waits for its pong: alone, while
// others flood, and while 1,000 subscribers get 500 broadcasts a second.
func BenchmarkPing(b *testing.B) {
	for _, transport := range transports {
		opts := Options{ForceStream: transport.stream}
		round := func(b *testing.B, addr net.Addr) {
			for b.Loop() {
				var median, p99 int64
				if _, err := fmt.Sscan(child(b, "ping", addr, 1), &median, &p99); err != nil {
					b.Fatal(err)
				}
				b.ReportMetric(float64(median)/1e6, "median-ms")
				b.ReportMetric(float64(p99)/1e6, "p99-ms")
			}
		}
		b.Run(transport.name+"/alone", func(b *testing.B) {
			_, addr, _ := crowd(b, 0, opts)
			round(b, addr)
		})
		for _, n := range []int{1, 4} {
			b.Run(fmt.Sprintf("%s/floods=%d", transport.name, n), func(b *testing.B) {
				_, addr, _ := crowd(b, 0, opts)
				child(b, "flood", addr, n)
				round(b, addr)
			})
		}
		b.Run(transport.name+"/broadcasts", func(b *testing.B) {
			_, addr, conns := crowd(b, 1000, opts)
			f := TextFrame(benchPayload)
			stop := make(chan struct{})
			var wg sync.WaitGroup
			wg.Go(func() {
				tick := time.NewTicker(2 * time.Millisecond)
				defer tick.Stop()
				for {
					select {
					case <-stop:
						return
					case <-tick.C:
						for _, c := range conns {
							c.Send(f)
						}
					}
				}
			})
			round(b, addr)
			close(stop)
			wg.Wait()
		})
	}
}

// rss returns the bytes of memory that the process occupies, after what is free
// has been given back.
func rss(b *testing.B) int64 {
	b.Helper()
	debug.FreeOSMemory()
	text, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		b.Fatal(err)
	}
	var size, pages int64
	if _, err := fmt.Sscan(string(text), &size, &pages); err != nil {
		b.Fatal(err)
	}
	return pages * int64(os.Getpagesize())
}

// BenchmarkIdle reports the memory of a connection that does nothing, and the
// share of a core that 10,000 of them take.
func BenchmarkIdle(b *testing.B) {
	for _, kind := range []struct {
		name, mode string
		stream     bool
	}{{"poll", "upgrade", false}, {"stream", "upgrade", true}, {"tls", "tls", true}} {
		b.Run(kind.name, func(b *testing.B) {
			const n = 10_000
			for b.Loop() {
				before := rss(b)
				_, _, conns := crowdOf(b, kind.mode, n, Options{ForceStream: kind.stream})
				b.ReportMetric(float64(rss(b)-before)/n, "B/conn")
				start := time.Now()
				runtime.GC()
				b.ReportMetric(float64(time.Since(start))/1e6, "gc-ms")
				used := cpu()
				time.Sleep(2 * time.Second)
				b.ReportMetric(float64(cpu()-used)/2e9*100, "cpu-%")
				runtime.KeepAlive(conns)
			}
		})
	}
}

// BenchmarkUpgrade reports what accepting and upgrading costs the server.
func BenchmarkUpgrade(b *testing.B) {
	for _, transport := range transports {
		b.Run(transport.name, func(b *testing.B) {
			const n = 5_000
			for b.Loop() {
				start := cpu()
				crowd(b, n, Options{ForceStream: transport.stream})
				b.ReportMetric(float64(cpu()-start)/n, "cpu-ns/upgrade")
			}
		})
	}
}

func BenchmarkDecode(b *testing.B) {
	for _, n := range []int{50, 150, 1000, 10000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			frame := text(long(n))
			buf := make([]byte, len(frame))
			var d decoder
			r := rules{limit: 64 << 10, masked: true}
			b.ReportAllocs()
			b.SetBytes(int64(n))
			for b.Loop() {
				copy(buf, frame)
				if opcode, _, _, err := d.next(buf, r); opcode != opText || err != nil {
					b.Fatal(opcode, err)
				}
			}
		})
	}
}

func BenchmarkEncode(b *testing.B) {
	for _, n := range []int{50, 150, 1000, 10000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			payload := []byte(long(n))
			b.ReportAllocs()
			b.SetBytes(int64(n))
			for b.Loop() {
				TextFrame(payload)
			}
		})
	}
}

// BenchmarkAPI reports how long a request to the API takes, alone and while
// 1,000 subscribers get as many frames as they can.
func BenchmarkAPI(b *testing.B) {
	for _, transport := range transports {
		for _, busy := range []bool{false, true} {
			b.Run(fmt.Sprintf("%s/busy=%v", transport.name, busy), func(b *testing.B) {
				s, addr, conns := crowd(b, 1000, Options{ForceStream: transport.stream})
				stop := make(chan struct{})
				var wg sync.WaitGroup
				if busy {
					f := TextFrame(benchPayload)
					wg.Go(func() {
						for {
							select {
							case <-stop:
								return
							default:
								_ = s.Room(b.Context(), time.Second) // the end of the benchmark
								for _, c := range conns {
									c.Send(f)
								}
							}
						}
					})
				}
				for b.Loop() {
					var median, p99 int64
					if _, err := fmt.Sscan(child(b, "api", addr, 1), &median, &p99); err != nil {
						b.Fatal(err)
					}
					b.ReportMetric(float64(median)/1e6, "median-ms")
					b.ReportMetric(float64(p99)/1e6, "p99-ms")
				}
				close(stop)
				wg.Wait()
			})
		}
	}
}
