package e2e

import (
	"fmt"
	"math/rand/v2"
	"net"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/gobwas/ws"

	"sockudo/internal/config"
	"sockudo/internal/pushertest"
)

func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// served fails the test unless a client is answered and gets events.
func served(t *testing.T, addr string) {
	t.Helper()
	c := pushertest.Dial(t, addr, plain)
	c.Subscribe("honest")
	pushertest.NewAPI(t, addr, plain).Trigger("honest", "e", "x")
	c.Expect("e", "honest")
	c.Quiet()
	c.Close(1000)
}

// Connections that hold back what they began cost what they have sent and
// little more.
func TestUnfinishedInputIsBounded(t *testing.T) {
	s := serve(t, nil)
	const connections, sent = 100, 60 << 10
	frame := ws.MustCompileFrame(ws.MaskFrame(ws.NewTextFrame([]byte(`{"event":"client-x","data":"` + strings.Repeat("x", 100<<10) + `"}`))))
	before := heap()
	for i := range connections {
		c := pushertest.Dial(t, s.Addr, plain)
		switch i % 3 {
		case 0: // half a frame
			if err := c.WriteBytes(frame[:sent]); err != nil {
				t.Fatal(err)
			}
		case 1: // fragments without an end
			for n := range 60 {
				f := ws.NewFrame(ws.OpContinuation, false, make([]byte, 1<<10))
				if n == 0 {
					f = ws.NewFrame(ws.OpText, false, []byte(strings.Repeat("x", 1<<10)))
				}
				c.WriteFrame(f)
			}
		case 2: // a length without anything behind it
			if err := c.WriteBytes(frame[:8]); err != nil {
				t.Fatal(err)
			}
		}
	}
	served(t, s.Addr)
	grown := int64(heap()) - int64(before)
	if most := int64(connections * 2 * (sent + 64<<10)); grown > most { // the clients of the test are in it too
		t.Errorf("the heap grew by %d KiB, want at most %d", grown>>10, most>>10)
	}
}

// A body that is announced and never comes costs nothing, and one that comes in
// part costs what has come. Whose it is nobody knows yet: the signature covers
// the whole body.
func TestUnfinishedAPICallsAreBounded(t *testing.T) {
	s := serve(t, nil)
	const connections, sent = 90, 64 << 10
	query := fmt.Sprintf("auth_key=plain-key&auth_version=1.0&auth_signature=%s&auth_timestamp=%d", strings.Repeat("0", 64), time.Now().Unix())
	before := heap()
	for i := range connections {
		nc, err := net.Dial("tcp", s.Addr)
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		request := "POST /apps/plain-id/events?" + query + " HTTP/1.1\r\nHost: x\r\n"
		switch i % 3 {
		case 0: // half a body
			request += "Content-Length: 9000000\r\n\r\n" + strings.Repeat("x", sent)
		case 1: // a chunk without an end
			request += "Transfer-Encoding: chunked\r\n\r\nffffff\r\n" + strings.Repeat("x", sent)
		case 2: // half a header
			request += "X-Filler: " + strings.Repeat("x", 8<<10)
		}
		if _, err := nc.Write([]byte(request)); err != nil {
			t.Fatal(err)
		}
	}
	served(t, s.Addr)
	if grown := int64(heap()) - int64(before); grown > connections*4*sent {
		t.Errorf("the heap grew by %d KiB, want at most %d", grown>>10, connections*4*sent>>10)
	}
}

// One connection may have as many channels as the setting says, 10,000; they
// cost a bounded amount and go with it.
func TestTenThousandChannelsOfOneConnection(t *testing.T) {
	s := serve(t, nil)
	const most, each = 10_000, 1 << 10
	before := heap()
	c := pushertest.Dial(t, s.Addr, plain)
	for i := 0; i < most; {
		for range 100 { // as many as the queue of answers takes
			c.SendSubscribe(fmt.Sprintf("channel-%d", i))
			i++
		}
		for j := i - 100; j < i; j++ {
			c.Expect("pusher_internal:subscription_succeeded", fmt.Sprintf("channel-%d", j))
		}
	}
	c.SendSubscribe("one-more")
	if e := c.ExpectSubscriptionError("one-more", "LimitReached", 403, 4300); !strings.Contains(e.Error, "10000") {
		t.Errorf("the limit is not named: %s", e.Error)
	}
	if grown := int64(heap()) - int64(before); grown > most*each {
		t.Errorf("%d channels hold %d KiB, want at most %d", most, grown>>10, most*each>>10)
	}
	served(t, s.Addr)
	c.Close(1000)
	eventually(t, "the channels are gone", func() bool { return s.Hub().Sizes().Channels == 0 })
}

// Whatever a client sends, it ends at most itself.
func TestGarbageEndsAtMostItsConnection(t *testing.T) {
	s := serve(t, nil)
	const seed = 1
	r := rand.New(rand.NewPCG(seed, seed))
	honest := pushertest.Dial(t, s.Addr, plain)
	honest.Subscribe("presence-honest", `{"user_id":"h"}`)
	frames := []string{
		`{"event":"pusher:subscribe","data":{"channel":"presence-honest","auth":"plain-key:00","channel_data":"{\"user_id\":\"1\"}"}}`,
		`{"event":"pusher:signin","data":{"auth":"plain-key:00","user_data":"{\"id\":\"42\"}"}}`,
		`{"event":"client-x","channel":"presence-honest","data":{"a":[1,2,{"b":null}]}}`,
		`{"event":"pusher:unsubscribe","data":"{\"channel\":\"presence-honest\"}"}`,
	}
	for range 150 {
		c := pushertest.Dial(t, s.Addr, plain)
		for range 20 {
			b := []byte(frames[r.IntN(len(frames))])
			for range 1 + r.IntN(4) { // bytes that are changed, doubled or gone
				i := r.IntN(len(b))
				switch r.IntN(3) {
				case 0:
					b[i] = byte(r.Uint32())
				case 1:
					b = append(b[:i], append([]byte{b[i]}, b[i:]...)...)
				case 2:
					b = append(b[:i], b[i+1:]...)
				}
			}
			frame := ws.MustCompileFrame(ws.MaskFrame(ws.NewTextFrame(b)))
			if r.IntN(10) == 0 { // the frame itself is broken too
				frame[r.IntN(min(len(frame), 14))] ^= 1 << r.IntN(8)
			}
			if c.WriteBytes(frame) != nil {
				break // it was closed, as it should be
			}
		}
		c.Cut()
	}
	honest.Quiet()
	served(t, s.Addr)
}

// A client cannot make the server hold more than the bound of its outbox, with
// whatever it asks for and does not read.
func TestAnswersToAClientThatDoesNotReadAreBounded(t *testing.T) {
	s := serve(t, func(cfg *config.Config) { cfg.WebSocket.MaxQueuedBytes = 64 << 10 })
	var clients []*pushertest.Client
	before := heap()
	for range 3 {
		c := pushertest.Dial(t, s.Addr, plain)
		c.StopReading()
		clients = append(clients, c)
	}
	ping := ws.MustCompileFrame(ws.MaskFrame(ws.NewTextFrame([]byte(`{"event":"pusher:subscribe","data":{"channel":"` + strings.Repeat("no name ", 50) + `"}}`))))
	burst := []byte(strings.Repeat(string(ping), 100))
	eventually(t, "all of them are closed", func() bool {
		for _, c := range clients {
			_ = c.WriteBytes(burst) // fails once it has been closed
		}
		return s.Hub().Connections() == 0
	})
	if grown := int64(heap()) - int64(before); grown > 3*(64<<10)*2+1<<20 {
		t.Errorf("the heap grew by %d KiB", grown>>10)
	}
	served(t, s.Addr)
}

func TestSlowHandshakesDoNotKeepOthersOut(t *testing.T) {
	s := serve(t, nil)
	for i := range 1500 { // more than may be unfinished at a time
		nc, err := net.Dial("tcp", s.Addr)
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		if _, err := fmt.Fprintf(nc, "GET /app/plain-key HTTP/1.1\r\nX-%d: ", i); err != nil {
			t.Fatal(err)
		}
	}
	served(t, s.Addr)
}

func TestOneByteAtATimeIsServed(t *testing.T) {
	s := serve(t, nil)
	c := pushertest.Dial(t, s.Addr, plain)
	for _, b := range ws.MustCompileFrame(ws.MaskFrame(ws.NewTextFrame([]byte(`{"event":"pusher:subscribe","data":{"channel":"slow"}}`)))) {
		if err := c.WriteBytes([]byte{b}); err != nil {
			t.Fatal(err)
		}
	}
	c.Expect("pusher_internal:subscription_succeeded", "slow")
}

// While one client floods, the others are answered.
func TestFloodingClientDoesNotBlockOthers(t *testing.T) {
	s := serve(t, nil)
	flood := pushertest.Dial(t, s.Addr, plain)
	frame := ws.MustCompileFrame(ws.MaskFrame(ws.NewTextFrame([]byte(`{"event":"pusher:pong"}`))))
	burst := []byte(strings.Repeat(string(frame), 1000))
	stop := make(chan struct{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			default:
				if flood.WriteBytes(burst) != nil {
					return
				}
			}
		}
	}()
	honest := pushertest.Dial(t, s.Addr, plain)
	honest.Subscribe("honest")
	var slowest time.Duration
	for range 200 {
		began := time.Now()
		honest.Drain()
		slowest = max(slowest, time.Since(began))
	}
	close(stop)
	<-done
	if slowest > time.Second {
		t.Errorf("a ping took %v", slowest)
	}
	flood.Drain() // it is still served
}

func TestClientsCannotReachAnotherApp(t *testing.T) {
	s := serve(t, nil)
	victim := pushertest.Dial(t, s.Addr, appC)
	victim.Subscribe("private-room")
	victim.Drain()
	victim.Signin(`{"id":"42"}`)
	attacker := pushertest.Dial(t, s.Addr, plain)
	attacker.Subscribe("private-room")
	attacker.Signin(`{"id":"42","watchlist":["42"]}`)
	attacker.Emit("client-x", "private-room", "stolen")
	api := pushertest.NewAPI(t, s.Addr, plain)
	api.Publish(pushertest.Event{Name: "e", Channel: "private-room", Data: "x", SocketID: victim.SocketID})
	api.Trigger("#server-to-user-42", "e", "x")
	api.Terminate("42")
	for attacker.Next().Event != "pusher:error" { // it has terminated itself
	}
	victim.Quiet()
	for _, path := range []string{"/apps/other-id/channels", "/apps/plain-id/../other-id/channels", "/apps/plain-id%2F..%2Fother-id/channels"} {
		if resp := api.Do(call{Path: path, App: plain}); resp.Status == 200 && strings.Contains(resp.Body, "private-room") {
			t.Errorf("%s: %s", path, resp.Body)
		}
	}
}
