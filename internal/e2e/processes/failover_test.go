package processes

import (
	"fmt"
	"testing"
	"time"

	"sockudo/internal/servicetest"
)

// TestAMasterOfAClusterFailsOver kills one of three masters; its replica takes
// over. Nobody starts anything again.
func TestAMasterOfAClusterFailsOver(t *testing.T) {
	t.Parallel()
	services := servicetest.Start(t, servicetest.Options{Replicas: true}, "cluster")
	var seeds []string
	for _, addr := range services.Cluster(t).Addrs {
		seeds = append(seeds, "redis://"+addr)
	}
	s := &site{}
	for range last + 1 {
		s.nodes = append(s.nodes, newNode(t, map[string]any{"driver": "redis-cluster", "cluster": map[string]any{
			"nodes": seeds, "request_timeout_ms": answerTimeout.Milliseconds(),
		}}))
	}
	for _, n := range s.nodes {
		n.launch(t)
	}
	s.awaitReady(t)
	const channel = "presence-failover"
	watchers := []*ear{s.member(t, 0, channel, "w0"), s.member(t, 1, channel, "w1")}
	stay := users("stays", 10)
	s.crowd(t, last, channel, stay)
	s.agree(t, channel, watchers, append(stay, "w0", "w1")...)
	var all []*traffic // of all masters: one in three channels belongs to the one that dies
	for i := range 6 {
		all = append(all, s.traffic(t, fmt.Sprint("failover", i)))
	}

	killed := time.Now()
	services.Kill(t, "node1")
	for _, tr := range all {
		for _, m := range tr.mouths {
			eventually(t, m.name+" was refused and is accepted again", func() error {
				said := m.all()
				for i := len(said) - 1; i >= 0; i-- {
					if said[i].status != 0 && !said[i].accepted && said[i].done.After(killed) {
						if i+20 < len(said) {
							return nil
						}
						break
					}
				}
				return fmt.Errorf("the last of %d is %+v", len(said), said[len(said)-1])
			})
		}
	}
	for _, tr := range all {
		tr.flow(t)
	}
	s.awaitReady(t)
	end := time.Now()
	var sum count
	var first, latest time.Time // refused
	for _, tr := range all {
		c := tr.count(t)
		c.orderly(t)
		lostWithin(t, c, killed, end)
		sum.sent, sum.accepted, sum.refused = sum.sent+c.sent, sum.accepted+c.accepted, sum.refused+c.refused
		sum.due, sum.received, sum.lost = sum.due+c.due, sum.received+c.received, sum.lost+c.lost
		for _, m := range tr.mouths {
			for _, said := range m.all() {
				if said.accepted || said.done.IsZero() {
					continue
				}
				if first.IsZero() || said.done.Before(first) {
					first = said.done
				}
				if said.done.After(latest) {
					latest = said.done
				}
			}
		}
	}
	heardOnce(t, watchers, channel, stay, "added")
	s.agree(t, channel, watchers, append(stay, "w0", "w1")...)
	report(t, sum, "one of three masters is killed and its replica takes over; publishes were refused from %.1f s to %.1f s after it",
		first.Sub(killed).Seconds(), latest.Sub(killed).Seconds())
}
