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
	list  []*Subscription
	index map[string]*Subscription // nil while the list is short
	first Subscription             // memory for the only one that most sockets ever have
	one   [1]*Subscription         // and for its list

	// Guarded by ns.userMu.
	user     string // id of the signed-in user
	watching []string
}

// A Subscription is one socket on one channel.
type Subscription struct {
	socket  *Socket
	channel *Channel
	at      int    // its place in Socket.list
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
	if s.index != nil {
		return s.index[channel]
	}
	for _, sub := range s.list {
		if sub.channel.name == channel {
			return sub
		}
	}
	return nil
}

// Subscriptions returns how many channels the socket is on.
func (s *Socket) Subscriptions() int { return len(s.list) }

// Last returns the newest subscription, or nil; for leaving them all.
func (s *Socket) Last() *Subscription {
	if len(s.list) == 0 {
		return nil
	}
	return s.list[len(s.list)-1]
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
	sub.at = len(s.list)
	if sub == &s.first {
		s.list = s.one[:0]
	}
	s.list = append(s.list, sub)
	if s.index != nil {
		s.index[sub.channel.name] = sub
	} else if len(s.list) > shortList {
		s.index = make(map[string]*Subscription, 2*shortList)
		for _, sub := range s.list {
			s.index[sub.channel.name] = sub
		}
	}
}

func (s *Socket) drop(sub *Subscription) {
	last := s.list[len(s.list)-1]
	s.list[sub.at] = last
	last.at = sub.at
	s.list[len(s.list)-1] = nil
	s.list = s.list[:len(s.list)-1]
	if s.index != nil {
		delete(s.index, sub.channel.name)
	}
	if len(s.list) == 0 {
		s.list, s.index = nil, nil
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
