package hub

import (
	"sockudo/internal/protocol"
	"sockudo/internal/ws"
)

// A Socket is one connection of an app. Its subscriptions belong to the
// callbacks of the connection, which never run at the same time.
type Socket struct {
	// Fixed at creation.
	ID   protocol.SocketID
	Conn *ws.Conn

	ns      *Namespace
	counted bool // guarded by ns.mu

	// Owned by the connection's callbacks.
	joined bool         // first is a subscription now
	first  Subscription // the only one that most sockets ever have
	more   *more        // all others; nil: there are none

	// Guarded by ns.userMu.
	user     string // id of the signed-in user
	watching []string
}

// more are the subscriptions of a socket besides the first.
type more struct {
	list  []*Subscription
	index map[string]*Subscription // nil while the list is short
}

// A Subscription is one socket on one channel.
type Subscription struct {
	socket  *Socket
	channel *Channel
	at      int    // its place in Socket.more; not for the first
	slot    int    // its place in Channel.slots; guarded by Channel.mu
	user    string // member id on a presence channel
	stamp   Stamp  // of the event that was replayed
}

// shortList is how many subscriptions are searched one by one.
const shortList = 8

// Send queues a frame for this socket alone and counts it.
func (s *Socket) Send(f *ws.Frame) {
	if s.Conn.Send(f) && s.ns != nil {
		s.ns.metrics.Sent(1, f.Size())
	}
}

// Namespace returns the namespace that the socket was added to, or nil.
func (s *Socket) Namespace() *Namespace { return s.ns }

// Subscription returns the socket's subscription to a channel, or nil.
func (s *Socket) Subscription(channel string) *Subscription {
	if s.joined && s.first.channel.name == channel {
		return &s.first
	}
	if s.more == nil {
		return nil
	}
	if s.more.index != nil {
		return s.more.index[channel]
	}
	for _, sub := range s.more.list {
		if sub.channel.name == channel {
			return sub
		}
	}
	return nil
}

// Subscriptions returns how many channels the socket is on.
func (s *Socket) Subscriptions() int {
	n := 0
	if s.joined {
		n++
	}
	if s.more != nil {
		n += len(s.more.list)
	}
	return n
}

// Last returns the newest subscription, or nil; for leaving them all.
func (s *Socket) Last() *Subscription {
	switch {
	case s.more != nil:
		return s.more.list[len(s.more.list)-1]
	case s.joined:
		return &s.first
	}
	return nil
}

// subscription returns memory for a new one. Nobody may take a later one for
// the first, so that serves once.
func (s *Socket) subscription() *Subscription {
	if s.first.socket == nil {
		return &s.first
	}
	return new(Subscription)
}

func (s *Socket) add(sub *Subscription) {
	if sub == &s.first {
		s.joined = true
		return
	}
	if s.more == nil {
		s.more = new(more)
	}
	m := s.more
	sub.at = len(m.list)
	m.list = append(m.list, sub)
	if m.index != nil {
		m.index[sub.channel.name] = sub
	} else if len(m.list) > shortList {
		m.index = make(map[string]*Subscription, 2*shortList)
		for _, sub := range m.list {
			m.index[sub.channel.name] = sub
		}
	}
}

func (s *Socket) drop(sub *Subscription) {
	if sub == &s.first {
		s.joined = false
		return
	}
	m := s.more
	last := m.list[len(m.list)-1]
	m.list[sub.at] = last
	last.at = sub.at
	m.list[len(m.list)-1] = nil
	m.list = m.list[:len(m.list)-1]
	if m.index != nil {
		delete(m.index, sub.channel.name)
	}
	if len(m.list) == 0 {
		s.more = nil
	}
}

// Channel returns the channel that is subscribed to.
func (sub *Subscription) Channel() *Channel { return sub.channel }

// Member returns the member's id on a presence channel, else "".
func (sub *Subscription) Member() string { return sub.user }

// Fail tells the client why its connection ends and ends it with the same code.
func (s *Socket) Fail(code int, message string) {
	last := ws.TextFrame(protocol.AppendError(nil, code, message))
	if s.Conn.CloseAfter(last, uint16(code), message) && s.ns != nil {
		s.ns.metrics.Sent(1, last.Size())
	}
}
