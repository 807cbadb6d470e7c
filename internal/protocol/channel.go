package protocol

import (
	"strings"
	"unicode/utf8"
)

// A Kind is what the prefix of a channel's name makes of it (section 2.3).
type Kind uint8

// The bits of a Kind.
const (
	Private   Kind = 1 << iota // needs a signature
	Presence                   // has members; always with Private
	Cached                     // replays its last event
	Encrypted                  // opaque data; always with Private
	User                       // #server-to-user-ID
	Invalid                    // any other name with a leading #
)

// UserPrefix starts the name of a user channel; the rest is the user's id.
const UserPrefix = "#server-to-user-"

// KindOf returns the class of a channel; the longest prefix wins.
func KindOf(channel string) Kind {
	if rest, ok := strings.CutPrefix(channel, "private-"); ok {
		k := Private
		if enc, ok := strings.CutPrefix(rest, "encrypted-"); ok {
			k |= Encrypted
			rest = enc
		}
		if strings.HasPrefix(rest, "cache-") {
			k |= Cached
		}
		return k
	}
	if rest, ok := strings.CutPrefix(channel, "presence-"); ok {
		if strings.HasPrefix(rest, "cache-") {
			return Private | Presence | Cached
		}
		return Private | Presence
	}
	switch {
	case strings.HasPrefix(channel, "cache-"):
		return Cached
	case strings.HasPrefix(channel, UserPrefix):
		return User
	case strings.HasPrefix(channel, "#"):
		return Invalid
	}
	return 0
}

// Is reports whether k has all of the bits of want.
func (k Kind) Is(want Kind) bool { return k&want == want }

// ClientEvents reports whether clients may send events on the channel.
func (k Kind) ClientEvents() bool { return k.Is(Private) }

// Counted reports whether subscription_count events belong to the channel.
func (k Kind) Counted() bool { return k&(Presence|User|Invalid) == 0 }

// nameByte marks the bytes that channel names are made of (section 3.1).
var nameByte = func() (t [256]bool) {
	for c := range 256 {
		switch b := byte(c); {
		case b >= 'a' && b <= 'z', b >= 'A' && b <= 'Z', b >= '0' && b <= '9':
			t[c] = true
		}
	}
	for _, b := range []byte("_-=@,.;") {
		t[b] = true
	}
	return t
}()

// ValidChannel reports whether a channel's name is well formed. Its length is
// checked apart, because an app may set the limit.
func ValidChannel(name string) bool {
	if user, ok := strings.CutPrefix(name, UserPrefix); ok {
		return user != "" && utf8.ValidString(user)
	}
	for i := range len(name) {
		if !nameByte[name[i]] {
			return false
		}
	}
	return name != ""
}

// ReservedEvent reports whether an event's name belongs to the protocol, so
// that neither clients nor the HTTP API may publish it (section 3.2).
func ReservedEvent(name string) bool {
	return strings.HasPrefix(name, "pusher:") || strings.HasPrefix(name, "pusher_internal:")
}

// ClientEvent reports whether an event's name marks it as sent by a client.
func ClientEvent(name string) bool { return strings.HasPrefix(name, "client-") }

// Length returns the number of characters of s.
func Length(s string) int { return utf8.RuneCountInString(s) }
