package node

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"sockudo/internal/app"
	"sockudo/internal/cache"
	"sockudo/internal/cluster"
	"sockudo/internal/hub"
	"sockudo/internal/protocol"
	"sockudo/internal/ws"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// theApp has everything on and no limits.
func theApp() *app.App {
	on := true
	return &app.App{ID: "app", Key: "key", Secret: "secret", Enabled: true,
		EnableClientMessages: true, EnableSubscriptionCount: &on, EnableWatchlistEvents: &on}
}

// A rig is a node with sockets that need no network.
type rig struct {
	*Node
	t       testing.TB
	app     *app.App
	cluster *cluster.Cluster
	sockets *ws.Server
	stop    func()
}

// start runs a node, over bus if that is not nil, until its test or stop ends it.
func start(t testing.TB, bus cluster.Bus, c cache.Cache, opts Options) *rig {
	t.Helper()
	r := &rig{t: t, app: theApp(), sockets: ws.NewServer(nil, ws.Options{ForceStream: true})}
	inHub := hub.Options{}
	if bus != nil {
		r.cluster = cluster.New(bus, cluster.Options{HeartbeatInterval: time.Second, NodeTimeout: 3 * time.Second})
		opts.Peers, inHub.Peers = r.cluster, r.cluster
	}
	r.Node = New(hub.New(inHub), c, opts)
	inner, stopInner := context.WithCancel(context.Background())
	among, leave := context.WithCancel(context.Background())
	var behind, peers sync.WaitGroup
	behind.Go(func() {
		if err := r.Run(inner); err != nil {
			t.Error(err)
		}
	})
	if bus != nil {
		peers.Go(func() {
			if err := r.cluster.Run(among, r.Local()); err != nil {
				t.Error(err)
			}
		})
	}
	r.stop = sync.OnceFunc(func() {
		for _, s := range r.hub.Sockets() {
			s.Conn.Close(1000, "")
		}
		if err := r.sockets.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
		leave()
		peers.Wait()
		stopInner()
		behind.Wait()
	})
	t.Cleanup(r.stop)
	return r
}

// A client is a socket and what was sent to it.
type client struct {
	*hub.Socket
	r *rig

	mu     sync.Mutex // guards what follows
	frames []string
}

type ended struct{ c *client }

func (ended) Open(*ws.Conn)            {}
func (ended) Message(*ws.Conn, []byte) {}
func (ended) Wake(*ws.Conn, time.Time) {}
func (e ended) Closed(*ws.Conn, error) { e.c.r.Gone(e.c.Socket) }

func (r *rig) connect() *client {
	r.t.Helper()
	c := &client{r: r, Socket: &hub.Socket{ID: protocol.NewSocketID()}}
	c.Conn = r.sockets.Detached(ended{c}, func(f *ws.Frame) {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.frames = append(c.frames, string(f.Payload()))
	})
	if err := r.hub.App(r.app.ID).Add(c.Socket, true, r.app.Limits.MaxConnections); err != nil {
		r.t.Fatal(err)
	}
	return c
}

// take returns what was sent since the last call.
func (c *client) take() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	frames := c.frames
	c.frames = nil
	return frames
}

func (c *client) join(channel, user string) {
	c.r.t.Helper()
	if err := c.tryJoin(channel, user); err != nil {
		c.r.t.Fatalf("join of %s: %v", channel, err)
	}
}

func (c *client) tryJoin(channel, user string) error {
	var m *protocol.Member
	if user != "" {
		m = &protocol.Member{ID: user, Info: "{}"}
	}
	return c.r.Join(context.Background(), c.r.app, c.Socket, channel, m)
}

func (c *client) leave(channel string) { c.r.Leave(c.Socket, c.Subscription(channel)) }

func (r *rig) publish(channel, data string) error {
	return r.Publish(context.Background(), r.app, &Publication{Name: "e", Data: []byte(data), Channels: []string{channel}})
}

func event(channel, data string) string {
	return string(protocol.AppendEvent(nil, "e", channel, []byte(data), ""))
}

// A recorder is hooks that write down what they are told.
type recorder struct {
	mu     sync.Mutex // guards what follows
	events []string
}

func (r *recorder) Happened(appID string, e protocol.HookEvent) {
	text := appID + " " + e.Name + " " + e.Channel
	switch e.Name {
	case protocol.HookMemberAdded, protocol.HookMemberRemoved:
		text += " " + e.UserID
	case protocol.HookSubscriptionCount:
		text += fmt.Sprint(" ", e.Subscriptions)
	case protocol.HookClientEvent:
		text += fmt.Sprintf(" %s %s %s %s", e.Event, e.Data, e.SocketID, e.UserID)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.events = append(r.events, text)
}

func (r *recorder) take() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	events := r.events
	r.events = nil
	return events
}

func same(t *testing.T, what string, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s:\n got %q\nwant %q", what, got, want)
	}
}

func memory() cache.Cache { return cache.NewMemory(cache.MemoryOptions{}) }

func TestHooksOfANodeThatIsAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hooks := &recorder{}
		r := start(t, nil, memory(), Options{Hooks: hooks})
		defer r.stop()
		told := func(what string, want ...string) {
			t.Helper()
			synctest.Wait()
			same(t, what, hooks.take(), want...)
		}
		a, b := r.connect(), r.connect()
		a.join("x", "")
		told("first join", "app channel_occupied x", "app subscription_count x 1")
		b.join("x", "")
		told("second join", "app subscription_count x 2")
		a.leave("x")
		b.leave("x")
		told("leaves", "app subscription_count x 1", "app subscription_count x 0", "app channel_vacated x")

		a.join("presence-x", "1")
		b.join("presence-x", "1")
		told("a member", "app channel_occupied presence-x", "app member_added presence-x 1")
		if later := r.Relay(a.Subscription("presence-x"), a.Socket, "client-e", []byte(`{\"a\":1}`)); later != nil {
			t.Error("something is left to do without peers")
		}
		told("client event", "app client_event presence-x client-e {\\\"a\\\":1} "+a.ID.String()+" 1")
		a.Conn.Close(1000, "")
		b.Conn.Close(1000, "")
		told("the end of both", "app member_removed presence-x 1", "app channel_vacated presence-x")

		c := r.connect()
		if err := r.SignIn(t.Context(), r.app, c.Socket, protocol.UserData{ID: "u"}, "{}"); err != nil {
			t.Fatal(err)
		}
		c.join(protocol.UserPrefix+"u", "")
		told("a user channel")
	})
}

func TestMissesWithinASecondAreOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hooks := &recorder{}
		r := start(t, nil, memory(), Options{Hooks: hooks})
		defer r.stop()
		miss := func() { r.connect().join("cache-x", "") }
		for range 50 {
			miss()
		}
		synctest.Wait()
		if n := times(hooks.take(), "app cache_miss cache-x"); n != 1 {
			t.Errorf("50 misses at once were told %d times", n)
		}
		time.Sleep(missInterval)
		miss()
		synctest.Wait()
		if n := times(hooks.take(), "app cache_miss cache-x"); n != 1 {
			t.Errorf("a later miss was told %d times", n)
		}
		if err := r.publish("cache-x", "1"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(missInterval)
		miss()
		synctest.Wait()
		if n := times(hooks.take(), "app cache_miss cache-x"); n != 0 {
			t.Errorf("a hit was told as a miss %d times", n)
		}
	})
}

func times(list []string, text string) (n int) {
	for _, s := range list {
		if s == text {
			n++
		}
	}
	return n
}

func TestCountsOfLargeChannelsAreToldEveryFiveSeconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hooks := &recorder{}
		r := start(t, nil, memory(), Options{Hooks: hooks})
		defer r.stop()
		var clients []*client
		join := func() {
			c := r.connect()
			c.join("x", "")
			clients = append(clients, c)
		}
		for range protocol.SubscriptionCountQuiet {
			join()
		}
		synctest.Wait()
		if n := len(hooks.take()); n != protocol.SubscriptionCountQuiet+1 {
			t.Errorf("%d events up to 100 subscribers, want one for each and channel_occupied", n)
		}
		for range 20 {
			join()
		}
		synctest.Wait()
		same(t, "above 100", hooks.take(), "app subscription_count x 101")
		time.Sleep(countInterval - time.Second)
		same(t, "within five seconds", hooks.take())
		time.Sleep(2 * time.Second)
		same(t, "after five seconds", hooks.take(), "app subscription_count x 120")
		time.Sleep(2 * countInterval)
		same(t, "without a change", hooks.take())
		for _, c := range clients {
			c.leave("x")
		}
		synctest.Wait()
		events := hooks.take()
		if len(events) < 2 {
			t.Fatalf("got %q", events)
		}
		same(t, "the end", events[len(events)-2:], "app subscription_count x 0", "app channel_vacated x")
	})
}

// What waits to be told when the node stops is told.
func TestHooksAreToldEverythingBeforeTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hooks := &recorder{}
		r := start(t, nil, memory(), Options{Hooks: hooks})
		for range protocol.SubscriptionCountQuiet + 5 {
			r.connect().join("x", "")
		}
		synctest.Wait()
		hooks.take()
		r.stop()
		events := hooks.take()
		if len(events) == 0 || events[len(events)-1] != "app channel_vacated x" {
			t.Errorf("got %q", events)
		}
	})
}

func TestStampsAreReadBack(t *testing.T) {
	event := []byte(`{"event":"e","channel":"cache-x","data":"1"}`)
	for _, s := range []hub.Stamp{0, 1, hub.NewStamp(7, 1<<39), 1<<64 - 1, 1 << 63} {
		value := appendStamp(slices.Clone(event), s)
		got, stamp := cutStamp(value)
		if string(got) != string(event) || stamp != s {
			t.Errorf("stamp %x of %q comes back as %x of %q", s, value, stamp, got)
		}
		if !json.Valid(value) {
			t.Errorf("%q is no JSON", value)
		}
	}
	for _, text := range []string{"", "{}", "   ", string(event), string(event) + "                               "} {
		if got, stamp := cutStamp([]byte(text)); string(got) != text || stamp != 0 {
			t.Errorf("%q was cut to %q and %x", text, got, stamp)
		}
	}
}

func TestAddressesAreReadBack(t *testing.T) {
	for _, channel := range []string{"", "cache-x", string(make([]byte, 300))} {
		app, ch, event, ok := cutAddress(addressed("app", channel, []byte("event")))
		if !ok || app != "app" || ch != channel || string(event) != "event" {
			t.Errorf("got %q %q %q %v", app, ch, event, ok)
		}
	}
	for _, bad := range [][]byte{nil, {5}, {1, 'a'}, {1, 'a', 200, 1}, {0x80}, {255, 255, 255, 255, 255, 255, 255, 255, 255, 1}} {
		if _, _, _, ok := cutAddress(bad); ok {
			t.Errorf("%v was taken", bad)
		}
	}
}
