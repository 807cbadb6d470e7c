package e2e

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gobwas/ws"

	"sockudo/internal/config"
	"sockudo/internal/pushertest"
)

func TestManySubscriptions(t *testing.T) {
	s := serve(t, func(cfg *config.Config) { cfg.WebSocket.MaxSubscriptions = 600 })
	c := pushertest.Dial(t, s.Addr, plain)
	t.Run("500 at once", func(t *testing.T) {
		items(t, 77)
		for i := range 500 {
			c.Subscribe(fmt.Sprint("many-", i))
		}
		api := pushertest.NewAPI(t, s.Addr, plain)
		for _, i := range []int{0, 8, 9, 250, 499} {
			api.Trigger(fmt.Sprint("many-", i), "e", "x")
			c.Expect("e", fmt.Sprint("many-", i))
		}
	})
	t.Run("the limit is named", func(t *testing.T) {
		for i := 500; i < 600; i++ {
			c.Subscribe(fmt.Sprint("many-", i))
		}
		c.SendSubscribe("one-more")
		if e := c.ExpectSubscriptionError("one-more", "LimitReached", 403, 4300); !strings.Contains(e.Error, "600") || !strings.Contains(e.Error, "max_subscriptions") {
			t.Errorf("error %q", e.Error)
		}
	})
}

func TestSignatures(t *testing.T) {
	s := serve(t, nil)
	fails := func(c *pushertest.Client, channel, auth string) {
		t.Helper()
		c.Send(fmt.Sprintf(`{"event":"pusher:subscribe","data":{"channel":%q,"auth":%q}}`, channel, auth))
		e := c.ExpectSubscriptionError(channel, "AuthError", 401, 4009)
		if digest := plain.MAC(c.SocketID + ":" + channel); !strings.Contains(auth, digest) && strings.Contains(e.Error, digest) {
			t.Errorf("the error tells the right digest: %s", e.Error)
		}
	}
	c := pushertest.Dial(t, s.Addr, plain)
	good := plain.SignChannel(c.SocketID, "private-room")
	digest := strings.TrimPrefix(good, plain.Key+":")
	t.Run("secret of another app", func(t *testing.T) {
		items(t, 86)
		fails(c, "private-room", plain.Key+":"+appC.MAC(c.SocketID+":private-room"))
	})
	t.Run("key of another app", func(t *testing.T) {
		items(t, 87)
		fails(c, "private-room", appC.Key+":"+digest)
	})
	t.Run("another socket", func(t *testing.T) {
		items(t, 89)
		fails(c, "private-room", plain.SignChannel("1234.5678", "private-room"))
	})
	t.Run("form of the digest", func(t *testing.T) {
		items(t, 91, 92)
		for _, d := range []string{strings.ToUpper(digest), digest[:32], digest + "00", "", digest + " "} {
			fails(c, "private-room", plain.Key+":"+d)
		}
	})
	t.Run("empty channel_data", func(t *testing.T) {
		items(t, 98)
		for _, auth := range []string{plain.SignChannel(c.SocketID, "private-room"), plain.SignChannel(c.SocketID, "private-room", "")} {
			c.Send(fmt.Sprintf(`{"event":"pusher:subscribe","data":{"channel":"private-room","auth":%q,"channel_data":""}}`, auth))
			c.Expect("pusher_internal:subscription_succeeded", "private-room")
			c.Unsubscribe("private-room")
		}
	})
	c.Quiet()
}

// members follows a presence channel as pusher-js does.
type members map[string]bool

func (m members) apply(t *testing.T, f pushertest.Frame) {
	t.Helper()
	switch f.Event {
	case "pusher_internal:subscription_succeeded":
		var data struct {
			Presence struct {
				IDs   []string
				Hash  map[string]json.RawMessage
				Count int
			}
		}
		f.Decode(t, &data)
		if len(data.Presence.IDs) != data.Presence.Count || len(data.Presence.Hash) != data.Presence.Count {
			t.Fatalf("the snapshot contradicts itself: %s", f.Raw)
		}
		for _, id := range data.Presence.IDs {
			m[id] = true
		}
	case "pusher_internal:member_added", "pusher_internal:member_removed":
		var data struct {
			UserID string `json:"user_id"`
		}
		f.Decode(t, &data)
		added := strings.HasSuffix(f.Event, "added")
		if m[data.UserID] == added {
			t.Fatalf("impossible after what was told before: %s", f.Raw)
		}
		if added {
			m[data.UserID] = true
		} else {
			delete(m, data.UserID)
		}
	}
}

func TestPresenceStreamEqualsTheTruth(t *testing.T) {
	items(t, 127)
	s := serve(t, nil)
	observer := pushertest.Dial(t, s.Addr, plain)
	seen := members{}
	seen.apply(t, observer.Subscribe("presence-truth", `{"user_id":"observer"}`))

	const seed = 1
	r := rand.New(rand.NewPCG(seed, seed))
	truth := map[string]int{"observer": 1}
	type connection struct {
		c  *pushertest.Client
		id string
	}
	var open []connection
	for range 200 {
		if len(open) > 0 && r.IntN(2) == 0 {
			i := r.IntN(len(open))
			gone := open[i]
			open = append(open[:i], open[i+1:]...)
			switch r.IntN(2) {
			case 0:
				gone.c.Unsubscribe("presence-truth")
				gone.c.Drain() // so that it has been done
			default:
				gone.c.Close(1000)
			}
			if truth[gone.id]--; truth[gone.id] == 0 {
				delete(truth, gone.id)
			}
			continue
		}
		id := fmt.Sprint(r.IntN(10))
		c := pushertest.Dial(t, s.Addr, plain)
		own := members{}
		own.apply(t, c.Subscribe("presence-truth", fmt.Sprintf(`{"user_id":%q}`, id)))
		truth[id]++
		if !own[id] {
			t.Fatalf("the snapshot of %s lacks itself", id)
		}
		open = append(open, connection{c, id})
	}
	eventually(t, "the observer knows the truth", func() bool {
		for _, f := range observer.Drain() {
			seen.apply(t, f)
		}
		if len(seen) != len(truth) {
			return false
		}
		for id := range truth {
			if !seen[id] {
				return false
			}
		}
		return true
	})
}

func TestNothingComesBeforeTheSuccessFrame(t *testing.T) {
	items(t, 128)
	s := serve(t, nil)
	api := pushertest.NewAPI(t, s.Addr, plain)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	defer wg.Wait()
	defer close(stop)
	for i := range 2 {
		busy := pushertest.Dial(t, s.Addr, plain)
		wg.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-stop:
					return
				default:
				}
				api.Trigger("presence-busy", "e", fmt.Sprint(n))
				busy.SendSubscribe("presence-busy", fmt.Sprintf(`{"user_id":"b%d"}`, i))
				busy.Unsubscribe("presence-busy")
				busy.Drain()
			}
		})
	}
	for range 50 {
		c := pushertest.Dial(t, s.Addr, plain)
		c.SendSubscribe("presence-busy", `{"user_id":"c"}`)
		if f := c.Next(); f.Event != "pusher_internal:subscription_succeeded" {
			t.Fatalf("first frame of the channel: %s", f.Raw)
		}
		c.Cut()
	}
}

func TestClientEventRate(t *testing.T) {
	s := serve(t, nil)
	b, other := pushertest.Dial(t, s.Addr, plain), pushertest.Dial(t, s.Addr, plain)
	for _, c := range []*pushertest.Client{b, other} {
		c.Subscribe("private-rate")
		c.Subscribe("private-rate-2")
	}
	var a *pushertest.Client
	test := t
	t.Run("the 11th event of a second", func(t *testing.T) {
		items(t, 144, 146)
		// All eleven in one piece, so that a busy machine does not stretch them
		// over more than a second; should it do so all the same, once more.
		var burst []byte
		for i := range 11 {
			channel := []string{"private-rate", "private-rate-2"}[i%2] // it counts for all channels together
			frame := fmt.Sprintf(`{"event":"client-x","channel":%q,"data":"%d"}`, channel, i)
			burst = append(burst, ws.MustCompileFrame(ws.MaskFrame(ws.NewTextFrame([]byte(frame))))...)
		}
		for attempt := 1; ; attempt++ {
			a = pushertest.Dial(test, s.Addr, plain)
			a.Subscribe("private-rate")
			a.Subscribe("private-rate-2")
			if err := a.WriteBytes(burst); err != nil {
				t.Fatal(err)
			}
			refused := a.Drain()
			for i, f := range b.Drain() {
				if f.Event != "client-x" || f.Text(t) != fmt.Sprint(i) {
					t.Fatalf("event %d: %s", i, f.Raw)
				}
			}
			relayed := len(other.Drain())
			if relayed == 10 && len(refused) == 1 && refused[0].Error(t).Code == 4301 {
				break
			}
			if relayed != 11 || len(refused) != 0 || attempt == 5 {
				t.Fatalf("%d events were relayed, answers %v", relayed, refused)
			}
		}
		other.Emit("client-x", "private-rate", "o")
		a.Expect("client-x", "private-rate")
		b.Expect("client-x", "private-rate")
	})
	t.Run("after the window", func(t *testing.T) {
		items(t, 145)
		eventually(t, "the connection may send again", func() bool {
			a.Emit("client-again", "private-rate", 1)
			for _, f := range a.Drain() {
				if f.Event == "pusher:error" {
					return false
				}
			}
			return true
		})
		b.Expect("client-again", "private-rate")
	})
}

func TestCacheTTL(t *testing.T) {
	items(t, 156, 157)
	s := serve(t, func(cfg *config.Config) { cfg.ChannelLimits.CacheTTL = 1 })
	api := pushertest.NewAPI(t, s.Addr, plain)
	stored := func() bool { return !strings.Contains(api.Get("/channels/cache-ttl", "info", "cache").Body, "null") }
	begin := time.Now()
	api.Trigger("cache-ttl", "e", "1")
	for time.Since(begin) < 700*time.Millisecond {
		time.Sleep(50 * time.Millisecond)
	}
	again := time.Now()
	api.Trigger("cache-ttl", "e", "2")
	for time.Since(begin) < 1200*time.Millisecond {
		time.Sleep(50 * time.Millisecond)
	}
	if time.Since(again) < 900*time.Millisecond && !stored() {
		t.Error("the second publish did not restart the time")
	}
	eventually(t, "the event has expired", func() bool { return !stored() })
	c := pushertest.Dial(t, s.Addr, plain)
	c.Subscribe("cache-ttl")
	c.Expect("pusher:cache_miss", "cache-ttl")
}

func TestReplayIsNeverOlderThanWhatFollows(t *testing.T) {
	items(t, 167)
	s := serve(t, nil)
	api := pushertest.NewAPI(t, s.Addr, plain)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for n := 1; ; n++ {
			select {
			case <-stop:
				return
			default:
				api.Trigger("cache-order", "e", fmt.Sprint(n))
			}
		}
	})
	for range 60 {
		c := pushertest.Dial(t, s.Addr, plain)
		c.Subscribe("cache-order")
		last := -1
		for range 5 {
			f := c.Next()
			if f.Event == "pusher:cache_miss" {
				continue
			}
			var n int
			if _, err := fmt.Sscan(f.Text(t), &n); err != nil {
				t.Fatal(err)
			}
			if last >= 0 && n != last+1 {
				t.Errorf("event %d after event %d: lost, repeated or out of order", n, last)
			}
			last = n
		}
		c.Cut()
	}
	close(stop)
	wg.Wait()
}

func TestCountsOfLargeChannelsAreHeldBack(t *testing.T) {
	items(t, 173)
	s := serve(t, nil)
	began := time.Now()
	var clients []*pushertest.Client
	for range 110 {
		c := pushertest.Dial(t, s.Addr, appB)
		c.Subscribe("large")
		clients = append(clients, c)
	}
	// Up to 100 subscribers each change is told; above, one count comes every 5 s
	// while there are changes, and the last one is right.
	const tick = 5 * time.Second
	first := clients[0]
	small, large := 0, 0
	for n := 0; n != 110; {
		var data struct {
			N *int `json:"subscription_count"`
		}
		first.Expect("pusher_internal:subscription_count", "large").Decode(t, &data)
		if *data.N <= n {
			t.Errorf("%d came after %d", *data.N, n)
		}
		if n = *data.N; n <= 100 {
			small++
		} else {
			large++
		}
	}
	if small != 100 {
		t.Errorf("%d counts up to 100 came, want each", small)
	}
	// Measured from before the first change, so that a slow machine allows more.
	if most := 2 + int(time.Since(began)/tick); large > most {
		t.Errorf("%d counts above 100 came within %v, want at most %d", large, time.Since(began), most)
	}
	first.Quiet()
}

func TestSignedInConnectionsEnd(t *testing.T) {
	items(t, 185)
	s := serve(t, nil)
	watcher := pushertest.Dial(t, s.Addr, appB)
	watcher.Signin(`{"id":"watcher","watchlist":["42"]}`)
	watcher.Expect("pusher_internal:watchlist_events", "")
	c := pushertest.Dial(t, s.Addr, appB)
	c.Signin(`{"id":"42"}`)
	watcher.Expect("pusher_internal:watchlist_events", "")
	c.Cut()
	if f := watcher.Expect("pusher_internal:watchlist_events", ""); !strings.Contains(f.Text(t), "offline") {
		t.Errorf("got %s", f.Raw)
	}
}

func TestLongWatchlist(t *testing.T) {
	items(t, 191)
	s := serve(t, nil)
	ids := make([]string, 101)
	for i := range ids {
		ids[i] = fmt.Sprint("u", i)
	}
	data, err := json.Marshal(map[string]any{"id": "w", "watchlist": ids})
	if err != nil {
		t.Fatal(err)
	}
	w := pushertest.Dial(t, s.Addr, appB)
	w.Signin(string(data))
	if f := w.Expect("pusher_internal:watchlist_events", ""); strings.Count(f.Text(t), `"u`) != 101 || strings.Contains(f.Text(t), `"u100"`) {
		// 100 ids and the key user_ids
		t.Errorf("got %s", f.Raw)
	}
	if e := w.ExpectError(4302); !strings.Contains(e.Message, "u99") || strings.Contains(e.Message, "u100") {
		t.Errorf("message %q", e.Message)
	}
	for _, id := range []string{"u100", "u99"} {
		c := pushertest.Dial(t, s.Addr, appB)
		c.Signin(fmt.Sprintf(`{"id":%q}`, id))
	}
	if f := w.Expect("pusher_internal:watchlist_events", ""); !strings.Contains(f.Text(t), `"u99"`) {
		t.Errorf("got %s", f.Raw)
	}
	w.Quiet()
}
