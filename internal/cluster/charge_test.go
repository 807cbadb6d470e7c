package cluster

import "testing"

// A node that did not see everything guesses what the world was told. A reminder
// must not pass that on as knowledge, even when the thing changes again.
func TestAGuessDoesNotBecomeKnowledge(t *testing.T) {
	w := newWorld(1, profiles[0], false)
	n := w.boot("")
	n.core.start(w.now)
	what := thing{simApp, "presence-1", "ann"}
	k := n.core
	k.charge.led = true
	k.doubt(w.now, what)
	k.joined = true
	n.dir.SetMember(what.app, what.channel, what.user, "{}", 1)
	k.take(w.now, n.dir.Transitions())
	if o, ok := k.charge.open[what]; !ok || !o.doubt || !o.told {
		t.Errorf("open is %+v, want it in doubt, and told as it is seen", o)
	}
}
