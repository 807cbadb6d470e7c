package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"sockudo/internal/config"
	"sockudo/internal/pushertest"
	"sockudo/internal/servertest"
	"sockudo/internal/servicetest"
)

// brokers are the ways that nodes reach each other. What takes the default
// settings takes the same settings with any of them.
var brokers = []struct {
	name string
	// start runs nodes whose topics begin with a name that no other test uses.
	start func(t *testing.T, nodes int, edit func(*config.Config)) servertest.Cluster
}{
	{"memory", func(t *testing.T, nodes int, edit func(*config.Config)) servertest.Cluster {
		return serveCluster(t, nodes, edit)
	}},
	{"redis", func(t *testing.T, nodes int, edit func(*config.Config)) servertest.Cluster {
		redis := config.URL("redis://" + servicetest.RedisEndpoint(t).Addrs[0])
		return servertest.StartNodes(t, nodes, profile(func(cfg *config.Config) {
			a := &cfg.Adapter
			a.Driver, a.Redis.Pub.URL, a.Redis.Prefix = "redis", redis, t.Name()
			if edit != nil {
				edit(cfg)
			}
		}))
	}},
	{"redis-cluster", func(t *testing.T, nodes int, edit func(*config.Config)) servertest.Cluster {
		var seeds []config.URL
		for _, addr := range servicetest.RedisClusterEndpoint(t).Addrs {
			seeds = append(seeds, config.URL("redis://"+addr))
		}
		return servertest.StartNodes(t, nodes, profile(func(cfg *config.Config) {
			a := &cfg.Adapter
			a.Driver, a.Cluster.Nodes, a.Cluster.Prefix = "redis-cluster", seeds, t.Name()
			if edit != nil {
				edit(cfg)
			}
		}))
	}},
	{"nats", func(t *testing.T, nodes int, edit func(*config.Config)) servertest.Cluster {
		var servers []config.URL
		for url := range strings.SplitSeq(servicetest.Env(t, servicetest.NATS), ",") {
			servers = append(servers, config.URL(url))
		}
		return servertest.StartNodes(t, nodes, profile(func(cfg *config.Config) {
			a := &cfg.Adapter
			a.Driver, a.NATS.Servers, a.NATS.Prefix = "nats", servers, t.Name()
			if edit != nil {
				edit(cfg)
			}
		}))
	}},
}

// patient is for clients of clusters: what comes from another node takes longer
// on a busy machine.
var patient = opts{Timeout: servertest.Patience}

// TestNodesAreOne runs the items of the checklist about clusters over every
// broker.
func TestNodesAreOne(t *testing.T) {
	for _, broker := range brokers {
		t.Run(broker.name, func(t *testing.T) {
			c := broker.start(t, 2, nil)
			for _, test := range []struct {
				name string
				item int
				run  func(t *testing.T, c servertest.Cluster)
			}{
				{"events", 333, eventsReachEveryNodeOnce},
				{"presence", 334, presenceIsOfAllNodes},
				{"users", 335, usersAreOfAllNodes},
				{"cache", 336, lastEventsAreOfAllNodes},
			} {
				t.Run(test.name, func(t *testing.T) {
					items(t, test.item)
					test.run(t, c)
				})
			}
		})
	}
}

func eventsReachEveryNodeOnce(t *testing.T, c servertest.Cluster) {
	a, b := pushertest.Dial(t, c[0].Addr, plain, patient), pushertest.Dial(t, c[1].Addr, plain, patient)
	both := []*pushertest.Client{a, b}
	for _, client := range both {
		client.Subscribe("news")
		client.Subscribe("private-news")
	}
	apis := []*pushertest.API{pushertest.NewAPI(t, c[0].Addr, plain), pushertest.NewAPI(t, c[1].Addr, plain)}

	const events = 200
	for n := range events {
		apis[0].Trigger("news", "e", fmt.Sprint(n))
	}
	for _, client := range both {
		for n := range events {
			if got := client.Expect("e", "news").Text(t); got != fmt.Sprint(n) {
				t.Fatalf("got event %s, want %d", got, n)
			}
		}
	}

	// The bytes are the same on every node.
	data := `{"a": 1, "b":[ true ], "c":"\u00e9é"}`
	apis[1].Trigger("news", `a\b.c`, data)
	if x, y := a.Next().Raw, b.Next().Raw; x != y {
		t.Errorf("the nodes sent\n%s\n%s", x, y)
	}

	// A socket is excluded wherever it is, on each channel of the call.
	for i, client := range both {
		apis[i].Publish(pushertest.Event{Name: "not-me", Channels: []string{"news", "private-news"}, Data: "x", SocketID: both[1-i].SocketID}).Expect(200)
		client.Await("not-me", "news")
		client.Await("not-me", "private-news")
	}
	// Batches keep their order.
	apis[0].Batch(pushertest.Event{Name: "e", Channel: "news", Data: "1"}, pushertest.Event{Name: "e", Channel: "news", Data: "2"}).Expect(200)
	for _, client := range both {
		for _, want := range []string{"1", "2"} {
			if got := client.Expect("e", "news").Text(t); got != want {
				t.Errorf("got %s of the batch, want %s", got, want)
			}
		}
	}

	for n := range 10 { // the limit of the app is 10 per second
		a.Emit("client-e", "private-news", n)
	}
	for n := range 10 {
		if got := b.Expect("client-e", "private-news").Text(t); got != fmt.Sprint(n) {
			t.Fatalf("got client event %s, want %d", got, n)
		}
	}

	a.Unsubscribe("news")
	a.Quiet()
	apis[1].Trigger("news", "e", "after")
	b.Expect("e", "news")
	settler(t, c)(t)
	a.Subscribe("news") // the topic has not been left yet
	apis[1].Trigger("news", "e", "again")
	if got := a.Expect("e", "news").Text(t); got != "again" {
		t.Errorf("got %s after the second subscription", got)
	}
	b.Expect("e", "news")
	a.Quiet()
	b.Quiet()
}

func presenceIsOfAllNodes(t *testing.T, c servertest.Cluster) {
	const room = "presence-cluster"
	dial := func(node int) *pushertest.Client {
		t.Helper()
		return pushertest.Dial(t, c[node].Addr, plain, patient)
	}
	screens := []members{{}, {}}
	watch := []*pushertest.Client{dial(0), dial(1)}
	for i, w := range watch {
		screens[i].apply(t, w.Subscribe(room, fmt.Sprintf(`{"user_id":"w%d"}`, i)))
		c.Settle(t)
	}
	screens[0].apply(t, watch[0].Expect("pusher_internal:member_added", room))
	api := pushertest.NewAPI(t, c[1].Addr, plain)
	counts := func(users, subscriptions int) {
		t.Helper()
		want := fmt.Sprintf(`{"occupied":true,"user_count":%d,"subscription_count":%d}`, users, subscriptions)
		eventually(t, "every node counts "+want, func() bool {
			for _, s := range c {
				if pushertest.NewAPI(t, s.Addr, plain).Get("/channels/"+room, "info", "user_count,subscription_count").Expect(200).Body != want {
					return false
				}
			}
			return true
		})
		c.Settle(t)
	}
	expect := func(event, id string) {
		t.Helper()
		for i, w := range watch {
			f := w.Expect("pusher_internal:"+event, room)
			screens[i].apply(t, f)
			if !strings.Contains(f.Raw, fmt.Sprintf(`\"user_id\":\"%s\"`, id)) {
				t.Errorf("got %s, want %s of %s", f.Raw, event, id)
			}
		}
	}
	counts(2, 2)

	one := dial(0)
	one.Subscribe(room, `{"user_id":"u","user_info":{"from":"the first"}}`)
	expect("member_added", "u")
	c.Settle(t)
	two := dial(1)
	if f := two.Subscribe(room, `{"user_id":"u","user_info":{"from":"the second"}}`); !strings.Contains(f.Raw, "the first") || strings.Contains(f.Raw, "the second") {
		t.Errorf("the first user_info has to stay: %s", f.Raw)
	}
	counts(3, 4)
	one.Close(1000)
	counts(3, 3)
	for _, w := range watch {
		w.Quiet()
	}
	two.Cut()
	expect("member_removed", "u")
	counts(2, 2)

	var users struct{ Users []struct{ ID string } }
	api.Get("/channels/" + room + "/users").Expect(200).JSON(&users)
	if len(users.Users) != 2 {
		t.Errorf("users %v", users)
	}
	var channels struct{ Channels map[string]struct{} }
	api.Get("/channels", "filter_by_prefix", "presence-cl").Expect(200).JSON(&channels)
	if len(channels.Channels) != 1 {
		t.Errorf("channels %v", channels)
	}

	// The limit of members is of all nodes together, and who is a member already
	// is let in.
	small := appNamed("small")
	for i := range 3 {
		pushertest.Dial(t, c[i%2].Addr, small, patient).Subscribe("presence-few", fmt.Sprintf(`{"user_id":"%d"}`, i))
		c.Settle(t)
	}
	more := pushertest.Dial(t, c[1].Addr, small, patient)
	more.SendSubscribe("presence-few", `{"user_id":"more"}`)
	more.ExpectSubscriptionError("presence-few", "LimitReached", 403, 4300)
	more.Subscribe("presence-few", `{"user_id":"0"}`)
}

func usersAreOfAllNodes(t *testing.T, c servertest.Cluster) {
	dial := func(node int) *pushertest.Client {
		t.Helper()
		return pushertest.Dial(t, c[node].Addr, appB, patient)
	}
	watcher := dial(0)
	watcher.Signin(`{"id":"watcher","watchlist":["u"]}`)
	watcher.Expect("pusher_internal:watchlist_events", "")
	online := func(want string) {
		t.Helper()
		if f := watcher.Expect("pusher_internal:watchlist_events", ""); !strings.Contains(f.Raw, want) {
			t.Errorf("got %s, want %s", f.Raw, want)
		}
	}
	var conns []*pushertest.Client
	for node := range c {
		conn := dial(node)
		conn.Signin(`{"id":"u"}`)
		conns = append(conns, conn)
		c.Settle(t)
	}
	online("online")
	bystander := dial(1)
	bystander.Signin(`{"id":"v"}`)
	for _, s := range c {
		pushertest.NewAPI(t, s.Addr, appB).Trigger("#server-to-user-u", "greet", "hello")
		for _, conn := range conns {
			conn.Expect("greet", "#server-to-user-u")
		}
	}
	pushertest.NewAPI(t, c[0].Addr, appB).Publish(pushertest.Event{Name: "greet", Channel: "#server-to-user-u", Data: "x", SocketID: conns[1].SocketID}).Expect(200)
	conns[0].Expect("greet", "#server-to-user-u")
	pushertest.NewAPI(t, c[1].Addr, appB).Terminate("u")
	for _, conn := range conns {
		conn.ExpectFail(4009)
		conn.ExpectEnd()
	}
	online("offline")
	watcher.Quiet()
	bystander.Quiet()

	again := dial(1)
	again.Signin(`{"id":"u"}`)
	online("online")
	pushertest.NewAPI(t, c[0].Addr, appB).Post("/users/u/force_reconnect", "{}").Expect(200)
	again.ExpectFail(4200)
	online("offline")
}

func lastEventsAreOfAllNodes(t *testing.T, c servertest.Cluster) {
	settle := settler(t, c)
	apis := []*pushertest.API{pushertest.NewAPI(t, c[0].Addr, plain), pushertest.NewAPI(t, c[1].Addr, plain)}
	for _, channel := range []string{"cache-c", "private-cache-c", "presence-cache-c", "private-encrypted-cache-c"} {
		data := []string{}
		if strings.HasPrefix(channel, "presence-") {
			data = append(data, `{"user_id":"1"}`)
		}
		for n := range 4 {
			apis[n%2].Trigger(channel, "e", fmt.Sprint(n))
			settle(t)
			for _, s := range c {
				client := pushertest.Dial(t, s.Addr, plain, patient)
				client.Subscribe(channel, data...)
				if got := client.Expect("e", channel).Text(t); got != fmt.Sprint(n) {
					t.Errorf("%s: replayed %s, want %d", channel, got, n)
				}
				client.Close(1000)
				var info struct{ Cache struct{ Data string } }
				pushertest.NewAPI(t, s.Addr, plain).Get("/channels/"+channel, "info", "cache").Expect(200).JSON(&info)
				if info.Cache.Data != fmt.Sprint(n) {
					t.Errorf("%s: GET says %q, want %d", channel, info.Cache.Data, n)
				}
			}
		}
	}
}

// While one node publishes, clients subscribe at the other: each of them gets an
// unbroken rest of the events, whatever cache there is.
func TestReplayOnOneNodeFollowsPublishingOnAnother(t *testing.T) {
	for _, broker := range brokers[:2] {
		t.Run(broker.name, func(t *testing.T) {
			c := broker.start(t, 2, func(cfg *config.Config) {
				if broker.name == "redis" {
					cfg.Cache.Driver, cfg.Cache.Redis.URLOverride = "redis", cfg.Adapter.Redis.Pub.URL
				}
			})
			publishWhileOthersSubscribe(t, c)
		})
	}
}

func publishWhileOthersSubscribe(t *testing.T, c servertest.Cluster) {
	api := pushertest.NewAPI(t, c[0].Addr, plain)
	channel := fmt.Sprint("cache-order-", time.Now().UnixNano()) // Redis remembers
	stop := make(chan struct{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		for n := 0; ; n++ {
			select {
			case <-stop:
				return
			default:
				api.Trigger(channel, "e", fmt.Sprint(n))
			}
		}
	}()
	for range 60 {
		client := pushertest.Dial(t, c[1].Addr, plain, patient)
		client.Subscribe(channel)
		unbroken(t, client, 5)
		client.Cut()
	}
	close(stop)
	<-done
}

// unbroken takes events that are numbers, each one more than the one before.
func unbroken(t *testing.T, c *pushertest.Client, events int) {
	t.Helper()
	last := -1
	for range events {
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
}

func TestQuotaIsOfAllNodes(t *testing.T) {
	c := serveCluster(t, 2, nil)
	single := appNamed("single")
	first := pushertest.Dial(t, c[0].Addr, single, patient)
	c.Settle(t)
	second, refused := pushertest.DialRaw(t, c[1].Addr, single, patient)
	if refused != nil {
		t.Fatal("refused over HTTP")
	}
	second.ExpectFail(4004)
	first.Close(1000)
	eventually(t, "the first is gone", func() bool { return c[0].Hub().App(single.ID).Connections() == 0 })
	c.Settle(t)
	pushertest.Dial(t, c[1].Addr, single, patient)
}

func quickDeath(cfg *config.Config) {
	cfg.Adapter.ClusterHealth.HeartbeatInterval, cfg.Adapter.ClusterHealth.NodeTimeout = 1000, 3000
}

// A node that is gone without a word is noticed within the timeout and a
// second, and what it had is gone for everybody else, told once.
func TestDeathOfANode(t *testing.T) {
	items(t, 337)
	c, cables := servertest.StartCabled(t, 3, profile(quickDeath))
	watcher := pushertest.Dial(t, c[0].Addr, appB, patient)
	watcher.Subscribe("presence-x", `{"user_id":"watcher"}`)
	watcher.Signin(`{"id":"watcher","watchlist":["dead","both"]}`)
	watcher.Expect("pusher_internal:watchlist_events", "")
	counted := pushertest.Dial(t, c[0].Addr, appB, patient)
	counted.Subscribe("counted")
	counted.Expect("pusher_internal:subscription_count", "counted")
	c.Settle(t) // or doomed is told that watcher comes

	sign := func(node int, id string) *pushertest.Client {
		t.Helper()
		client := pushertest.Dial(t, c[node].Addr, appB, patient)
		client.Signin(fmt.Sprintf(`{"id":%q}`, id))
		client.Subscribe("presence-x", fmt.Sprintf(`{"user_id":%q}`, id))
		return client
	}
	doomed := sign(2, "dead")
	doomed.Subscribe("counted")
	doomed.SendSubscribe("only-there")
	doomed.Await("pusher_internal:subscription_succeeded", "only-there")
	sign(2, "both")
	sign(1, "both")
	c.Settle(t)
	var frames []string
	for _, f := range watcher.Drain() {
		frames = append(frames, f.Event)
	}
	slices.Sort(frames)
	if want := []string{"pusher_internal:member_added", "pusher_internal:member_added", "pusher_internal:watchlist_events", "pusher_internal:watchlist_events"}; !slices.Equal(frames, want) {
		t.Fatalf("before the death: %v", frames)
	}
	counted.Expect("pusher_internal:subscription_count", "counted")

	began := time.Now()
	cables[2].Cut()
	removed := watcher.Await("pusher_internal:member_removed", "presence-x")
	if took := time.Since(began); took > 3*time.Second+time.Second+servertest.Slack {
		t.Errorf("noticed after %v", took)
	}
	if !strings.Contains(removed.Raw, "dead") {
		t.Errorf("got %s, want the removal of dead", removed.Raw)
	}
	if f := watcher.Await("pusher_internal:watchlist_events", ""); !strings.Contains(f.Raw, "offline") || !strings.Contains(f.Raw, "dead") {
		t.Errorf("got %s, want dead to be offline", f.Raw)
	}
	if f := counted.Expect("pusher_internal:subscription_count", "counted"); !strings.Contains(f.Raw, `:1}`) {
		t.Errorf("got %s, want a count of 1", f.Raw)
	}
	alive := c[:2]
	alive.Settle(t)
	watcher.Quiet()
	for _, s := range alive {
		var list struct{ Channels map[string]json.RawMessage }
		pushertest.NewAPI(t, s.Addr, appB).Get("/channels").Expect(200).JSON(&list)
		if _, there := list.Channels["only-there"]; there || len(list.Channels) != 2 {
			t.Errorf("channels %v", list.Channels)
		}
	}

	// What was cut off comes back whole.
	cables[2].Mend()
	c.Settle(t)
	if f := watcher.Await("pusher_internal:member_added", "presence-x"); !strings.Contains(f.Raw, "dead") {
		t.Errorf("got %s, want dead to be back", f.Raw)
	}
}

// A node that is stopped says goodbye when its last client has left: the others
// do not wait for a timeout.
func TestStoppedNodeSaysGoodbye(t *testing.T) {
	c := serveCluster(t, 2, nil)
	watcher := pushertest.Dial(t, c[0].Addr, plain, patient)
	watcher.Subscribe("presence-x", `{"user_id":"1"}`)
	c.Settle(t)
	leaving := pushertest.Dial(t, c[1].Addr, plain, patient)
	leaving.Subscribe("presence-x", `{"user_id":"2"}`)
	watcher.Expect("pusher_internal:member_added", "presence-x")
	if err := c[1].Stop(); err != nil {
		t.Fatal(err)
	}
	leaving.ExpectFail(4200)
	watcher.Expect("pusher_internal:member_removed", "presence-x")
	eventually(t, "the other node is forgotten", func() bool { return len(c[0].Peers().Status().Peers) == 0 })
	watcher.Quiet()
	if n := len(c[0].Peers().Status().Peers); n != 0 {
		t.Errorf("%d peers are left", n)
	}
}

// While a node cannot reach the broker it serves its own clients, says that it
// is not ready, and takes nothing that it cannot pass on.
func TestCutOffNodeSaysSo(t *testing.T) {
	c, cables := servertest.StartCabled(t, 2, profile(func(cfg *config.Config) {
		quickDeath(cfg)
		cfg.HealthCheckTimeout = 5000
	}))
	a, b := pushertest.Dial(t, c[0].Addr, plain, patient), pushertest.Dial(t, c[1].Addr, plain, patient)
	for _, client := range []*pushertest.Client{a, b} {
		client.Subscribe("private-x")
	}
	b.Signin(`{"id":"u"}`)
	up := func(s *servertest.Server) int {
		resp, err := http.Get("http://" + s.Addr + "/up")
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		return resp.StatusCode
	}
	if got := up(c[0]); got != 200 {
		t.Fatalf("/up answers %d", got)
	}
	cables[0].Cut()
	eventually(t, "/up of the node that is cut off answers 503", func() bool { return up(c[0]) == 503 })
	api := pushertest.NewAPI(t, c[0].Addr, plain)
	resp := api.Publish(pushertest.Event{Name: "e", Channel: "private-x", Data: "1"}).Expect(503)
	if resp.Header.Get("Retry-After") == "" {
		t.Error("no Retry-After")
	}
	a.Expect("e", "private-x") // who is here gets it nevertheless
	api.Post("/users/u/terminate_connections", "{}").Expect(503)
	a.Emit("client-e", "private-x", 1)
	a.ExpectError(4300)
	a.SendSubscribe("first-of-its-channel")
	a.ExpectSubscriptionError("first-of-its-channel", "ServiceUnavailable", 503, 4300)
	a.SendSignin(`{"id":"first"}`)
	a.ExpectError(4300)
	b.Quiet()

	cables[0].Mend()
	eventually(t, "the node is ready again", func() bool { return up(c[0]) == 200 })
	api.Trigger("private-x", "e", "2")
	for _, client := range []*pushertest.Client{a, b} {
		if got := client.Expect("e", "private-x").Text(t); got != "2" {
			t.Errorf("got %s, want 2", got)
		}
	}
	a.Subscribe("first-of-its-channel")
}
