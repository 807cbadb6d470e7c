package hub

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"sockudo/internal/protocol"
	"sockudo/internal/ws"
)

func TestMain(m *testing.M) {
	// A failure prints its seed, which is enough; nothing goes into the tree.
	if err := flag.Set("rapid.nofailfile", "true"); err != nil {
		panic(err)
	}
	goleak.VerifyTestMain(m)
}

// A rig is a hub with real connections: sockets here, clients there.
type rig struct {
	t    testing.TB
	hub  *Hub
	addr string
	came chan *ws.Conn
}

type idle struct{ came chan *ws.Conn }

func (h idle) Open(c *ws.Conn)              { h.came <- c }
func (h idle) Message(*ws.Conn, []byte)     {}
func (h idle) Wake(*ws.Conn, time.Time)     {}
func (h idle) Closed(_ *ws.Conn, err error) {}

func newRig(t testing.TB) *rig { return newRigWith(t, Options{}) }

func newRigWith(t testing.TB, opts Options) *rig {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{t: t, hub: New(opts), addr: ln.Addr().String(), came: make(chan *ws.Conn, 1)}
	s := ws.NewServer(func(*http.Request) (ws.Handler, *ws.Refusal) { return idle{r.came}, nil }, ws.Options{MaxQueuedBytes: 64 << 20, MaxQueuedFrames: 1 << 20})
	api := &http.Server{}
	var wg sync.WaitGroup
	wg.Go(func() { _ = s.Serve(ln, api) })
	t.Cleanup(func() {
		_ = api.Close()
		ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
		defer cancel()
		_ = s.Shutdown(ctx)
		wg.Wait()
		r.hub.Wait()
	})
	return r
}

// An end is a socket with its client.
type end struct {
	*Socket
	client *ws.Client
}

func (r *rig) connect(ns *Namespace) *end {
	r.t.Helper()
	c, err := ws.Dial(context.Background(), "ws://"+r.addr+"/", ws.DialOptions{})
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = c.Close() })
	e := &end{&Socket{ID: protocol.NewSocketID(), Conn: <-r.came}, c}
	if err := ns.Add(e.Socket, true, 0); err != nil {
		r.t.Fatal(err)
	}
	return e
}

const sentinel = `{"event":"sentinel"}`

// drain returns all frames that were queued before.
func (e *end) drain(t testing.TB) []string {
	t.Helper()
	e.Conn.Send(ws.TextFrame([]byte(sentinel)))
	var frames []string
	for {
		m, err := e.client.Read()
		if err != nil {
			t.Fatal(err)
		}
		if string(m) == sentinel {
			return frames
		}
		frames = append(frames, string(m))
	}
}

func (r *rig) join(e *end, channel string, j Join) (Joined, error) {
	c := e.Namespace().Pin(channel)
	defer c.Unpin()
	return c.Join(e.Socket, j)
}

func publish(ns *Namespace, channel, text string, except *ws.Conn) {
	if c := ns.Channel(channel); c != nil {
		if err := c.Publish(ws.TextFrame([]byte(text)), except, time.Time{}); err != nil {
			panic(err)
		}
	}
}

func (e *end) leave(channel string) Left { return e.Subscription(channel).Leave(nil) }

func (e *end) gone() {
	for sub := e.Last(); sub != nil; sub = e.Last() {
		sub.Leave(nil)
	}
	e.Namespace().SignOut(e.Socket)
	e.Namespace().Remove(e.Socket)
}

func TestFactsOfJoiningAndLeaving(t *testing.T) {
	r := newRig(t)
	ns := r.hub.App("a")
	a, b, c := r.connect(ns), r.connect(ns), r.connect(ns)
	member := func(id string) Join { return Join{Member: &protocol.Member{ID: id}, MaxMembers: 2} }
	want := func(got Joined, err error, want Joined, wantErr error) {
		t.Helper()
		if !errors.Is(err, wantErr) || got != want {
			t.Errorf("%+v, %v, want %+v, %v", got, err, want, wantErr)
		}
	}
	got, err := r.join(a, "presence-x", member("1"))
	want(got, err, Joined{First: true, NewMember: true, Subscriptions: 1}, nil)
	got, err = r.join(a, "presence-x", member("1"))
	want(got, err, Joined{}, ErrSubscribed)
	got, err = r.join(b, "presence-x", member("1"))
	want(got, err, Joined{Subscriptions: 2}, nil)
	got, err = r.join(c, "presence-x", member("2"))
	want(got, err, Joined{NewMember: true, Subscriptions: 3}, nil)
	d := r.connect(ns)
	got, err = r.join(d, "presence-x", member("3"))
	want(got, err, Joined{}, ErrFull)
	if d.Subscriptions() != 0 {
		t.Error("a failed join left a subscription")
	}
	if left := a.leave("presence-x"); left != (Left{Subscriptions: 2}) {
		t.Errorf("%+v", left)
	}
	if left := b.leave("presence-x"); left != (Left{Member: "1", Subscriptions: 1}) {
		t.Errorf("%+v", left)
	}
	if left := c.leave("presence-x"); left != (Left{Last: true, Member: "2"}) {
		t.Errorf("%+v", left)
	}
	if ns.Channel("presence-x") != nil {
		t.Error("a vacant channel was kept")
	}
}

func TestQuotaCountsOnlyWhatCounts(t *testing.T) {
	r := newRig(t)
	ns := r.hub.App("a")
	s := func() *Socket { return &Socket{ID: protocol.NewSocketID()} }
	one, two := s(), s()
	if err := ns.Add(one, false, 1); err != nil {
		t.Fatal(err)
	}
	if err := ns.Add(two, true, 1); err != nil {
		t.Fatal(err)
	}
	if err := ns.Count(one, 1); !errors.Is(err, ErrQuota) {
		t.Errorf("counted over the quota: %v", err)
	}
	if err := ns.Add(s(), true, 1); !errors.Is(err, ErrQuota) {
		t.Errorf("added over the quota: %v", err)
	}
	ns.Remove(two)
	ns.Remove(two) // twice is once
	if err := ns.Count(one, 1); err != nil {
		t.Error(err)
	}
	if err := ns.Count(one, 1); err != nil {
		t.Errorf("counting twice: %v", err)
	}
	ns.Remove(one)
	if got := r.hub.Sizes(); got != (Sizes{Apps: 1}) {
		t.Errorf("%+v is left", got)
	}
}

// model is what the hub should be and what every client should have been sent.
type model struct {
	subs    map[string][]int            // channel → connections in no order
	members map[string]map[string][]int // channel → user → connections
	users   map[string][]int
	watch   map[int][]string
	online  map[string]bool // watched user → as the watchers were told
	inbox   map[int][]string

	peers  *others                   // what they have
	known  map[string]int            // channel → subscriptions of theirs that the hub knows
	theirs map[string]map[string]int // channel → user → connections of theirs that the hub knows

	screens map[int]map[string]map[string]bool // connection → presence channel → members, as a client library has them
}

func newModel(peers *others) *model {
	return &model{
		subs: map[string][]int{}, members: map[string]map[string][]int{}, users: map[string][]int{},
		watch: map[int][]string{}, online: map[string]bool{}, inbox: map[int][]string{},
		peers: peers, known: map[string]int{}, theirs: map[string]map[string]int{},
		screens: map[int]map[string]map[string]bool{},
	}
}

// Any sequence of joins, leaves, publishes, sign-ins, ends and changes at the
// peers sends every client exactly the frames that the protocol says, in order,
// and what the peers are told is what is true.
func TestHubEqualsItsModel(t *testing.T) {
	peers := newOthers()
	r := newRigWith(t, Options{Peers: peers})
	const clients = 5
	app := 0
	rapid.Check(t, func(rt *rapid.T) {
		app++
		peers.reset()
		ns := r.hub.App(fmt.Sprint("app-", app))
		m := newModel(peers)
		ends := make([]*end, clients)
		for i := range ends {
			ends[i] = r.connect(ns)
		}
		pinned := ns.Pin("presence-d") // outlives its subscribers, as a channel does that is being published to
		defer pinned.Unpin()
		dead := map[int]bool{}
		var news []func() // what the hub has to be told of the peers
		channels := []string{"a", "private-b", "presence-c", "presence-d"}
		users := []string{"u", "v", "w"}
		alive := func() int {
			return rapid.IntRange(0, clients-1).Filter(func(i int) bool { return !dead[i] }).Draw(rt, "client")
		}
		rt.Repeat(map[string]func(*rapid.T){
			"join": func(rt *rapid.T) {
				i, channel := alive(), rapid.SampledFrom(channels).Draw(rt, "channel")
				j := Join{Count: true}
				if protocol.KindOf(channel).Is(protocol.Presence) {
					j.Member = &protocol.Member{ID: rapid.SampledFrom(users).Draw(rt, "user")}
				}
				_, err := r.join(ends[i], channel, j)
				if slices.Contains(m.subs[channel], i) {
					if !errors.Is(err, ErrSubscribed) {
						rt.Fatalf("second join: %v", err)
					}
					return
				}
				if err != nil {
					rt.Fatal(err)
				}
				m.join(i, channel, j)
			},
			"leave": func(rt *rapid.T) {
				i, channel := alive(), rapid.SampledFrom(channels).Draw(rt, "channel")
				if slices.Contains(m.subs[channel], i) {
					ends[i].leave(channel)
					m.leave(i, channel)
				}
			},
			"publish": func(rt *rapid.T) {
				channel := rapid.SampledFrom(channels).Draw(rt, "channel")
				except := rapid.IntRange(-1, clients-1).Draw(rt, "except")
				text := fmt.Sprintf(`{"n":%d}`, rapid.Int().Draw(rt, "n"))
				var conn *ws.Conn
				if except >= 0 {
					conn = ends[except].Conn
				}
				publish(ns, channel, text, conn)
				m.cast(channel, text, except)
			},
			"sign in": func(rt *rapid.T) {
				i, user := alive(), rapid.SampledFrom(users[:2]).Draw(rt, "user")
				watch := rapid.SampledFrom([][]string{nil, {"u"}, {"u", "v"}}).Draw(rt, "watch")
				_, err := ns.SignIn(ends[i].Socket, user, ws.TextFrame([]byte("success")), watch)
				if ok := m.signIn(i, user, watch); ok != (err == nil) {
					rt.Fatalf("sign-in: %v, want success %v", err, ok)
				}
			},
			"user event": func(rt *rapid.T) {
				user := rapid.SampledFrom(users[:2]).Draw(rt, "user")
				if n := ns.SendToUser(user, ws.TextFrame([]byte("for "+user)), nil); n != len(m.users[user]) {
					rt.Fatalf("sent to %d, want %d", n, len(m.users[user]))
				}
				for _, i := range m.users[user] {
					m.inbox[i] = append(m.inbox[i], "for "+user)
				}
			},
			"end": func(rt *rapid.T) {
				if len(dead) == clients-1 {
					return
				}
				i := alive()
				m.check(rt, i, ends[i].drain(t))
				m.end(i, ends[i])
				dead[i] = true
				delete(m.inbox, i)
			},
			"peers subscribe": func(rt *rapid.T) {
				channel := rapid.SampledFrom(channels).Draw(rt, "channel")
				peers.subs[channel] = rapid.IntRange(0, 3).Draw(rt, "subscriptions")
				news = append(news, func() { ns.ChannelChanged(channel); m.channelChanged(channel) })
			},
			"peers join": func(rt *rapid.T) {
				channel, user := rapid.SampledFrom(channels[2:]).Draw(rt, "channel"), rapid.SampledFrom(users).Draw(rt, "user")
				set(peers.members, channel, user, rapid.IntRange(0, 2).Draw(rt, "connections"))
				news = append(news, func() { ns.MemberChanged(channel, user); m.memberChanged(channel, user) })
			},
			"peers sign in": func(rt *rapid.T) {
				user := rapid.SampledFrom(users[:2]).Draw(rt, "user")
				peers.users[user] = rapid.IntRange(0, 2).Draw(rt, "connections")
				news = append(news, func() { ns.UserChanged(user); m.announce(user) })
			},
			"news": func(rt *rapid.T) { // late, in any order, perhaps twice
				if len(news) == 0 {
					return
				}
				i := rapid.IntRange(0, len(news)-1).Draw(rt, "news")
				news[i]()
				if rapid.Bool().Draw(rt, "once") {
					news = slices.Delete(news, i, i+1)
				}
			},
			"": func(rt *rapid.T) {
				for _, channel := range channels {
					n, users := 0, 0
					if c := ns.Channel(channel); c != nil {
						n, users = c.Counts()
					}
					if n != m.total(channel) || users != len(m.everybody(channel)) {
						rt.Fatalf("%s: %d subscriptions and %d members, want %d and %d", channel, n, users, m.total(channel), len(m.everybody(channel)))
					}
				}
				m.checkTold(rt, r.hub, len(ends)-len(dead))
			},
		})
		for _, tell := range news {
			tell()
		}
		for i, e := range ends {
			if !dead[i] {
				m.check(rt, i, e.drain(t))
				m.checkScreens(rt, i)
			}
		}
		for i, e := range ends {
			if !dead[i] {
				m.end(i, e)
			}
		}
		m.checkTold(rt, r.hub, 0)
		ns.mu.Lock()
		left := len(ns.sockets)
		ns.mu.Unlock()
		if left != 0 || len(ns.users) != 0 || len(ns.watched) != 0 {
			rt.Fatalf("%d sockets, %d users and %d watched are left", left, len(ns.users), len(ns.watched))
		}
	})
}

// end ends a connection here and in the hub, channel by channel in its order.
func (m *model) end(i int, e *end) {
	for sub := e.Last(); sub != nil; sub = e.Last() {
		m.leave(i, sub.Channel().Name())
		sub.Leave(nil)
	}
	e.gone()
	m.signOut(i)
}

func (m *model) cast(channel, text string, except int) {
	for _, i := range m.subs[channel] {
		if i != except {
			m.inbox[i] = append(m.inbox[i], text)
		}
	}
}

// total is how many subscriptions the hub knows of; none if there is nobody to
// tell.
func (m *model) total(channel string) int {
	if len(m.subs[channel]) == 0 {
		return 0
	}
	return len(m.subs[channel]) + m.known[channel]
}

// everybody is the members that the hub knows of.
func (m *model) everybody(channel string) map[string]bool {
	all := map[string]bool{}
	if len(m.subs[channel]) == 0 {
		return all
	}
	for user := range m.members[channel] {
		all[user] = true
	}
	for user, conns := range m.theirs[channel] {
		if conns > 0 {
			all[user] = true
		}
	}
	return all
}

func (m *model) count(channel string) {
	if protocol.KindOf(channel).Counted() {
		m.cast(channel, string(protocol.AppendCount(nil, channel, m.total(channel))), -1)
	}
}

// load takes over what the peers have, when nobody was there before.
func (m *model) load(channel string) {
	if len(m.subs[channel]) > 0 {
		return
	}
	m.known[channel] = m.peers.subs[channel]
	m.theirs[channel] = maps.Clone(m.peers.members[channel])
}

func (m *model) join(i int, channel string, j Join) {
	m.load(channel)
	m.subs[channel] = append(m.subs[channel], i)
	success := string(protocol.AppendSucceeded(nil, channel))
	if j.Member != nil {
		before := m.everybody(channel)
		if m.members[channel] == nil {
			m.members[channel] = map[string][]int{}
		}
		m.members[channel][j.Member.ID] = append(m.members[channel][j.Member.ID], i)
		success = fmt.Sprintf("presence %s %v", channel, slices.Sorted(maps.Keys(m.everybody(channel))))
		if !before[j.Member.ID] {
			m.cast(channel, string(protocol.AppendMemberAdded(nil, channel, *j.Member)), i)
		}
	}
	m.inbox[i] = append(m.inbox[i], success)
	m.count(channel)
}

func (m *model) leave(i int, channel string) {
	before := m.everybody(channel)
	m.subs[channel] = slices.DeleteFunc(m.subs[channel], func(n int) bool { return n == i })
	for user, conns := range m.members[channel] {
		if at := slices.Index(conns, i); at >= 0 {
			m.members[channel][user] = slices.Delete(conns, at, at+1)
			if len(m.members[channel][user]) == 0 {
				delete(m.members[channel], user)
			}
		}
	}
	m.differences(channel, before)
	if len(m.subs[channel]) > 0 {
		m.count(channel)
	}
}

// differences casts who came and who went.
func (m *model) differences(channel string, before map[string]bool) {
	after := m.everybody(channel)
	for user := range after {
		if !before[user] {
			m.cast(channel, string(protocol.AppendMemberAdded(nil, channel, protocol.Member{ID: user})), -1)
		}
	}
	for user := range before {
		if !after[user] {
			m.cast(channel, string(protocol.AppendMemberRemoved(nil, channel, user)), -1)
		}
	}
}

func (m *model) channelChanged(channel string) {
	if len(m.subs[channel]) > 0 && m.known[channel] != m.peers.subs[channel] {
		m.known[channel] = m.peers.subs[channel]
		m.count(channel)
	}
}

func (m *model) memberChanged(channel, user string) {
	if len(m.subs[channel]) > 0 {
		before := m.everybody(channel)
		set(m.theirs, channel, user, m.peers.members[channel][user])
		m.differences(channel, before)
	}
}

func (m *model) userOf(i int) string {
	for user, conns := range m.users {
		if slices.Contains(conns, i) {
			return user
		}
	}
	return ""
}

// announce tells the watchers of a user what they do not know yet.
func (m *model) announce(user string) {
	online := len(m.users[user]) > 0 || m.peers.users[user] > 0
	if m.online[user] == online {
		return
	}
	m.online[user] = online
	for i, ids := range m.watch {
		if slices.Contains(ids, user) {
			frame := protocol.AppendWatchlist(nil, nil, []string{user})
			if online {
				frame = protocol.AppendWatchlist(nil, []string{user}, nil)
			}
			m.inbox[i] = append(m.inbox[i], string(frame))
		}
	}
}

func (m *model) signIn(i int, user string, watch []string) bool {
	if was := m.userOf(i); was != "" && was != user {
		return false
	}
	m.inbox[i] = append(m.inbox[i], "success")
	delete(m.watch, i)
	if m.userOf(i) == "" {
		m.users[user] = append(m.users[user], i)
		m.announce(user)
	}
	if len(watch) > 0 {
		var online, offline []string
		for _, id := range watch {
			m.announce(id)
			if m.online[id] {
				online = append(online, id)
			} else {
				offline = append(offline, id)
			}
		}
		m.watch[i] = watch
		m.inbox[i] = append(m.inbox[i], string(protocol.AppendWatchlist(nil, online, offline)))
	}
	return true
}

func (m *model) signOut(i int) {
	delete(m.watch, i)
	user := m.userOf(i)
	if user == "" {
		return
	}
	m.users[user] = slices.DeleteFunc(m.users[user], func(n int) bool { return n == i })
	if len(m.users[user]) == 0 {
		delete(m.users, user)
	}
	m.announce(user)
}

// checkTold compares what the peers were told with what is true.
func (m *model) checkTold(rt *rapid.T, h *Hub, sockets int) {
	want := newOthers()
	for channel, conns := range m.subs {
		want.SetChannel("", channel, len(conns))
	}
	for channel, members := range m.members {
		for user, conns := range members {
			want.SetMember("", channel, user, "", len(conns))
		}
	}
	for user, conns := range m.users {
		want.SetUser("", user, len(conns))
	}
	want.SetSockets("", sockets)
	if diff := cmp.Diff(want.told, m.peers.told); diff != "" {
		rt.Fatalf("the peers were told (want -, got +):\n%s", diff)
	}
	again := newOthers()
	h.TellAll(again)
	if diff := cmp.Diff(want.told, again.told); diff != "" {
		rt.Fatalf("all that is true is told as (want -, got +):\n%s", diff)
	}
}

// checkScreens compares what a client has on its screen with what is true.
func (m *model) checkScreens(rt *rapid.T, i int) {
	for channel, conns := range m.subs {
		if !protocol.KindOf(channel).Is(protocol.Presence) || !slices.Contains(conns, i) {
			continue
		}
		truth := map[string]bool{}
		for user := range m.members[channel] {
			truth[user] = true
		}
		for user, conns := range m.peers.members[channel] {
			if conns > 0 {
				truth[user] = true
			}
		}
		if diff := cmp.Diff(truth, m.screens[i][channel]); diff != "" {
			rt.Fatalf("client %d, %s (truth -, screen +):\n%s", i, channel, diff)
		}
	}
}

// check compares what a client got with what it should have got.
func (m *model) check(rt *rapid.T, i int, frames []string) {
	for n, f := range frames {
		m.show(rt, i, f)
		frames[n] = normal(f)
	}
	if diff := cmp.Diff(m.inbox[i], frames); diff != "" {
		rt.Fatalf("client %d (want -, got +):\n%s", i, diff)
	}
	m.inbox[i] = nil
}

// show does with a frame what a client library does.
func (m *model) show(rt *rapid.T, i int, frame string) {
	var f struct{ Event, Channel, Data string }
	if json.Unmarshal([]byte(frame), &f) != nil || !protocol.KindOf(f.Channel).Is(protocol.Presence) {
		return
	}
	var data struct {
		Presence struct{ IDs []string }
		UserID   string `json:"user_id"`
	}
	if err := json.Unmarshal([]byte(f.Data), &data); err != nil {
		rt.Fatal(err)
	}
	if m.screens[i] == nil {
		m.screens[i] = map[string]map[string]bool{}
	}
	screen := m.screens[i][f.Channel]
	switch f.Event {
	case protocol.EventSubscriptionSucceeded:
		screen = map[string]bool{}
		m.screens[i][f.Channel] = screen
		for _, id := range data.Presence.IDs {
			screen[id] = true
		}
	case protocol.EventMemberAdded, protocol.EventMemberRemoved:
		added := f.Event == protocol.EventMemberAdded
		if screen[data.UserID] == added {
			rt.Fatalf("client %d: impossible after what was told before: %s", i, frame)
		}
		if screen[data.UserID] = added; !added {
			delete(screen, data.UserID)
		}
	}
}

// normal writes a presence snapshot with its members in order.
func normal(frame string) string {
	var f struct{ Event, Channel, Data string }
	if json.Unmarshal([]byte(frame), &f) != nil || f.Event != protocol.EventSubscriptionSucceeded {
		return frame
	}
	var data struct{ Presence struct{ IDs []string } }
	if json.Unmarshal([]byte(f.Data), &data) != nil || data.Presence.IDs == nil {
		return frame
	}
	slices.Sort(data.Presence.IDs)
	return fmt.Sprintf("presence %s %v", f.Channel, data.Presence.IDs)
}

// While a large channel is published to, others join and leave it: who stays
// gets every event once and in order, who joins gets an unbroken rest.
func TestLargeChannelKeepsOrderWhileItChanges(t *testing.T) {
	r := newRig(t)
	ns := r.hub.App("a")
	const stay, come, events = 400, 60, 300
	var staying []*end
	for range stay {
		e := r.connect(ns)
		if _, err := r.join(e, "big", Join{}); err != nil {
			t.Fatal(err)
		}
		staying = append(staying, e)
	}
	var coming []*end
	for range come {
		coming = append(coming, r.connect(ns))
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for n := range events {
			publish(ns, "big", fmt.Sprint(n), nil)
		}
	})
	for _, group := range [][]*end{coming[:come/2], coming[come/2:]} {
		wg.Go(func() {
			for round := range 20 {
				for _, e := range group {
					if round%2 == 0 {
						if _, err := r.join(e, "big", Join{}); err != nil {
							t.Error(err)
						}
					} else {
						e.leave("big")
					}
				}
			}
		})
	}
	wg.Wait()
	r.hub.Wait()
	greeting := string(protocol.AppendSucceeded(nil, "big"))
	for i, e := range staying {
		frames := e.drain(t)
		if len(frames) != events+1 || frames[0] != greeting {
			t.Fatalf("client %d got %d frames, want %d", i, len(frames), events+1)
		}
		for n, f := range frames[1:] {
			if f != fmt.Sprint(n) {
				t.Fatalf("client %d: frame %d is %s", i, n, f)
			}
		}
	}
	for i, e := range coming {
		last := -1
		for _, f := range e.drain(t) {
			if f == greeting {
				last = -1
				continue
			}
			var n int
			if _, err := fmt.Sscan(f, &n); err != nil {
				t.Fatal(err)
			}
			if last >= 0 && n != last+1 {
				t.Fatalf("client %d: event %d after %d within one subscription", i, n, last)
			}
			last = n
		}
	}
}

// A walk that is about to begin has served nobody yet, however far the one
// before it came.
func TestLeavingBeforeAWalkBegins(t *testing.T) {
	r := newRig(t)
	ns := r.hub.App("a")
	var all []*end
	for range inline + 100 {
		e := r.connect(ns)
		if _, err := r.join(e, "big", Join{}); err != nil {
			t.Fatal(err)
		}
		all = append(all, e)
	}
	publish(ns, "big", "0", nil)
	r.hub.Wait()
	for _, e := range all[inline+50:] {
		e.leave("big")
	}
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1)) // the walk begins when we wait
	publish(ns, "big", "1", nil)
	for _, e := range all[:20] {
		e.leave("big")
	}
	r.hub.Wait()
	for i, e := range all[20 : inline+50] {
		if frames := e.drain(t); len(frames) != 3 || frames[2] != "1" {
			t.Fatalf("client %d got %q", i, frames)
		}
	}
}

func TestReplayFollowsTheLastEvent(t *testing.T) {
	r := newRig(t)
	ns := r.hub.App("a")
	a, b := r.connect(ns), r.connect(ns)
	c := ns.Pin("cache-x")
	old := ws.TextFrame([]byte("old")) // as it is read before the publish
	v, _, err := c.PublishLast(LastEvent{Frame: ws.TextFrame([]byte("1"))}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Join(a.Socket, Join{Replay: old}); err != nil {
		t.Fatal(err)
	}
	var written []string
	c.Save(v, func(f *ws.Frame, _ Stamp) { written = append(written, string(f.Payload())) })
	// What was read before the publish is stale also when that is saved.
	if _, err := c.Join(b.Socket, Join{Replay: old}); err != nil {
		t.Fatal(err)
	}
	c.Unpin()
	want := []string{string(protocol.AppendSucceeded(nil, "cache-x")), "1"}
	for _, e := range []*end{a, b} {
		if diff := cmp.Diff(want, e.drain(t)); diff != "" {
			t.Error(diff)
		}
	}
	if diff := cmp.Diff([]string{"1"}, written); diff != "" {
		t.Error(diff)
	}
	if c.Newest() != nil {
		t.Error("the channel holds an event that is in the cache")
	}
}

// A subscriber that was replayed an event gets neither it nor an earlier one of
// the same node from the bus, and everything else.
func TestWhatWasReplayedIsNotDelivered(t *testing.T) {
	r := newRig(t)
	ns := r.hub.App("a")
	before, after := r.connect(ns), r.connect(ns)
	c := ns.Pin("cache-x")
	defer c.Unpin()
	miss := ws.TextFrame([]byte("miss"))
	if _, err := c.Join(before.Socket, Join{Replay: miss}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Join(after.Socket, Join{Replay: ws.TextFrame([]byte("7.2")), Stamp: NewStamp(7, 2)}); err != nil {
		t.Fatal(err)
	}
	for _, e := range []struct {
		text string
		Stamp
	}{{"7.1", NewStamp(7, 1)}, {"8.1", NewStamp(8, 1)}, {"7.2", NewStamp(7, 2)}, {"client", 0}, {"7.3", NewStamp(7, 3)}} {
		if err := c.DeliverLast(LastEvent{Frame: ws.TextFrame([]byte(e.text)), Stamp: e.Stamp}); err != nil {
			t.Fatal(err)
		}
	}
	success := string(protocol.AppendSucceeded(nil, "cache-x"))
	if diff := cmp.Diff([]string{success, "miss", "7.1", "8.1", "7.2", "client", "7.3"}, before.drain(t)); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{success, "7.2", "8.1", "client", "7.3"}, after.drain(t)); diff != "" {
		t.Error(diff)
	}
	if string(c.Newest().Payload()) != "7.3" {
		t.Error("who joins now is not replayed what was delivered last")
	}
}

func TestConcurrentSavesEndWithTheLastEvent(t *testing.T) {
	r := newRig(t)
	c := r.hub.App("a").Pin("cache-x")
	defer c.Unpin()
	var mu sync.Mutex
	stored := ""
	var wg sync.WaitGroup
	for i := range 50 {
		wg.Go(func() {
			v, _, err := c.PublishLast(LastEvent{Frame: ws.TextFrame(fmt.Append(nil, i))}, nil)
			if err != nil {
				t.Error(err)
			}
			c.Save(v, func(f *ws.Frame, _ Stamp) {
				mu.Lock()
				stored = string(f.Payload())
				mu.Unlock()
			})
		})
	}
	wg.Wait()
	v, _, err := c.PublishLast(LastEvent{Frame: ws.TextFrame([]byte("end"))}, nil)
	if err != nil {
		t.Fatal(err)
	}
	c.Save(v, func(f *ws.Frame, _ Stamp) { stored = string(f.Payload()) })
	if stored != "end" {
		t.Errorf("stored %q", stored)
	}
}

// sink connects a client that throws away what it gets, without allocating.
func (r *rig) sink() *ws.Conn {
	r.t.Helper()
	nc, err := net.Dial("tcp", r.addr)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = nc.Close() })
	if _, err := nc.Write([]byte("GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")); err != nil {
		r.t.Fatal(err)
	}
	c := <-r.came
	go func() {
		buf := make([]byte, 256<<10)
		for {
			if _, err := nc.Read(buf); err != nil {
				return
			}
		}
	}()
	return c
}

func BenchmarkBroadcast(b *testing.B) {
	for _, n := range []int{1, 100, 10_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			r := newRig(b)
			ns := r.hub.App("a")
			// Many sockets share a connection, so that 10,000 fit into one process.
			var conns []*ws.Conn
			for range min(n, 200) {
				conns = append(conns, r.sink())
			}
			for i := range n {
				s := &Socket{ID: protocol.NewSocketID(), Conn: conns[i%len(conns)]}
				if err := ns.Add(s, true, 0); err != nil {
					b.Fatal(err)
				}
				c := ns.Pin("x")
				if _, err := c.Join(s, Join{}); err != nil {
					b.Fatal(err)
				}
				c.Unpin()
			}
			c := ns.Channel("x")
			f := ws.TextFrame(make([]byte, 150))
			b.ReportAllocs()
			for b.Loop() {
				for c.Publish(f, nil, time.Time{}) != nil {
				}
				r.hub.Wait()
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/subscriber")
		})
	}
}

func BenchmarkJoinLeave(b *testing.B) {
	for _, n := range []int{1, 10_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			r := newRig(b)
			ns := r.hub.App("a")
			e := &end{Socket: &Socket{ID: protocol.NewSocketID(), Conn: r.sink()}}
			if err := ns.Add(e.Socket, true, 0); err != nil {
				b.Fatal(err)
			}
			c := ns.Pin("x")
			defer c.Unpin()
			for range n {
				s := &Socket{ID: protocol.NewSocketID(), Conn: e.Conn}
				if err := ns.Add(s, true, 0); err != nil {
					b.Fatal(err)
				}
				if _, err := c.Join(s, Join{}); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportAllocs()
			for b.Loop() {
				if _, err := c.Join(e.Socket, Join{}); err != nil {
					b.Fatal(err)
				}
				e.leave("x")
			}
		})
	}
}

// A fan-out that has been started and has not begun must not be taken for one
// that is as far as the last one got.
func TestLeavingRightAfterAPublishToALargeChannel(t *testing.T) {
	h := New(Options{})
	s := ws.NewServer(nil, ws.Options{ForceStream: true})
	ns := h.App("a")
	const n = inline + 100
	var got [n]int
	sockets := make([]*Socket, n)
	for i := range sockets {
		conn := s.Detached(idle{make(chan *ws.Conn, 1)}, func(f *ws.Frame) {
			if string(f.Payload()) == "x" {
				got[i]++
			}
		})
		sockets[i] = &Socket{ID: protocol.SocketID(i), Conn: conn}
		if err := ns.Add(sockets[i], true, 0); err != nil {
			t.Fatal(err)
		}
		c := ns.Pin("c")
		if _, err := c.Join(sockets[i], Join{}); err != nil {
			t.Fatal(err)
		}
		c.Unpin()
	}
	for len(sockets) > inline+1 {
		publish(ns, "c", "x", nil)
		h.Wait()
		for range 10 { // the last walk ended further on than the channel is long now
			sockets[len(sockets)-1].Last().Leave(nil)
			sockets = sockets[:len(sockets)-1]
		}
		publish(ns, "c", "x", nil)
		sockets[0].Last().Leave(nil) // before the fan-out has begun, or after it
		sockets = sockets[1:]
		h.Wait()
	}
	for i := range sockets {
		if got[1+i] == 0 {
			t.Errorf("socket %d got nothing", i)
		}
	}
	for _, e := range ns.Sockets() {
		e.Conn.Close(1000, "")
	}
	if err := s.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
}

// A log is a socket without a client that keeps what it is sent.
type log struct {
	*Socket
	got   []string
	since int // the first event that is for it
}

// logs returns a function that connects such sockets and one that ends the test.
// Every slow-th of them takes its time, so that a fan-out is still at work while
// others come and go.
func (r *rig) logs(ns *Namespace, slow int) func() *log {
	s := ws.NewServer(nil, ws.Options{ForceStream: true})
	n := 0
	r.t.Cleanup(func() {
		for _, e := range ns.Sockets() {
			e.Conn.Close(1000, "")
		}
		if err := s.Shutdown(context.Background()); err != nil {
			r.t.Error(err)
		}
	})
	return func() *log {
		n++
		pause := n%slow == 0
		l := &log{}
		conn := s.Detached(idle{make(chan *ws.Conn, 1)}, func(f *ws.Frame) {
			if pause {
				time.Sleep(100 * time.Microsecond)
			}
			l.got = append(l.got, string(f.Payload()))
		})
		l.Socket = &Socket{ID: protocol.NewSocketID(), Conn: conn}
		if err := ns.Add(l.Socket, true, 0); err != nil {
			r.t.Fatal(err)
		}
		return l
	}
}

// Who joins or leaves in the middle of a fan-out changes nothing for the others,
// and who joins gets nothing that was published before.
func TestComingAndGoingInTheMiddleOfAFanOut(t *testing.T) {
	r := newRig(t)
	ns := r.hub.App("a")
	connect := r.logs(ns, 64)
	const events = 60
	join := func(since int) *log {
		l := connect()
		l.since = since
		c := ns.Pin("big")
		defer c.Unpin()
		if _, err := c.Join(l.Socket, Join{}); err != nil {
			t.Fatal(err)
		}
		return l
	}
	var there []*log
	for range 4 * chunk {
		there = append(there, join(0))
	}
	check := func(l *log, until int) {
		want := []string{string(protocol.AppendSucceeded(nil, "big"))}
		for n := l.since; n < until; n++ {
			want = append(want, fmt.Sprint(n))
		}
		if diff := cmp.Diff(want, l.got); diff != "" {
			t.Fatalf("who came before event %d and was there until %d (- want, + got):\n%s", l.since, until, diff)
		}
	}
	random := rand.New(rand.NewPCG(1, 2))
	interrupted := 0
	for n := range events {
		publish(ns, "big", fmt.Sprint(n), nil)
		for range 8 {
			i := random.IntN(len(there))
			l := there[i]
			l.Last().Leave(nil)
			// It has had those that were not on their way any more.
			seen := len(l.got) - 1 + l.since
			if seen <= n {
				interrupted++
			}
			check(l, seen)
			there[i] = there[len(there)-1]
			there = there[:len(there)-1]
		}
		for range 8 {
			there = append(there, join(n+1))
		}
		if n%3 == 0 {
			r.hub.Wait()
		}
	}
	r.hub.Wait()
	for _, l := range there {
		check(l, events)
	}
	if interrupted == 0 {
		t.Error("nobody left while events were on their way")
	}
}

// What waits at a channel is bounded by number and by size; one is always taken.
func TestAChannelThatIsBehindIsBusy(t *testing.T) {
	r := newRig(t)
	ns := r.hub.App("a")
	l := r.logs(ns, 1<<30)()
	c := ns.Pin("x")
	defer c.Unpin()
	if _, err := c.Join(l.Socket, Join{}); err != nil {
		t.Fatal(err)
	}
	small, large := ws.TextFrame([]byte("x")), ws.TextFrame(make([]byte, maxWaitingBytes+1))
	for _, tt := range []struct {
		frame *ws.Frame
		taken int
	}{{small, maxWaiting}, {large, 1}} {
		c.mu.Lock()
		c.walking = true // somebody is at it
		c.mu.Unlock()
		for n := range tt.taken {
			if err := c.Publish(tt.frame, nil, time.Time{}); err != nil {
				t.Fatalf("frame %d of %d bytes: %v", n, tt.frame.Size(), err)
			}
		}
		if err := c.Publish(small, nil, time.Time{}); !errors.Is(err, ErrBusy) {
			t.Errorf("behind %d frames of %d bytes: %v", tt.taken, tt.frame.Size(), err)
		}
		l.got = nil
		c.mu.Lock()
		c.walk(false)
		if len(l.got) != tt.taken {
			t.Errorf("%d frames of %d came", len(l.got), tt.taken)
		}
		if err := c.Publish(small, nil, time.Time{}); err != nil {
			t.Errorf("when they have been sent: %v", err)
		}
	}
}

// A socket on many channels finds each, and none that it has left.
func TestSubscriptionsOfASocketOnManyChannels(t *testing.T) {
	r := newRig(t)
	ns := r.hub.App("a")
	l := r.logs(ns, 1<<30)()
	const n = 3 * shortList
	on := map[string]bool{}
	random := rand.New(rand.NewPCG(3, 4))
	for range 2000 {
		name := fmt.Sprint("c", random.IntN(n))
		switch sub := l.Subscription(name); {
		case (sub != nil) != on[name]:
			t.Fatalf("%s: found %v, on it %v", name, sub != nil, on[name])
		case sub != nil && sub.Channel().Name() != name:
			t.Fatalf("%s: found %s", name, sub.Channel().Name())
		case sub != nil:
			sub.Leave(nil)
			delete(on, name)
		default:
			c := ns.Pin(name)
			if _, err := c.Join(l.Socket, Join{}); err != nil {
				t.Fatal(err)
			}
			c.Unpin()
			on[name] = true
		}
		if l.Subscriptions() != len(on) {
			t.Fatalf("%d subscriptions, want %d", l.Subscriptions(), len(on))
		}
	}
}
