package bench

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"

	"sockudo/internal/sign"
)

// A fault is what a fake server does to one delivery.
type fault int

const (
	none   fault = iota
	drop         // it never arrives
	double       // it arrives twice
	hold         // it arrives after the one behind it
)

// A fake is a server of the protocol that goes wrong on purpose and keeps count
// of it.
type fake struct {
	*httptest.Server
	app identity

	faults func(receiver, n int) fault // nil: none
	status func(n int) (status int, deliver bool)
	extra  string        // data of one more message that goes along with the tenth
	pause  time.Duration // of everything, before the tenth message

	mu       sync.Mutex // guards what follows
	sockets  []*fakeSocket
	accepted int // publishes
	sent     int // deliveries, without repetitions
	counts   map[fault]int
	late     int // held messages that were sent in the end
}

type fakeSocket struct {
	nc      net.Conn
	id      string
	channel string
	n       int
	held    [][]byte
}

func newFake(t *testing.T) *fake {
	f := &fake{app: identity{"fake-id", "fake-key", "fake-secret"}, counts: map[fault]int{}}
	f.Server = httptest.NewServer(f)
	t.Cleanup(func() {
		f.mu.Lock()
		for _, s := range f.sockets {
			_ = s.nc.Close()
		}
		f.mu.Unlock()
		f.Close()
	})
	return f
}

// options are those of a short run against the fake.
func (f *fake) options(s *Scenario) Options {
	o := s.Defaults()
	o.URLs, o.AppID, o.Key, o.Secret = []string{f.URL}, f.app.id, f.app.key, f.app.secret
	o.Warmup, o.Duration, o.Lanes = 50*time.Millisecond, 300*time.Millisecond, 2
	return o
}

func (f *fake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if strings.HasPrefix(r.URL.Path, "/app/") {
		f.serveSocket(w, r)
		return
	}
	body, _ := io.ReadAll(r.Body)
	signed := sign.Request{Method: r.Method, Path: r.URL.EscapedPath(), RawQuery: r.URL.RawQuery, Body: body}
	p, err := signed.CheckParams(f.app.key, time.Now())
	if err == nil {
		err = signed.Verify(p, []string{f.app.secret})
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusUnauthorized)
		return
	}
	if r.Method == http.MethodGet {
		fmt.Fprint(w, `{"occupied":true}`)
		return
	}
	var e struct{ Name, Channel, Data string }
	if err := json.Unmarshal(body, &e); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	status, deliver := f.publish(e.Name, e.Channel, e.Data, nil)
	if status != http.StatusOK {
		w.WriteHeader(status)
	}
	if !deliver {
		return
	}
	w.(http.Flusher).Flush() // in chunks, as some servers answer
	fmt.Fprint(w, "{}")
}

// publish gives a message to all subscribers but one.
func (f *fake) publish(name, channel, data string, except *fakeSocket) (status int, deliver bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := f.accepted
	f.accepted++
	status, deliver = http.StatusOK, true
	if f.status != nil {
		status, deliver = f.status(n)
	}
	if n == 10 && f.pause > 0 {
		time.Sleep(f.pause) // real time is what is measured here
	}
	if !deliver {
		return status, false
	}
	texts := []string{data}
	if n == 10 && f.extra != "" {
		texts = append(texts, f.extra)
	}
	for i, s := range f.sockets {
		if s == except || s.channel != channel {
			continue
		}
		for j, text := range texts {
			message, _ := json.Marshal(map[string]string{"event": name, "channel": channel, "data": text})
			if j > 0 {
				_ = wsutil.WriteServerText(s.nc, message)
				continue
			}
			f.deliver(i, s, message)
		}
	}
	return status, true
}

func (f *fake) deliver(i int, s *fakeSocket, message []byte) {
	what := none
	if f.faults != nil {
		what = f.faults(i, s.n)
	}
	s.n++
	f.sent++
	f.counts[what]++
	switch what {
	case drop:
		return
	case hold:
		s.held = append(s.held, message)
		return
	case double:
		_ = wsutil.WriteServerText(s.nc, message)
	}
	_ = wsutil.WriteServerText(s.nc, message)
	for _, m := range s.held {
		_ = wsutil.WriteServerText(s.nc, m)
		f.late++
	}
	s.held = nil
}

// publishes returns how many messages came.
func (f *fake) publishes() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.accepted
}

// never returns how many deliveries never came.
func (f *fake) never() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := f.counts[drop]
	for _, s := range f.sockets {
		n += len(s.held)
	}
	return n
}

func (f *fake) serveSocket(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path != "/app/"+f.app.key {
		http.Error(w, "no such app", http.StatusNotFound)
		return
	}
	nc, _, _, err := ws.UpgradeHTTP(r, w)
	if err != nil {
		return
	}
	f.mu.Lock()
	s := &fakeSocket{nc: nc, id: fmt.Sprintf("1.%d", len(f.sockets))}
	f.sockets = append(f.sockets, s)
	send := func(text string) { _ = wsutil.WriteServerText(nc, []byte(text)) }
	// Spaces and another order of members are as good.
	send(fmt.Sprintf(`{ "data" : "{\"activity_timeout\":120,\"socket_id\":\"%s\"}", "event" : "pusher:connection_established" }`, s.id))
	f.mu.Unlock()
	for {
		message, err := wsutil.ReadClientText(nc)
		if err != nil {
			return
		}
		f.message(s, message, send)
	}
}

func (f *fake) message(s *fakeSocket, message []byte, send func(string)) {
	var m struct {
		Event, Channel string
		Data           json.RawMessage
	}
	if err := json.Unmarshal(message, &m); err != nil {
		panic(err)
	}
	switch m.Event {
	case "pusher:ping":
		f.mu.Lock()
		defer f.mu.Unlock()
		send(`{"event":"pusher:pong","data":"{}"}`)
	case "pusher:subscribe":
		var sub struct{ Channel, Auth string }
		_ = json.Unmarshal(m.Data, &sub)
		f.mu.Lock()
		defer f.mu.Unlock()
		if strings.HasPrefix(sub.Channel, "private-") && sub.Auth != sign.Channel(f.app.key, f.app.secret, s.id, sub.Channel, nil) {
			send(fmt.Sprintf(`{"event":"pusher:subscription_error","channel":%q,"data":"{\"type\":\"AuthError\"}"}`, sub.Channel))
			return
		}
		s.channel = sub.Channel
		send(fmt.Sprintf(`{"event":"pusher_internal:subscription_succeeded","channel":%q,"data":"{}"}`, sub.Channel))
	default:
		var data string
		_ = json.Unmarshal(m.Data, &data)
		f.publish(m.Event, m.Channel, data, s)
	}
}

// run measures once and returns the run.
func run(t *testing.T, s *Scenario, o Options) (*Run, *Report) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	rep, err := Measure(ctx, s, o, nil, false)
	if err != nil {
		t.Fatal(err)
	}
	return &rep.Cases[0].Runs[0], rep
}

func (r *Run) must(t *testing.T, key string) int {
	t.Helper()
	v, ok := r.value(key)
	if !ok {
		t.Fatalf("%s was not measured", key)
	}
	return int(v)
}

// wants compares metrics with what they must be.
func (r *Run) wants(t *testing.T, want map[string]int) {
	t.Helper()
	for key, n := range want {
		if got := r.must(t, key); got != n {
			t.Errorf("%s is %d, want %d", key, got, n)
		}
	}
}

func warned(r *Run, text string) bool {
	return slices.ContainsFunc(r.Warnings, func(w string) bool { return strings.Contains(w, text) })
}
