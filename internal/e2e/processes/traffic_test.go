package processes

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"sockudo/internal/servicetest"
)

// nobodyWaits freezes the last node for less than it may be silent, and has the
// others answer meanwhile.
func nobodyWaits(t *testing.T, s *site) {
	const channel, rounds = "presence-still", 10
	still := users("still", 5)
	s.crowd(t, last, channel, still)
	watchers := []*ear{s.member(t, 0, channel, "w0"), s.member(t, 1, channel, "w1")}
	s.agree(t, channel, watchers, append(still, "w0", "w1")...)

	s.nodes[last].signal(t, syscall.SIGSTOP)
	frozen := time.Now()
	var took []time.Duration
	timed := func(f func()) {
		begin := time.Now()
		f()
		took = append(took, time.Since(begin))
	}
	alive := 0 // answers that still had the frozen node's members
	for i := range rounds {
		for k, n := range s.nodes[:last] {
			for _, path := range []string{"/channels", "/channels/" + channel} {
				timed(func() { get(t, n, path, &struct{}{}) })
			}
			var list struct{ Users []struct{ ID string } }
			timed(func() { get(t, n, "/channels/"+channel+"/users", &list) })
			if len(list.Users) >= len(still) {
				alive++
			}
			timed(func() { s.member(t, k, channel, fmt.Sprintf("late%d-%d", i, k)) })
			timed(func() { listen(t, "first", at(n), false, fmt.Sprintf("new-%d-%d", i, k)) })
		}
	}
	length := time.Since(frozen)
	s.nodes[last].signal(t, syscall.SIGCONT)
	slices.Sort(took)
	// Whatever waits for the frozen node waits longer than this, or for ever. A
	// busy machine may hold up some.
	if median := took[len(took)/2]; median > time.Second || alive == 0 {
		t.Errorf("%d queries and subscriptions took %v at the median, %d answers had the members of the frozen node", len(took), median, alive)
	}
	t.Logf("frozen for %.1f s: %d queries and subscriptions at the others took %v at the median, %v at most",
		length.Seconds(), len(took), took[len(took)/2].Round(10*time.Microsecond), took[len(took)-1].Round(10*time.Microsecond))
	s.awaitReady(t)
	for _, w := range watchers {
		w.until(t, "everybody is there", func() bool { return len(w.members[channel]) == len(still)+len(watchers)*(1+rounds) })
		w.proper(t)
	}
}

// A meter is a broker whose bytes are counted.
type meter struct {
	adapter func() map[string]any
	// bytes is what the broker has received from nodes and sent to them so far.
	bytes func(t *testing.T) int64
}

var meters = map[string]func(t *testing.T) *meter{
	"redis": func(t *testing.T) *meter {
		s := servicetest.Start(t, servicetest.Options{}, "redis")
		addr := s.Redis(t).Addrs[0]
		return &meter{
			adapter: func() map[string]any {
				return map[string]any{"driver": "redis", "redis": map[string]any{"redis_pub_options": map[string]any{"url": "redis://" + addr}}}
			},
			bytes: redisBytes(t, addr),
		}
	},
	// Between its servers a Redis Cluster has traffic of its own, which is not counted.
	"redis-cluster": func(t *testing.T) *meter {
		s := servicetest.Start(t, servicetest.Options{}, "cluster")
		var seeds []string
		for _, addr := range s.Cluster(t).Addrs {
			seeds = append(seeds, "redis://"+addr)
		}
		return &meter{
			adapter: func() map[string]any {
				return map[string]any{"driver": "redis-cluster", "cluster": map[string]any{"nodes": seeds}}
			},
			bytes: redisBytes(t, s.Cluster(t).Addrs...),
		}
	},
	// NATS counts only what is inside of messages.
	"nats": func(t *testing.T) *meter {
		s := servicetest.Start(t, servicetest.Options{Hidden: true}, "nats")
		var proxies []*servicetest.Proxy
		var through []string
		for server := range strings.SplitSeq(s.Env(t, servicetest.NATS), ",") {
			p := servicetest.NewProxy(t, strings.TrimPrefix(server, "nats://"))
			proxies, through = append(proxies, p), append(through, "nats://"+p.Addr())
		}
		return &meter{
			adapter: func() map[string]any {
				return map[string]any{"driver": "nats", "nats": map[string]any{"servers": through}}
			},
			bytes: func(*testing.T) (sum int64) {
				for _, p := range proxies {
					sum += p.Bytes()
				}
				return sum
			},
		}
	},
}

// redisBytes returns what asks Redis servers for their bytes, without those of
// the question and its answer.
func redisBytes(t *testing.T, addrs ...string) func(t *testing.T) int64 {
	const question = "INFO stats\r\n"
	type asked struct {
		conn net.Conn
		r    *bufio.Reader
		own  int64
	}
	var all []*asked
	for _, addr := range addrs {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		all = append(all, &asked{conn: conn, r: bufio.NewReader(conn)})
	}
	return func(t *testing.T) (sum int64) {
		t.Helper()
		for _, a := range all {
			_ = a.conn.SetDeadline(time.Now().Add(patience))
			if _, err := io.WriteString(a.conn, question); err != nil {
				t.Fatal(err)
			}
			head, err := a.r.ReadString('\n')
			if err != nil {
				t.Fatal(err)
			}
			size, err := strconv.Atoi(strings.TrimSpace(strings.TrimPrefix(head, "$")))
			if err != nil {
				t.Fatal(err)
			}
			answer := make([]byte, size+2)
			if _, err := io.ReadFull(a.r, answer); err != nil {
				t.Fatal(err)
			}
			sum -= a.own + int64(len(question)) // its own question is counted already
			for line := range strings.SplitSeq(string(answer), "\r\n") {
				name, value, _ := strings.Cut(line, ":")
				if name == "total_net_input_bytes" || name == "total_net_output_bytes" {
					n, err := strconv.ParseInt(value, 10, 64)
					if err != nil {
						t.Fatal(err)
					}
					sum += n
				}
			}
			a.own += int64(len(question) + len(head) + len(answer))
		}
		return sum
	}
}

// passed returns how many events of the app a node has handed to the broker and
// taken from it.
func (n *node) passed(t *testing.T, metrics string) (sent, received int) {
	t.Helper()
	resp, err := http.Get("http://" + metrics + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	for line := range bytes.Lines(body) {
		text := string(line)
		if !strings.Contains(text, fmt.Sprintf("app_id=%q", app.ID)) {
			continue
		}
		value, _ := strconv.ParseFloat(strings.TrimSpace(text[strings.LastIndex(text, " ")+1:]), 64)
		switch {
		case strings.HasPrefix(text, "sockudo_horizontal_adapter_sent_requests"):
			sent += int(value)
		case strings.HasPrefix(text, "sockudo_horizontal_adapter_received_requests"):
			received += int(value)
		}
	}
	return sent, received
}

// TestTrafficIsThatOfTheInterestedNodes counts what a publish and what idle
// nodes cost the broker, for 2, 4 and 8 nodes.
func TestTrafficIsThatOfTheInterestedNodes(t *testing.T) {
	for driver, start := range meters {
		t.Run(driver, func(t *testing.T) {
			t.Parallel()
			m := start(t)
			const publishes, payload, channels = 300, 1000, 500
			const every = 10 * time.Second // the default of heartbeats; each node has one in that time
			var nodes []*node
			var scrapes []string
			var idle, perPublish, perChannel []float64
			for _, size := range []int{2, 4, 8} {
				first := len(nodes)
				for len(nodes) < size {
					scrape := fmt.Sprintf("127.0.0.1:%d", servicetest.Port(t))
					_, port, _ := net.SplitHostPort(scrape)
					adapter := m.adapter()
					adapter["cluster_health"] = map[string]any{"heartbeat_interval_ms": every.Milliseconds(), "node_timeout_ms": 30000}
					n := newNode(t, adapter, map[string]any{"metrics": map[string]any{"enabled": true, "host": "127.0.0.1", "port": json.Number(port)}})
					n.launch(t)
					nodes, scrapes = append(nodes, n), append(scrapes, scrape)
				}
				for _, n := range nodes[first:] {
					n.awaitReady(t)
				}

				// Everybody knows everybody, and nobody has anything to say.
				begin, before := time.Now(), m.bytes(t)
				<-time.After(every)
				rate := float64(m.bytes(t)-before) / time.Since(begin).Seconds()
				idle = append(idle, rate/float64(size))

				// A client subscribes to channels that nobody had.
				prefix := fmt.Sprintf("many-%d-", size)
				occupied := func(n *node) error {
					var list struct{ Channels map[string]any }
					get(t, n, "/channels", &list, "filter_by_prefix", prefix)
					if len(list.Channels) != channels {
						return fmt.Errorf("there are %d, want %d", len(list.Channels), channels)
					}
					return nil
				}
				var names []string
				for i := range channels {
					names = append(names, fmt.Sprint(prefix, i))
				}
				begin, before = time.Now(), m.bytes(t)
				listen(t, fmt.Sprint("the ear of many at ", size), at(nodes[0]), false, names...)
				for _, n := range nodes {
					eventually(t, "all channels are known", func() error { return occupied(n) })
				}
				perChannel = append(perChannel, (float64(m.bytes(t)-before)-rate*time.Since(begin).Seconds())/channels)

				channel := fmt.Sprint("news-", size)
				e := listen(t, fmt.Sprint("the ear of ", size), at(nodes[1]), false, channel)
				var sent, received []int
				for i, n := range nodes {
					s, r := n.passed(t, scrapes[i])
					sent, received = append(sent, s), append(received, r)
				}
				client := &http.Client{Transport: &http.Transport{}, Timeout: patience}
				body, _ := json.Marshal(map[string]any{"name": "e", "channel": channel, "data": strings.Repeat("x", payload)})
				begin, before = time.Now(), m.bytes(t)
				for range publishes {
					if status, _, answer := call(context.Background(), client, http.MethodPost, nodes[0], "/events", body); status != http.StatusOK {
						t.Fatalf("publish: %d %s", status, answer)
					}
				}
				client.CloseIdleConnections()
				e.until(t, "all events", func() bool { return len(e.heard) >= publishes+2 })
				bytes := float64(m.bytes(t)-before) - rate*time.Since(begin).Seconds()
				perPublish = append(perPublish, bytes/publishes)
				if got := len(e.events(channel, "e")); got != publishes {
					t.Errorf("%d nodes: %d events were heard, want %d", size, got, publishes)
				}
				for i, n := range nodes {
					s, r := n.passed(t, scrapes[i])
					wantSent, wantReceived := 0, 0
					switch i {
					case 0:
						wantSent = publishes
					case 1:
						wantReceived = publishes
					}
					if s -= sent[i]; s != wantSent {
						t.Errorf("%d nodes: node %d handed %d events to the broker, want %d", size, i, s, wantSent)
					}
					if r -= received[i]; r != wantReceived {
						t.Errorf("%d nodes: node %d took %d events from the broker, want %d", size, i, r, wantReceived)
					}
				}
			}
			t.Logf("traffic: %s: for 2, 4 and 8 nodes %.0f bytes for each publish of %d bytes, received and sent by the broker; %.0f bytes for each channel that is new; %.0f bytes/s of each idle node",
				driver, perPublish, payload, perChannel, idle)
			// The rest is by chance in the time between two counts.
			if most := slices.Max(perPublish); most > 1.25*perPublish[0] || most < 2*payload {
				t.Errorf("bytes per publish are %.0f for 2, 4 and 8 nodes", perPublish)
			}
			if slices.Max(idle) > 1000 { // heartbeats, canaries, pings, everything
				t.Errorf("an idle node sends and receives %.0f bytes/s, want at most 1000", idle)
			}
		})
	}
}
