package protocol

import (
	"bytes"
	"encoding/json"
	"errors"
)

// A Message is a frame from a client (section 2.1). Data points into the
// bytes it was decoded from.
type Message struct {
	Event   string
	Channel Value
	Data    Value
}

var (
	// ErrNotObject says that a frame is not a JSON object.
	ErrNotObject error = &Error{CodeGeneric, "Invalid message format: a JSON object is expected"}
	// ErrNoEvent says that a frame has no event that is a string.
	ErrNoEvent error = &Error{CodeGeneric, "Invalid message format: event must be a string"}
)

// Decode reads a frame from a client; it must be valid UTF-8. It returns
// ErrNotObject or ErrNoEvent.
func Decode(frame []byte) (Message, error) {
	var m Message
	var event Value
	err := ScanObject(frame, func(key, v Value) {
		switch {
		case key.Is("event"):
			event = v
		case key.Is("channel"):
			m.Channel = v
		case key.Is("data"):
			m.Data = v
		}
	})
	if err != nil {
		return Message{}, ErrNotObject
	}
	if event.Kind != String {
		return Message{}, ErrNoEvent
	}
	m.Event = intern(event)
	return m, nil
}

// intern returns the event's name without allocating for the usual ones.
func intern(v Value) string {
	switch string(v.Raw) {
	case EventPing:
		return EventPing
	case EventPong:
		return EventPong
	case EventSubscribe:
		return EventSubscribe
	case EventUnsubscribe:
		return EventUnsubscribe
	case EventSignin:
		return EventSignin
	}
	return v.Text()
}

// Fields of the data of the events that a client sends to the server. A nil
// string was absent or null.
type (
	// Subscribe is the data of pusher:subscribe.
	Subscribe struct {
		Channel     string
		Auth        string
		ChannelData *string
	}
	// Signin is the data of pusher:signin.
	Signin struct {
		Auth     string
		UserData string
	}
)

// fields scans data, which is an object or a string that contains one (section 1.9).
func fields(data Value, field func(key, value Value)) error {
	switch data.Kind {
	case Object:
		return ScanObject(data.Raw, field)
	case String:
		return ScanObject([]byte(data.Text()), field)
	}
	return ErrNotObject
}

var (
	errNoChannel   = &Error{CodeGeneric, "Invalid message format: data.channel must be a string"}
	errAuthType    = &Error{CodeGeneric, "Invalid message format: data.auth must be a string"}
	errChannelData = &Error{CodeGeneric, "Invalid message format: data.channel_data must be a string"}
)

// DecodeSubscribe reads the data of pusher:subscribe and of
// pusher:unsubscribe. Its error is an *Error.
func DecodeSubscribe(data Value) (Subscribe, error) {
	var s Subscribe
	var channel, auth, channelData Value
	err := fields(data, func(key, v Value) {
		switch {
		case key.Is("channel"):
			channel = v
		case key.Is("auth"):
			auth = v
		case key.Is("channel_data"):
			channelData = v
		}
	})
	if err != nil || channel.Kind != String {
		return s, errNoChannel
	}
	s.Channel = channel.Text()
	switch auth.Kind {
	case Absent, Null:
	case String:
		s.Auth = auth.Text()
	default:
		return s, errAuthType
	}
	switch channelData.Kind {
	case Absent, Null:
	case String:
		text := channelData.Text()
		s.ChannelData = &text
	default:
		return s, errChannelData
	}
	return s, nil
}

// DecodeSignin reads the data of pusher:signin; what is missing stays empty.
func DecodeSignin(data Value) Signin {
	var s Signin
	_ = fields(data, func(key, v Value) { // a broken frame has nothing in it
		switch {
		case v.Kind != String:
		case key.Is("auth"):
			s.Auth = v.Text()
		case key.Is("user_data"):
			s.UserData = v.Text()
		}
	})
	return s
}

// errMember says that channel_data names no usable user.
var errMember = errors.New("channel_data must be a JSON object with a user_id that is a non-empty string or a number")

// DecodeMember reads the channel_data of a presence channel (section 2.6). A
// number keeps its literal text. It does not check lengths.
func DecodeMember(channelData string) (Member, error) {
	var id, info Value
	err := ScanObject([]byte(channelData), func(key, v Value) {
		switch {
		case key.Is("user_id"):
			id = v
		case key.Is("user_info"):
			info = v
		}
	})
	if err != nil || id.Kind != String && id.Kind != Number || len(id.Raw) == 0 {
		return Member{}, errMember
	}
	return Member{ID: id.Text(), Info: compact(info)}, nil
}

// compact returns the text of v without insignificant white space.
func compact(v Value) string {
	switch v.Kind {
	case Absent:
		return ""
	case String:
		return `"` + string(v.Raw) + `"`
	}
	var b bytes.Buffer
	b.Grow(len(v.Raw))
	if json.Compact(&b, v.Raw) != nil {
		return "" // cannot be: the scanner accepted it
	}
	return b.String()
}

// UserData is what pusher:signin tells about a user (section 2.11).
type UserData struct {
	ID        string
	Info      string // compact JSON, empty when absent
	Watchlist []string
}

// DecodeUserData reads the user_data of pusher:signin. The watchlist keeps
// strings and, as text, numbers, in order and without repetitions.
func DecodeUserData(userData string) (UserData, error) {
	var u UserData
	var id, info, watchlist Value
	err := ScanObject([]byte(userData), func(key, v Value) {
		switch {
		case key.Is("id"):
			id = v
		case key.Is("user_info"):
			info = v
		case key.Is("watchlist"):
			watchlist = v
		}
	})
	if err != nil {
		return u, errors.New("user_data must be a JSON object")
	}
	if id.Kind != String || len(id.Raw) == 0 {
		return u, errors.New("user_data must have an id that is a non-empty string")
	}
	u.ID, u.Info = id.Text(), compact(info)
	if Length(u.ID) > MaxSigninIDLength {
		return u, errors.New("user_data has an id of more than 199 characters")
	}
	if watchlist.Kind == Array {
		seen := map[string]bool{}
		_ = ScanArray(watchlist.Raw, func(v Value) { // scanned before
			if v.Kind != String && v.Kind != Number || len(v.Raw) == 0 {
				return
			}
			if t := v.Text(); !seen[t] {
				seen[t] = true
				u.Watchlist = append(u.Watchlist, t)
			}
		})
	}
	return u, nil
}
