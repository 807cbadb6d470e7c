package processes

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// bound is within what a dead node's members are gone.
const bound = nodeTimeout + time.Second

// slack is what a busy machine may add.
const slack = 3 * time.Second

func users(name string, count int) (users []string) {
	for i := range count {
		users = append(users, fmt.Sprint(name, i))
	}
	return slices.Clip(users)
}

// crowd are members of a presence channel at a node.
func (s *site) crowd(t *testing.T, i int, channel string, names []string) (ears []*ear) {
	t.Helper()
	for _, name := range names {
		ears = append(ears, s.member(t, i, channel, name))
	}
	return ears
}

// heardOnce checks what watchers have heard of users since they are there, and
// returns when the last of it came.
func heardOnce(t *testing.T, watchers []*ear, channel string, users []string, want ...string) (latest time.Time) {
	t.Helper()
	for _, w := range watchers {
		for _, u := range users {
			kinds, at := w.changes(channel, u)
			if !slices.Equal(kinds, want) {
				t.Errorf("%s heard of %s: %v, want %v", w.name, u, kinds, want)
			}
			if at.After(latest) {
				latest = at
			}
		}
	}
	return latest
}

// killedNode ends the last node as a crash of its machine would.
func killedNode(t *testing.T, s *site) {
	const channel = "presence-killed"
	dead := users("dead", 20)
	watchers := []*ear{s.member(t, 0, channel, "w0"), s.member(t, 1, channel, "w1")}
	s.agree(t, channel, watchers, "w0", "w1")
	s.crowd(t, last, channel, append(dead, "both"))
	s.member(t, 1, channel, "both")
	s.agree(t, channel, watchers, append(dead, "w0", "w1", "both")...)
	tr := s.traffic(t, "killed")

	killed := time.Now()
	s.nodes[last].kill(t)
	s.agree(t, channel, watchers, "w0", "w1", "both")
	tr.flow(t, last)
	took := heardOnce(t, watchers, channel, dead, "added", "removed").Sub(killed)
	if took > bound+slack {
		t.Errorf("the members of the dead node were gone after %v, want within %v", took, bound)
	}
	heardOnce(t, watchers, channel, []string{"both"}, "added")

	// What the dead node had accepted has reached everybody.
	for _, hush := range tr.hush {
		hush()
	}
	c := account(t, tr.mouths[:last], tr.ears[:last])
	for _, e := range tr.ears[:last] {
		e.mu.Lock()
		e.count(tr.mouths[last], &c)
		e.mu.Unlock()
	}
	c.complete(t)
	report(t, c, "SIGKILL of a node; its members were gone after %.1f s", took.Seconds())
	s.nodes[last].start(t)
	s.agree(t, channel, watchers, "w0", "w1", "both")
}

// frozenNode stops the last node for longer than it may be silent.
func frozenNode(t *testing.T, s *site) {
	const channel = "presence-frozen"
	frozen := users("frozen", 20)
	watchers := []*ear{s.member(t, 0, channel, "w0"), s.member(t, 1, channel, "w1")}
	s.agree(t, channel, watchers, "w0", "w1")
	crowd := s.crowd(t, last, channel, frozen)
	s.agree(t, channel, append(watchers, crowd...), append(frozen, "w0", "w1")...)
	tr := s.traffic(t, "frozen")

	stopped := time.Now()
	s.nodes[last].signal(t, syscall.SIGSTOP)
	for _, w := range watchers {
		w.until(t, "the members of the frozen node are gone", func() bool { return len(w.members[channel]) == 2 })
	}
	gone := heardOnce(t, watchers, channel, frozen, "added", "removed").Sub(stopped)
	if gone > bound+slack {
		t.Errorf("the members of the frozen node were gone after %v, want within %v", gone, bound)
	}
	// Somebody leaves and somebody comes meanwhile.
	extra := s.member(t, 1, channel, "late")
	tr.flow(t, last)
	resumed := time.Now()
	s.nodes[last].signal(t, syscall.SIGCONT)
	s.agree(t, channel, append(watchers, extra), append(frozen, "w0", "w1", "late")...)
	back := heardOnce(t, watchers, channel, frozen, "added", "removed", "added").Sub(resumed)
	// Who was at the frozen node may see others go and come, but nothing that
	// contradicts itself.
	s.agree(t, channel, crowd, append(frozen, "w0", "w1", "late")...)
	s.awaitReady(t)
	tr.flow(t)
	c := tr.count(t)
	c.orderly(t)
	survivors := count{}
	for _, e := range tr.ears[:last] {
		e.mu.Lock()
		for _, m := range tr.mouths {
			e.count(m, &survivors)
		}
		e.mu.Unlock()
	}
	survivors.complete(t)
	report(t, c, "SIGSTOP of a node for %.1f s; its members were gone after %.1f s and back after %.1f s; nothing lost at other nodes",
		resumed.Sub(stopped).Seconds(), gone.Seconds(), back.Seconds())
}

// flushedBroker empties the broker, which has nothing that matters.
func flushedBroker(t *testing.T, s *site) {
	const channel = "presence-flushed"
	watchers := []*ear{s.member(t, 0, channel, "w0"), s.member(t, 1, channel, "w1")}
	s.agree(t, channel, watchers, "w0", "w1")
	crowd := users("user", 10)
	s.crowd(t, last, channel, crowd)
	s.agree(t, channel, watchers, append(crowd, "w0", "w1")...)
	tr := s.traffic(t, "flushed")
	for range 3 {
		s.flush(t)
		tr.flow(t)
	}
	s.member(t, last, channel, "new")
	s.agree(t, channel, watchers, append(crowd, "w0", "w1", "new")...)
	heardOnce(t, watchers, channel, append(crowd, "new"), "added")
	c := tr.count(t)
	c.complete(t)
	report(t, c, "the broker is flushed")
}

// killedBroker ends the broker and starts it again, or lets another server take over.
func killedBroker(t *testing.T, s *site) {
	const channel = "presence-broker"
	watchers := []*ear{s.member(t, 0, channel, "w0"), s.member(t, 1, channel, "w1")}
	s.agree(t, channel, watchers, "w0", "w1")
	stay, leave := users("stays", 10), s.member(t, last, channel, "leaves")
	s.crowd(t, last, channel, stay)
	s.agree(t, channel, watchers, append(stay, "w0", "w1", "leaves")...)
	tr := s.traffic(t, "broker")

	killed := time.Now()
	s.crash(t)
	for _, n := range s.nodes {
		n.awaitUnready(t)
	}
	unready := time.Since(killed)
	// Joins and leaves meanwhile are not forgotten.
	leave.hang()
	s.member(t, last, channel, "comes")
	// Longer than a node may be silent: nobody takes the others for dead.
	<-time.After(time.Until(killed.Add(bound)))
	recovered := time.Now()
	s.recover(t)
	s.awaitReady(t)
	ready := time.Since(recovered)
	s.agree(t, channel, watchers, append(stay, "w0", "w1", "comes")...)
	tr.flow(t)
	end := time.Now()
	heardOnce(t, watchers, channel, stay, "added")
	heardOnce(t, watchers, channel, []string{"leaves"}, "added", "removed")
	heardOnce(t, watchers, channel, []string{"comes"}, "added")

	c := tr.count(t)
	c.orderly(t)
	lostWithin(t, c, killed, end)
	refused := 0
	for _, m := range tr.mouths {
		for _, said := range m.all() {
			if said.status == 503 && said.retryAfter != "" {
				refused++
			}
		}
	}
	if refused == 0 {
		t.Error("no publish was answered with 503 and Retry-After while the broker was down")
	}
	report(t, c, "the broker is killed and back; /up said so after %.1f s, and was well %.1f s after the broker; %d publishes answered with 503, %d messages of those were heard at the node itself",
		unready.Seconds(), ready.Seconds(), refused, c.extra)
}

// list names the first of the messages that were lost.
func (c count) list(t *testing.T, begin time.Time) {
	t.Helper()
	for _, l := range c.losses[:min(len(c.losses), 10)] {
		t.Logf("lost: %s to %s, published %.3f s after the fault began, answered after %.3f s", l.text, l.ear, l.begun.Sub(begin).Seconds(), l.done.Sub(l.begun).Seconds())
	}
	for _, l := range c.twice[:min(len(c.twice), 10)] {
		t.Logf("twice: %s to %s, published %.3f s after the fault began, came again after %.3f s", l.text, l.ear, l.begun.Sub(begin).Seconds(), l.done.Sub(l.begun).Seconds())
	}
}

// lostWithin checks that what was lost was published within a time.
func lostWithin(t *testing.T, c count, from, until time.Time) {
	t.Helper()
	c.list(t, from)
	for _, l := range c.late[:min(len(c.late), 10)] {
		t.Logf("late: %s to %s, published %.3f s after the fault, came after %.3f s", l.text, l.ear, l.begun.Sub(from).Seconds(), l.done.Sub(l.begun).Seconds())
	}
	if c.lost > 0 && (c.firstLost.Before(from.Add(-margin)) || c.lastLost.After(until.Add(margin))) {
		t.Errorf("%v; lost from %v to %v after the fault, which lasted %v", c, c.firstLost.Sub(from), c.lastLost.Sub(from), until.Sub(from))
	}
}

// cutOffNode keeps the last node from the broker and lets it back.
func cutOffNode(t *testing.T, s *site) {
	const channel = "presence-cut"
	watchers := []*ear{s.member(t, 0, channel, "w0"), s.member(t, 1, channel, "w1")}
	s.agree(t, channel, watchers, "w0", "w1")
	far := users("far", 10)
	crowd := s.crowd(t, last, channel, far)
	leaves := s.member(t, last, channel, "leaves")
	s.agree(t, channel, append(watchers, crowd...), append(far, "w0", "w1", "leaves")...)
	tr := s.traffic(t, "cut")

	begin := time.Now()
	s.cutOff(t)
	s.nodes[last].awaitUnready(t)
	unready := time.Since(begin)
	for _, w := range watchers {
		w.until(t, "the members of the node that is cut off are gone", func() bool { return len(w.members[channel]) == 2 })
	}
	gone := heardOnce(t, watchers, channel, append(far, "leaves"), "added", "removed").Sub(begin)
	if gone > bound+slack {
		t.Errorf("the members of the node that is cut off were gone after %v, want within %v", gone, bound)
	}
	for _, n := range s.nodes[:last] {
		n.awaitReady(t)
	}
	leaves.hang()
	tr.flow(t, last)
	local := len(tr.ears[last].events("cut", "e"))
	tr.ears[last].until(t, "the node that is cut off serves its own", func() bool { return len(tr.ears[last].heard) > local+10 })
	back := time.Now()
	s.rejoin(t)
	s.nodes[last].awaitReady(t)
	ready := time.Since(back)
	s.agree(t, channel, watchers, append(far, "w0", "w1")...)
	heardOnce(t, watchers, channel, far, "added", "removed", "added")
	// Who left meanwhile does not show again, not even for a moment.
	heardOnce(t, watchers, channel, []string{"leaves"}, "added", "removed")
	s.agree(t, channel, crowd, append(far, "w0", "w1")...)
	tr.flow(t)
	end := time.Now()
	c := tr.count(t)
	c.orderly(t)
	lostWithin(t, c, begin, end)
	survivors := count{}
	for _, e := range tr.ears[:last] {
		e.mu.Lock()
		for _, m := range tr.mouths[:last] {
			e.count(m, &survivors)
		}
		e.mu.Unlock()
	}
	survivors.complete(t)
	report(t, c, "a node is cut off from the broker for %.1f s; its /up said so after %.1f s, its members were gone after %.1f s, and it was well %.1f s after the cut; nothing lost between the other nodes",
		back.Sub(begin).Seconds(), unready.Seconds(), gone.Seconds(), ready.Seconds())
}

// startWithoutBroker starts a node before the broker.
func startWithoutBroker(t *testing.T, s *site) {
	const channel = "presence-early"
	n := s.nodes[last]
	n.stop(t)
	if err := os.Truncate(n.log(), 0); err != nil {
		t.Fatal(err)
	}
	s.crash(t)
	n.launch(t)
	eventually(t, "the node says that it has no broker", func() error {
		log, err := os.ReadFile(n.log())
		if err == nil && !strings.Contains(string(log), "broker not reached, retrying") {
			err = fmt.Errorf("it says %q", log)
		}
		return err
	})
	begin := time.Now()
	s.recover(t)
	s.awaitReady(t)
	ready := time.Since(begin)
	watchers := []*ear{s.member(t, 0, channel, "w0"), s.member(t, 1, channel, "w1")}
	s.member(t, last, channel, "new")
	s.agree(t, channel, watchers, "w0", "w1", "new")
	tr := s.traffic(t, "early")
	c := tr.count(t)
	c.complete(t)
	report(t, c, "a node starts while the broker is down; ready %.1f s after the broker", ready.Seconds())
}

// rollingRestart restarts all nodes one after the other under load.
func rollingRestart(t *testing.T, s *site) {
	var turn atomic.Int64
	// A balancer leaves out what is not ready.
	balanced := func() *node {
		for range s.nodes {
			n := s.nodes[int(turn.Add(1))%len(s.nodes)]
			if status, err := n.up(t.Context()); err == nil && status == 200 {
				return n
			}
		}
		return s.nodes[0]
	}
	roll(t, s.nodes, balanced, func(*node) {})
}

// distantRestart is the same when what the last node says and hears takes long.
func distantRestart(t *testing.T, s *site) {
	s.slow(40 * time.Millisecond)
	defer s.slow(0)
	rollingRestart(t, s)
}

const listeners = 12 // of a rolling restart

// roll restarts nodes one after the other, and waits after each for what comes
// back to it, while clients listen and publish where they are told.
func roll(t *testing.T, nodes []*node, where func() *node, back func(n *node)) {
	const channel = "rolling"
	var ears []*ear
	for i := range listeners {
		ears = append(ears, listen(t, fmt.Sprint("ear ", i), where, true, channel))
	}
	var mouths []*mouth
	var hushes []func()
	for i := range 3 {
		m, hush := speak(t, fmt.Sprint("mouth", i), channel, where, 10*time.Millisecond)
		mouths, hushes = append(mouths, m), append(hushes, hush)
	}
	begin := time.Now()
	for _, n := range nodes {
		mouths[0].awaitAccepted(t, 50)
		n.stop(t)
		n.start(t)
		back(n)
	}
	took := time.Since(begin)
	mouths[0].awaitAccepted(t, 50)
	for _, hush := range hushes {
		hush()
	}
	for _, e := range ears {
		e.until(t, "it is back", e.subscribed)
	}
	c := account(t, mouths, ears)
	c.list(t, begin)
	if c.lost > 0 {
		for _, e := range ears {
			for _, s := range e.spans[channel] {
				t.Logf("%s was subscribed from %.3f s to %.3f s after the fault began", e.name, s.from.Sub(begin).Seconds(), s.until.Sub(begin).Seconds())
			}
		}
	}
	// One message may overtake the one before, which another node was given.
	if c.lost > 0 || c.duplicated > 0 || c.due == 0 {
		t.Errorf("%v; want none lost and none twice", c)
	}
	connections := 0
	for _, e := range ears {
		connections += len(e.spans[channel])
		e.proper(t)
	}
	report(t, c, "all nodes are restarted one after the other in %.1f s; %d clients had %d connections", took.Seconds(), listeners, connections)
}
