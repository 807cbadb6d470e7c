// Package protocol is the Pusher wire protocol: names, codes, the decoding of
// client frames, the appending of server frames, channel classes and socket
// ids. It does no I/O and keeps no state. Section numbers in this package
// refer to the protocol document in docs/protocol.md.
package protocol

import (
	"crypto/rand"
	"encoding/binary"
	"strconv"
	"strings"
)

// Event names that clients send and receive (section 2).
const (
	EventConnectionEstablished = "pusher:connection_established"
	EventError                 = "pusher:error"
	EventPing                  = "pusher:ping"
	EventPong                  = "pusher:pong"
	EventSubscribe             = "pusher:subscribe"
	EventUnsubscribe           = "pusher:unsubscribe"
	EventSignin                = "pusher:signin"
	EventSigninSuccess         = "pusher:signin_success"
	EventSubscriptionError     = "pusher:subscription_error"
	EventCacheMiss             = "pusher:cache_miss"
	EventSubscriptionSucceeded = "pusher_internal:subscription_succeeded"
	EventMemberAdded           = "pusher_internal:member_added"
	EventMemberRemoved         = "pusher_internal:member_removed"
	EventSubscriptionCount     = "pusher_internal:subscription_count"
	EventWatchlist             = "pusher_internal:watchlist_events"
)

// Limits that the protocol fixes (section 3).
const (
	MaxUserIDLength        = 128 // characters of a presence user_id
	MaxSigninIDLength      = 199 // characters of a signed-in user's id
	MaxWatchlist           = 100 // user ids
	SubscriptionCountQuiet = 100 // above this many subscribers, counts are sent at most every 5 s
)

// Codes of pusher:error frames and of close frames (section 2.14).
const (
	CodeTLSRequired        = 4000
	CodeUnknownApp         = 4001
	CodeAppDisabled        = 4003
	CodeOverQuota          = 4004
	CodePathNotFound       = 4005
	CodeInvalidVersion     = 4006
	CodeUnsupportedVersion = 4007
	CodeNoVersion          = 4008
	CodeUnauthorized       = 4009
	CodeOverCapacity       = 4100
	CodeReconnect          = 4200
	CodePongTimeout        = 4201
	CodeGeneric            = 4300
	CodeClientEventRate    = 4301
	CodeWatchlistLimit     = 4302
)

// An Error is what a client may learn of a failure: a pusher:error frame and,
// when it is fatal, the close frame after it.
type Error struct {
	Code    int
	Message string
}

// Error returns the message.
func (e *Error) Error() string { return e.Message }

// Fatal reports whether the connection ends with this error. 4009 ends a
// connection in some places and not in others; those places say so themselves.
func (e *Error) Fatal() bool { return e.Code < 4300 && e.Code != CodeUnauthorized }

// A SubscriptionError is a failed subscription (section 2.4): it is told in a
// pusher:subscription_error on the channel and in a pusher:error.
type SubscriptionError struct {
	Channel string
	Type    string // AuthError, LimitReached, InvalidChannel, ServiceUnavailable
	Status  int    // HTTP-like
	Code    int    // of the pusher:error
	Message string
}

// Error returns the message.
func (e *SubscriptionError) Error() string { return e.Message }

// Types of a SubscriptionError.
const (
	TypeAuthError      = "AuthError"
	TypeLimitReached   = "LimitReached"
	TypeInvalidChannel = "InvalidChannel"
	TypeUnavailable    = "ServiceUnavailable"
)

// CheckVersion decides about the protocol query parameter (section 1.3). given
// says whether the parameter was there at all.
func CheckVersion(value string, strict bool) *Error {
	if value == "" {
		if strict {
			return &Error{CodeNoVersion, "No protocol version supplied"}
		}
		return nil
	}
	n, err := strconv.ParseInt(value, 10, 64)
	if err != nil || value[0] == '+' {
		if isInteger(value) {
			return &Error{CodeUnsupportedVersion, "Unsupported protocol version"}
		}
		return &Error{CodeInvalidVersion, "Invalid version string format"}
	}
	if n < 5 || n > 7 {
		return &Error{CodeUnsupportedVersion, "Unsupported protocol version"}
	}
	return nil
}

// isInteger reports whether s is a base-10 integer of any size.
func isInteger(s string) bool {
	if s != "" && s[0] == '-' {
		s = s[1:]
	}
	if s == "" {
		return false
	}
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return true
}

// A SocketID identifies a connection. Written, it is two integers of up to ten
// digits joined by a dot (section 1.5).
type SocketID uint64

// NewSocketID returns a random id: 64 bits make a repetition among all live
// connections practically impossible.
func NewSocketID() SocketID {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	return SocketID(binary.LittleEndian.Uint64(b[:]))
}

// String returns the id as clients know it.
func (id SocketID) String() string {
	buf := make([]byte, 0, 21)
	buf = strconv.AppendUint(buf, uint64(id>>32), 10)
	buf = append(buf, '.')
	buf = strconv.AppendUint(buf, uint64(id&0xffffffff), 10)
	return string(buf)
}

// MarshalText lets logs show the id as clients know it.
func (id SocketID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// ParseSocketID returns the id that is written as s. It returns false when s,
// valid or not, cannot be an id of ours.
func ParseSocketID(s string) (id SocketID, ok bool) {
	high, low, _ := strings.Cut(s, ".")
	a, errA := strconv.ParseUint(high, 10, 32)
	b, errB := strconv.ParseUint(low, 10, 32)
	id = SocketID(a<<32 | b)
	return id, errA == nil && errB == nil && id.String() == s
}

// ValidSocketID reports whether s has the form of a socket id.
func ValidSocketID(s string) bool {
	dot := -1
	for i := range len(s) {
		switch c := s[i]; {
		case c == '.' && dot < 0:
			dot = i
		case c < '0' || c > '9':
			return false
		}
	}
	return dot > 0 && dot < len(s)-1 && len(s) <= 64
}
