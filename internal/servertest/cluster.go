package servertest

import (
	"testing"
	"time"

	"sockudo/internal/cluster"
	"sockudo/internal/cluster/bustest"
	"sockudo/internal/config"
	"sockudo/internal/directory"
	"sockudo/internal/server"
)

// Patience is how long a test waits for what takes milliseconds on a machine
// with nothing else to do.
const Patience = 30 * time.Second

// Slack is how much longer than promised something may take on a machine that
// does other things.
const Slack = 10 * time.Second

// A Cluster is several servers that are one.
type Cluster []*Server

// StartCluster runs servers that share a broker in memory, each with settings
// as in Start, and returns when all of them are ready.
func StartCluster(t testing.TB, nodes int, edit func(*config.Config)) Cluster {
	t.Helper()
	c, _ := StartCabled(t, nodes, edit)
	return c
}

// StartCabled is StartCluster with the cables that connect the nodes to the
// broker.
func StartCabled(t testing.TB, nodes int, edit func(*config.Config)) (Cluster, []*bustest.Cable) {
	t.Helper()
	broker := cluster.NewMemoryBus()
	var c Cluster
	var cables []*bustest.Cable
	for range nodes {
		cable := bustest.NewCable(broker.Connect())
		c = append(c, start(t, edit, server.Options{Bus: cable}))
		cables = append(cables, cable)
	}
	c.await(t)
	return c, cables
}

// StartNodes runs servers that share the broker that their settings name, and
// returns when all of them are ready.
func StartNodes(t testing.TB, nodes int, edit func(*config.Config)) Cluster {
	t.Helper()
	var c Cluster
	for range nodes {
		c = append(c, Start(t, edit))
	}
	c.await(t)
	return c
}

// await returns when every node is ready and knows all others.
func (c Cluster) await(t testing.TB) {
	t.Helper()
	Eventually(t, "the nodes find each other", func() bool {
		for _, s := range c {
			if s.Peers().Ready() != nil || len(s.Peers().Status().Peers) != len(c)-1 {
				return false
			}
		}
		return true
	})
	c.Settle(t)
}

// Addrs are the addresses of the main listeners.
func (c Cluster) Addrs() []string {
	var addrs []string
	for _, s := range c {
		addrs = append(addrs, s.Addr)
	}
	return addrs
}

// Settle returns when each node knows of the others what is true.
func (c Cluster) Settle(t testing.TB) {
	t.Helper()
	Eventually(t, "the nodes agree", c.agree)
}

// A fact is what a directory.Entry is about.
type fact struct {
	kind               directory.Kind
	app, channel, user string
}

// agree reports whether the view of each node is the sum of what the others
// have.
func (c Cluster) agree() bool {
	sum := map[fact]int{}
	own := make([]map[fact]int, len(c))
	sizes := map[string]directory.Sizes{}
	for i, s := range c {
		own[i] = map[fact]int{}
		var size directory.Sizes
		s.Node().Truth(func(e directory.Entry) {
			f := fact{e.Kind, e.App, e.Channel, e.User}
			own[i][f] = e.Value
			sum[f] += e.Value
			switch e.Kind {
			case directory.Channel:
				size.Channels++
			case directory.Member:
				size.Members++
			case directory.User:
				size.Users++
			case directory.Sockets:
				size.Sockets += e.Value
			}
		})
		sizes[s.Peers().NodeID()] = size
	}
	for i, s := range c {
		for f, n := range sum {
			if read(s.Peers(), f) != n-own[i][f] {
				return false
			}
		}
		// There is nothing that is not true any more.
		for _, p := range s.Peers().Status().Peers {
			if want, there := sizes[p.Node]; there && p.Sizes != want {
				return false
			}
		}
	}
	return true
}

// read returns what a node's view has of a fact.
func read(p *cluster.Cluster, f fact) int {
	switch f.kind {
	case directory.Channel:
		return p.Subscriptions(f.app, f.channel)
	case directory.Member:
		n, _ := p.Member(f.app, f.channel, f.user)
		return n
	case directory.Sockets:
		return p.Sockets(f.app)
	default:
		return p.User(f.app, f.user)
	}
}

// Eventually waits until ok is true.
func Eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(Patience)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("not so after %v: %s", Patience, what)
		}
		time.Sleep(time.Millisecond)
	}
}
