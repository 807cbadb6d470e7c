package processes

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"

	"sockudo/internal/admin"
	"sockudo/internal/cluster"
)

var fullScale = flag.Bool("scale.full", false, "the whole size of TestScale with every driver, not only the first")

// A size is how much a cluster has to hold.
type size struct {
	connections int // of all nodes; each is a user of its own
	members     int // of presence channels, 20 each
	channels    int // with one subscriber
	rate        int // subscribes and unsubscribes a second
	seconds     int
}

var (
	whole = size{connections: 3000, members: 10_000, channels: 50_000, rate: 1000, seconds: 10}
	part  = size{connections: 300, members: 1000, channels: 5000, rate: 1000, seconds: 3}
)

const room = 20 // members of a presence channel

// TestScale fills a cluster, has its clients come and go, and audits it.
func TestScale(t *testing.T) {
	for i, driver := range []string{"redis", "redis-cluster", "nats"} {
		t.Run(driver, func(t *testing.T) {
			z := part
			if i == 0 || *fullScale {
				z = whole
			}
			scale(t, driver, z)
		})
	}
}

func scale(t *testing.T, driver string, z size) {
	meter := meters[driver](t)
	s := &site{}
	for range last + 1 {
		s.nodes = append(s.nodes, newNode(t, meter.adapter()))
	}
	for _, n := range s.nodes {
		n.launch(t)
	}
	s.awaitReady(t)
	before := s.memory(t)
	begun := time.Now()
	crowd := fill(t, s, z)
	filled := time.Since(begun)
	s.audited(t, crowd)

	bytes := meter.bytes(t)
	begun = time.Now()
	churn(t, crowd, z)
	took := time.Since(begun).Seconds()
	rate := float64(meter.bytes(t)-bytes) / took
	ended := time.Now()
	for _, m := range crowd {
		m.fence(t)
	}
	quiet := time.Since(ended)
	audits, first := s.audited(t, crowd)

	ops := z.rate * z.seconds
	t.Logf("scale: %s: %d connections, %d members, %d channels at %d nodes after %.1f s; %d subscribes and unsubscribes at %.0f a second, %.0f kB/s received and sent by the broker meanwhile; the last answer came %.1f s after it, the first audit that read zero ended %.1f s after it (%d audits at %d nodes); memory of a node %d MiB before, %d MiB after",
		driver, z.connections, z.members, z.channels, len(s.nodes), filled.Seconds(), ops, float64(ops)/took, rate/1000,
		quiet.Seconds(), first.Sub(ended).Seconds(), audits, len(s.nodes), before>>20, s.memory(t)>>20)
}

// A mingler is one connection that is a member of some channels.
type mingler struct {
	node int
	user string
	conn net.Conn

	mu      sync.Mutex // guards what follows
	socket  string
	held    map[string]bool
	waits   int    // for answers to subscriptions
	pongs   int    // that came
	wrong   string // the first thing that no server may send
	changed chan struct{}
}

// fill connects everybody and subscribes all channels.
func fill(t *testing.T, s *site, z size) []*mingler {
	t.Helper()
	crowd := make([]*mingler, z.connections)
	var running sync.WaitGroup
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(func() {
		cancel()
		for _, m := range crowd {
			if m != nil && m.conn != nil {
				_ = m.conn.Close()
			}
		}
		running.Wait()
	})
	errs := parallel(len(crowd), func(i int) error {
		m := &mingler{node: i % len(s.nodes), user: fmt.Sprint("user", i), held: map[string]bool{}, changed: make(chan struct{})}
		crowd[i] = m
		if err := m.dial(ctx, s.nodes[m.node], &running); err != nil {
			return err
		}
		for k := i; k < z.members; k += z.connections {
			if err := m.toggle(fmt.Sprint("presence-room", k/room)); err != nil {
				return err
			}
		}
		for k := i; k < z.channels; k += z.connections {
			if err := m.toggle(fmt.Sprint("channel", k)); err != nil {
				return err
			}
		}
		return m.settled()
	})
	if errs != nil {
		t.Fatal(errs)
	}
	return crowd
}

// parallel calls f for every number below n, some at a time.
func parallel(n int, f func(i int) error) error {
	var next atomic.Int64
	var wg sync.WaitGroup
	errs := make([]error, 16)
	for w := range errs {
		wg.Go(func() {
			for errs[w] == nil {
				i := int(next.Add(1)) - 1
				if i >= n {
					return
				}
				errs[w] = f(i)
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// churn has clients come and go at the rate of z. Every third change is that of
// a member.
func churn(t *testing.T, crowd []*mingler, z size) {
	t.Helper()
	r := rand.New(rand.NewPCG(1, 2))
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	begun := time.Now()
	for done, all := 0, z.rate*z.seconds; done < all; <-tick.C {
		for due := min(all, int(time.Since(begun).Seconds()*float64(z.rate))); done < due; done++ {
			i := r.IntN(len(crowd))
			channel := fmt.Sprint("churn", r.IntN(5000))
			if done%3 == 0 {
				channel = fmt.Sprint("presence-room", i%z.members/room)
			}
			if err := crowd[i].toggle(channel); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func (m *mingler) dial(ctx context.Context, n *node, running *sync.WaitGroup) error {
	dialling, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	conn, r, _, err := ws.Dial(dialling, n.url("ws")+"/app/"+app.Key+"?protocol=7&client=test&version=1.0")
	if err != nil {
		return err
	}
	m.conn = conn
	from := through(conn, r)
	running.Go(func() {
		for {
			text, err := wsutil.ReadServerText(from)
			m.hear(text, err)
			if err != nil {
				return
			}
		}
	})
	return m.until("the greeting", func() bool { return m.socket != "" })
}

func (m *mingler) hear(text []byte, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	head := text[:min(len(text), 60)]
	switch {
	case err != nil:
		m.wrong = err.Error()
	case bytes.Contains(head, []byte("pusher_internal:subscription_succeeded")):
		m.waits--
	case bytes.Contains(head, []byte("pusher:pong")):
		m.pongs++
	case bytes.Contains(head, []byte("pusher:connection_established")):
		var f struct{ Data string }
		var hello struct {
			SocketID string `json:"socket_id"`
		}
		if json.Unmarshal(text, &f) != nil || json.Unmarshal([]byte(f.Data), &hello) != nil {
			m.wrong = string(text)
		}
		m.socket = hello.SocketID
	case bytes.Contains(head, []byte("pusher_internal:member_")), bytes.Contains(head, []byte("pusher:ping")):
		return // the server is content with any frame, and gets some
	default:
		m.wrong = string(text)
	}
	close(m.changed)
	m.changed = make(chan struct{})
}

func (m *mingler) until(what string, is func() bool) error {
	timeout := time.NewTimer(patience)
	defer timeout.Stop()
	for {
		m.mu.Lock()
		ok, wrong, changed := is(), m.wrong, m.changed
		m.mu.Unlock()
		switch {
		case wrong != "":
			return fmt.Errorf("%s at node %d heard %s", m.user, m.node, wrong)
		case ok:
			return nil
		}
		select {
		case <-changed:
		case <-timeout.C:
			return fmt.Errorf("%s at node %d: not within %v: %s", m.user, m.node, patience, what)
		}
	}
}

// settled waits for all answers.
func (m *mingler) settled() error {
	return m.until("all subscriptions succeeded", func() bool { return m.waits == 0 })
}

// fence waits until the server has seen all that was said.
func (m *mingler) fence(t *testing.T) {
	t.Helper()
	m.mu.Lock()
	want := m.pongs + 1
	m.mu.Unlock()
	err := errors.Join(m.say(map[string]any{"event": "pusher:ping", "data": map[string]any{}}),
		m.until("a pong and all answers", func() bool { return m.pongs == want && m.waits == 0 }))
	if err != nil {
		t.Fatal(err)
	}
}

// toggle subscribes to a channel or ends that.
func (m *mingler) toggle(channel string) error {
	m.mu.Lock()
	held, socket := m.held[channel], m.socket
	if held {
		delete(m.held, channel)
	} else {
		m.held[channel] = true
		m.waits++
	}
	m.mu.Unlock()
	fields := map[string]any{"channel": channel}
	if held {
		return m.say(map[string]any{"event": "pusher:unsubscribe", "data": fields})
	}
	if strings.HasPrefix(channel, "presence-") {
		data := fmt.Sprintf(`{"user_id":%q}`, m.user)
		fields["auth"], fields["channel_data"] = app.SignChannel(socket, channel, data), data
	}
	return m.say(map[string]any{"event": "pusher:subscribe", "data": fields})
}

func (m *mingler) say(frame any) error {
	text, err := json.Marshal(frame)
	if err != nil {
		return err
	}
	var b bytes.Buffer
	if err := wsutil.WriteClientText(&b, text); err != nil {
		return err
	}
	_ = m.conn.SetWriteDeadline(time.Now().Add(patience))
	_, err = m.conn.Write(b.Bytes())
	return err
}

// holds is what the connections of a node hold.
func holds(crowd []*mingler, node int) (channels, members, sockets int) {
	all := map[string]bool{}
	for _, m := range crowd {
		if m.node != node {
			continue
		}
		sockets++
		m.mu.Lock()
		for channel := range m.held {
			all[channel] = true
			if strings.HasPrefix(channel, "presence-") {
				members++
			}
		}
		m.mu.Unlock()
	}
	return len(all), members, sockets
}

// command runs a command of the shipped binary with the settings of a node.
func (n *node) command(t *testing.T, args ...string) (out, errs string, code int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, append([]string{"-c", n.config()}, args...)...)
	cmd.Dir = n.dir
	var stdout, stderr strings.Builder
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()
}

// audited has the cluster audited through each node until there is no
// difference and every node holds what the clients know that it must, in its
// own words and in those of the others. It returns how many audits that took, and
// when the first of them read zero.
func (s *site) audited(t *testing.T, crowd []*mingler) (audits int, first time.Time) {
	t.Helper()
	ids := make([]string, len(s.nodes))
	for i, n := range s.nodes {
		eventually(t, fmt.Sprintf("the audit through node %d reads zero", i), func() error {
			audits++
			out, errs, code := n.command(t, "cluster", "audit", "--json")
			var a admin.Audit
			if err := json.Unmarshal([]byte(out), &a); err != nil {
				return fmt.Errorf("exit code %d: %s%s", code, out, errs)
			}
			if code != 0 || a.Differences != 0 || len(a.Moving)+len(a.Silent) != 0 || len(a.Nodes) != len(s.nodes) {
				return fmt.Errorf("exit code %d: %s: %d nodes, %d differences %v, silent %v, moving %v", code, errs, len(a.Nodes), a.Differences, a.Disagreements, a.Silent, a.Moving)
			}
			if ids[i] = a.Nodes[0].Node; first.IsZero() {
				first = time.Now()
			}
			return nil
		})
	}
	for _, n := range s.nodes {
		out, errs, code := n.command(t, "cluster", "status", "--json")
		var status admin.Status
		if err := json.Unmarshal([]byte(out), &status); err != nil || code != 0 {
			t.Fatalf("status: exit code %d, %v: %s%s", code, err, out, errs)
		}
		for i, id := range ids {
			channels, members, sockets := holds(crowd, i)
			views := 0
			for _, st := range status.Nodes {
				parts := []cluster.Partition{}
				if st.Node == id {
					parts = append(parts, st.Own)
				}
				for _, p := range st.Peers {
					if p.Node == id {
						parts = append(parts, p.Partition)
					}
				}
				for _, p := range parts {
					views++
					if p.Channels != channels || p.Members != members || p.Sockets != sockets {
						t.Errorf("node %s says of node %d: %d channels, %d members, %d sockets; the clients hold %d, %d, %d",
							st.Node, i, p.Channels, p.Members, p.Sockets, channels, members, sockets)
					}
				}
			}
			if views != len(s.nodes) {
				t.Errorf("%d nodes know node %d, want %d", views, i, len(s.nodes))
			}
		}
	}
	return audits, first
}

// memory is the resident memory of the largest node.
func (s *site) memory(t *testing.T) (most int64) {
	t.Helper()
	for _, n := range s.nodes {
		most = max(most, n.resident(t))
	}
	return most
}

// resident is the memory of the process of a node; 0 where the system does not say.
func (n *node) resident(t *testing.T) int64 {
	t.Helper()
	n.mu.Lock()
	pid := n.cmd.Process.Pid
	n.mu.Unlock()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	var kB int64
	if _, after, ok := strings.Cut(string(text), "VmRSS:"); ok {
		if _, err := fmt.Sscan(after, &kB); err != nil {
			t.Fatal(err)
		}
	}
	return kB << 10
}
