package processes

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"
)

// An ear is a client that subscribes to channels, remembers everything it
// hears, and comes back when its connection ends, as the official clients do.
type ear struct {
	name string
	// where returns the node to connect to.
	where func() *node
	// data are the channels with the channel_data of presence channels.
	data map[string]string

	mu      sync.Mutex // guards what follows
	conn    net.Conn
	socket  string
	heard   []heard
	spans   map[string][]span          // when it was subscribed, by channel
	members map[string]map[string]bool // of presence channels
	wrong   []string                   // what no server may send
	changed chan struct{}
}

type heard struct {
	event, channel, data string
	at                   time.Time
}

// A span is a time of being subscribed; until is zero while it lasts.
type span struct{ from, until time.Time }

// listen connects and returns when all channels are subscribed. again says
// whether the ear comes back.
func listen(t *testing.T, name string, where func() *node, again bool, channels ...string) *ear {
	t.Helper()
	e := &ear{
		name: name, where: where, data: map[string]string{},
		spans: map[string][]span{}, members: map[string]map[string]bool{}, changed: make(chan struct{}),
	}
	for _, c := range channels {
		channel, data, _ := strings.Cut(c, " ")
		e.data[channel] = data
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { e.run(ctx, again) })
	t.Cleanup(func() {
		cancel()
		e.mu.Lock()
		if e.conn != nil {
			_ = e.conn.Close()
		}
		e.mu.Unlock()
		running.Wait()
	})
	e.until(t, "all channels are subscribed", e.subscribed)
	return e
}

// at is for ears that stay with one node.
func at(n *node) func() *node { return func() *node { return n } }

// subscribed is called with mu held.
func (e *ear) subscribed() bool {
	for channel := range e.data {
		spans := e.spans[channel]
		if len(spans) == 0 || !spans[len(spans)-1].until.IsZero() {
			return false
		}
	}
	return true
}

func (e *ear) run(ctx context.Context, again bool) {
	for {
		e.session(ctx)
		e.change(func() {
			for channel, spans := range e.spans {
				if n := len(spans) - 1; spans[n].until.IsZero() {
					spans[n].until = time.Now()
				}
				delete(e.members, channel)
			}
			e.conn = nil
		})
		if !again || ctx.Err() != nil {
			return
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return
		}
	}
}

// session is one connection. What goes wrong with it ends it.
func (e *ear) session(ctx context.Context) {
	dialling, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	conn, r, err := e.where().dial(dialling)
	if err != nil {
		return
	}
	defer func() { _ = conn.Close() }()
	e.change(func() { e.conn = conn })
	if ctx.Err() != nil {
		return
	}
	from := through(conn, r)
	for {
		text, op, err := wsutil.ReadServerData(from)
		if err != nil {
			return
		}
		if op == ws.OpText && e.hear(conn, text) != nil {
			return
		}
	}
}

// through returns a connection whose first bytes may have been read by r.
func through(conn net.Conn, r *bufio.Reader) io.ReadWriter {
	if r == nil {
		return conn
	}
	return struct {
		io.Reader
		io.Writer
	}{r, conn}
}

func (e *ear) hear(conn net.Conn, text []byte) error {
	now := time.Now()
	var f struct {
		Event, Channel string
		Data           json.RawMessage
	}
	if err := json.Unmarshal(text, &f); err != nil {
		e.change(func() { e.wrong = append(e.wrong, string(text)) })
		return err
	}
	data := string(f.Data)
	var inner string
	if json.Unmarshal(f.Data, &inner) == nil {
		data = inner
	}
	var err error
	e.change(func() {
		e.heard = append(e.heard, heard{f.Event, f.Channel, data, now})
		switch f.Event {
		case "pusher:connection_established":
			err = e.subscribe(conn, data)
		case "pusher:ping":
			err = e.say(conn, map[string]any{"event": "pusher:pong", "data": map[string]any{}})
		case "pusher_internal:subscription_succeeded":
			e.spans[f.Channel] = append(e.spans[f.Channel], span{from: now})
			if strings.HasPrefix(f.Channel, "presence-") {
				e.snapshot(f.Channel, data)
			}
		case "pusher_internal:member_added", "pusher_internal:member_removed":
			e.member(f.Event, f.Channel, data)
		case "pusher:subscription_error":
			err = fmt.Errorf("refused: %s", text) // and again from the start
		}
	})
	return err
}

// subscribe is called with mu held, as are the following.
func (e *ear) subscribe(conn net.Conn, data string) error {
	var hello struct {
		SocketID string `json:"socket_id"`
	}
	if err := json.Unmarshal([]byte(data), &hello); err != nil {
		return err
	}
	e.socket = hello.SocketID
	for channel, data := range e.data {
		fields := map[string]any{"channel": channel}
		switch {
		case data != "":
			fields["auth"], fields["channel_data"] = app.SignChannel(e.socket, channel, data), data
		case strings.HasPrefix(channel, "private-"):
			fields["auth"] = app.SignChannel(e.socket, channel)
		}
		if err := e.say(conn, map[string]any{"event": "pusher:subscribe", "data": fields}); err != nil {
			return err
		}
	}
	return nil
}

func (e *ear) say(conn net.Conn, frame any) error {
	text, err := json.Marshal(frame)
	if err != nil {
		return err
	}
	_ = conn.SetWriteDeadline(time.Now().Add(10 * time.Second))
	return wsutil.WriteClientText(conn, text)
}

func (e *ear) snapshot(channel, data string) {
	var s struct{ Presence struct{ IDs []string } }
	if err := json.Unmarshal([]byte(data), &s); err != nil {
		e.wrong = append(e.wrong, data)
		return
	}
	e.members[channel] = map[string]bool{}
	for _, id := range s.Presence.IDs {
		if e.members[channel][id] {
			e.wrong = append(e.wrong, "twice in the list: "+id)
		}
		e.members[channel][id] = true
	}
}

// member keeps the list, and notes events that contradict it.
func (e *ear) member(event, channel, data string) {
	var m struct {
		UserID string `json:"user_id"`
	}
	if err := json.Unmarshal([]byte(data), &m); err != nil {
		e.wrong = append(e.wrong, data)
		return
	}
	added := event == "pusher_internal:member_added"
	if e.members[channel][m.UserID] == added {
		e.wrong = append(e.wrong, fmt.Sprintf("%s of %s, who is there: %t", event, m.UserID, added))
	}
	if added {
		e.members[channel][m.UserID] = true
	} else {
		delete(e.members[channel], m.UserID)
	}
}

func (e *ear) change(f func()) {
	e.mu.Lock()
	defer e.mu.Unlock()
	f()
	close(e.changed)
	e.changed = make(chan struct{})
}

// until waits for a condition, which is asked with mu held.
func (e *ear) until(t *testing.T, what string, is func() bool) {
	t.Helper()
	timeout := time.After(patience)
	for {
		e.mu.Lock()
		ok, changed := is(), e.changed
		e.mu.Unlock()
		if ok {
			return
		}
		select {
		case <-changed:
		case <-timeout:
			e.mu.Lock()
			defer e.mu.Unlock()
			t.Fatalf("%s: not within %v: %s; it heard %d frames, the last were %v", e.name, patience, what, len(e.heard), e.heard[max(0, len(e.heard)-5):])
		}
	}
}

// emit sends a client event.
func (e *ear) emit(channel, event, data string) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.conn == nil {
		return net.ErrClosed
	}
	return e.say(e.conn, map[string]any{"event": event, "channel": channel, "data": data})
}

// hang ends the connection without a word.
func (e *ear) hang() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.conn != nil {
		_ = e.conn.Close()
	}
}

// events returns what it heard of an event so far.
func (e *ear) events(channel, event string) (events []heard) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, h := range e.heard {
		if h.channel == channel && h.event == event {
			events = append(events, h)
		}
	}
	return events
}

// proper fails the test if the ear heard what no server may send.
func (e *ear) proper(t *testing.T) {
	t.Helper()
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, w := range e.wrong {
		t.Errorf("%s: %s", e.name, w)
	}
}
