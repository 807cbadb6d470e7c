package ws

import (
	"fmt"
	"net"
	"runtime"
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
