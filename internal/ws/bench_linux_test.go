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
)

// benchPayload makes frames of about 150 bytes.
var benchPayload = []byte(`{"event":"tick","channel":"prices","data":"{\"symbol\":\"ACME\",\"bid\":\"101.25\",\"ask\":\"101.30\",\"at\":1763900000,\"seq\":123456}"}` + long(20))

func settled(s *Server) {
	for st := s.Stats(); st.WaitingBytes+st.StuckBytes > 0; st = s.Stats() {
		runtime.Gosched()
	}
}

// BenchmarkSendFloor is a bare loop of send over plain sockets: what one
// delivered message costs the kernel, whoever calls it.
func BenchmarkSendFloor(b *testing.B) {
	for _, n := range []int{1, 100, 1000, 10000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			ln, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				b.Fatal(err)
			}
			defer ln.Close()
			fds := make(chan []int)
			go func() {
				var all []int
				for range n {
					nc, err := ln.Accept()
					if err != nil {
						break
					}
					all = append(all, duplicate(nc))
					_ = nc.Close()
				}
				fds <- all
			}()
			child(b, "plain", ln.Addr(), n)
			all := <-fds
			frame := TextFrame(benchPayload).wire
			start := cpu()
			for b.Loop() {
				for _, fd := range all {
					for {
						if _, err := sendNow(fd, frame); err != unix.EAGAIN {
							break
						}
						time.Sleep(time.Millisecond)
					}
				}
			}
			report(b, n, start)
			for _, fd := range all {
				closeNow(fd)
			}
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
	for _, transport := range transports {
		for _, n := range []int{1, 100, 1000, 10000} {
			if transport.stream && n > 1000 {
				continue
			}
			b.Run(fmt.Sprintf("%s/%d", transport.name, n), func(b *testing.B) {
				s, _, conns := crowd(b, n, Options{ForceStream: transport.stream})
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
// CPU of 10 s with 10,000 of them.
func BenchmarkIdle(b *testing.B) {
	for _, transport := range transports {
		b.Run(transport.name, func(b *testing.B) {
			const n = 10_000
			for b.Loop() {
				before := rss(b)
				_, _, conns := crowd(b, n, Options{ForceStream: transport.stream})
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
