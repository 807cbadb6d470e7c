package hub

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sockudo/internal/protocol"
	"sockudo/internal/ws"
)

// others are peers whose state a test sets, and which keep what they are told.
// They belong to one goroutine and do not look at the app.
type others struct {
	subs    map[string]int            // channel → subscriptions
	members map[string]map[string]int // channel → user → connections
	users   map[string]int            // user → connections
	sockets int

	told told
}

// told is what the peers know of the hub.
type told struct {
	Subs    map[string]int
	Members map[string]map[string]int
	Users   map[string]int
	Sockets int
}

func newOthers() *others {
	o := &others{}
	o.reset()
	return o
}

func (o *others) reset() {
	*o = others{
		subs: map[string]int{}, members: map[string]map[string]int{}, users: map[string]int{},
		told: told{Subs: map[string]int{}, Members: map[string]map[string]int{}, Users: map[string]int{}},
	}
}

// set changes a number of a two-level map, where none stands for zero.
func set(m map[string]map[string]int, a, b string, n int) {
	if m[a] == nil {
		m[a] = map[string]int{}
	}
	m[a][b] = n
	if n == 0 {
		delete(m[a], b)
	}
	if len(m[a]) == 0 {
		delete(m, a)
	}
}

func (o *others) SetChannel(_, channel string, n int) {
	if o.told.Subs[channel] = n; n == 0 {
		delete(o.told.Subs, channel)
	}
}

func (o *others) SetMember(_, channel, user, _ string, conns int) {
	set(o.told.Members, channel, user, conns)
}

func (o *others) SetSockets(_ string, n int) { o.told.Sockets = n }

func (o *others) SetUser(_, user string, conns int) {
	if o.told.Users[user] = conns; conns == 0 {
		delete(o.told.Users, user)
	}
}

func (o *others) Subscriptions(_, channel string) int { return o.subs[channel] }

func (o *others) Member(_, channel, user string) (int, string) { return o.members[channel][user], "" }

func (o *others) Members(_, channel string, yield func(user, info string, conns int) bool) {
	for user, conns := range o.members[channel] {
		if !yield(user, "", conns) {
			return
		}
	}
}

func (o *others) Sockets(string) int { return o.sockets }

func (o *others) User(_, user string) int { return o.users[user] }

func TestMembersOfThePeersFillAChannel(t *testing.T) {
	peers := newOthers()
	r := newRigWith(t, Options{Peers: peers})
	ns := r.hub.App("a")
	set(peers.members, "presence-x", "1", 1)
	set(peers.members, "presence-x", "2", 1)
	peers.subs["presence-x"] = 2
	a, b := r.connect(ns), r.connect(ns)
	if _, err := r.join(a, "presence-x", Join{Member: &protocol.Member{ID: "3"}, MaxMembers: 2}); !errors.Is(err, ErrFull) {
		t.Errorf("a third member: %v, want %v", err, ErrFull)
	}
	if ns.Channel("presence-x") != nil {
		t.Error("the refused join left the channel behind")
	}
	got, err := r.join(a, "presence-x", Join{Member: &protocol.Member{ID: "2"}, MaxMembers: 2})
	if want := (Joined{Subscriptions: 3}); err != nil || got != want {
		t.Errorf("second connection of a member: %+v, %v, want %+v", got, err, want)
	}
	if _, err := r.join(b, "presence-x", Join{Member: &protocol.Member{ID: "3"}, MaxMembers: 2}); !errors.Is(err, ErrFull) {
		t.Errorf("a third member: %v, want %v", err, ErrFull)
	}
	delete(peers.members, "presence-x")
	peers.subs["presence-x"] = 0
	for _, user := range []string{"1", "2"} {
		ns.MemberChanged("presence-x", user)
	}
	ns.ChannelChanged("presence-x")
	if _, err := r.join(b, "presence-x", Join{Member: &protocol.Member{ID: "3"}, MaxMembers: 2}); err != nil {
		t.Error(err)
	}
	if left := a.leave("presence-x"); left != (Left{Member: "2", Subscriptions: 1}) {
		t.Errorf("%+v", left)
	}
}

func TestQuotaIsOfAllNodes(t *testing.T) {
	peers := newOthers()
	r := newRigWith(t, Options{Peers: peers})
	ns := r.hub.App("a")
	peers.sockets = 2
	s := func() *Socket { return &Socket{ID: protocol.NewSocketID()} }
	one, two := s(), s()
	if err := ns.Add(one, true, 3); err != nil {
		t.Fatal(err)
	}
	if err := ns.Add(s(), true, 3); !errors.Is(err, ErrQuota) {
		t.Errorf("added over the quota: %v", err)
	}
	peers.sockets = 1
	if err := ns.Add(two, false, 3); err != nil {
		t.Error(err)
	}
	peers.sockets = 2
	if err := ns.Count(two, 3); !errors.Is(err, ErrQuota) {
		t.Errorf("counted over the quota: %v", err)
	}
	ns.Remove(one)
	if err := ns.Count(two, 3); err != nil {
		t.Error(err)
	}
	if peers.told.Sockets != 1 {
		t.Errorf("the peers were told of %d sockets, want 1", peers.told.Sockets)
	}
}

// Whoever begins to watch is told what is true, and those who watch already do
// not hear the same later as news.
func TestWatchersAgreeWhenNewsIsLate(t *testing.T) {
	peers := newOthers()
	r := newRigWith(t, Options{Peers: peers})
	ns := r.hub.App("a")
	a, b := r.connect(ns), r.connect(ns)
	success := ws.TextFrame([]byte("success"))
	watch := func(e *end) {
		t.Helper()
		if _, err := ns.SignIn(e.Socket, "v", success, []string{"u"}); err != nil {
			t.Fatal(err)
		}
	}
	watch(a)
	peers.users["u"] = 1
	watch(b)
	ns.UserChanged("u")
	peers.users["u"] = 0
	ns.UserChanged("u")
	online := string(protocol.AppendWatchlist(nil, []string{"u"}, nil))
	offline := string(protocol.AppendWatchlist(nil, nil, []string{"u"}))
	if diff := cmp.Diff([]string{"success", offline, online, offline}, a.drain(t)); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"success", online, offline}, b.drain(t)); diff != "" {
		t.Error(diff)
	}
}

// Facts are told in the order in which they came about, with the channel
// locked: whoever tells the world cannot mix up two of them.
func TestFactsAreToldInOrder(t *testing.T) {
	r := newRig(t)
	ns := r.hub.App("a")
	a, b := r.connect(ns), r.connect(ns)
	var joined []Joined
	var left []Left
	j := Join{Tell: func(f Joined) { joined = append(joined, f) }}
	for _, e := range []*end{a, b} {
		if _, err := r.join(e, "x", j); err != nil {
			t.Fatal(err)
		}
	}
	a.Subscription("x").Leave(func(f Left) { left = append(left, f) })
	b.Subscription("x").Leave(func(f Left) { left = append(left, f) })
	if diff := cmp.Diff([]Joined{{First: true, Subscriptions: 1}, {Subscriptions: 2}}, joined); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]Left{{Subscriptions: 1}, {Last: true}}, left); diff != "" {
		t.Error(diff)
	}
}

// A broadcast costs as many allocations as it does for nobody, however many
// subscribers there are, alone and with peers.
func TestBroadcastAllocatesNothingPerSubscriber(t *testing.T) {
	for name, opts := range map[string]Options{"alone": {}, "peers": {Peers: newOthers()}} {
		t.Run(name, func(t *testing.T) {
			srv := ws.NewServer(nil, ws.Options{})
			ns := New(opts).App("a")
			f := ws.TextFrame(make([]byte, 150))
			allocs := func(subscribers int, excluded bool) float64 {
				var except *ws.Conn
				c := ns.Pin(fmt.Sprint("x-", subscribers, excluded))
				defer c.Unpin()
				for range subscribers {
					s := &Socket{ID: protocol.NewSocketID(), Conn: srv.Detached(idle{make(chan *ws.Conn, 1)}, nil)}
					t.Cleanup(func() { s.Conn.Close(1000, "") })
					if _, err := c.Join(s, Join{}); err != nil {
						t.Fatal(err)
					}
					if excluded {
						except = s.Conn
					}
				}
				return testing.AllocsPerRun(100, func() {
					if err := c.Publish(f, except, time.Time{}); err != nil {
						t.Fatal(err)
					}
				})
			}
			t.Cleanup(func() {
				if err := srv.Shutdown(context.Background()); err != nil {
					t.Error(err)
				}
			})
			few := allocs(1, false)
			for _, excluded := range []bool{false, true} {
				if many := allocs(200, excluded); many > few {
					t.Errorf("%v allocations for 200 subscribers, %v for one; one is excluded: %v", many, few, excluded)
				}
			}
		})
	}
}
