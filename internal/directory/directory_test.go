package directory

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// key is an entry without its value.
func key(kind Kind, app, channel, user string) string {
	return fmt.Sprintf("%s %s/%s/%s", kind, app, channel, user)
}

func collect(visit func(func(Entry))) map[string]Entry {
	all := map[string]Entry{}
	visit(func(e Entry) { all[key(e.Kind, e.App, e.Channel, e.User)] = e })
	return all
}

func (d *Directory) entriesOf(node string) map[string]Entry {
	return collect(func(visit func(Entry)) { d.Entries(node, visit) })
}

func drain(d *Directory) Batch { return d.Drain(1 << 30) }

func mustApply(t testing.TB, d *Directory, node string, b Batch) []Change {
	t.Helper()
	changes, err := d.Apply(node, b)
	if err != nil {
		t.Fatal(err)
	}
	return changes
}

func TestPeersSeeWhatWasSet(t *testing.T) {
	a, b := New(), New()
	b.Add("a")
	a.SetChannel("app", "presence-x", 2)
	a.SetMember("app", "presence-x", "ann", `{"n":1}`, 2)
	a.SetSockets("app", 7)
	a.SetUser("app", "ann", 1)
	got := mustApply(t, b, "a", drain(a))
	want := []Change{{Channel, "app", "presence-x", ""}, {Member, "app", "presence-x", "ann"}, {Sockets, "app", "", ""}, {User, "app", "", "ann"}}
	less := func(a, b Change) int { return int(a.Kind) - int(b.Kind) }
	slices.SortFunc(got, less)
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("changes (-want +got):\n%s", d)
	}
	if n := b.Subscriptions("app", "presence-x"); n != 2 {
		t.Errorf("subscriptions = %d, want 2", n)
	}
	if n, info := b.Member("app", "presence-x", "ann"); n != 2 || info != `{"n":1}` {
		t.Errorf("member = %d %s", n, info)
	}
	if s, u := b.Sockets("app"), b.User("app", "ann"); s != 7 || u != 1 {
		t.Errorf("sockets, user = %d, %d, want 7, 1", s, u)
	}
	if n := b.Subscriptions("other", "presence-x") + b.User("other", "ann") + b.Sockets("other"); n != 0 {
		t.Errorf("another app sees %d", n)
	}
	if p, _ := b.Peer("a"); p.Digest != a.Digest() || p.Seq != a.Seq() || p.Sizes != a.Sizes() || p.Seq != 4 {
		t.Errorf("peer is %+v, want %d %x %+v", p, a.Seq(), a.Digest(), a.Sizes())
	}
}

func TestAValueThatChangedTwiceIsTold(t *testing.T) {
	for _, test := range []struct {
		name string
		set  []int
		n    int
	}{
		{"once", []int{1, 2, 3}, 1},
		{"not at all if it is what it was", []int{1, 0}, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			a := New()
			for _, n := range test.set {
				a.SetChannel("app", "x", n)
			}
			if b := drain(a); b.N != test.n {
				t.Errorf("batch has %d changes, want %d", b.N, test.n)
			}
			if a.Pending() {
				t.Error("there is something left")
			}
		})
	}
}

func TestBatchesAreBounded(t *testing.T) {
	a, b := New(), New()
	b.Add("a")
	for i := range 1000 {
		a.SetChannel("app", fmt.Sprint("channel-", i), 1)
	}
	batches := 0
	for a.Pending() {
		batch := a.Drain(1000)
		if len(batch.Entries) > 1100 {
			t.Errorf("a batch has %d bytes, the limit is 1000", len(batch.Entries))
		}
		mustApply(t, b, "a", batch)
		batches++
	}
	if p, _ := b.Peer("a"); p.Sizes.Channels != 1000 || p.Digest != a.Digest() || batches < 10 {
		t.Errorf("%d channels after %d batches, digests %x and %x", p.Sizes.Channels, batches, p.Digest, a.Digest())
	}
}

func TestApplyingTwiceIsHarmlessAndGapsAreRefused(t *testing.T) {
	a, b := New(), New()
	b.Add("a")
	a.SetChannel("app", "x", 1)
	first := drain(a)
	a.SetChannel("app", "x", 2)
	second := drain(a)
	a.SetChannel("app", "x", 3)
	third := drain(a)
	mustApply(t, b, "a", first)
	if _, err := b.Apply("a", third); err == nil {
		t.Error("a batch after a gap was applied")
	}
	mustApply(t, b, "a", second)
	for _, again := range []Batch{first, second} {
		if ch := mustApply(t, b, "a", again); len(ch) != 0 {
			t.Errorf("the second time changes %v", ch)
		}
	}
	if n := b.Subscriptions("app", "x"); n != 2 {
		t.Errorf("subscriptions = %d, want 2", n)
	}
	if _, err := b.Apply("b", first); err == nil {
		t.Error("a batch of an unknown node was applied")
	}
	for _, broken := range []Batch{{0, 1, first.Entries}, {3, 2, third.Entries}, {3, 1, third.Entries[:4]}, {3, -1, nil}, {3, 1, append([]byte{7}, third.Entries...)}} {
		if _, err := b.Apply("a", broken); err == nil {
			t.Errorf("batch %v was applied", broken)
		}
	}
}

func TestUserInfoDoesNotDependOnWhoCameFirst(t *testing.T) {
	x, y := New(), New()
	x.SetMember("app", "c", "u", `{"from":"x"}`, 1)
	y.SetMember("app", "c", "u", `{"from":"y"}`, 1)
	bx, by := drain(x), drain(y)
	for _, order := range [][]string{{"x", "y"}, {"y", "x"}} {
		d := New()
		for _, node := range order {
			d.Add(node)
			mustApply(t, d, node, map[string]Batch{"x": bx, "y": by}[node])
		}
		if n, info := d.Member("app", "c", "u"); n != 2 || info != `{"from":"x"}` {
			t.Errorf("order %v: member = %d %s", order, n, info)
		}
	}
}

func TestADroppedNodeIsGoneWholeWithEachChangeOnce(t *testing.T) {
	a, b, d := New(), New(), New()
	for i := range 100 {
		name, user := fmt.Sprint("presence-", i%10), fmt.Sprint("user-", i)
		a.SetMember("app", name, user, "{}", 1)
		a.SetChannel("app", name, 10)
		a.SetUser("app", user, 1)
	}
	b.SetMember("app", "presence-1", "user-1", "{}", 1)
	d.Add("a")
	d.Add("b")
	mustApply(t, d, "a", drain(a))
	mustApply(t, d, "b", drain(b))
	changes := d.Drop("a")
	seen := map[Change]int{}
	for _, ch := range changes {
		seen[ch]++
	}
	if len(seen) != 100+10+100 || len(changes) != len(seen) {
		t.Errorf("%d changes of %d things, want 210", len(changes), len(seen))
	}
	if n := len(d.entriesOf("b")); n != 1 {
		t.Errorf("b has %d entries, want 1", n)
	}
	left := 0
	d.Channels("app", "", func(string, int, int) bool { left++; return true })
	if n, _ := d.Member("app", "presence-1", "user-1"); left != 0 || n != 1 {
		t.Errorf("%d channels left, user-1 has %d connections; want 0 and 1", left, n)
	}
	if d.Drop("a") != nil {
		t.Error("dropped twice")
	}
}

func TestASnapshotChangesOnlyWhatDiffers(t *testing.T) {
	a, d := New(), New()
	d.Add("a")
	for i := range 50 {
		a.SetMember("app", "presence-x", fmt.Sprint("user-", i), "{}", 1)
	}
	mustApply(t, d, "a", drain(a))
	a.SetMember("app", "presence-x", "user-1", "", 0)
	a.SetMember("app", "presence-x", "user-2", "{}", 2)
	a.SetMember("app", "presence-x", "new", "{}", 1)
	drain(a) // lost
	a.SetMember("app", "presence-x", "newer", "{}", 1)
	changes, err := d.Replace("a", a.Seq(), a.Snapshot(64), nil)
	if err != nil || len(changes) != 3 {
		t.Errorf("Replace = %v, %v; want three changes", changes, err)
	}
	if p, _ := d.Peer("a"); p.Seq != a.Seq() || p.Digest != a.Digest() || d.RecountPeer("a") != a.Digest() {
		t.Errorf("peer is %+v, want %d %x", p, a.Seq(), a.Digest())
	}
	mustApply(t, d, "a", drain(a))
	if n, _ := d.Member("app", "presence-x", "newer"); n != 1 {
		t.Errorf("what was pending at the snapshot is not there")
	}
	if _, err := d.Replace("a", 99, [][]byte{{1}}, nil); err == nil {
		t.Error("a broken snapshot was taken")
	}
	if got := len(d.entriesOf("a")); got != 51 {
		t.Errorf("%d entries after a broken snapshot, want 51", got)
	}
}

func TestOwnersMoveOnlyWithTheirNode(t *testing.T) {
	nodes := []string{"a", "b", "c", "d"}
	per := map[string]int{}
	moved := 0
	for i := range 4000 {
		channel := fmt.Sprint("channel-", i)
		owner := Owner("app", channel, nodes)
		per[owner]++
		after := Owner("app", channel, []string{"d", "a", "b"})
		if owner == "c" {
			moved++
		} else if after != owner {
			t.Fatalf("channel %s went from %s to %s when c left", channel, owner, after)
		}
	}
	for _, node := range nodes {
		if per[node] < 800 || per[node] > 1200 {
			t.Errorf("%s owns %d of 4000 channels", node, per[node])
		}
	}
	if moved != per["c"] {
		t.Errorf("%d moved, want %d", moved, per["c"])
	}
	if o := Owner("app", "x", nil); o != "" {
		t.Errorf("owner without nodes = %q", o)
	}
}

var (
	modelApps     = []string{"1", "2"}
	modelChannels = []string{"x", "presence-y", "presence-z"}
	modelUsers    = []string{"u", "v", "w"}
)

// viewOf is all that d says of the peers.
func viewOf(t *rapid.T, d *Directory) map[string]int {
	view := map[string]int{}
	put := func(v int, kind Kind, app, channel, user string) {
		if v > 0 {
			view[key(kind, app, channel, user)] = v
		}
	}
	for _, app := range modelApps {
		put(d.Sockets(app), Sockets, app, "", "")
		for _, user := range modelUsers {
			put(d.User(app, user), User, app, "", user)
		}
		for _, channel := range modelChannels {
			put(d.Subscriptions(app, channel), Channel, app, channel, "")
			members := 0
			d.Members(app, channel, func(user, info string, conns int) bool {
				members++
				put(conns, Member, app, channel, user)
				if n, i := d.Member(app, channel, user); n != conns || i != info {
					t.Fatalf("member %d %s, listed as %d %s", n, i, conns, info)
				}
				return true
			})
			if members != d.Users(app, channel) {
				t.Fatalf("%d members listed, %d counted", members, d.Users(app, channel))
			}
		}
		d.Channels(app, "presence-", func(channel string, subscriptions, users int) bool {
			if !strings.HasPrefix(channel, "presence-") || subscriptions != d.Subscriptions(app, channel) || users != d.Users(app, channel) {
				t.Fatalf("channel %s listed with %d, %d", channel, subscriptions, users)
			}
			return true
		})
	}
	return view
}

// A model of a directory: three nodes, batches that arrive late, snapshots at
// any time, nodes that are dropped and come back.
func TestDirectoryIsTheSumOfItsPartitions(t *testing.T) {
	names := []string{"a", "b", "c"}
	rapid.Check(t, func(t *rapid.T) {
		nodes := map[string]*Directory{}
		behind := map[[2]string][]Batch{} // from, to
		for _, n := range names {
			nodes[n] = New()
			nodes[n].Watch()
			for _, p := range names {
				if p != n {
					nodes[n].Add(p)
				}
			}
		}
		node := rapid.SampledFrom(names)
		pair := rapid.SampledFrom([][2]string{{"a", "b"}, {"a", "c"}, {"b", "a"}, {"b", "c"}, {"c", "a"}, {"c", "b"}})
		app, channel, user := rapid.SampledFrom(modelApps), rapid.SampledFrom(modelChannels), rapid.SampledFrom(modelUsers)
		value := rapid.IntRange(0, 2)
		seen := map[string]map[string]int{} // per node, the sums as its transitions say
		for _, n := range names {
			seen[n] = map[string]int{}
		}
		check := func() {
			for _, n := range names {
				d := nodes[n]
				for _, tr := range d.Transitions() {
					what := tr.App + "/" + tr.Channel + "/" + tr.User
					if seen[n][what] != tr.Before {
						t.Fatalf("%s: %s goes from %d to %d, it was %d", n, what, tr.Before, tr.After, seen[n][what])
					}
					seen[n][what] = tr.After
				}
				sums := map[string]int{}
				add := func(e Entry) {
					if e.Kind == Channel || e.Kind == Member {
						sums[e.App+"/"+e.Channel+"/"+e.User] += e.Value
					}
				}
				d.Own(add)
				remote := map[string]int{}
				for _, p := range names {
					d.Entries(p, add)
					for key, e := range d.entriesOf(p) {
						remote[key] += e.Value
					}
				}
				maps.DeleteFunc(seen[n], func(_ string, v int) bool { return v == 0 })
				if diff := cmp.Diff(sums, seen[n]); diff != "" {
					t.Fatalf("%s: sums and transitions differ:\n%s", n, diff)
				}
				if d.Recount() != d.Digest() {
					t.Fatalf("%s: digest %x, recounted %x", n, d.Digest(), d.Recount())
				}
				for _, p := range names {
					peer, ok := d.Peer(p)
					if ok && peer.Digest != d.RecountPeer(p) {
						t.Fatalf("%s: digest of %s %x, recounted %x", n, p, peer.Digest, d.RecountPeer(p))
					}
					if ok && peer.Seq == nodes[p].Seq() && (peer.Digest != nodes[p].Digest() || peer.Sizes != nodes[p].Sizes()) {
						t.Fatalf("%s has %s up to %d but with digest %x and sizes %+v, not %x and %+v", n, p, peer.Seq, peer.Digest, peer.Sizes, nodes[p].Digest(), nodes[p].Sizes())
					}
				}
				if diff := cmp.Diff(remote, viewOf(t, d)); diff != "" {
					t.Fatalf("%s: view is not the sum (-partitions +view):\n%s", n, diff)
				}
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"": func(*rapid.T) { check() },
			"channel": func(t *rapid.T) {
				nodes[node.Draw(t, "node")].SetChannel(app.Draw(t, "app"), channel.Draw(t, "channel"), value.Draw(t, "n"))
			},
			"member": func(t *rapid.T) {
				nodes[node.Draw(t, "node")].SetMember(app.Draw(t, "app"), channel.Draw(t, "channel"), user.Draw(t, "user"), rapid.SampledFrom([]string{"{}", `{"a":1}`}).Draw(t, "info"), value.Draw(t, "n"))
			},
			"sockets": func(t *rapid.T) {
				nodes[node.Draw(t, "node")].SetSockets(app.Draw(t, "app"), value.Draw(t, "n"))
			},
			"user": func(t *rapid.T) {
				nodes[node.Draw(t, "node")].SetUser(app.Draw(t, "app"), user.Draw(t, "user"), value.Draw(t, "n"))
			},
			"drain": func(t *rapid.T) {
				n := node.Draw(t, "node")
				b := nodes[n].Drain(rapid.IntRange(1, 60).Draw(t, "limit"))
				for _, p := range names {
					if p != n && b.N > 0 {
						behind[[2]string{n, p}] = append(behind[[2]string{n, p}], b)
					}
				}
			},
			"apply": func(t *rapid.T) {
				p := pair.Draw(t, "from, to")
				if len(behind[p]) == 0 {
					t.Skip("nothing on its way")
				}
				b := behind[p][0]
				behind[p] = behind[p][1:]
				if _, err := nodes[p[1]].Apply(p[0], b); err != nil {
					t.Fatal(err)
				}
			},
			"replace": func(t *rapid.T) {
				p := pair.Draw(t, "from, to")
				from := nodes[p[0]]
				seq, parts := from.Seq(), from.Snapshot(40)
				var later []Batch
				for range rapid.IntRange(0, 3).Draw(t, "later") {
					from.SetMember(app.Draw(t, "app"), channel.Draw(t, "channel"), user.Draw(t, "user"), "{}", value.Draw(t, "n"))
					if b := from.Drain(60); b.N > 0 {
						later = append(later, b)
						for _, to := range names {
							if to != p[0] {
								behind[[2]string{p[0], to}] = append(behind[[2]string{p[0], to}], b)
							}
						}
					}
				}
				before := viewOf(t, nodes[p[1]])
				changes, err := nodes[p[1]].Replace(p[0], seq, parts, later)
				if err != nil {
					t.Fatal(err)
				}
				told := map[string]bool{}
				for _, ch := range changes {
					what := key(ch.Kind, ch.App, ch.Channel, ch.User)
					if told[what] {
						t.Fatalf("%s is told twice", what)
					}
					told[what] = true
				}
				after := viewOf(t, nodes[p[1]])
				for what := range after {
					if before[what] != after[what] && !told[what] {
						t.Fatalf("%s changed and is not told", what)
					}
				}
			},
			"drop": func(t *rapid.T) {
				p := pair.Draw(t, "from, to")
				nodes[p[1]].Drop(p[0])
				nodes[p[1]].Add(p[0])
				from := nodes[p[0]]
				if _, err := nodes[p[1]].Replace(p[0], from.Seq(), from.Snapshot(40), nil); err != nil {
					t.Fatal(err)
				}
			},
		})
	})
}
