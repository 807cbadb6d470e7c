package hub

import (
	"errors"
	"slices"

	"sockudo/internal/protocol"
	"sockudo/internal/ws"
)

// ErrOtherUser says that the socket is signed in as somebody else.
var ErrOtherUser = errors.New("already signed in as another user")

// A user is somebody with at least one signed-in socket on this node.
type user struct {
	sockets []*Socket
}

// A watched user is on the watchlist of sockets of this node.
type watched struct {
	by     []*Socket
	online bool // as they were told last
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
// is online now. It returns ErrOtherUser, and reports whether the user is new
// on this node.
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
		}
		u.sockets = append(u.sockets, s)
		ns.tellUser(id, len(u.sockets))
	}
	ns.watch(s, watch)
	return first, nil
}

// SignOut forgets who s is; its user may be offline then. It returns the user,
// "" if there was none.
func (ns *Namespace) SignOut(s *Socket) string {
	ns.userMu.Lock()
	defer ns.userMu.Unlock()
	ns.unwatch(s)
	u := ns.users[s.user]
	if u == nil {
		return ""
	}
	id := s.user
	s.user = ""
	u.sockets = without(u.sockets, s)
	if len(u.sockets) == 0 {
		delete(ns.users, id)
	}
	ns.tellUser(id, len(u.sockets))
	return id
}

// tellUser tells the peers how many sockets a user has here now, and the
// watchers what that changes; userMu is held.
func (ns *Namespace) tellUser(id string, sockets int) {
	if p := ns.hub.peers; p != nil {
		p.SetUser(ns.ID, id, sockets)
	}
	if w := ns.watched[id]; w != nil {
		ns.announce(id, w)
	}
}

// online reports whether a user is signed in anywhere; userMu is held.
func (ns *Namespace) online(id string) bool {
	if ns.users[id] != nil {
		return true
	}
	p := ns.hub.peers
	return p != nil && p.User(ns.ID, id) > 0
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

// announce tells the watchers of a user whether it is online, if they do not
// know yet; userMu is held.
func (ns *Namespace) announce(id string, w *watched) {
	online := ns.online(id)
	if online == w.online {
		return
	}
	w.online = online
	var f *ws.Frame
	if online {
		f = ws.TextFrame(protocol.AppendWatchlist(nil, []string{id}, nil))
	} else {
		f = ws.TextFrame(protocol.AppendWatchlist(nil, nil, []string{id}))
	}
	for _, s := range w.by {
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
		w := ns.watched[id]
		if w == nil {
			w = &watched{online: ns.online(id)}
			ns.watched[id] = w
		}
		ns.announce(id, w) // to those who watch already: what s is told must not be news later
		w.by = append(w.by, s)
		if w.online {
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
		w := ns.watched[id]
		if w.by = without(w.by, s); len(w.by) == 0 {
			delete(ns.watched, id)
		}
	}
	s.watching = nil
}

// SendToUser queues a frame on every socket of this node that is signed in as
// id, but not on except, and returns how many there were.
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

// UserSockets returns the sockets of this node that are signed in as id.
func (ns *Namespace) UserSockets(id string) []*Socket {
	ns.userMu.Lock()
	defer ns.userMu.Unlock()
	if u := ns.users[id]; u != nil {
		return slices.Clone(u.sockets)
	}
	return nil
}

// UserCounts returns how many users are signed in on this node, and on how many
// sockets.
func (ns *Namespace) UserCounts() (users, sockets int) {
	ns.userMu.Lock()
	defer ns.userMu.Unlock()
	for _, u := range ns.users {
		sockets += len(u.sockets)
	}
	return len(ns.users), sockets
}
