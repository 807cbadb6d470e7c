package processes

import (
	"bytes"
	"context"
	"crypto/md5"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"sockudo/internal/pushertest"
)

// A mouth publishes numbered messages one after the other, at one node at a
// time, and remembers what became of each.
type mouth struct {
	name    string
	where   func() *node
	channel string
	client  *http.Client

	mu   sync.Mutex // guards what follows
	said []said
}

type said struct {
	begun, done time.Time
	accepted    bool
	status      int // 0: no answer
	retryAfter  string
}

// speak publishes until the returned function is called, with a pause after
// each message.
func speak(t *testing.T, name, channel string, where func() *node, pause time.Duration) (m *mouth, hush func()) {
	m = &mouth{name: name, where: where, channel: channel, client: &http.Client{Transport: &http.Transport{TLSClientConfig: where().tls}, Timeout: 10 * time.Second}}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		for ctx.Err() == nil {
			m.say(ctx)
			select {
			case <-time.After(pause):
			case <-ctx.Done():
			}
		}
	})
	hush = func() {
		cancel()
		running.Wait()
		m.client.CloseIdleConnections()
	}
	t.Cleanup(hush)
	return m, hush
}

// say publishes the next message.
func (m *mouth) say(ctx context.Context) {
	m.mu.Lock()
	text := fmt.Sprintf("%s:%d", m.name, len(m.said))
	n := len(m.said)
	m.said = append(m.said, said{begun: time.Now()})
	m.mu.Unlock()
	body, _ := json.Marshal(map[string]any{"name": "e", "channel": m.channel, "data": text})
	// The end of the test does not cut a message off.
	status, header, _ := call(context.WithoutCancel(ctx), m.client, http.MethodPost, m.where(), "/events", body)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.said[n].done, m.said[n].status, m.said[n].accepted = time.Now(), status, status == http.StatusOK
	m.said[n].retryAfter = header.Get("Retry-After")
}

func (m *mouth) all() []said {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append([]said(nil), m.said...)
}

// awaitAccepted waits until so many more messages were accepted.
func (m *mouth) awaitAccepted(t *testing.T, more int) {
	t.Helper()
	count := func() (n int) {
		for _, s := range m.all() {
			if s.accepted {
				n++
			}
		}
		return n
	}
	before := count()
	eventually(t, m.name+" publishes", func() error {
		if n := count(); n < before+more {
			return fmt.Errorf("%d messages were accepted, want %d", n-before, more)
		}
		return nil
	})
}

// call calls the HTTP API of a node, signed. Status 0 is no answer.
func call(ctx context.Context, client *http.Client, method string, n *node, path string, body []byte, pairs ...string) (int, http.Header, []byte) {
	path = "/apps/" + app.ID + path
	query := map[string]string{
		"auth_key":       app.Key,
		"auth_timestamp": strconv.FormatInt(time.Now().Unix(), 10),
		"auth_version":   "1.0",
	}
	for i := 0; i+1 < len(pairs); i += 2 {
		query[pairs[i]] = pairs[i+1]
	}
	if body != nil {
		sum := md5.Sum(body)
		query["body_md5"] = hex.EncodeToString(sum[:])
	}
	query["auth_signature"] = app.MAC(pushertest.StringToSign(method, path, query))
	values := url.Values{}
	for key, value := range query {
		values.Set(key, value)
	}
	req, err := http.NewRequestWithContext(ctx, method, n.url("http")+path+"?"+values.Encode(), bytes.NewReader(body))
	if err != nil {
		return 0, http.Header{}, nil
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := client.Do(req)
	if err != nil {
		return 0, http.Header{}, nil
	}
	defer func() { _ = resp.Body.Close() }()
	answer, _ := io.ReadAll(resp.Body)
	return resp.StatusCode, resp.Header, answer
}

// get asks the API of a node.
func get(t *testing.T, n *node, path string, into any, pairs ...string) {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: n.tls}, Timeout: 10 * time.Second}
	status, _, body := call(t.Context(), client, http.MethodGet, n, path, nil, pairs...)
	if status != http.StatusOK {
		t.Fatalf("GET %s: %d %s", path, status, body)
	}
	if err := json.Unmarshal(body, into); err != nil {
		t.Fatal(err)
	}
}

// A count is what became of the messages of mouths at ears. A message is lost
// if it was accepted while the ear was subscribed and did not come. It is
// duplicated if it came twice to one connection. One that was on its way to
// another node when the ear came back there comes to both connections: again.
type count struct {
	sent, accepted, refused    int
	due, received              int // the messages that had to come, and those of them that came
	lost, duplicated, disorder int
	again                      int
	extra                      int // came although it was refused
	firstLost, lastLost        time.Time
	losses, late, twice        []fate
}

// A fate is that of a message that did not come to one ear, or not once and in
// order.
type fate struct {
	text, ear   string
	begun, done time.Time // lost: the publish; late and twice: until it came
}

func (c count) String() string {
	return fmt.Sprintf("%d sent, %d accepted, %d refused; %d due, %d received, %d lost, %d duplicated, %d out of order, %d again to who came back",
		c.sent, c.accepted, c.refused, c.due, c.received, c.lost, c.duplicated, c.disorder, c.again)
}

// margin is what a message may take after its publisher has its answer. What is
// accepted later than that before a connection ends has no certain fate. The end
// is that of what came last, because an ear that stood still sees the close too
// late; but only up to silence before the close, or nobody would notice a node
// that goes deaf.
const (
	margin  = 500 * time.Millisecond
	silence = 3 * time.Second
)

// account counts, when the mouths are hushed. First they say one more message
// each, behind which nothing can come any more.
func account(t *testing.T, mouths []*mouth, ears []*ear) (c count) {
	t.Helper()
	for _, m := range mouths {
		n := len(m.all())
		eventually(t, m.name+" says the last message", func() error {
			n = len(m.all())
			if m.say(t.Context()); !m.all()[n].accepted {
				return fmt.Errorf("it was refused: %d", m.all()[n].status)
			}
			return nil
		})
		for _, e := range ears {
			e.until(t, fmt.Sprintf("the last message %s:%d", m.name, n), func() bool {
				for i := len(e.heard) - 1; i >= 0; i-- {
					if e.heard[i].data == fmt.Sprintf("%s:%d", m.name, n) {
						return true
					}
				}
				return len(e.spans[m.channel]) == 0
			})
		}
		m.client.CloseIdleConnections()
	}
	for _, m := range mouths {
		for _, s := range m.all() {
			c.sent++
			if s.accepted {
				c.accepted++
			} else {
				c.refused++
			}
		}
	}
	for _, e := range ears {
		e.mu.Lock()
		for _, m := range mouths {
			e.count(m, &c)
		}
		e.mu.Unlock()
	}
	return c
}

// count is called with mu held.
func (e *ear) count(m *mouth, c *count) {
	all := m.all()
	spans := e.spans[m.channel]
	times := make([]int, len(all))
	where := make([]int, len(all))          // the span in which it came last; -1: in none
	latest := make([]time.Time, len(spans)) // when what came last in a span was said
	before := -1
	for _, h := range e.heard {
		number, ok := strings.CutPrefix(h.data, m.name+":")
		if h.event != "e" || h.channel != m.channel || !ok {
			continue
		}
		n, err := strconv.Atoi(number)
		if err != nil || n >= len(all) {
			e.wrong = append(e.wrong, "nobody said "+h.data)
			continue
		}
		in := slices.IndexFunc(spans, func(s span) bool {
			return !h.at.Before(s.from) && (s.until.IsZero() || !h.at.After(s.until))
		})
		switch times[n]++; {
		case times[n] > 1 && in > where[n] && all[n].begun.Before(spans[in].from):
			c.again++
		case times[n] > 1:
			c.duplicated++
			c.twice = append(c.twice, fate{h.data, e.name, all[n].begun, h.at})
		case n < before:
			c.disorder++
			c.late = append(c.late, fate{fmt.Sprintf("%s (after :%d)", h.data, before), e.name, all[n].begun, h.at})
		}
		before = max(before, n)
		if where[n] = in; in >= 0 && all[n].begun.After(latest[in]) {
			latest[in] = all[n].begun
		}
	}
	for n, s := range all {
		switch {
		case !s.accepted:
			c.extra += times[n]
		case e.due(m.channel, s, latest):
			c.due++
			if times[n] > 0 {
				c.received++
				break
			}
			c.lost++
			c.losses = append(c.losses, fate{fmt.Sprintf("%s:%d", m.name, n), e.name, s.begun, s.done})
			if c.firstLost.IsZero() || s.begun.Before(c.firstLost) {
				c.firstLost = s.begun
			}
			if s.done.After(c.lastLost) {
				c.lastLost = s.done
			}
		}
	}
}

// due says whether a message must have come: it was published after the
// subscription had succeeded, and long enough before it ended.
func (e *ear) due(channel string, s said, latest []time.Time) bool {
	for i, span := range e.spans[channel] {
		certain := s.done.Add(margin)
		if s.begun.After(span.from) && (span.until.IsZero() || certain.Before(latest[i]) || certain.Add(silence).Before(span.until)) {
			return true
		}
	}
	return false
}
