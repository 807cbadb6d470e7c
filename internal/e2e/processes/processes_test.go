package processes

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
)

// A site is three nodes and their broker.
type site struct {
	*broker
	nodes []*node
}

func start(t *testing.T, driver string) *site {
	t.Helper()
	s := &site{broker: brokers[driver](t)}
	for i := range last + 1 {
		s.nodes = append(s.nodes, newNode(t, s.adapter(i)))
	}
	for _, n := range s.nodes {
		n.launch(t)
	}
	s.awaitReady(t)
	return s
}

func (s *site) awaitReady(t *testing.T) {
	t.Helper()
	for _, n := range s.nodes {
		n.awaitReady(t)
	}
}

// traffic are clients of every node that publish and listen all the time.
type traffic struct {
	ears   []*ear // one of each node
	mouths []*mouth
	hush   []func()
}

func (s *site) traffic(t *testing.T, channel string) *traffic {
	t.Helper()
	tr := &traffic{}
	for i, n := range s.nodes {
		tr.ears = append(tr.ears, listen(t, fmt.Sprintf("ear at node %d", i), at(n), false, channel))
	}
	for i, n := range s.nodes {
		m, hush := speak(t, fmt.Sprint("mouth", i), channel, at(n), 10*time.Millisecond)
		tr.mouths, tr.hush = append(tr.mouths, m), append(tr.hush, hush)
	}
	tr.flow(t)
	return tr
}

// flow waits until every mouth is heard by every ear that is there.
func (tr *traffic) flow(t *testing.T, without ...int) {
	t.Helper()
	for i, m := range tr.mouths {
		if slices.Contains(without, i) {
			continue
		}
		first := len(m.all())
		for k, e := range tr.ears {
			if slices.Contains(without, k) {
				continue
			}
			e.until(t, m.name+" is heard", func() bool {
				for j := len(e.heard) - 1; j >= 0; j-- {
					var n int
					if number, ok := strings.CutPrefix(e.heard[j].data, m.name+":"); ok {
						_, err := fmt.Sscan(number, &n)
						return err == nil && n >= first
					}
				}
				return false
			})
		}
	}
}

// count ends the traffic and says what became of it.
func (tr *traffic) count(t *testing.T, without ...int) count {
	t.Helper()
	for _, hush := range tr.hush {
		hush()
	}
	var ears []*ear
	var mouths []*mouth
	for i := range tr.ears {
		if !slices.Contains(without, i) {
			ears, mouths = append(ears, tr.ears[i]), append(mouths, tr.mouths[i])
		}
	}
	c := account(t, mouths, ears)
	for _, e := range ears {
		e.proper(t)
	}
	return c
}

// orderly fails the test if messages came twice or out of order.
func (c count) orderly(t *testing.T) {
	t.Helper()
	if c.duplicated > 0 || c.disorder > 0 || c.due == 0 {
		t.Errorf("%v; want each once and in order", c)
	}
}

// complete fails the test if anything was lost either.
func (c count) complete(t *testing.T) {
	t.Helper()
	c.orderly(t)
	if c.lost > 0 {
		t.Errorf("%v; want none lost", c)
	}
}

// report is a line of the fault table in docs/scaling.md.
func report(t *testing.T, c count, format string, args ...any) {
	t.Helper()
	t.Logf("fault: %s; %v", fmt.Sprintf(format, args...), c)
}

// A member of a presence channel, at a node.
func (s *site) member(t *testing.T, i int, channel, user string) *ear {
	t.Helper()
	return listen(t, fmt.Sprintf("%s at node %d", user, i), at(s.nodes[i]), false, fmt.Sprintf(`%s {"user_id":%q}`, channel, user))
}

// agree waits until every node but some lists exactly these members, and
// watchers have seen the events that lead there.
func (s *site) agree(t *testing.T, channel string, watchers []*ear, want ...string) {
	t.Helper()
	want = slices.Sorted(slices.Values(want))
	for _, n := range s.nodes {
		if !n.running() {
			continue
		}
		eventually(t, "the node at "+n.addr+" lists the members of "+channel, func() error {
			var list struct{ Users []struct{ ID string } }
			get(t, n, "/channels/"+channel+"/users", &list)
			var got []string
			for _, u := range list.Users {
				got = append(got, u.ID)
			}
			slices.Sort(got)
			if !slices.Equal(got, want) {
				return fmt.Errorf("got %v, want %v", got, want)
			}
			return nil
		})
	}
	for _, w := range watchers {
		w.until(t, "the events lead to the list", func() bool {
			return slices.Equal(slices.Sorted(maps.Keys(w.members[channel])), want)
		})
		w.proper(t)
	}
}

// changes are the events of one user that a watcher has heard.
func (e *ear) changes(channel, user string) (kinds []string, latest time.Time) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, h := range e.heard {
		kind, ok := strings.CutPrefix(h.event, "pusher_internal:member_")
		if !ok || h.channel != channel {
			continue
		}
		var m struct {
			UserID string `json:"user_id"`
		}
		if json.Unmarshal([]byte(h.data), &m) == nil && m.UserID == user {
			kinds, latest = append(kinds, kind), h.at
		}
	}
	return kinds, latest
}

// TestProcesses runs everything with every driver, on the same nodes one after
// the other.
func TestProcesses(t *testing.T) {
	type test struct {
		name string
		run  func(t *testing.T, s *site)
	}
	all := []test{
		{"events", events},
		{"official clients", officialClients},
		{"presence in every order", presenceInEveryOrder},
		{"nobody waits for a node", nobodyWaits},
		{"a node is killed", killedNode},
		{"a node is frozen", frozenNode},
		{"the broker is flushed", flushedBroker},
		{"the broker is killed", killedBroker},
		{"a node is cut off", cutOffNode},
		{"a node starts without the broker", startWithoutBroker},
		{"all nodes are restarted", rollingRestart},
		{"all nodes are restarted, one is far from the broker", distantRestart},
	}
	for _, driver := range []string{"redis", "redis-cluster", "nats", "sentinel"} {
		t.Run(driver, func(t *testing.T) {
			t.Parallel()
			s := start(t, driver)
			for _, test := range all {
				switch {
				case s.flush == nil && strings.Contains(test.name, "flushed"):
					continue // NATS keeps nothing
				case s.slow == nil && strings.Contains(test.name, "far from the broker"):
					continue // the servers of a Redis Cluster name each other past any proxy
				case s.cutOff == nil && !strings.Contains(test.name, "the broker is"):
					continue // with Sentinels it is the failover that is new
				}
				if !t.Run(test.name, func(t *testing.T) { test.run(t, s) }) {
					return
				}
			}
		})
	}
}

func events(t *testing.T, s *site) {
	tr := s.traffic(t, "news")
	for range 5 {
		tr.flow(t)
	}

	// A socket is excluded wherever it is; a client event reaches the others.
	const private = "private-news"
	var ears []*ear
	for i, n := range s.nodes {
		ears = append(ears, listen(t, fmt.Sprintf("private ear at node %d", i), at(n), false, private))
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: patience}
	for i, n := range s.nodes {
		excluded := ears[(i+1)%len(ears)]
		body, _ := json.Marshal(map[string]any{"name": "x", "channel": private, "data": fmt.Sprint(i), "socket_id": excluded.socket})
		if status, _, answer := call(context.Background(), client, http.MethodPost, n, "/events", body); status != http.StatusOK {
			t.Fatalf("publish: %d %s", status, answer)
		}
		body, _ = json.Marshal(map[string]any{"name": "fence", "channel": private, "data": fmt.Sprint(i)})
		if status, _, answer := call(context.Background(), client, http.MethodPost, n, "/events", body); status != http.StatusOK {
			t.Fatalf("publish: %d %s", status, answer)
		}
		for k := range 100 {
			if err := ears[i].emit(private, "client-x", fmt.Sprintf("%d:%d", i, k)); err != nil {
				t.Fatal(err)
			}
		}
	}
	for i, e := range ears {
		want := map[string]int{"fence": len(ears), "client-x": 100 * (len(ears) - 1), "x": len(ears) - 1}
		for event, n := range want {
			e.until(t, fmt.Sprintf("%d times %s", n, event), func() bool {
				got := 0
				for _, h := range e.heard {
					if h.event == event {
						got++
					}
				}
				return got == n
			})
		}
		next := map[string]int{}
		for _, h := range e.events(private, "client-x") {
			from, number, _ := strings.Cut(h.data, ":")
			if number != fmt.Sprint(next[from]) {
				t.Fatalf("%s heard client event %s, want number %d", e.name, h.data, next[from])
			}
			next[from]++
		}
		for _, h := range e.events(private, "x") {
			if h.data == fmt.Sprint((i+len(ears)-1)%len(ears)) {
				t.Errorf("%s was excluded and heard %s", e.name, h.data)
			}
		}
		e.proper(t)
	}
	c := tr.count(t)
	c.complete(t)
	report(t, c, "none")
}

// presenceInEveryOrder has the same user at three nodes, coming and going in
// every order.
func presenceInEveryOrder(t *testing.T, s *site) {
	const channel = "presence-orders"
	var watchers []*ear
	var names []string
	for i := range s.nodes {
		names = append(names, fmt.Sprint("watcher", i))
		watchers = append(watchers, s.member(t, i, channel, names[i]))
	}
	orders := [][]int{{0, 1, 2}, {0, 2, 1}, {1, 0, 2}, {1, 2, 0}, {2, 0, 1}, {2, 1, 0}}
	type user struct {
		name       string
		come, go_  []int
		ears       []*ear
		lastLeaves time.Time
	}
	var users []*user
	for _, come := range orders {
		for _, leave := range orders {
			users = append(users, &user{name: fmt.Sprintf("u%v%v", come, leave), come: come, go_: leave, ears: make([]*ear, 3)})
		}
	}
	// Every step is known everywhere before the next one.
	subscriptions := func(want int) {
		t.Helper()
		for _, n := range s.nodes {
			eventually(t, fmt.Sprintf("%d subscriptions", want), func() error {
				var info struct {
					SubscriptionCount int `json:"subscription_count"`
				}
				get(t, n, "/channels/"+channel, &info, "info", "subscription_count")
				if info.SubscriptionCount != want {
					return fmt.Errorf("there are %d", info.SubscriptionCount)
				}
				return nil
			})
		}
	}
	all := slices.Clone(names)
	for _, u := range users {
		all = append(all, u.name)
	}
	for step := range 3 {
		for _, u := range users {
			u.ears[u.come[step]] = s.member(t, u.come[step], channel, u.name)
		}
		subscriptions(3 + (step+1)*len(users))
		s.agree(t, channel, watchers, all...)
	}
	for step := range 3 {
		for _, u := range users {
			u.lastLeaves = time.Now()
			u.ears[u.go_[step]].hang()
		}
		subscriptions(3 + (2-step)*len(users))
		if step < 2 {
			s.agree(t, channel, watchers, all...)
		}
	}
	s.agree(t, channel, watchers, names...)
	for _, u := range users {
		for _, w := range watchers {
			if kinds, at := w.changes(channel, u.name); !slices.Equal(kinds, []string{"added", "removed"}) || at.Before(u.lastLeaves) {
				t.Errorf("%s heard of %s: %v, at last %v after it left for good", w.name, u.name, kinds, at.Sub(u.lastLeaves))
			}
		}
		for _, e := range u.ears {
			e.proper(t)
		}
	}
}
