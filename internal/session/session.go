package session

import (
	"context"
	"errors"
	"strconv"
	"time"

	"sockudo/internal/app"
	"sockudo/internal/hub"
	"sockudo/internal/metrics"
	"sockudo/internal/protocol"
	"sockudo/internal/ws"
)

// A Session is one connected client. All of it is owned by the callbacks of
// its connection, which never run at the same time.
type Session struct {
	*scope
	sock hub.Socket

	refusal  *protocol.Error  // why the client is not admitted
	open     bool             // registered with the hub
	left     bool             // and gone from there
	probed   time.Duration    // when the client was pinged without an answer yet; 0: it was not
	deadline time.Duration    // of the authorization; 0: none, or met
	rate     *rateWindow      // of client events, from the first one on
	user     *protocol.Member // who is signed in, as a presence member; nil: nobody
}

// A scope is what a session shares with the others of its app, behind one
// pointer: what the garbage collector has to follow is most of its work.
type scope struct {
	gate *Gate
	app  *app.App // as it was when the client connected; nil: none
}

var (
	pingFrame = ws.TextFrame([]byte(protocol.Ping))
	pongFrame = ws.TextFrame([]byte(protocol.Pong))
)

// MaxMessageBytes lets the client send the largest client event that its app
// allows (protocol 3.3), which may be larger than what the others may send.
func (s *Session) MaxMessageBytes() int {
	base := s.gate.opts.MaxMessageBytes
	if s.app == nil || base <= 0 {
		return base
	}
	return max(base, min(s.app.Limits.EventPayloadBytes, maxEventBytes)+envelopeBytes)
}

const (
	envelopeBytes = 4 << 10  // of an event around its data
	maxEventBytes = 64 << 20 // a client makes the server gather that much; Sockudo allows no more
)

// Open greets the client or tells it why it may not stay.
func (s *Session) Open(c *ws.Conn) {
	s.sock.Conn = c
	if s.refusal == nil {
		s.refusal = s.register()
	}
	if s.refusal != nil {
		s.sock.Fail(s.refusal.Code, s.refusal.Message)
		return
	}
	s.open = true
	s.metrics().ConnectionOpened()
	seconds := int(s.gate.opts.ActivityTimeout / time.Second)
	s.sock.Send(ws.TextFrame(protocol.AppendEstablished(nil, s.sock.ID.String(), max(seconds, 1))))
	if s.mustAuthorize() {
		s.deadline = s.gate.moment(time.Now()) + s.gate.opts.AuthTimeout
	}
	s.schedule()
}

// metrics are the series of the app of a session that is open, or was.
func (s *Session) metrics() *metrics.App { return s.sock.Namespace().Metrics() }

// register gives the client its place in the hub.
func (s *Session) register() *protocol.Error {
	limit := s.gate.opts.MaxConnections
	if s.app.Limits.MaxConnections == 0 && limit > 0 && s.gate.hub.Connections() >= limit {
		return errCapacity
	}
	s.sock.ID = protocol.NewSocketID()
	// A connection that still has to prove itself does not count (protocol 1.7).
	err := s.gate.hub.App(s.app.ID).Add(&s.sock, !s.mustAuthorize(), s.app.Limits.MaxConnections)
	if err != nil {
		s.gate.opts.Metrics.ConnectionError(s.app.ID, "over_connection_quota")
		return errQuota(s.app)
	}
	if limit > 0 && s.gate.hub.Connections() > limit {
		s.sock.Namespace().Remove(&s.sock)
		return errCapacity
	}
	return nil
}

var errCapacity = &protocol.Error{Code: protocol.CodeOverCapacity, Message: "Over capacity"}

func errQuota(a *app.App) *protocol.Error {
	return &protocol.Error{Code: protocol.CodeOverQuota,
		Message: "Application is over connection quota: max_connections is " + strconv.Itoa(a.Limits.MaxConnections)}
}

func (s *Session) mustAuthorize() bool {
	return s.app.EnableUserAuthentication != nil && *s.app.EnableUserAuthentication
}

// authorized notes that the client signed in or joined an authenticated
// channel; from now on it counts.
func (s *Session) authorized() {
	if s.deadline == 0 {
		return
	}
	s.deadline = 0
	if err := s.sock.Namespace().Count(&s.sock, s.app.Limits.MaxConnections); err != nil {
		s.fail(errQuota(s.app))
	}
}

// Wake pings a silent client, gives up on one that does not answer, and on one
// that is not authorized in time (protocol 1.6, 1.7).
func (s *Session) Wake(c *ws.Conn, t time.Time) {
	if !s.open {
		return
	}
	now := s.gate.moment(t)
	if s.deadline != 0 && now >= s.deadline {
		s.fail(&protocol.Error{Code: protocol.CodeUnauthorized, Message: "Connection not authorized within timeout"})
		return
	}
	heard := s.gate.moment(c.LastRead())
	if heard >= s.probed { // both are of the same coarse clock
		s.probed = 0
	}
	switch {
	case s.probed == 0 && now-heard >= s.gate.opts.ActivityTimeout:
		// Three of the official clients answer only the control ping, and some
		// intermediaries answer that one themselves: send both.
		s.probed = now
		c.Ping(nil)
		s.sock.Send(pingFrame)
	case s.probed != 0 && now-s.probed >= s.gate.opts.PongTimeout:
		s.fail(&protocol.Error{Code: protocol.CodePongTimeout, Message: "Pong reply not received in time"})
		return
	}
	s.schedule()
}

// schedule asks to be woken when something may be due.
func (s *Session) schedule() {
	at := s.probed + s.gate.opts.PongTimeout
	if s.probed == 0 {
		at = s.gate.moment(s.sock.Conn.LastRead()) + s.gate.opts.ActivityTimeout
	}
	if s.deadline != 0 {
		at = min(at, s.deadline)
	}
	s.sock.Conn.WakeAt(s.gate.made.Add(at))
}

// Leave takes back all that the connection had. The others are not to see a
// member who is being thrown out until the client has agreed to it.
func (s *Session) Leave(*ws.Conn) {
	if s.open && !s.left {
		s.left = true
		s.gate.node.Gone(&s.sock)
	}
}

// Closed takes back all that the connection had.
func (s *Session) Closed(c *ws.Conn, err error) {
	if !s.open {
		return
	}
	s.Leave(c)
	s.open = false
	s.metrics().ConnectionClosed()
	if errors.Is(err, ws.ErrSlow) {
		s.metrics().SlowConsumer()
	}
	s.gate.log.Debug("connection closed", "app_id", s.app.ID, "socket_id", s.sock.ID, "err", err)
}

// Message handles one frame of the client.
func (s *Session) Message(c *ws.Conn, payload []byte) {
	if !s.open {
		return // refused; the close is on its way
	}
	s.metrics().Received(len(payload))
	m, err := protocol.Decode(payload)
	if err != nil {
		kind := "invalid_message_format"
		if errors.Is(err, protocol.ErrNoEvent) {
			kind = "missing_event_name"
		}
		s.metrics().ConnectionError(kind)
		s.soft(protocol.CodeGeneric, err.Error())
		return
	}
	switch m.Event {
	case protocol.EventPing:
		s.sock.Send(pongFrame)
	case protocol.EventPong:
	case protocol.EventSubscribe:
		s.report(s.subscribe(c, m.Data))
	case protocol.EventUnsubscribe:
		s.report(s.unsubscribe(m.Data))
	case protocol.EventSignin:
		s.report(s.signin(c, m.Data))
	default:
		if protocol.ClientEvent(m.Event) {
			s.report(s.clientEvent(c, &m))
			return
		}
		s.soft(protocol.CodeGeneric, "Unknown event: "+clip(m.Event))
	}
}

// clip shortens what a client sent for an error text.
func clip(text string) string {
	const most = 200
	if len(text) <= most {
		return text
	}
	return text[:most] + "…"
}

// report tells the client of an error. Whatever is not made for clients stays
// inside.
func (s *Session) report(err error) {
	if err == nil {
		return
	}
	if sub, ok := errors.AsType[*protocol.SubscriptionError](err); ok {
		if sub.Type == protocol.TypeAuthError {
			s.metrics().ConnectionError("authentication_failed")
		}
		s.sock.Send(ws.TextFrame(protocol.AppendSubscriptionError(nil, sub)))
		s.soft(sub.Code, sub.Message)
		return
	}
	if e, ok := errors.AsType[*protocol.Error](err); ok {
		s.soft(e.Code, e.Message)
		return
	}
	s.gate.log.Error("message failed", "app_id", s.app.ID, "socket_id", s.sock.ID, "err", err)
	s.soft(protocol.CodeGeneric, "The server could not do this now, try again")
}

// soft sends a pusher:error and leaves the connection open.
func (s *Session) soft(code int, message string) {
	s.sock.Send(ws.TextFrame(protocol.AppendError(nil, code, message)))
}

// fail ends the connection.
func (s *Session) fail(e *protocol.Error) { s.sock.Fail(e.Code, e.Message) }

// background is the context of what a message causes. The connection's end
// does not cancel it: what was begun is finished, within the driver's own bounds.
func (s *Session) background() context.Context { return context.Background() }
