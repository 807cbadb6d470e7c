package cluster

import (
	"bytes"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"
)

var guardNow = time.Unix(1_700_000_000, 0)

func newTestGuard(node, id, secret string, log *bytes.Buffer) *guard {
	return newGuard(target{node, 7}, Options{ID: id, Prefix: "p:", PrefixSetting: "adapter.redis.prefix", Secret: []byte(secret), NodeTimeout: 30 * time.Second},
		slog.New(slog.NewTextHandler(log, nil)))
}

// A goodbye goes another way than the events of channels and may overtake them.
func TestEventsThatTheGoodbyeOvertookAreTaken(t *testing.T) {
	var log bytes.Buffer
	g, peer := newTestGuard("self", "c", "", &log), newTestGuard("peer", "c", "", new(bytes.Buffer))
	first, event, state := peer.seal(kindBroadcast, nil, guardNow), peer.seal(kindBroadcast, nil, guardNow), peer.seal(kindBatch, nil, guardNow)
	slow, goodbye := peer.seal(kindBroadcast, nil, guardNow), peer.seal(kindGoodbye, nil, guardNow)
	after := peer.seal(kindBroadcast, nil, guardNow)
	open := func(name string, msg []byte, want refusal) {
		t.Helper()
		if _, why := g.open(msg, guardNow); why != want {
			t.Errorf("%s: %q, want %q", name, why, want)
		}
	}
	open("before the goodbye", first, "")
	open("the goodbye", goodbye, "")
	open("the goodbye again", goodbye, refusedReplayed)
	open("an event that was sent before it", event, "")
	open("the event again", event, refusedReplayed)
	open("a change that was sent before it", state, late)
	if strings.Contains(log.String(), string(refusedEpoch)) {
		t.Errorf("what is only late is complained about:\n%s", &log)
	}
	open("an event that was sent after it", after, refusedEpoch)
	g.forget(guardNow.Add(g.timeout + time.Second))
	open("an event that comes much later", slow, refusedEpoch)
	open("one that was taken", event, refusedEpoch)
}

func TestTheGuardSaysWhyItRefuses(t *testing.T) {
	signed := newTestGuard("peer", "c", "geheim", new(bytes.Buffer))
	plain := newTestGuard("peer", "c", "", new(bytes.Buffer))
	other := newTestGuard("peer", "d", "", new(bytes.Buffer))
	forger := newTestGuard("peer", "c", "guess", new(bytes.Buffer))
	msg := func(g *guard, at time.Time) []byte { return g.seal(kindApp, []byte("app"), at) }
	edit := func(b []byte, i int, v byte) []byte { b = bytes.Clone(b); b[i] = v; return b }
	good := msg(signed, guardNow)
	flipped := edit(good, len(good)-40, good[len(good)-40]^1)
	for _, test := range []struct {
		name, secret string
		msg          []byte
		want         refusal
	}{
		{"signed", "geheim", good, ""},
		{"plain", "", msg(plain, guardNow), ""},
		{"plain and old, which only a signature proves", "", msg(plain, guardNow.Add(-time.Hour)), ""},
		{"unsigned", "geheim", msg(plain, guardNow), refusedUnsigned},
		{"signed for nobody", "", good, refusedSigned},
		{"another secret", "geheim", msg(forger, guardNow), refusedSignature},
		{"a changed body", "geheim", flipped, refusedSignature},
		{"too old", "geheim", msg(signed, guardNow.Add(-freshness-time.Second)), refusedStale},
		{"of the future", "geheim", msg(signed, guardNow.Add(freshness+time.Second)), refusedStale},
		{"another cluster", "", msg(other, guardNow), refusedCluster},
		{"another cluster without the secret", "geheim", msg(other, guardNow), refusedCluster},
		{"another version", "", edit(msg(plain, guardNow), 1, version+1), refusedVersion},
		{"another kind", "", edit(msg(plain, guardNow), 2, byte(kinds)), refusedVersion},
		{"an unknown flag", "", edit(msg(plain, guardNow), 3, 0x80), refusedVersion},
		{"nothing", "", nil, refusedMalformed},
		{"text", "", []byte(`{"event":"x"}`), refusedMalformed},
		{"cut off in the header", "", msg(plain, guardNow)[:9], refusedMalformed},
		{"cut off in the signature", "geheim", good[:len(good)-20], refusedMalformed},
		{"cut off at the end", "geheim", good[:len(good)-2], refusedSignature},
	} {
		t.Run(test.name, func(t *testing.T) {
			var log bytes.Buffer
			g := newTestGuard("self", "c", test.secret, &log)
			for range 3 {
				_, why := g.open(test.msg, guardNow)
				if test.want == "" {
					if why != "" {
						t.Fatalf("refused as %q", why)
					}
					break // again it would be a replay
				}
				if why != test.want {
					t.Fatalf("refusal = %q, want %q", why, test.want)
				}
			}
			if test.want == "" {
				return
			}
			if n := g.refusals()[string(test.want)]; n != 3 {
				t.Errorf("%d refusals counted, want 3", n)
			}
			if n := strings.Count(log.String(), "envelope refused"); n != 1 {
				t.Errorf("%d lines in the log, want one for the source:\n%s", n, &log)
			}
			if s := log.String(); strings.Contains(s, "geheim") || !strings.Contains(s, "adapter.redis.prefix") {
				t.Errorf("the log tells the secret, or not what to change:\n%s", s)
			}
		})
	}
}

func TestTheGuardTakesNothingTwice(t *testing.T) {
	g := newTestGuard("self", "c", "geheim", new(bytes.Buffer))
	peer := newTestGuard("peer", "c", "geheim", new(bytes.Buffer))
	first, second := peer.seal(kindApp, nil, guardNow), peer.seal(kindApp, nil, guardNow)
	for i, want := range []refusal{"", "", refusedReplayed, refusedReplayed} {
		msg := second // overtakes the first: topics do
		if i%2 == 1 {
			msg = first
		}
		if _, why := g.open(msg, guardNow); why != want {
			t.Errorf("envelope %d: refusal = %q, want %q", i, why, want)
		}
	}
	if _, why := g.open(g.seal(kindApp, nil, guardNow), guardNow); why != own {
		t.Errorf("what the node said itself: %q", why)
	}
	// The process was replaced; what is left of the old one is refused.
	next := newTestGuard("peer", "c", "geheim", new(bytes.Buffer))
	next.epoch++
	if _, why := g.open(next.seal(kindApp, nil, guardNow), guardNow); why != "" {
		t.Errorf("the next process: %q", why)
	}
	if _, why := g.open(peer.seal(kindApp, nil, guardNow), guardNow); why != refusedEpoch {
		t.Errorf("the old process: %q, want %q", why, refusedEpoch)
	}
	if _, why := g.open(next.seal(kindGoodbye, nil, guardNow), guardNow); why != "" {
		t.Errorf("goodbye: %q", why)
	}
	if _, why := g.open(next.seal(kindApp, nil, guardNow), guardNow); why != refusedEpoch {
		t.Errorf("after the goodbye: %q, want %q", why, refusedEpoch)
	}
}

func TestComplaintsAreBounded(t *testing.T) {
	var log bytes.Buffer
	g := newTestGuard("self", "c", "", &log)
	for i := range 10 * maxLogged {
		stranger := newTestGuard(fmt.Sprintf("n%d\n", i), "d", "", new(bytes.Buffer))
		g.open(stranger.seal(kindApp, nil, guardNow), guardNow)
	}
	if n := strings.Count(log.String(), "\n"); n > maxLogged+1 {
		t.Errorf("%d lines in the log, want at most %d", n, maxLogged+1)
	}
	if n := g.refusals()[string(refusedCluster)]; n != 10*maxLogged {
		t.Errorf("%d refusals counted, want %d", n, 10*maxLogged)
	}
}

// FuzzOpen: whatever arrives is refused or read, and what is read and written
// again is the same.
// appsChanged is a Local that apps can change at, and nothing else can happen to.
type appsChanged struct {
	Local
	apps []string
}

func (a *appsChanged) AppChanged(app string) { a.apps = append(a.apps, app) }

// A node says again what it told others to do, once, and nothing else: not what
// was its state, nor what somebody else has said.
func TestOnlyDeedsOfTheSpeakerAreSaidAgain(t *testing.T) {
	local := &appsChanged{}
	c := New(NewMemoryBus().Connect(), Options{ID: "c", NodeID: "self"})
	c.local = local
	now := time.Now()
	peer, other := newTestGuard("peer", "c", "", new(bytes.Buffer)), newTestGuard("other", "c", "", new(bytes.Buffer))
	again := func(k kind, msg []byte) []byte {
		body := appendString(nil, c.topicOf(k))
		body = append(body, 5) // ms
		return peer.seal(kindAgain, appendString(body, string(msg)), now)
	}
	deed := peer.seal(kindApp, []byte("shop"), now)
	for _, tt := range []struct {
		name      string
		msg       []byte
		misrouted int64
	}{
		{"a deed", again(kindApp, deed), 0},
		{"the same once more", again(kindApp, deed), 0},
		{"what somebody else has said", again(kindApp, other.seal(kindApp, []byte("others"), now)), 1},
		{"what this node has said", again(kindApp, c.guard.seal(kindApp, []byte("own"), now)), 1},
		{"a state", again(kindBatch, peer.seal(kindBatch, nil, now)), 1},
		{"what was said again", again(kindAgain, again(kindApp, peer.seal(kindApp, []byte("nested"), now))), 1},
	} {
		before := c.guard.refusals()[string(refusedMisrouted)]
		c.message(c.ownTopic, tt.msg, now)
		refused := c.guard.refusals()
		if n := refused[string(refusedMisrouted)] - before; n != tt.misrouted {
			t.Errorf("%s: refused as misrouted %d times, want %d", tt.name, n, tt.misrouted)
		}
		delete(refused, string(refusedMisrouted))
		if len(refused) > 0 {
			t.Errorf("%s: refused %v", tt.name, refused)
		}
	}
	if want := []string{"shop"}; !slices.Equal(local.apps, want) {
		t.Errorf("%v changed, want %v", local.apps, want)
	}
}

func FuzzOpen(f *testing.F) {
	g := newTestGuard("peer", "c", "", new(bytes.Buffer))
	m := broadcast{app: "app", channel: "x", except: "1.1", at: guardNow, payload: []byte("{}")}
	term := terminate{"app", "ann", 4009, "bye"}
	beat := heartbeat{hello: true, seq: 3, digest: 4, claim: 5}
	ask := listen{to: target{"peer", 7}, loss: 1, age: time.Second}
	again := appendString([]byte("\x01x\x05"), string(g.seal(kindApp, []byte("app"), guardNow)))
	for k, body := range map[kind][]byte{kindListen: ask.append(nil), kindAgain: again, kindBroadcast: m.append(nil), kindTerminate: term.append(nil), kindHeartbeat: beat.append(nil), kindBatch: {1, 1, 1}, kindPart: {1, 'x'}} {
		f.Add(g.seal(k, body, guardNow))
	}
	f.Fuzz(func(t *testing.T, msg []byte) {
		s := sealer{}
		e, why := s.open(msg)
		if why != "" {
			return
		}
		if again, why := s.open(s.seal(&e)); why != "" || again.kind != e.kind || again.number != e.number || again.epoch != e.epoch ||
			again.cluster != e.cluster || again.node != e.node || !bytes.Equal(again.body, e.body) {
			t.Errorf("%+v became %+v (%s)", e, again, why)
		}
		// Every reader of bodies must bear every body.
		readBroadcast(e.body)
		readTerminate(e.body)
		readBatch(e.body)
		readHeartbeat(e.body)
		readRequest(e.body)
		readPart(e.body)
		readToldList(e.body)
		readListen(e.body)
		readAgain(e.body, func(string, time.Duration, []byte) {})
	})
}

func BenchmarkSealBroadcast(b *testing.B) {
	for _, secret := range []string{"", "geheim"} {
		b.Run(map[bool]string{true: "signed", false: "plain"}[secret != ""], func(b *testing.B) {
			g := newTestGuard("peer", "c", secret, new(bytes.Buffer))
			m := broadcast{app: "app", channel: "my-channel", at: guardNow, payload: bytes.Repeat([]byte("x"), 150)}
			body := m.append(nil)
			b.ReportAllocs()
			for b.Loop() {
				g.seal(kindBroadcast, body, guardNow)
			}
		})
	}
}
