package hub

import (
	"errors"
	"slices"

	"sockudo/internal/protocol"
	"sockudo/internal/ws"
)

// ErrOtherUser says that the socket is signed in as somebody else.
var ErrOtherUser = errors.New("already signed in as another user")

// A user is somebody with at least one signed-in socket.
type user struct {
	sockets []*Socket
}

// User returns the id of the user the socket is signed in as, or "".
func (s *Socket) User() string {
	if s.ns == nil {
		return ""
	}
	s.ns.userMu.Lock()
	defer s.ns.userMu.Unlock()
	return s.user
}

// SignIn makes s one of a user's sockets, queues success on it and, when it
// watches others, their state after it. Those who watch the user learn that it
// is online now. It returns ErrOtherUser, and reports whether the user is new.
func (ns *Namespace) SignIn(s *Socket, id string, success *ws.Frame, watch []string) (first bool, err error) {
	ns.userMu.Lock()
	defer ns.userMu.Unlock()
	if s.user != "" && s.user != id {
		return false, ErrOtherUser
	}
	s.Send(success)
	ns.unwatch(s)
	if s.user == "" {
		s.user = id
		u := ns.users[id]
		if u == nil {
			u = &user{}
			ns.users[id] = u
			first = true
			ns.announce(id, true)
		}
		u.sockets = append(u.sockets, s)
	}
	ns.watch(s, watch)
	return first, nil
}

// SignOut forgets who s is; its user may be offline then.
func (ns *Namespace) SignOut(s *Socket) (last bool) {
	ns.userMu.Lock()
	defer ns.userMu.Unlock()
	ns.unwatch(s)
	u := ns.users[s.user]
	if u == nil {
		return false
	}
	id := s.user
	s.user = ""
	u.sockets = without(u.sockets, s)
	if len(u.sockets) > 0 {
		return false
	}
	delete(ns.users, id)
	ns.announce(id, false)
	return true
}

// without removes s from a list whose order does not matter.
func without(list []*Socket, s *Socket) []*Socket {
	i := slices.Index(list, s)
	if i < 0 {
		return list
	}
	list[i] = list[len(list)-1]
	list[len(list)-1] = nil
	return list[:len(list)-1]
}

// announce tells the watchers of a user; userMu is held.
func (ns *Namespace) announce(id string, online bool) {
	watchers := ns.watchers[id]
	if len(watchers) == 0 {
		return
	}
	var f *ws.Frame
	if online {
		f = ws.TextFrame(protocol.AppendWatchlist(nil, []string{id}, nil))
	} else {
		f = ws.TextFrame(protocol.AppendWatchlist(nil, nil, []string{id}))
	}
	for _, s := range watchers {
		s.Send(f)
	}
}

// watch registers s with the users it watches and tells it who of them is
// online; userMu is held.
func (ns *Namespace) watch(s *Socket, ids []string) {
	if len(ids) == 0 {
		return
	}
	var online, offline []string
	for _, id := range ids {
		ns.watchers[id] = append(ns.watchers[id], s)
		if ns.users[id] != nil {
			online = append(online, id)
		} else {
			offline = append(offline, id)
		}
	}
	s.watching = ids
	s.Send(ws.TextFrame(protocol.AppendWatchlist(nil, online, offline)))
}

func (ns *Namespace) unwatch(s *Socket) {
	for _, id := range s.watching {
		if rest := without(ns.watchers[id], s); len(rest) > 0 {
			ns.watchers[id] = rest
		} else {
			delete(ns.watchers, id)
		}
	}
	s.watching = nil
}

// SendToUser queues a frame on every socket that is signed in as id, but not
// on except, and returns how many there were.
func (ns *Namespace) SendToUser(id string, f *ws.Frame, except *ws.Conn) int {
	ns.userMu.Lock()
	defer ns.userMu.Unlock()
	u := ns.users[id]
	if u == nil {
		return 0
	}
	sent := 0
	for _, s := range u.sockets {
		if s.Conn != except && s.Conn.Send(f) {
			sent++
		}
	}
	ns.metrics.Sent(sent, sent*f.Size())
	return sent
}

// UserSockets returns the sockets that are signed in as id.
func (ns *Namespace) UserSockets(id string) []*Socket {
	ns.userMu.Lock()
	defer ns.userMu.Unlock()
	if u := ns.users[id]; u != nil {
		return slices.Clone(u.sockets)
	}
	return nil
}

// UserCounts returns how many users are signed in, and on how many sockets.
func (ns *Namespace) UserCounts() (users, sockets int) {
	ns.userMu.Lock()
	defer ns.userMu.Unlock()
	for _, u := range ns.users {
		sockets += len(u.sockets)
	}
	return len(ns.users), sockets
}
