package cluster

import (
	"testing"
	"time"
)

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

// Who knows of no other node tells what it does all the same: one that stands still
// hears it later, and must know what the world was told.
func TestALonelyNodeSendsItsRecords(t *testing.T) {
	w := newWorld(1, profiles[0], false)
	n := w.boot("")
	k := n.core
	k.start(w.now)
	k.tell(w.now, thing{simApp, "presence-1", "ann"}, true, "{}")
	if out := k.drainRecords(w.now.Add(recordDelay)); out == nil || out.kind != kindTold {
		t.Errorf("it sends %+v, want its record", out)
	}
}

// A node that was deaf for long asks whether the world was told that it was gone. One
// that missed what a dead owner said in that time must not answer that it was not.
func TestNobodyIsSureOfWhatItMissed(t *testing.T) {
	w := newWorld(1, profiles[0], false)
	n := w.boot("")
	k := n.core
	k.start(w.now)
	what := thing{simApp, "presence-1", "ann"}
	k.charge.reigns = []reign{{w.now, []string{"dead"}, []string{"dead"}}}
	k.charge.vouches["dead"] = vouch{w.now, w.now.Add(5 * time.Second)} // it was heard until then
	now := w.now.Add(10 * time.Second)
	if !k.sure(now, what, w.now.Add(time.Second)) {
		t.Error("not sure of what was heard")
	}
	if k.sure(now, what, now.Add(-recordsKept)) {
		t.Error("sure of all, although something may have been missed")
	}
}
