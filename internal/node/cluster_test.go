package node

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"sockudo/internal/cache"
	"sockudo/internal/cluster"
	"sockudo/internal/cluster/bustest"
	"sockudo/internal/hub"
	"sockudo/internal/protocol"
)

// nodes are several nodes that share a broker in memory, in a bubble of time.
type nodes struct {
	all    []*rig
	cables []*bustest.Cable
	hooks  []*recorder
}

// among starts nodes, each with a memory cache of its own unless edit says
// otherwise, and returns when they know each other.
func among(t *testing.T, count int, edit func(i int, opts *Options)) *nodes {
	t.Helper()
	broker := cluster.NewMemoryBus()
	ns := &nodes{}
	for i := range count {
		hooks := &recorder{}
		opts := Options{Hooks: hooks, PeerTimeout: time.Second}
		if edit != nil {
			edit(i, &opts)
		}
		cable := bustest.NewCable(broker.Connect())
		ns.all = append(ns.all, start(t, cable, memory(), opts))
		ns.cables, ns.hooks = append(ns.cables, cable), append(ns.hooks, hooks)
	}
	time.Sleep(10 * time.Second)
	for i, r := range ns.all {
		if err := r.cluster.Ready(); err != nil {
			t.Fatalf("node %d: %v", i, err)
		}
	}
	return ns
}

func (ns *nodes) stop() {
	for _, r := range ns.all {
		r.stop()
	}
}

// watch puts a member on the room at each node.
func (ns *nodes) watch() (watchers []*client) {
	for i, r := range ns.all {
		w := r.connect()
		w.join(room, fmt.Sprint("w", i))
		watchers = append(watchers, w)
		ns.settle()
	}
	return watchers
}

// say sends a client event to all other subscribers, on all nodes.
func (c *client) say(channel string) error {
	return c.r.Relay(c.Subscription(channel), c.Socket, "client-e", []byte("1"))(context.Background())
}

// settle lets everything arrive that is on its way.
func (ns *nodes) settle() {
	time.Sleep(100 * time.Millisecond)
	synctest.Wait()
}

// told returns what the hooks of all nodes were told since the last call.
func (ns *nodes) told() (events []string) {
	for _, h := range ns.hooks {
		events = append(events, h.take()...)
	}
	return events
}

// orders returns all orders of n joins and leaves in which each leave follows
// its join: a list of who does the next step.
func orders(n int) (all [][]int) {
	var steps []int
	done := make([]int, n)
	var next func()
	next = func() {
		if len(steps) == 2*n {
			all = append(all, slices.Clone(steps))
			return
		}
		for i := range n {
			if done[i] < 2 {
				done[i]++
				steps = append(steps, i)
				next()
				steps = steps[:len(steps)-1]
				done[i]--
			}
		}
	}
	next()
	return all
}

const room = "presence-room"

var (
	added   = string(protocol.AppendMemberAdded(nil, room, protocol.Member{ID: "u", Info: "{}"}))
	removed = string(protocol.AppendMemberRemoved(nil, room, "u"))
)

// Item 334 of the checklist: the same user at three nodes, joins and leaves in
// every order. Each subscriber learns of each change exactly once, and so do the
// hooks of the whole cluster.
func TestEveryOrderOfJoinsAndLeavesAtThreeNodes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ns := among(t, 3, nil)
		defer ns.stop()
		watchers := ns.watch()
		all := orders(3)
		if len(all) != 90 {
			t.Fatalf("%d orders, want 90", len(all))
		}
		for _, order := range all {
			ns.told()
			for _, w := range watchers {
				w.take()
			}
			conns := make([]*client, 3)
			present := 0
			for step, i := range order {
				want, hooks := []string(nil), []string(nil)
				if conns[i] == nil {
					if present++; present == 1 {
						want, hooks = []string{added}, []string{"app member_added " + room + " u"}
					}
					conns[i] = ns.all[i].connect()
					conns[i].join(room, "u")
					if got := ids(conns[i].take()[0]); got != "u w0 w1 w2" {
						t.Fatalf("%v, step %d: the snapshot has %s", order, step, got)
					}
				} else {
					if present--; present == 0 {
						want, hooks = []string{removed}, []string{"app member_removed " + room + " u"}
					}
					conns[i].leave(room)
				}
				ns.settle()
				for n, w := range watchers {
					if got := w.take(); !slices.Equal(got, want) {
						t.Fatalf("%v, step %d: the watcher at node %d got %v, want %v", order, step, n, got, want)
					}
				}
				for _, c := range conns {
					if c != nil {
						c.take()
					}
				}
				if got := ns.told(); !slices.Equal(got, hooks) {
					t.Fatalf("%v, step %d: the hooks were told %v, want %v", order, step, got, hooks)
				}
				for n, r := range ns.all {
					wantUsers := 3
					if present > 0 {
						wantUsers++
					}
					if got := r.Counts(r.app, room); got != (Counts{3 + present, wantUsers}) {
						t.Fatalf("%v, step %d: node %d counts %+v", order, step, n, got)
					}
				}
			}
			for _, c := range conns {
				c.Conn.Close(1000, "")
			}
			ns.settle()
		}
	})
}

// ids returns the members of a snapshot in order.
func ids(frame string) string {
	var list []string
	for _, id := range []string{"u", "w0", "w1", "w2"} {
		if strings.Contains(frame, `\"`+id+`\":`) {
			list = append(list, id)
		}
	}
	return strings.Join(list, " ")
}

// The same without waiting for anything in between: what a subscriber is told
// never contradicts what it was told before, and ends with the truth.
func TestJoinsAndLeavesInAHurryEndWithTheTruth(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ns := among(t, 3, nil)
		defer ns.stop()
		screens := make([]bool, 3)
		watchers := ns.watch()
		for round, order := range orders(3) {
			for _, w := range watchers {
				w.take()
			}
			steps := order[:3+round%4] // some stay
			conns := make([]*client, 3)
			for _, i := range steps {
				if conns[i] == nil {
					conns[i] = ns.all[i].connect()
					conns[i].join(room, "u")
				} else {
					conns[i].leave(room)
				}
				time.Sleep(time.Duration(round%3) * 3 * time.Millisecond)
			}
			ns.settle()
			present := false
			for _, c := range conns {
				present = present || c != nil && c.Subscription(room) != nil
			}
			for n, w := range watchers {
				for _, f := range w.take() {
					if f == added == screens[n] || f != added && f != removed {
						t.Fatalf("%v: the watcher at node %d has u %v and got %s", steps, n, screens[n], f)
					}
					screens[n] = f == added
				}
				if screens[n] != present {
					t.Fatalf("%v: the watcher at node %d has u %v, want %v", steps, n, screens[n], present)
				}
			}
			for _, c := range conns {
				if c != nil {
					c.Conn.Close(1000, "")
				}
			}
			ns.settle()
			for n, w := range watchers {
				for _, f := range w.take() {
					screens[n] = f == added
				}
				if screens[n] {
					t.Fatalf("%v: u is still there for node %d", steps, n)
				}
			}
		}
	})
}

// Hooks are told by one node what happens on any, also when the only node that
// had a channel dies.
func TestHooksOfACluster(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ns := among(t, 3, nil)
		defer ns.stop()
		told := func(what string, want ...string) {
			t.Helper()
			ns.settle()
			same(t, what, ns.told(), want...)
		}
		a, b, c := ns.all[0].connect(), ns.all[1].connect(), ns.all[2].connect()
		for i := range 20 { // so that every node is responsible for some of them
			x := fmt.Sprint("x", i)
			a.join(x, "")
			told("first join", "app channel_occupied "+x, "app subscription_count "+x+" 1")
			b.join(x, "")
			told("second join", "app subscription_count "+x+" 2")
			a.leave(x)
			told("first leave", "app subscription_count "+x+" 1")
			b.leave(x)
			told("second leave", "app subscription_count "+x+" 0", "app channel_vacated "+x)
		}
		a.join("private-x", "")
		if err := a.say("private-x"); err != nil {
			t.Fatal(err)
		}
		ns.settle()
		if n := times(ns.told(), "app client_event private-x client-e 1 "+a.ID.String()+" "); n != 1 {
			t.Errorf("a client event was told %d times", n)
		}

		for i := range 10 {
			c.join(fmt.Sprint("presence-", i), "u")
		}
		ns.settle()
		ns.told()
		ns.cables[2].Cut()
		time.Sleep(10 * time.Second)
		events := append(ns.hooks[0].take(), ns.hooks[1].take()...)
		for i := range 10 {
			for _, want := range []string{fmt.Sprintf("app member_removed presence-%d u", i), fmt.Sprintf("app channel_vacated presence-%d", i)} {
				if n := times(events, want); n != 1 {
					t.Errorf("%s was told %d times", want, n)
				}
			}
		}
	})
}

// Fifty misses at the same time, at three nodes, are one for the hooks.
func TestMissesAtSeveralNodesAreOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ns := among(t, 3, nil)
		defer ns.stop()
		for i := range 20 {
			channel := fmt.Sprint("cache-", i)
			var wg sync.WaitGroup
			for n := range 50 {
				wg.Go(func() { ns.all[n%3].connect().join(channel, "") })
			}
			wg.Wait()
			ns.settle()
			if n := times(ns.told(), "app cache_miss "+channel); n != 1 {
				t.Errorf("50 misses of %s were told %d times", channel, n)
			}
		}
	})
}

// Item 336 of the checklist, with a cache of each node and with one that they
// share: an event that was published on one node is replayed on every other.
func TestEveryNodeReplaysTheLastEvent(t *testing.T) {
	for _, shared := range []bool{false, true} {
		t.Run(fmt.Sprint("shared ", shared), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				one := memory()
				ns := among(t, 3, func(_ int, opts *Options) { opts.CacheShared = shared })
				if shared {
					for _, r := range ns.all {
						r.cache = one
					}
				}
				defer ns.stop()
				const channel = "cache-x"
				live := ns.all[1].connect()
				live.join(channel, "")
				live.take()
				for n := range 6 {
					if err := ns.all[n%3].publish(channel, fmt.Sprint(n)); err != nil {
						t.Fatal(err)
					}
					ns.settle()
					same(t, "live", live.take(), event(channel, fmt.Sprint(n)))
					for i, r := range ns.all {
						c := r.connect()
						c.join(channel, "")
						got := c.take()
						same(t, fmt.Sprintf("replay at node %d", i), got[1:2], event(channel, fmt.Sprint(n)))
						c.leave(channel)
						data, ttl, ok, err := r.LastEvent(t.Context(), r.app, channel)
						if err != nil || !ok || data != fmt.Sprint(n) || ttl <= 0 {
							t.Errorf("node %d: last event %q %v %v %v", i, data, ttl, ok, err)
						}
					}
					live.take() // counts
				}
				// Client events are no last events.
				ns.all[0].connect().join("private-cache-y", "")
				sender := ns.all[1].connect()
				sender.join("private-cache-y", "")
				if err := sender.say("private-cache-y"); err != nil {
					t.Fatal(err)
				}
				ns.settle()
				for _, r := range ns.all {
					if _, _, ok, _ := r.LastEvent(t.Context(), r.app, "private-cache-y"); ok {
						t.Error("a client event is replayed")
					}
				}
			})
		})
	}
}

// A lazy cache takes its time before and after it does something.
type lazy struct{ cache.Cache }

func nap() { time.Sleep(time.Duration(rand.IntN(1000)) * time.Microsecond) }

func (c lazy) Get(ctx context.Context, key string) ([]byte, time.Duration, error) {
	nap()
	defer nap()
	return c.Cache.Get(ctx, key)
}

func (c lazy) Set(ctx context.Context, key string, value []byte, ttl time.Duration) error {
	nap()
	defer nap()
	return c.Cache.Set(ctx, key, value, ttl)
}

// A lazy bus does so too, and when it delivers.
type lazyBus struct{ cluster.Bus }

type lazyEvents struct{ cluster.Events }

func (b lazyBus) Publish(ctx context.Context, topic string, msg []byte) error {
	nap()
	defer nap()
	return b.Bus.Publish(ctx, topic, msg)
}

func (b lazyBus) Run(ctx context.Context, on cluster.Events) error {
	return b.Bus.Run(ctx, lazyEvents{on})
}

func (e lazyEvents) Message(topic string, msg []byte) {
	nap()
	e.Events.Message(topic, msg)
}

// Who subscribes at one node while another publishes gets an unbroken rest,
// wherever on its way an event is.
func TestReplayIsFollowedByWhatComesAfterIt(t *testing.T) {
	for _, shared := range []bool{false, true} {
		t.Run(fmt.Sprint("shared ", shared), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				broker, one := cluster.NewMemoryBus(), lazy{memory()}
				var all []*rig
				for range 2 {
					c := cache.Cache(one)
					if !shared {
						c = memory()
					}
					r := start(t, lazyBus{broker.Connect()}, c, Options{CacheShared: shared})
					defer r.stop()
					all = append(all, r)
				}
				time.Sleep(10 * time.Second)
				const channel, events = "cache-x", 1000
				var publishing, joining sync.WaitGroup
				publishing.Go(func() {
					for n := range events {
						if err := all[0].publish(channel, fmt.Sprint(n)); err != nil {
							t.Error(err)
						}
					}
				})
				clients := make([]*client, 200)
				for i := range clients {
					joining.Go(func() {
						time.Sleep(time.Duration(rand.IntN(1000)) * time.Millisecond)
						clients[i] = all[rand.IntN(2)].connect()
						clients[i].join(channel, "")
					})
				}
				joining.Wait()
				publishing.Wait()
				time.Sleep(time.Second)
				synctest.Wait()
				for i, c := range clients {
					last := -1
					for _, f := range c.take() {
						m, err := protocol.Decode([]byte(f))
						if err != nil {
							t.Fatal(err)
						}
						if m.Event != "e" {
							continue
						}
						var n int
						if _, err := fmt.Sscan(m.Data.Text(), &n); err != nil {
							t.Fatal(err)
						}
						if last >= 0 && n != last+1 {
							t.Fatalf("client %d: event %d after event %d", i, n, last)
						}
						last = n
					}
					if last != events-1 {
						t.Fatalf("client %d: the last event was %d, want %d", i, last, events-1)
					}
				}
			})
		})
	}
}

// A node with a cache of its own that was cut off for so long that nobody can
// say again what it missed replays nothing rather than an old event.
func TestNothingStaleIsReplayedAfterAnOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ns := among(t, 2, nil)
		defer ns.stop()
		a, b := ns.all[0], ns.all[1]
		const channel = "cache-x"
		replayed := func(r *rig) string {
			c := r.connect()
			c.join(channel, "")
			return c.take()[1]
		}
		if err := a.publish(channel, "old"); err != nil {
			t.Fatal(err)
		}
		ns.settle()
		if got := replayed(b); got != event(channel, "old") {
			t.Fatalf("got %s", got)
		}
		ns.cables[1].Cut()
		if err := a.publish(channel, "new"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Second)
		ns.cables[1].Mend()
		ns.settle()
		if got, want := replayed(b), string(protocol.AppendCacheMiss(nil, channel)); got != want {
			t.Errorf("after the outage: %s, want %s", got, want)
		}
		if got := replayed(a); got != event(channel, "new") {
			t.Errorf("at the other node: %s", got)
		}
		if err := a.publish(channel, "newest"); err != nil {
			t.Fatal(err)
		}
		ns.settle()
		if got := replayed(b); got != event(channel, "newest") {
			t.Errorf("after the next event: %s", got)
		}
	})
}

func TestWithoutABroker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ns := among(t, 2, nil)
		defer ns.stop()
		r := ns.all[0]
		a, b := r.connect(), ns.all[1].connect()
		a.join("private-x", "")
		b.join("private-x", "")
		ns.settle()
		a.take()
		b.take()
		ns.cables[0].Cut()

		if err := r.publish("private-x", "1"); !errors.Is(err, ErrUnavailable) {
			t.Errorf("publish: %v, want %v", err, ErrUnavailable)
		}
		same(t, "here", a.take(), event("private-x", "1"))
		if err := r.publish("cache-x", "1"); !errors.Is(err, ErrUnavailable) {
			t.Errorf("publish on a cache channel: %v, want %v", err, ErrUnavailable)
		}
		if err := r.Disconnect(t.Context(), r.app, "u", 4009, ""); err == nil {
			t.Error("the connections of a user were ended everywhere")
		}
		if err := r.ChangeApp(t.Context(), r.app.ID); err == nil {
			t.Error("all nodes were told of a change")
		}
		if err := a.say("private-x"); !errors.Is(err, ErrUnavailable) {
			t.Errorf("client event: %v, want %v", err, ErrUnavailable)
		}

		began := time.Now()
		var refused *protocol.SubscriptionError
		if err := a.tryJoin("y", ""); !errors.As(err, &refused) || refused.Status != 503 || refused.Type != protocol.TypeUnavailable {
			t.Errorf("first join: %v", err)
		}
		if took := time.Since(began); took > 2*time.Second {
			t.Errorf("told after %v", took)
		}
		if a.Subscription("y") != nil {
			t.Error("joined nevertheless")
		}
		var soft *protocol.Error
		if err := r.SignIn(t.Context(), r.app, a.Socket, protocol.UserData{ID: "u"}, "{}"); !errors.As(err, &soft) || soft.Code != protocol.CodeGeneric {
			t.Errorf("sign-in: %v", err)
		}
		c := r.connect()
		if err := r.TryJoin(r.app, c.Socket, "private-x", nil); err != nil {
			t.Errorf("a later join of a channel that is heard: %v", err)
		}
		ns.settle()
		same(t, "at the other node", b.take())

		ns.cables[0].Mend()
		time.Sleep(3 * time.Second)
		a.join("y", "")
		if err := r.publish("private-x", "2"); err != nil {
			t.Error(err)
		}
		ns.settle()
		same(t, "at the other node afterwards", b.take()[1:], event("private-x", "2")) // a count before it
	})
}

// slowBus confirms topics when it is told to.
type slowBus struct {
	cluster.Bus
	confirm chan struct{}
}

func (b slowBus) Subscribe(ctx context.Context, topic string) error {
	if strings.HasSuffix(topic, ":slow") {
		<-b.confirm
	}
	return b.Bus.Subscribe(ctx, topic)
}

// The first subscriber of a channel has to wait until nothing can be missed,
// the ones after it do not, and none does while the topic lingers.
func TestOnlyTheFirstSubscriberWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broker := cluster.NewMemoryBus()
		bus := slowBus{broker.Connect(), make(chan struct{})}
		r := start(t, bus, memory(), Options{})
		defer r.stop()
		other := start(t, broker.Connect(), memory(), Options{})
		defer other.stop()
		time.Sleep(10 * time.Second)

		first, second := r.connect(), r.connect()
		if err := r.TryJoin(r.app, first.Socket, "slow", nil); !errors.Is(err, ErrWait) {
			t.Fatalf("first: %v, want %v", err, ErrWait)
		}
		joined := make(chan error)
		go func() { joined <- r.Join(context.Background(), r.app, first.Socket, "slow", nil) }()
		synctest.Wait()
		if got := first.take(); got != nil {
			t.Errorf("before the topic is confirmed: %v", got)
		}
		if err := r.TryJoin(r.app, second.Socket, "slow", nil); !errors.Is(err, ErrWait) {
			t.Errorf("second, before the topic is confirmed: %v, want %v", err, ErrWait)
		}
		close(bus.confirm)
		if err := <-joined; err != nil {
			t.Fatal(err)
		}
		if err := other.publish("slow", "1"); err != nil {
			t.Fatal(err)
		}
		if err := r.TryJoin(r.app, second.Socket, "slow", nil); err != nil {
			t.Errorf("second: %v", err)
		}
		synctest.Wait()
		if got := first.take(); !slices.Contains(got, event("slow", "1")) {
			t.Errorf("the first got %v", got)
		}
		r.Leave(first.Socket, first.Subscription("slow"))
		r.Leave(second.Socket, second.Subscription("slow"))
		time.Sleep(time.Second)
		if err := r.TryJoin(r.app, first.Socket, "slow", nil); err != nil {
			t.Errorf("a moment after the last one has left: %v", err)
		}
		r.Leave(first.Socket, first.Subscription("slow"))
		time.Sleep(time.Minute)
		if err := r.TryJoin(r.app, first.Socket, "slow", nil); !errors.Is(err, ErrWait) {
			t.Errorf("a minute after the last one has left: %v, want %v", err, ErrWait)
		}
	})
}

// Every want is ended: a node without clients hears nothing.
func TestNodeWithoutClientsWantsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ns := among(t, 2, nil)
		defer ns.stop()
		r := ns.all[0]
		small := *r.app
		small.Limits.PresenceMembers = 1
		for range 3 {
			a, b := r.connect(), r.connect()
			for _, c := range []*client{a, b} {
				if err := r.SignIn(t.Context(), r.app, c.Socket, protocol.UserData{ID: "u"}, "{}"); err != nil {
					t.Fatal(err)
				}
				c.join("x", "")
				c.join("cache-x", "")
				c.join(protocol.UserPrefix+"u", "")
			}
			if err := r.SignIn(t.Context(), r.app, a.Socket, protocol.UserData{ID: "u"}, "{}"); err != nil {
				t.Errorf("the same user again: %v", err)
			}
			if err := r.SignIn(t.Context(), r.app, a.Socket, protocol.UserData{ID: "v"}, "{}"); err == nil {
				t.Error("signed in as somebody else")
			}
			a.join("presence-x", "1")
			if err := r.Join(t.Context(), &small, b.Socket, "presence-x", &protocol.Member{ID: "2", Info: "{}"}); err == nil {
				t.Error("joined a full channel")
			}
			a.leave("x")
			a.Conn.Close(1000, "")
			b.Conn.Close(1000, "")
			time.Sleep(time.Minute)
			for _, channel := range []string{"x", "cache-x", "presence-x", protocol.UserPrefix + "u", protocol.UserPrefix + "v"} {
				if r.cluster.Interested(cluster.Topic{App: r.app.ID, Channel: channel}) {
					t.Errorf("%s is still wanted", channel)
				}
			}
		}
		if got := r.hub.Sizes(); got != (hub.Sizes{Apps: 1}) {
			t.Errorf("the hub holds %+v", got)
		}
	})
}

// A user is signed in, reachable and online wherever a connection is.
func TestUsersOfAllNodes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		changed := make([][]string, 3)
		ns := among(t, 3, func(i int, opts *Options) {
			opts.AppChanged = func(id string) { changed[i] = append(changed[i], id) }
		})
		defer ns.stop()
		in := func(c *client, user string, watch ...string) {
			t.Helper()
			if err := c.r.SignIn(t.Context(), c.r.app, c.Socket, protocol.UserData{ID: user, Watchlist: watch}, "{}"); err != nil {
				t.Fatal(err)
			}
			ns.settle()
		}
		online := func(id string) string { return string(protocol.AppendWatchlist(nil, []string{id}, nil)) }
		offline := func(id string) string { return string(protocol.AppendWatchlist(nil, nil, []string{id})) }
		watcher := ns.all[0].connect()
		in(watcher, "w", "u")
		same(t, "before", watcher.take()[1:], offline("u"))
		conns := []*client{ns.all[0].connect(), ns.all[1].connect(), ns.all[2].connect()}
		for _, c := range conns {
			in(c, "u")
			c.take()
		}
		same(t, "three sign-ins", watcher.take(), online("u"))
		late := ns.all[2].connect()
		in(late, "l", "u")
		same(t, "who watches later", late.take()[1:], online("u"))

		channel := protocol.UserPrefix + "u"
		if err := ns.all[1].publish(channel, "hello"); err != nil {
			t.Fatal(err)
		}
		ns.settle()
		for i, c := range conns {
			same(t, fmt.Sprint("user event at node ", i), c.take(), event(channel, "hello"))
		}
		if err := ns.all[1].ChangeApp(t.Context(), "app"); err != nil {
			t.Fatal(err)
		}
		ns.settle()
		for i, got := range changed {
			same(t, fmt.Sprint("changed app at node ", i), got, "app")
		}
		if err := ns.all[1].Disconnect(t.Context(), ns.all[1].app, "u", 4009, "bye"); err != nil {
			t.Fatal(err)
		}
		ns.settle()
		for i, c := range conns {
			same(t, fmt.Sprint("terminated at node ", i), c.take(), string(protocol.AppendError(nil, 4009, "bye")))
			if c.Conn.Send(nil) {
				t.Errorf("the connection at node %d is open", i)
			}
		}
		same(t, "after the end", watcher.take(), offline("u"))
		same(t, "after the end, who watched later", late.take(), offline("u"))
	})
}
