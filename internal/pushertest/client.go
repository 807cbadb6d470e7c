package pushertest

import (
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/gobwas/ws"
)

// A Client is one connection. Its methods fail the test, so they belong to the
// goroutine of the test; different clients may be used by different goroutines.
type Client struct {
	App             App
	SocketID        string        // "" before the handshake frame has been taken
	ActivityTimeout time.Duration // what the server told

	t       testing.TB
	wire    *wire
	timeout time.Duration
	header  http.Header
}

// Dial connects and takes the handshake frame, which has to be
// pusher:connection_established (section 1.5).
func Dial(t testing.TB, addr string, app App, opts ...Options) *Client {
	t.Helper()
	c, refused := DialRaw(t, addr, app, opts...)
	if refused != nil {
		t.Fatalf("upgrade answered with %d: %s", refused.Status, refused.Body)
	}
	c.Established()
	return c
}

// DialRaw connects and expects nothing: an upgrade that is refused gives the
// HTTP answer and a nil client.
func DialRaw(t testing.TB, addr string, app App, opts ...Options) (*Client, *Response) {
	t.Helper()
	var o Options
	if len(opts) > 0 {
		o = opts[0]
	}
	if o.Path == "" {
		o.Path = "/app/" + app.Key
	}
	if o.Query == "" {
		o.Query = defaultQuery
	}
	if o.Timeout == 0 {
		o.Timeout = Wait
	}
	conn, err := net.DialTimeout("tcp", addr, o.Timeout)
	if err != nil {
		t.Fatal(err)
	}
	if o.TLS != nil {
		conn = tls.Client(conn, o.TLS)
	}
	_ = conn.SetDeadline(time.Now().Add(2 * o.Timeout))
	r, resp, err := handshake(conn, addr, o)
	if err != nil {
		_ = conn.Close()
		t.Fatal(err)
	}
	_ = conn.SetDeadline(time.Time{})
	if resp.StatusCode != http.StatusSwitchingProtocols {
		defer conn.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatalf("body of the refused upgrade: %v", err)
		}
		return nil, &Response{Status: resp.StatusCode, Header: resp.Header, Body: string(body), t: t}
	}
	c := &Client{App: app, t: t, wire: newWire(conn, r, o.Mute), timeout: o.Timeout, header: resp.Header}
	t.Cleanup(func() {
		c.Cut()
		if err := c.wire.violation(); err != nil && !t.Failed() {
			t.Error(err)
		}
	})
	return c, nil
}

// UpgradeHeader returns the headers of the 101 answer.
func (c *Client) UpgradeHeader() http.Header { return c.header }

// Established takes the handshake frame of a client that DialRaw returned.
func (c *Client) Established() Frame {
	c.t.Helper()
	f := c.Expect("pusher:connection_established", "")
	var data struct {
		SocketID        string `json:"socket_id"`
		ActivityTimeout int    `json:"activity_timeout"`
	}
	f.Decode(c.t, &data)
	if data.SocketID == "" || data.ActivityTimeout <= 0 {
		c.t.Fatalf("unusable handshake: %s", f.Raw)
	}
	c.SocketID, c.ActivityTimeout = data.SocketID, time.Duration(data.ActivityTimeout)*time.Second
	return f
}

// Send sends one text frame as it is.
func (c *Client) Send(raw string) {
	c.t.Helper()
	c.WriteFrame(ws.NewTextFrame([]byte(raw)))
}

// Emit sends an event; channel is left out when it is empty, data when it is nil.
func (c *Client) Emit(event, channel string, data any) {
	c.t.Helper()
	frame := map[string]any{"event": event}
	if channel != "" {
		frame["channel"] = channel
	}
	if data != nil {
		frame["data"] = data
	}
	raw, err := json.Marshal(frame)
	if err != nil {
		c.t.Fatal(err)
	}
	c.Send(string(raw))
}

// SendSubscribe asks for a subscription, signed if the class of the channel
// needs it, and does not wait for the answer. At most one channelData is taken.
func (c *Client) SendSubscribe(channel string, channelData ...string) {
	c.t.Helper()
	data := map[string]any{"channel": channel, "auth": ""}
	if len(channelData) > 0 {
		data["channel_data"] = channelData[0]
	}
	if needsAuth(channel) {
		data["auth"] = c.App.SignChannel(c.SocketID, channel, channelData...)
	}
	c.Emit("pusher:subscribe", "", data)
}

// Subscribe subscribes and returns the success frame, which has to be the next
// one. What follows it, such as a count or a replay, stays in the inbox.
func (c *Client) Subscribe(channel string, channelData ...string) Frame {
	c.t.Helper()
	c.SendSubscribe(channel, channelData...)
	return c.Expect("pusher_internal:subscription_succeeded", channel)
}

// Unsubscribe leaves a channel. The protocol has no answer to that; Quiet or
// Drain afterwards shows that the server has worked it off.
func (c *Client) Unsubscribe(channel string) {
	c.t.Helper()
	c.Emit("pusher:unsubscribe", "", map[string]any{"channel": channel})
}

// SendSignin signs in with the given JSON text and does not wait.
func (c *Client) SendSignin(userData string) {
	c.t.Helper()
	c.Emit("pusher:signin", "", map[string]any{
		"auth": c.App.SignUser(c.SocketID, userData), "user_data": userData,
	})
}

// Signin signs in and returns pusher:signin_success, which has to be the next frame.
func (c *Client) Signin(userData string) Frame {
	c.t.Helper()
	c.SendSignin(userData)
	return c.Expect("pusher:signin_success", "")
}

// Next takes the next text frame, whatever it is.
func (c *Client) Next() Frame {
	c.t.Helper()
	return c.next("a frame")
}

func (c *Client) next(want string) (f Frame) {
	c.t.Helper()
	var came bool
	c.wire.wait(c.timeout, func() bool {
		if came = len(c.wire.texts) > 0; came {
			f, c.wire.texts = c.wire.texts[0], c.wire.texts[1:]
		}
		return came || c.wire.closed != nil
	})
	if !came {
		c.t.Fatalf("got nothing, want %s; the connection %s", want, c.state())
	}
	return f
}

// Expect takes the next text frame, which has to be this event on this channel;
// "" stands for a frame without channel. The order of frames is part of the
// protocol, so nothing is skipped.
func (c *Client) Expect(event, channel string) Frame {
	c.t.Helper()
	f := c.next(event + " on " + fmt.Sprintf("%q", channel))
	if f.Event != event || f.Channel != channel {
		c.t.Fatalf("got %s, want %s on %q", f.Raw, event, channel)
	}
	return f
}

// Await takes the first frame of this event on this channel, wherever it stands;
// the frames before it stay in the inbox.
func (c *Client) Await(event, channel string) (f Frame) {
	c.t.Helper()
	var came bool
	c.wire.wait(c.timeout, func() bool {
		for i, have := range c.wire.texts {
			if have.Event == event && have.Channel == channel {
				f, came = have, true
				c.wire.texts = append(c.wire.texts[:i:i], c.wire.texts[i+1:]...)
				break
			}
		}
		return came || c.wire.closed != nil
	})
	if !came {
		c.t.Fatalf("got no %s on %q, the connection %s", event, channel, c.state())
	}
	return f
}

// ExpectError takes the next text frame, which has to be pusher:error with this code.
func (c *Client) ExpectError(code int) Error {
	c.t.Helper()
	e := c.Expect("pusher:error", "").Error(c.t)
	if e.Code != code {
		c.t.Fatalf("got pusher:error %d %q, want code %d", e.Code, e.Message, code)
	}
	return e
}

// ExpectSubscriptionError takes the two frames of a failed subscription
// (section 2.4): both have to follow each other and carry the same text.
func (c *Client) ExpectSubscriptionError(channel, kind string, status, code int) SubscriptionError {
	c.t.Helper()
	var got SubscriptionError
	c.Expect("pusher:subscription_error", channel).Decode(c.t, &got)
	if got.Type != kind || got.Status != status || got.Error == "" {
		c.t.Fatalf("got %+v, want type %s, status %d and a text", got, kind, status)
	}
	if e := c.ExpectError(code); e.Message != got.Error {
		c.t.Fatalf("pusher:error says %q, subscription_error %q", e.Message, got.Error)
	}
	return got
}

// ExpectClose waits for the close frame of the server, which has to be the next
// thing that comes, and returns its reason.
func (c *Client) ExpectClose(code int) string {
	c.t.Helper()
	c.wire.wait(c.timeout, func() bool { return c.wire.closed != nil || len(c.wire.texts) > 0 })
	c.wire.mu.Lock()
	texts, closed := c.wire.texts, c.wire.closed
	c.wire.mu.Unlock()
	switch {
	case len(texts) > 0:
		c.t.Fatalf("got %s, want close %d", texts[0].Raw, code)
	case closed == nil:
		c.t.Fatalf("got no close frame, want %d; the connection %s", code, c.state())
	case closed.code != code:
		c.t.Fatalf("closed with %d %q, want %d", closed.code, closed.reason, code)
	}
	return closed.reason
}

// ExpectFail takes pusher:error with this code and then the close frame with the
// same code and the same text, cut to what fits (section 0, fail).
func (c *Client) ExpectFail(code int) Error {
	c.t.Helper()
	e := c.ExpectError(code)
	if got, want := c.ExpectClose(code), cutReason(e.Message); got != want {
		c.t.Fatalf("closed with reason %q, want the text of the error, %q", got, want)
	}
	return e
}

// cutReason cuts to the 123 bytes that a close frame holds, between two characters.
func cutReason(s string) string {
	const most = 123
	if len(s) <= most {
		return s
	}
	end := most
	for end > 0 && !utf8.RuneStart(s[end]) {
		end--
	}
	return s[:end]
}

// ExpectEnd waits until the TCP connection has ended, with or without a close frame.
func (c *Client) ExpectEnd() {
	c.t.Helper()
	select {
	case <-c.wire.done:
	case <-time.After(c.timeout):
		c.t.Fatal("the TCP connection did not end")
	}
}

// ExpectControlPing takes the next control ping and returns its payload.
func (c *Client) ExpectControlPing() string {
	c.t.Helper()
	return c.control("ping", &c.wire.pings)
}

// ExpectControlPong takes the next control pong and returns its payload.
func (c *Client) ExpectControlPong() string {
	c.t.Helper()
	return c.control("pong", &c.wire.pongs)
}

func (c *Client) control(name string, queue *[][]byte) string {
	c.t.Helper()
	var payload []byte
	if !c.wire.wait(c.timeout, func() bool {
		if len(*queue) == 0 {
			return false
		}
		payload, *queue = (*queue)[0], (*queue)[1:]
		return true
	}) {
		c.t.Fatalf("got no control %s, the connection %s", name, c.state())
	}
	return string(payload)
}

// Drain sends pusher:ping and takes everything up to the pong. The server works
// off the frames of a connection in order and queues what it sends in order, so
// the result is all that this node had caused for this client before the ping.
// For what another client caused, let that one make a round trip first; an
// answered API call needs none.
func (c *Client) Drain() []Frame {
	c.t.Helper()
	c.Send(`{"event":"pusher:ping","data":{}}`)
	var frames []Frame
	for {
		f := c.next("pusher:pong")
		if f.Event == "pusher:pong" {
			return frames
		}
		frames = append(frames, f)
	}
}

// Quiet proves that there is nothing in the inbox and nothing more to come, and
// that the connection is usable. It does not sleep; see Drain.
func (c *Client) Quiet() {
	c.t.Helper()
	for _, f := range c.Drain() {
		c.t.Errorf("got %s, want nothing", f.Raw)
	}
	if c.t.Failed() {
		c.t.FailNow()
	}
}

// Pending returns how many text frames wait in the inbox.
func (c *Client) Pending() int {
	c.wire.mu.Lock()
	defer c.wire.mu.Unlock()
	return len(c.wire.texts)
}

// Ping sends a control ping.
func (c *Client) Ping(payload string) {
	c.t.Helper()
	c.WriteFrame(ws.NewPingFrame([]byte(payload)))
}

// Pong sends a control pong.
func (c *Client) Pong(payload string) {
	c.t.Helper()
	c.WriteFrame(ws.NewPongFrame([]byte(payload)))
}

// WriteFrame sends a frame with any opcode, fin and reserved bits, masked.
func (c *Client) WriteFrame(f ws.Frame) {
	c.t.Helper()
	if err := c.wire.write(f); err != nil {
		c.t.Fatalf("send: %v", err)
	}
}

// WriteFragments sends one text message in as many frames as there are parts.
func (c *Client) WriteFragments(parts ...string) {
	c.t.Helper()
	op := ws.OpText
	for i, part := range parts {
		c.WriteFrame(ws.NewFrame(op, i == len(parts)-1, []byte(part)))
		op = ws.OpContinuation
	}
}

// WriteBytes sends bytes that need not be a frame. The error tells whether the
// server still took them.
func (c *Client) WriteBytes(b []byte) error { return c.wire.writeBytes(b) }

// StopReading leaves in the kernel what the server sends, so that its queue
// fills up, until ResumeReading.
func (c *Client) StopReading() {
	if tcp, ok := c.wire.conn.(*net.TCPConn); ok {
		_ = tcp.SetReadBuffer(4 << 10) // or the kernel would take megabytes first
	}
	c.wire.gate.shut()
}

// ResumeReading undoes StopReading.
func (c *Client) ResumeReading() { c.wire.gate.unlock() }

// Close closes as a client does and waits for the server's close frame, which
// has to carry the same code, and for the end of the connection.
func (c *Client) Close(code int) {
	c.t.Helper()
	c.WriteFrame(ws.NewCloseFrame(ws.NewCloseFrameBody(ws.StatusCode(code), "")))
	if !c.wire.wait(c.timeout, func() bool { return c.wire.closed != nil }) {
		c.t.Fatalf("the close was not answered, the connection %s", c.state())
	}
	if got := c.wire.closing().code; got != code {
		c.t.Fatalf("the close %d was answered with %d", code, got)
	}
	c.ExpectEnd()
}

// Cut ends the TCP connection at once with a reset, without a close frame.
// Every client is cut when its test ends.
func (c *Client) Cut() {
	conn := c.wire.conn
	if tlsConn, ok := conn.(*tls.Conn); ok {
		conn = tlsConn.NetConn()
	}
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = conn.Close()
	c.ResumeReading()
	<-c.wire.done
}

// state describes the connection for a failure.
func (c *Client) state() string {
	c.wire.mu.Lock()
	defer c.wire.mu.Unlock()
	s := "is open"
	switch {
	case c.wire.closed != nil:
		s = fmt.Sprintf("was closed with %d %q", c.wire.closed.code, c.wire.closed.reason)
	case c.wire.err != nil:
		s = "ended: " + c.wire.err.Error()
	}
	for _, f := range c.wire.texts {
		s += "\n  in the inbox: " + f.Raw
	}
	return s
}
