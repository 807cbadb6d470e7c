package session

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"sockudo/internal/app"
	"sockudo/internal/cache"
	"sockudo/internal/hub"
	"sockudo/internal/node"
	"sockudo/internal/protocol"
	"sockudo/internal/pushertest"
	"sockudo/internal/ws"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A house is a node with its door and without an API.
type house struct {
	gate    *Gate
	node    *node.Node
	sockets *ws.Server
	addr    string
}

// door serves sessions; the store can be changed meanwhile.
func door(t testing.TB, store app.Store, opts Options) (*Gate, string) {
	t.Helper()
	h := build(t, store, opts, ws.Options{}, nil)
	return h.gate, h.addr
}

func build(t testing.TB, store app.Store, opts Options, sockets ws.Options, wrap func(net.Listener) net.Listener) *house {
	t.Helper()
	w := &house{}
	h := hub.New(hub.Options{})
	w.node = node.New(h, cache.NewMemory(cache.MemoryOptions{}), node.Options{
		Room: func(ctx context.Context, most time.Duration) error { return w.sockets.Room(ctx, most) },
	})
	w.gate = NewGate(store, h, w.node, opts)
	w.sockets = ws.NewServer(w.gate.Accept, sockets)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w.addr = ln.Addr().String()
	if wrap != nil {
		ln = wrap(ln)
	}
	api := &http.Server{}
	var wg sync.WaitGroup
	wg.Go(func() { _ = w.sockets.Serve(ln, api) })
	ctx, cancel := context.WithCancel(context.Background())
	wg.Go(func() { _ = w.gate.Watch(ctx) })
	t.Cleanup(func() {
		cancel()
		_ = api.Close()
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = w.sockets.Shutdown(ctx)
		wg.Wait()
	})
	return w
}

var owner = pushertest.App{ID: "1", Key: "key", Secret: "secret"}

func oneApp(t testing.TB, edit func(*app.App)) *app.Memory {
	t.Helper()
	m := app.NewMemory(app.StandardDefaults())
	a := &app.App{ID: owner.ID, Key: owner.Key, Secret: app.Secret(owner.Secret), Enabled: true, EnableClientMessages: true}
	if edit != nil {
		edit(a)
	}
	if err := m.Create(t.Context(), a); err != nil {
		t.Fatal(err)
	}
	return m
}

func TestClientsOfADisabledOrDeletedAppAreClosed(t *testing.T) {
	store := oneApp(t, nil)
	_, addr := door(t, store, Options{})
	slow := pushertest.Options{Timeout: 3 * watchInterval}
	c := pushertest.Dial(t, addr, owner, slow)
	a, err := store.ByID(t.Context(), owner.ID)
	if err != nil {
		t.Fatal(err)
	}
	off := *a
	off.Enabled = false
	if err := store.Update(t.Context(), nil, &off); err != nil {
		t.Fatal(err)
	}
	c.ExpectFail(4003)
	if err := store.Update(t.Context(), nil, a); err != nil {
		t.Fatal(err)
	}
	d := pushertest.Dial(t, addr, owner, slow)
	if err := store.Delete(t.Context(), owner.ID); err != nil {
		t.Fatal(err)
	}
	d.ExpectFail(4001)
}

// forgetful is a store that says when it was told to forget.
type forgetful struct {
	*app.Memory
	forgot chan string
}

func (s forgetful) Forget(_ context.Context, id string) { s.forgot <- id }

func TestClientsOfAChangedAppAreLookedAtAtOnce(t *testing.T) {
	store := forgetful{oneApp(t, nil), make(chan string, 16)}
	g, addr := door(t, store, Options{})
	c := pushertest.Dial(t, addr, owner)
	a, err := store.ByID(t.Context(), owner.ID)
	if err != nil {
		t.Fatal(err)
	}
	off := *a
	off.Enabled = false
	if err := store.Update(t.Context(), nil, &off); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		g.Recheck(owner.ID)
	}
	g.Recheck("unknown")
	c.ExpectFail(4003)
	for id := ""; id != "unknown"; id = <-store.forgot {
		if id != "" && id != owner.ID {
			t.Errorf("forgot %q", id)
		}
	}
}

// A broken store answers nobody's question.
type broken struct{}

func (broken) ByID(context.Context, string) (*app.App, error) {
	return nil, fmt.Errorf("store: %w", app.ErrUnavailable)
}

func (broken) ByKey(context.Context, string) (*app.App, error) {
	return nil, fmt.Errorf("store: %w", app.ErrUnavailable)
}

func TestUnreachableStoreIsNotAnUnknownApp(t *testing.T) {
	_, addr := door(t, broken{}, Options{})
	c, refused := pushertest.DialRaw(t, addr, owner)
	if refused != nil {
		t.Fatalf("refused over HTTP with %d", refused.Status)
	}
	c.ExpectFail(4100) // clients come back; 4001 would end them for good
}

func TestBothSecretsVerifyDuringARotation(t *testing.T) {
	store := oneApp(t, func(a *app.App) { a.Secret, a.PreviousSecret = "new", "secret" })
	_, addr := door(t, store, Options{})
	for _, secret := range []string{"new", "secret"} {
		c := pushertest.Dial(t, addr, pushertest.App{ID: owner.ID, Key: owner.Key, Secret: secret})
		c.Subscribe("private-x")
		c.Signin(`{"id":"1"}`)
	}
	c := pushertest.Dial(t, addr, pushertest.App{ID: owner.ID, Key: owner.Key, Secret: "older"})
	c.SendSubscribe("private-x")
	c.ExpectSubscriptionError("private-x", "AuthError", 401, 4009)
}

func TestConnectionsLiveThroughARotation(t *testing.T) {
	store := oneApp(t, nil)
	g, addr := door(t, store, Options{})
	c := pushertest.Dial(t, addr, owner)
	c.Subscribe("private-before")
	rotate := func(secret, previous app.Secret, until time.Time) {
		t.Helper()
		if err := store.SetSecrets(t.Context(), nil, &app.App{ID: owner.ID, Secret: secret, PreviousSecret: previous, PreviousUntil: until}); err != nil {
			t.Fatal(err)
		}
		g.Recheck(owner.ID)
	}
	// The connection was opened before. Which secrets count for it is read again.
	accepts := func(channel, secret string, want bool) {
		t.Helper()
		c.App.Secret = secret
		for end := time.Now().Add(30 * time.Second); ; {
			c.SendSubscribe("private-" + channel)
			ok := c.Next().Event == "pusher_internal:subscription_succeeded"
			if ok == want {
				break
			}
			if time.Now().After(end) {
				t.Fatalf("a channel signed with %q is accepted: %t", secret, ok)
			}
			if ok {
				c.Unsubscribe("private-" + channel)
			} else {
				c.ExpectError(4009)
			}
		}
		if !want {
			c.ExpectError(4009)
		}
	}
	rotate("newer", "secret", time.Time{})
	accepts("new", "newer", true)
	accepts("old", "secret", true)
	c.App.Secret = "newer"
	c.Signin(`{"id":"1"}`)
	rotate("newer", "secret", time.Now().Add(-time.Second))
	accepts("late", "secret", false)
	rotate("newer", "", time.Time{})
	accepts("later", "secret", false)
	accepts("new-again", "newer", true)
	// One that is opened now tells the older ones too.
	rotate("newest", "newer", time.Time{})
	d := pushertest.Dial(t, addr, pushertest.App{ID: owner.ID, Key: owner.Key, Secret: "newest"})
	d.Subscribe("private-x")
	c.App.Secret = "newest"
	c.Subscribe("private-y")
}

// The client does not read, so that it does not answer the close frame.
func TestAMemberWhoIsThrownOutIsGoneAtOnce(t *testing.T) {
	h := build(t, oneApp(t, nil), Options{}, ws.Options{CloseTimeout: time.Hour}, nil)
	out := pushertest.Dial(t, h.addr, owner)
	out.Signin(`{"id":"out"}`)
	out.Subscribe("presence-x", `{"user_id":"out"}`)
	stays := pushertest.Dial(t, h.addr, owner)
	stays.Subscribe("presence-x", `{"user_id":"stays"}`)
	out.Expect("pusher_internal:member_added", "presence-x")
	out.StopReading()
	h.node.Terminate(owner.ID, "out", protocol.CodeUnauthorized, "Thrown out")
	stays.Expect("pusher_internal:member_removed", "presence-x")
	out.ResumeReading()
	out.ExpectFail(4009)
}

func TestUpgradesMayBeLimited(t *testing.T) {
	_, addr := door(t, oneApp(t, nil), Options{Limit: func(*http.Request) *ws.Refusal {
		return &ws.Refusal{Status: http.StatusTooManyRequests, Header: http.Header{"Retry-After": {"7"}}}
	}})
	_, refused := pushertest.DialRaw(t, addr, owner)
	if refused == nil || refused.Status != 429 || refused.Header.Get("Retry-After") != "7" {
		t.Errorf("%+v", refused)
	}
}

func TestQuotaOfUnauthorizedConnectionsIsJudgedWhenTheyAreAuthorized(t *testing.T) {
	yes := true
	_, addr := door(t, oneApp(t, func(a *app.App) { a.EnableUserAuthentication, a.MaxConnections = &yes, 1 }), Options{})
	one, two := pushertest.Dial(t, addr, owner), pushertest.Dial(t, addr, owner)
	one.Subscribe("private-x")
	two.SendSubscribe("private-x")
	two.Expect("pusher_internal:subscription_succeeded", "private-x")
	two.ExpectFail(4004)
	one.Quiet()
}

func TestForwardedProtocolIsBelievedOnlyBehindProxies(t *testing.T) {
	for _, c := range []struct {
		hops int
		peer string
		want bool
	}{{0, "203.0.113.9:1", false}, {1, "203.0.113.9:1", true}} {
		g := NewGate(broken{}, hub.New(hub.Options{}), nil, Options{TrustHops: c.hops})
		r := httptest.NewRequest("GET", "/app/key", nil)
		r.RemoteAddr = c.peer
		r.Header.Set("X-Forwarded-Proto", "https")
		if got := g.secure(r); got != c.want {
			t.Errorf("%d hops, peer %q: secure is %v, want %v", c.hops, c.peer, got, c.want)
		}
	}
}

func TestLimitsAreNamed(t *testing.T) {
	_, addr := door(t, oneApp(t, nil), Options{MaxSubscriptions: 1})
	c := pushertest.Dial(t, addr, owner)
	c.SendSubscribe(strings.Repeat("x", 201))
	f := c.Next()
	if !strings.Contains(f.Text(t), "max_channel_name_length is 200") {
		t.Errorf("got %s", f.Raw)
	}
	c.ExpectError(4300)
	c.Subscribe("one")
	c.SendSubscribe("two")
	if e := c.ExpectSubscriptionError("two", "LimitReached", 403, 4300); !strings.Contains(e.Error, "max_subscriptions") {
		t.Errorf("got %q", e.Error)
	}
}

func TestRateWindowAdmitsExactlyTheLimit(t *testing.T) {
	for _, limit := range []int{1, 10, exactWindow, exactWindow + 1, 10_000} {
		w := newRateWindow(limit)
		now := time.Unix(1700000000, 0)
		for i := range limit {
			if !w.allow(now.Add(time.Duration(i) * time.Microsecond)) {
				t.Fatalf("limit %d: event %d was refused", limit, i+1)
			}
		}
		if w.allow(now.Add(999 * time.Millisecond)) {
			t.Errorf("limit %d: one event too many was admitted", limit)
		}
		if !w.allow(now.Add(1001 * time.Millisecond)) {
			t.Errorf("limit %d: refused after the window", limit)
		}
	}
	// No second has more than the limit, wherever it begins.
	w := newRateWindow(5)
	var admitted []time.Time
	for i := range 400 {
		now := time.Unix(1700000000, 0).Add(time.Duration(i) * 37 * time.Millisecond)
		if w.allow(now) {
			admitted = append(admitted, now)
		}
	}
	for i := 5; i < len(admitted); i++ {
		if admitted[i].Sub(admitted[i-5]) < time.Second {
			t.Fatalf("six events within %v", admitted[i].Sub(admitted[i-5]))
		}
	}
}

func TestAnAppMayAllowLargerEventsThanTheOthers(t *testing.T) {
	store := oneApp(t, func(a *app.App) { kb := uint32(200); a.MaxEventPayloadInKB = &kb })
	other := pushertest.App{ID: "2", Key: "other-key", Secret: "other-secret"}
	if err := store.Create(t.Context(), &app.App{ID: other.ID, Key: other.Key, Secret: app.Secret(other.Secret), Enabled: true, EnableClientMessages: true}); err != nil {
		t.Fatal(err)
	}
	_, addr := door(t, store, Options{MaxMessageBytes: 104 << 10})
	send := func(a pushertest.App, bytes int) (from, to *pushertest.Client) {
		from, to = pushertest.Dial(t, addr, a), pushertest.Dial(t, addr, a)
		from.Subscribe("private-x")
		to.Subscribe("private-x")
		from.Emit("client-large", "private-x", strings.Repeat("x", bytes))
		return from, to
	}
	_, to := send(owner, 200<<10)
	to.Expect("client-large", "private-x")
	from, _ := send(owner, 201<<10)
	from.ExpectError(4300) // it fits the frame, and the app does not allow it
	from, _ = send(owner, 205<<10)
	from.ExpectClose(1009)
	_, to = send(other, 100<<10)
	to.Expect("client-large", "private-x")
	from, _ = send(other, 150<<10)
	from.ExpectClose(1009)
}
