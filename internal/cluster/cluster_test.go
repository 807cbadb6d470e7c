package cluster_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"sockudo/internal/cluster"
	"sockudo/internal/cluster/bustest"
	"sockudo/internal/directory"
)

// A member is a node of a test, and all that its cluster told it.
type member struct {
	*cluster.Cluster
	t    *testing.T
	stop func()

	mu        sync.Mutex // guards what follows
	delivered []string
	changes   []string
	facts     []string
	did       []string
	truth     []directory.Entry
}

func (m *member) note(list *[]string, format string, args ...any) {
	m.mu.Lock()
	defer m.mu.Unlock()
	*list = append(*list, fmt.Sprintf(format, args...))
}

func (m *member) Deliver(app, channel string, payload []byte, except string, at time.Time) {
	m.note(&m.delivered, "%s %s %s %s", app, channel, payload, except)
}
func (m *member) ChannelChanged(app, channel string) {
	m.note(&m.changes, "channel %s %s", app, channel)
}
func (m *member) MemberChanged(app, channel, user string) {
	m.note(&m.changes, "member %s %s %s", app, channel, user)
}
func (m *member) UserChanged(app, user string) { m.note(&m.changes, "user %s %s", app, user) }
func (m *member) Terminate(app, user string, code int, message string) {
	m.note(&m.did, "terminate %s %s %d %s", app, user, code, message)
}
func (m *member) AppChanged(app string) { m.note(&m.did, "app %s", app) }
func (m *member) Witness(f cluster.Fact) {
	if f.Kind != cluster.SubscriptionCount {
		m.note(&m.facts, "%s %s %s", f.Kind, f.Channel, f.User)
	}
}
func (m *member) Truth(tell func(directory.Entry)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, e := range m.truth {
		tell(e)
	}
}

// took returns a list and empties it.
func (m *member) took(list *[]string) []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	l := *list
	*list = nil
	return l
}

// join starts a node on bus; it leaves when the test ends or stop is called.
func join(t *testing.T, bus cluster.Bus, opts cluster.Options) *member {
	t.Helper()
	m := &member{Cluster: cluster.New(bus, opts), t: t}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- m.Run(ctx, m) }()
	m.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run = %v", err)
		}
	})
	t.Cleanup(m.stop)
	return m
}

// settle lets everything that is on its way arrive.
func settle() {
	time.Sleep(100 * time.Millisecond)
	synctest.Wait()
}

func (m *member) mustBeReady() {
	m.t.Helper()
	if err := m.Ready(); err != nil {
		m.t.Fatalf("%s: %v", m.NodeID(), err)
	}
}

func TestNodesShareWhatTheyHave(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broker := cluster.NewMemoryBus()
		a := join(t, broker.Connect(), cluster.Options{NodeID: "a"})
		b := join(t, broker.Connect(), cluster.Options{NodeID: "b"})
		if a.Ready() == nil {
			t.Error("ready at once")
		}
		time.Sleep(2 * time.Second)
		a.mustBeReady()
		b.mustBeReady()
		a.SetChannel("app", "presence-x", 1)
		a.SetMember("app", "presence-x", "ann", "{}", 1)
		a.SetSockets("app", 3)
		a.SetUser("app", "ann", 1)
		settle()
		if n := b.Subscriptions("app", "presence-x"); n != 1 {
			t.Errorf("b sees %d subscriptions, want 1", n)
		}
		if n, info := b.Member("app", "presence-x", "ann"); n != 1 || info != "{}" {
			t.Errorf("b sees the member %d times with %s", n, info)
		}
		if s, u := b.Sockets("app"), b.User("app", "ann"); s != 3 || u != 1 {
			t.Errorf("b sees %d sockets and %d connections of ann", s, u)
		}
		got := b.took(&b.changes)
		slices.Sort(got)
		if d := cmp.Diff([]string{"channel app presence-x", "member app presence-x ann", "user app ann"}, got); d != "" {
			t.Errorf("changes (-want +got):\n%s", d)
		}
		c := join(t, broker.Connect(), cluster.Options{NodeID: "c"})
		time.Sleep(2 * time.Second)
		c.mustBeReady()
		if n := c.Subscriptions("app", "presence-x"); n != 1 {
			t.Errorf("c, who joined later, sees %d subscriptions, want 1", n)
		}
		a.stop()
		settle()
		for _, m := range []*member{b, c} {
			if n, _ := m.Member("app", "presence-x", "ann"); n != 0 {
				t.Errorf("%s sees ann after a has left", m.NodeID())
			}
			got := m.took(&m.changes)
			slices.Sort(got)
			if m == b && cmp.Diff([]string{"channel app presence-x", "member app presence-x ann", "user app ann"}, got) != "" {
				t.Errorf("%s was told %q when a left, want each thing once", m.NodeID(), got)
			}
		}
	})
}

func TestEventsReachThoseWhoWantThem(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broker := cluster.NewMemoryBus()
		a := join(t, broker.Connect(), cluster.Options{NodeID: "a"})
		b := join(t, broker.Connect(), cluster.Options{NodeID: "b", Secret: nil})
		settle() // nobody hears what was said before it was there
		ctx := t.Context()
		if err := b.Want(ctx, "app", "x"); err != nil {
			t.Fatal(err)
		}
		if !b.Interested(cluster.Topic{App: "app", Channel: "x"}) || b.Interested(cluster.Topic{App: "app", Channel: "y"}) {
			t.Error("b is not interested in x alone")
		}
		for i := range 3 {
			if err := a.Broadcast(ctx, "app", "x", fmt.Append(nil, i), "1.1", time.Now()); err != nil {
				t.Fatal(err)
			}
		}
		if err := a.Broadcast(ctx, "app", "y", []byte("y"), "", time.Time{}); err != nil {
			t.Fatal(err)
		}
		if err := a.Cluster.Terminate(ctx, "app", "ann", 4009, "bye"); err != nil {
			t.Fatal(err)
		}
		if err := a.Cluster.AppChanged(ctx, "app"); err != nil {
			t.Fatal(err)
		}
		settle()
		if d := cmp.Diff([]string{"app x 0 1.1", "app x 1 1.1", "app x 2 1.1"}, b.took(&b.delivered)); d != "" {
			t.Errorf("delivered (-want +got):\n%s", d)
		}
		if d := cmp.Diff([]string{"terminate app ann 4009 bye", "app app"}, b.took(&b.did)); d != "" {
			t.Errorf("done (-want +got):\n%s", d)
		}
		if got := append(a.took(&a.did), a.took(&a.delivered)...); len(got) != 0 {
			t.Errorf("the sender itself was told %q", got)
		}
	})
}

func TestTopicsLingerAfterTheLastUnwant(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broker := cluster.NewMemoryBus()
		bus := &countingBus{Bus: broker.Connect()}
		a := join(t, bus, cluster.Options{Linger: 5 * time.Second})
		x := cluster.Topic{App: "app", Channel: "x"}
		var wg sync.WaitGroup
		for range 10 {
			wg.Go(func() {
				if err := a.Want(t.Context(), "app", "x"); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		settle()
		bus.expect(t, 5, 0) // four of its own
		for range 10 {
			a.Unwant("app", "x")
		}
		time.Sleep(4 * time.Second)
		if !a.Interested(x) {
			t.Error("left at once")
		}
		if err := a.Want(t.Context(), "app", "x"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Second)
		bus.expect(t, 5, 0)
		a.Unwant("app", "x")
		time.Sleep(10 * time.Second)
		bus.expect(t, 5, 1)
		if a.Interested(x) {
			t.Error("still interested")
		}
		if err := a.Want(t.Context(), "app", "x"); err != nil || !a.Interested(x) {
			t.Errorf("Want = %v", err)
		}
		bus.expect(t, 6, 1)
	})
}

// A countingBus counts, and fails on request.
type countingBus struct {
	cluster.Bus

	mu           sync.Mutex // guards what follows
	subscribes   int
	unsubscribes int
	fail         error
	hang         chan struct{} // calls wait for it; nil: they do not
}

func (b *countingBus) expect(t *testing.T, subscribes, unsubscribes int) {
	t.Helper()
	synctest.Wait()
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.subscribes != subscribes || b.unsubscribes != unsubscribes {
		t.Errorf("%d topics were subscribed and %d left, want %d and %d", b.subscribes, b.unsubscribes, subscribes, unsubscribes)
	}
}

func (b *countingBus) call(ctx context.Context, n *int) error {
	b.mu.Lock()
	*n++
	fail, hang := b.fail, b.hang
	b.mu.Unlock()
	if hang != nil {
		select {
		case <-hang:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return fail
}

func (b *countingBus) Subscribe(ctx context.Context, topic string) error {
	if err := b.call(ctx, &b.subscribes); err != nil {
		return err
	}
	return b.Bus.Subscribe(ctx, topic)
}

func (b *countingBus) Unsubscribe(ctx context.Context, topic string) error {
	if err := b.call(ctx, &b.unsubscribes); err != nil {
		return err
	}
	return b.Bus.Unsubscribe(ctx, topic)
}

func (b *countingBus) set(fail error, hang chan struct{}) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.fail, b.hang = fail, hang
}

func TestATopicThatIsNotAcknowledgedIsNotWanted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := &countingBus{Bus: cluster.NewMemoryBus().Connect()}
		a := join(t, bus, cluster.Options{})
		time.Sleep(time.Second)
		bus.set(errors.New("no"), nil)
		if err := a.Want(t.Context(), "app", "x"); err == nil || a.Interested(cluster.Topic{App: "app", Channel: "x"}) {
			t.Errorf("Want = %v, want an error", err)
		}
		hang := make(chan struct{})
		bus.set(nil, hang)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := a.Want(ctx, "app", "x"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Want = %v, want that it took too long", err)
		}
		close(hang)
		bus.set(nil, nil)
		if err := a.Want(t.Context(), "app", "x"); err != nil || !a.Interested(cluster.Topic{App: "app", Channel: "x"}) {
			t.Errorf("Want = %v", err)
		}
	})
}

func TestFactsAreToldByOneNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broker := cluster.NewMemoryBus()
		var all []*member
		for _, id := range []string{"a", "b", "c"} {
			all = append(all, join(t, broker.Connect(), cluster.Options{NodeID: id}))
		}
		time.Sleep(5 * time.Second)
		const channels = 30
		owners := map[int]int{}
		for i := range channels {
			name := fmt.Sprint("presence-", i)
			for j, m := range all {
				m.SetChannel("app", name, 1)
				m.SetMember("app", name, fmt.Sprint("user-", j/2), "{}", 1)
			}
			for j, m := range all {
				if m.Responsible("app", name) {
					owners[j]++
				}
			}
		}
		if owners[0]+owners[1]+owners[2] != channels || len(owners) != 3 {
			t.Errorf("owners are %v", owners)
		}
		settle()
		count := map[string]int{}
		for _, m := range all {
			for _, f := range m.took(&m.facts) {
				count[f]++
			}
		}
		for f, n := range count {
			if n != 1 {
				t.Errorf("%s was told %d times", f, n)
			}
		}
		if len(count) != 3*channels {
			t.Errorf("%d facts, want %d", len(count), 3*channels)
		}
	})
}

// Who leaves is the last that knows of a node which died just before: those who came
// since never heard of it.
func TestWhoLeavesBequeathsWhatADeadNodeHad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broker := cluster.NewMemoryBus()
		cable := bustest.NewCable(broker.Connect())
		a, dead := join(t, broker.Connect(), cluster.Options{NodeID: "a"}), join(t, cable, cluster.Options{NodeID: "dead"})
		time.Sleep(5 * time.Second)
		const channels = 30
		var gone []string
		for i := range channels {
			dead.SetChannel("app", fmt.Sprint("presence-", i), 1)
			dead.SetMember("app", fmt.Sprint("presence-", i), "ann", "{}", 1)
			gone = append(gone, fmt.Sprintf("vacated presence-%d ", i), fmt.Sprintf("member removed presence-%d ann", i))
		}
		time.Sleep(2 * time.Minute) // the records of it are forgotten
		cable.Cut()
		time.Sleep(time.Second)
		b := join(t, broker.Connect(), cluster.Options{NodeID: "b"})
		time.Sleep(5 * time.Second)
		b.mustBeReady()
		if facts := b.took(&b.facts); len(facts) > 0 {
			t.Errorf("who came tells %v", facts)
		}
		a.stop()
		time.Sleep(5 * time.Second)
		facts := b.took(&b.facts)
		slices.Sort(facts)
		slices.Sort(gone)
		if diff := cmp.Diff(gone, facts); diff != "" {
			t.Errorf("when the last left that knew the dead node (-want +got):\n%s", diff)
		}
	})
}

func TestAnAuditFindsWhatDiffers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broker := cluster.NewMemoryBus()
		a := join(t, broker.Connect(), cluster.Options{NodeID: "a"})
		b := join(t, broker.Connect(), cluster.Options{NodeID: "b"})
		time.Sleep(3 * time.Second)
		for i := range 100 {
			a.SetChannel("app", fmt.Sprint("channel-", i), 1)
			a.truth = append(a.truth, directory.Entry{Kind: directory.Channel, App: "app", Channel: fmt.Sprint("channel-", i), Value: 1})
		}
		settle()
		got, err := b.Audit(t.Context())
		if err != nil || got.Differences != 0 || len(got.Silent) != 0 || len(got.Nodes) != 2 {
			t.Errorf("Audit = %+v, %v; want no differences", got, err)
		}
		a.mu.Lock()
		a.truth = a.truth[3:]
		a.mu.Unlock()
		if got, err = b.Audit(t.Context()); err != nil || got.Differences != 3 || len(got.Disagreements) != 1 {
			t.Errorf("Audit = %+v, %v; want 3 differences at a", got, err)
		}
	})
}

func TestASurveyIsWhatAllNodesSay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broker := cluster.NewMemoryBus()
		a := join(t, broker.Connect(), cluster.Options{NodeID: "a"})
		b := join(t, broker.Connect(), cluster.Options{NodeID: "b"})
		time.Sleep(2 * time.Second)
		a.SetChannel("app", "x", 2)
		settle()
		begun := time.Now()
		got, err := b.Survey(t.Context())
		if err != nil || len(got.Silent) != 0 || len(got.Nodes) != 2 {
			t.Fatalf("Survey = %+v, %v; want b and a", got, err)
		}
		if took := time.Since(begun); took > time.Second {
			t.Errorf("it took %v", took)
		}
		if got.Nodes[0].Node != "b" || got.Nodes[0].Peers[0].Channels != 1 || got.Nodes[1].Node != "a" || got.Nodes[1].Own.Channels != 1 {
			t.Errorf("Survey = %+v; want the channel of a in its own words and in those of b", got)
		}
		a.stop()
		b.SetChannel("app", "x", 1)
		settle()
		if got, err = b.Survey(t.Context()); err != nil || len(got.Silent) != 0 || len(got.Nodes) != 1 {
			t.Errorf("Survey = %+v, %v; want b, a has left", got, err)
		}
	})
}

func TestWhoIsNoNodeTellsThemOfApps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broker := cluster.NewMemoryBus()
		a := join(t, broker.Connect(), cluster.Options{NodeID: "a", Secret: []byte("shared")})
		time.Sleep(2 * time.Second)
		opts := cluster.Options{Secret: []byte("shared")}
		for range 2 {
			if err := cluster.Announce(t.Context(), broker.Connect(), opts, []string{"one", "two"}); err != nil {
				t.Fatal(err)
			}
		}
		settle()
		if got, want := a.took(&a.did), []string{"app one", "app two", "app one", "app two"}; !slices.Equal(got, want) {
			t.Errorf("a was told %q, want %q", got, want)
		}
		if got := a.Status(); len(got.Peers) != 0 || len(got.Refused) != 0 {
			t.Errorf("a knows %+v, want neither peers nor refusals", got)
		}
		if err := cluster.Announce(t.Context(), broker.Connect(), cluster.Options{Secret: []byte("other")}, []string{"three"}); err != nil {
			t.Fatal(err)
		}
		settle()
		if got := a.took(&a.did); len(got) != 0 {
			t.Errorf("a was told %q by a stranger", got)
		}
	})
}
