package session

import (
	"fmt"
	"net/http"
	"net/url"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"sockudo/internal/app"
	"sockudo/internal/cache"
	"sockudo/internal/hub"
	"sockudo/internal/metrics"
	"sockudo/internal/node"
	"sockudo/internal/protocol"
	"sockudo/internal/ws"
)

// cpu returns the CPU that the process has used.
func cpu(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// resident returns the bytes of the heap that are in use and the bytes of
// memory that the process occupies.
func resident(b *testing.B) (heap, rss float64) {
	b.Helper()
	debug.FreeOSMemory()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	text, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		b.Fatal(err)
	}
	var size, pages float64
	if _, err := fmt.Sscan(string(text), &size, &pages); err != nil {
		b.Fatal(err)
	}
	return float64(m.HeapAlloc), pages * float64(os.Getpagesize())
}

// A crowd is many sessions without sockets, in one process with a hub, a node,
// timers and metrics.
type crowd struct {
	hub     *hub.Hub
	node    *node.Node
	gate    *Gate
	sockets *ws.Server
	app     *app.App
	conns   []*ws.Conn
	events  atomic.Int64
	pinged  chan *ws.Conn
}

// gather opens n sessions, of which each joins one of the channels.
func gather(b *testing.B, n, channels int, activity time.Duration) *crowd {
	b.Helper()
	store := oneApp(b, nil)
	a, err := store.ByID(b.Context(), owner.ID)
	if err != nil {
		b.Fatal(err)
	}
	m := metrics.New(metrics.Options{})
	w := &crowd{app: a, hub: hub.New(hub.Options{Metrics: m}), pinged: make(chan *ws.Conn, n)}
	w.node = node.New(w.hub, cache.None{}, node.Options{})
	w.gate = NewGate(store, w.hub, w.node, Options{ActivityTimeout: activity, PongTimeout: time.Minute, Metrics: m})
	w.sockets = ws.NewServer(w.gate.Accept, ws.Options{ForceStream: true})
	w.conns = make([]*ws.Conn, n)
	r := &http.Request{Header: http.Header{}, URL: &url.URL{Path: "/app/key"}}
	for i := range w.conns {
		h, refusal := w.gate.Accept(r)
		if refusal != nil {
			b.Fatal(refusal.Status)
		}
		s := h.(*Session)
		w.conns[i] = w.sockets.Detached(s, func(f *ws.Frame) {
			switch {
			case f == pingFrame:
				w.pinged <- s.sock.Conn
			case f.Size() == len(event):
				w.events.Add(1)
			}
		})
		w.conns[i].Receive(fmt.Appendf(nil, `{"event":"pusher:subscribe","data":{"channel":"channel-%d"}}`, i%channels))
	}
	if got := w.hub.Connections(); got != n {
		b.Fatalf("%d of %d connections are registered", got, n)
	}
	return w
}

// answer lets the clients answer pings for a while and returns how many they
// were and the CPU that pings and answers took.
func (w *crowd) answer(b *testing.B, d time.Duration) (pings int, took time.Duration) {
	b.Helper()
	used := cpu(b)
	over := time.After(d)
	for {
		select {
		case c := <-w.pinged:
			c.Receive([]byte(protocol.Pong))
			pings++
		case <-over:
			if pings == 0 {
				b.Fatal("nobody was pinged")
			}
			return pings, cpu(b) - used
		}
	}
}

func (w *crowd) leave(b *testing.B) {
	b.Helper()
	for _, c := range w.conns {
		c.Close(1000, "")
	}
	if err := w.sockets.Shutdown(b.Context()); err != nil {
		b.Fatal(err)
	}
}

var event = protocol.AppendEvent(nil, "tick", "channel-0", []byte(strings.Repeat("x", 120)), "")

// BenchmarkSessions carries up to a million sessions without sockets, each on
// one channel: what hub, sessions and timers cost apart from the kernel. It
// reports the memory of a session, what connecting with a subscription costs,
// one delivery to channels of 100 and to one of all, and an answered ping.
func BenchmarkSessions(b *testing.B) {
	for _, n := range []int{18_000, 1_000_000} {
		for _, channels := range []int{n / 100, 1} {
			b.Run(fmt.Sprintf("%d/channels=%d", n, channels), func(b *testing.B) {
				for b.Loop() {
					sessions(b, n, channels)
				}
			})
		}
	}
}

func sessions(b *testing.B, n, channels int) {
	per := func(d time.Duration, n int) float64 { return float64(d) / float64(n) }
	heap, rss := resident(b)
	used := cpu(b)
	w := gather(b, n, channels, 10*time.Second)
	b.ReportMetric(per(cpu(b)-used, n), "cpu-ns/connect")
	heapNow, rssNow := resident(b)
	b.ReportMetric((heapNow-heap)/float64(n), "heap-B/conn")
	b.ReportMetric((rssNow-rss)/float64(n), "rss-B/conn")
	used = cpu(b)
	runtime.GC()
	b.ReportMetric(float64(cpu(b)-used)/1e6, "gc-cpu-ms")

	pings, took := w.answer(b, 15*time.Second)
	b.ReportMetric(per(took, pings), "cpu-ns/ping")
	b.ReportMetric(per(took, pings)*float64(n)/120e9*100, "cpu-%-at-120s")

	used = cpu(b)
	for i := range channels {
		p := node.Publication{Name: "tick", Data: []byte(strings.Repeat("x", 120)), Channels: []string{fmt.Sprintf("channel-%d", i)}}
		if err := w.node.Publish(b.Context(), w.app, &p); err != nil {
			b.Fatal(err)
		}
	}
	w.hub.Wait()
	b.ReportMetric(per(cpu(b)-used, n), "cpu-ns/delivery")
	w.leave(b)
}

// BenchmarkCollection is a full collection with 18,000 sessions that idle, each
// on one channel.
func BenchmarkCollection(b *testing.B) {
	w := gather(b, 18_000, 180, time.Hour)
	runtime.GC()
	used := cpu(b)
	n := 0
	for b.Loop() {
		runtime.GC()
		n++
	}
	b.ReportMetric(float64(cpu(b)-used)/float64(n)/18_000, "cpu-ns/conn")
	w.leave(b)
}
