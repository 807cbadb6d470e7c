package e2e

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gobwas/ws"

	"sockudo/internal/config"
	"sockudo/internal/pushertest"
)

func quick(cfg *config.Config) {
	cfg.ActivityTimeout, cfg.PongTimeout, cfg.UserAuthenticationTimeout = 2, 1, 2
}

func TestPings(t *testing.T) {
	s := serve(t, nil)
	c := pushertest.Dial(t, s.Addr, plain)
	t.Run("JSON ping", func(t *testing.T) {
		items(t, 31, 32)
		for _, data := range []string{`,"data":{}`, ``, `,"data":"{}"`, `,"data":null`, `,"data":[1]`} {
			c.Send(`{"event":"pusher:ping"` + data + `}`)
			if f := c.Expect("pusher:pong", ""); f.Raw != `{"event":"pusher:pong","data":"{}"}` {
				t.Errorf("answer to %s: %s", data, f.Raw)
			}
		}
	})
	t.Run("control ping", func(t *testing.T) {
		items(t, 33)
		c.Ping("abc")
		if p := c.ExpectControlPong(); p != "abc" {
			t.Errorf("pong %q, want abc", p)
		}
	})
	t.Run("unsolicited pong", func(t *testing.T) {
		items(t, 41)
		c.Send(`{"event":"pusher:pong","data":{}}`)
		c.Quiet()
	})
}

func TestIdleClients(t *testing.T) {
	s := serve(t, quick)
	t.Run("silent client is probed, then cut off", func(t *testing.T) {
		t.Parallel()
		items(t, 34, 35, 38)
		begin := time.Now()
		c := pushertest.Dial(t, s.Addr, plain, opts{Mute: true})
		c.ExpectControlPing()
		f := c.Expect("pusher:ping", "")
		if !f.Has("data") {
			t.Errorf("ping without data: %s", f.Raw)
		}
		if d := f.At.Sub(begin); d < 1900*time.Millisecond {
			t.Errorf("probed after %v, want 2 s", d)
		}
		c.ExpectFail(4201)
		if d := time.Since(begin); d < 2900*time.Millisecond {
			t.Errorf("cut off after %v, want 2 s and 1 s", d)
		}
	})
	t.Run("control pongs are enough", func(t *testing.T) {
		t.Parallel()
		items(t, 36)
		c := pushertest.Dial(t, s.Addr, plain)
		for range 3 { // three probes: the connection is far beyond 3 s then
			c.Expect("pusher:ping", "")
		}
		c.Quiet()
	})
	t.Run("JSON pongs are enough", func(t *testing.T) {
		t.Parallel()
		items(t, 37)
		c := pushertest.Dial(t, s.Addr, plain, opts{Mute: true})
		for range 3 {
			c.Expect("pusher:ping", "")
			c.Send(`{"event":"pusher:pong","data":{}}`)
		}
		c.Quiet()
	})
	t.Run("any event is enough", func(t *testing.T) {
		t.Parallel()
		items(t, 39)
		c := pushertest.Dial(t, s.Addr, plain, opts{Mute: true})
		for i := range 3 {
			c.Expect("pusher:ping", "")
			c.Subscribe(fmt.Sprint("x", i))
		}
		c.Quiet()
	})
	t.Run("receiving is not being heard of", func(t *testing.T) {
		t.Parallel()
		items(t, 40)
		c := pushertest.Dial(t, s.Addr, plain)
		c.Subscribe("stream")
		api := pushertest.NewAPI(t, s.Addr, plain)
		var wg sync.WaitGroup
		stop := make(chan struct{})
		defer wg.Wait()
		defer close(stop)
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				case <-time.After(50 * time.Millisecond):
					api.Trigger("stream", "tick", "x")
				}
			}
		})
		for range 2 {
			c.Await("pusher:ping", "")
		}
		c.Await("tick", "stream")
	})
	t.Run("lost connection is cleaned up", func(t *testing.T) {
		t.Parallel()
		items(t, 49)
		c := pushertest.Dial(t, s.Addr, appC, opts{Mute: true})
		c.Subscribe("presence-lost", `{"user_id":"1"}`)
		c.StopReading() // as if the cable had been cut: nothing is answered any more
		api := pushertest.NewAPI(t, s.Addr, appC)
		eventually(t, "the member is gone", func() bool {
			return strings.Contains(api.Get("/channels/presence-lost").Body, `"occupied":false`)
		})
	})
	t.Run("authorized connections", func(t *testing.T) {
		t.Parallel()
		auth := appNamed("auth")
		public := pushertest.Dial(t, s.Addr, auth)
		private := pushertest.Dial(t, s.Addr, auth)
		signed := pushertest.Dial(t, s.Addr, auth)
		rejected := pushertest.Dial(t, s.Addr, auth)
		public.Subscribe("public")
		private.Subscribe("private-x")
		private.Unsubscribe("private-x")
		signed.Signin(`{"id":"1"}`)
		rejected.Send(`{"event":"pusher:subscribe","data":{"channel":"private-x","auth":"auth-key:00"}}`)
		rejected.ExpectSubscriptionError("private-x", "AuthError", 401, 4009)
		t.Run("public only", func(t *testing.T) { items(t, 55); public.Drain(); public.ExpectFail(4009) })
		t.Run("rejected", func(t *testing.T) { items(t, 58); rejected.ExpectFail(4009) })
		t.Run("private", func(t *testing.T) { items(t, 56); private.Drain() })
		t.Run("signed in", func(t *testing.T) { items(t, 57); signed.Drain() })
	})
}

func TestMalformedFrames(t *testing.T) {
	s := serve(t, nil)
	c := pushertest.Dial(t, s.Addr, plain)
	watcher := pushertest.Dial(t, s.Addr, plain)
	watcher.Subscribe("presence-w", `{"user_id":"w"}`)
	c.Subscribe("presence-w", `{"user_id":"c"}`)
	watcher.Expect("pusher_internal:member_added", "presence-w")
	bad := func(frame string) {
		t.Helper()
		c.Send(frame)
		c.ExpectError(4300)
	}
	t.Run("not JSON", func(t *testing.T) {
		items(t, 42)
		for _, f := range []string{"hello", "", "{", `{"event":}`, `{"event":"x"} y`, strings.Repeat("[", 10_000), strings.Repeat(`{"a":`, 300)} {
			bad(f)
		}
	})
	t.Run("not an event", func(t *testing.T) {
		items(t, 43)
		for _, f := range []string{`[]`, `"x"`, `5`, `null`, `{}`, `{"event":5}`, `{"event":null}`, `{"event":{}}`} {
			bad(f)
		}
	})
	t.Run("unknown event", func(t *testing.T) {
		items(t, 44)
		bad(`{"event":"foo","channel":"presence-w","data":"x"}`)
	})
	t.Run("events of the server", func(t *testing.T) {
		items(t, 45)
		for _, e := range []string{"pusher_internal:member_added", "pusher:error", "pusher_internal:subscription_succeeded", "pusher:unknown"} {
			bad(`{"event":"` + e + `","channel":"presence-w","data":"{\"user_id\":\"9\"}"}`)
		}
	})
	t.Run("duplicate keys", func(t *testing.T) {
		c.Send(`{"event":"foo","event":"pusher:ping"}`) // the last one counts
		c.Expect("pusher:pong", "")
	})
	t.Run("fragments", func(t *testing.T) {
		items(t, 47)
		c.WriteFragments(`{"event":"pus`, `her:subscribe","data":{"chan`, `nel":"frag"}}`)
		c.Expect("pusher_internal:subscription_succeeded", "frag")
	})
	t.Run("binary text", func(t *testing.T) {
		c.WriteFrame(ws.NewBinaryFrame([]byte(`{"event":"pusher:ping"}`)))
		c.Expect("pusher:pong", "")
	})
	watcher.Quiet()
	c.Quiet()
	t.Run("too large", func(t *testing.T) {
		items(t, 46)
		d := pushertest.Dial(t, s.Addr, plain)
		d.Send(`{"event":"client-x","data":"` + strings.Repeat("x", 110<<10) + `"}`)
		d.ExpectClose(1009)
	})
	t.Run("invalid UTF-8", func(t *testing.T) {
		d := pushertest.Dial(t, s.Addr, plain)
		d.Send("{\"event\":\"\xff\"}")
		d.ExpectClose(1007)
	})
}

func TestEndOfAConnection(t *testing.T) {
	s := serve(t, nil)
	api := pushertest.NewAPI(t, s.Addr, plain)
	t.Run("close", func(t *testing.T) {
		items(t, 48, 261)
		c := pushertest.Dial(t, s.Addr, plain)
		c.Subscribe("presence-end", `{"user_id":"1"}`)
		c.Close(1000) // waits for the answer
		eventually(t, "the channel is empty", func() bool {
			return strings.Contains(api.Get("/channels/presence-end").Body, `"occupied":false`)
		})
		eventually(t, "no connection is left", func() bool { return s.Hub().Connections() == 0 })
	})
	t.Run("peer that stops reading", func(t *testing.T) {
		items(t, 54)
		stalled, fine := pushertest.Dial(t, s.Addr, plain), pushertest.Dial(t, s.Addr, plain)
		stalled.Subscribe("flood")
		fine.Subscribe("flood")
		stalled.StopReading()
		data := strings.Repeat("x", 10<<10)
		eventually(t, "the client that does not read is closed", func() bool {
			api.Trigger("flood", "e", data)
			fine.Expect("e", "flood") // is not held up
			return s.Hub().Connections() == 1
		})
		fine.Quiet()
	})
}

func TestShutdown(t *testing.T) {
	t.Run("clients", func(t *testing.T) {
		items(t, 50, 51)
		s := serve(t, func(cfg *config.Config) { cfg.ShutdownGracePeriod = 5 })
		var clients []*pushertest.Client
		for range 20 {
			clients = append(clients, pushertest.Dial(t, s.Addr, plain))
		}
		began := time.Now()
		s.Signal()
		eventually(t, "upgrades are refused", func() bool {
			c, refused := pushertest.DialRaw(t, s.Addr, plain)
			if refused == nil {
				c.Cut()
				return false
			}
			if refused.Status != 503 || refused.Header.Get("Retry-After") == "" {
				t.Fatalf("refused with %d %v", refused.Status, refused.Header)
			}
			return true
		})
		resp, err := http.Get("http://" + s.Addr + "/up")
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if resp.StatusCode != 503 || string(body) != "DRAINING" {
			t.Errorf("/up: %d %s", resp.StatusCode, body)
		}
		var ends []time.Duration
		for _, c := range clients {
			c.ExpectFail(4200)
			ends = append(ends, time.Since(began))
		}
		var early int
		for _, d := range ends {
			if d < 200*time.Millisecond {
				early++
			}
		}
		if last := ends[len(ends)-1]; last < 300*time.Millisecond || early > 15 {
			t.Errorf("20 clients were closed within %v, %d of them in the first 200 ms: not spread", last, early)
		}
		if err := s.Stop(); err != nil {
			t.Fatal(err)
		}
	})
	t.Run("accepted publishes are delivered", func(t *testing.T) {
		s := serve(t, func(cfg *config.Config) { cfg.ShutdownGracePeriod = 5 })
		c := pushertest.Dial(t, s.Addr, plain)
		c.Subscribe("last-words")
		api := pushertest.NewAPI(t, s.Addr, plain)
		for i := range 200 {
			api.Trigger("last-words", "e", fmt.Sprint(i))
		}
		s.Signal()
		for i := range 200 {
			if f := c.Expect("e", "last-words"); f.Text(t) != fmt.Sprint(i) {
				t.Fatalf("event %d: %s", i, f.Raw)
			}
		}
		c.ExpectFail(4200)
	})
}

// Every ExpectFail checks that the error frame and the close frame have the
// same code, and none of them is 4300 or above.
func TestClosesAreAnnounced(t *testing.T) {
	items(t, 52, 53)
	s := serve(t, quick)
	c := pushertest.Dial(t, s.Addr, plain)
	c.Signin(`{"id":"42"}`)
	pushertest.NewAPI(t, s.Addr, plain).Terminate("42")
	c.ExpectFail(4009)
	d := pushertest.Dial(t, s.Addr, plain, opts{Mute: true})
	d.Await("pusher:ping", "")
	d.ExpectFail(4201)
	e := pushertest.Dial(t, s.Addr, plain)
	for range 30 { // nothing that a client says closes its connection with 43xx
		e.Send(`{"event":"client-x"}`)
		e.ExpectError(4300)
	}
	e.Quiet()
}
