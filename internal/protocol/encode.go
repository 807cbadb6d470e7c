package protocol

import (
	"strconv"
	"unicode/utf8"
)

const hexDigits = "0123456789abcdef"

// plain marks the bytes that stand for themselves inside a JSON string.
var plain = func() (t [256]bool) {
	for c := 0x20; c < 0x80; c++ {
		t[c] = c != '"' && c != '\\'
	}
	return t
}()

// AppendEscaped appends s as the inside of a JSON string, without quotes.
// Invalid UTF-8 becomes U+FFFD. U+2028 and U+2029 are escaped, so that the
// frame is also valid JavaScript.
func AppendEscaped[T string | []byte](dst []byte, s T) []byte {
	start := 0
	for i := 0; i < len(s); {
		c := s[i]
		if plain[c] {
			i++
			continue
		}
		if c < utf8.RuneSelf {
			dst = append(dst, s[start:i]...)
			switch c {
			case '"', '\\':
				dst = append(dst, '\\', c)
			case '\n':
				dst = append(dst, '\\', 'n')
			case '\r':
				dst = append(dst, '\\', 'r')
			case '\t':
				dst = append(dst, '\\', 't')
			case 0x7f: // needs no escape
				dst = append(dst, c)
			default:
				dst = append(dst, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
			}
			i++
			start = i
			continue
		}
		r, n := utf8.DecodeRuneInString(string(s[i:min(i+utf8.UTFMax, len(s))]))
		switch {
		case r == utf8.RuneError && n == 1:
			dst = append(append(dst, s[start:i]...), `\ufffd`...)
			start = i + 1
		case r == '\u2028' || r == '\u2029':
			dst = append(append(dst, s[start:i]...), `\u202`...)
			dst = append(dst, hexDigits[r&15])
			start = i + n
		}
		i += n
	}
	return append(dst, s[start:]...)
}

// AppendString appends s as a JSON string with its quotes.
func AppendString[T string | []byte](dst []byte, s T) []byte {
	dst = append(dst, '"')
	dst = AppendEscaped(dst, s)
	return append(dst, '"')
}

// AppendEvent appends a channel event. data is the content of the data string
// as a JSON-escaped span without quotes: it is copied, not looked at. userID
// is left out when empty (section 2.2).
func AppendEvent(dst []byte, event, channel string, data []byte, userID string) []byte {
	dst = append(dst, `{"event":`...)
	dst = AppendString(dst, event)
	dst = append(dst, `,"channel":`...)
	dst = AppendString(dst, channel)
	dst = append(dst, `,"data":"`...)
	dst = append(dst, data...)
	dst = append(dst, '"')
	if userID != "" {
		dst = append(dst, `,"user_id":`...)
		dst = AppendString(dst, userID)
	}
	return append(dst, '}')
}

// appendInternal appends an event whose data is JSON text that becomes a string.
func appendInternal(dst []byte, event, channel string, data []byte) []byte {
	dst = append(dst, `{"event":"`...)
	dst = append(dst, event...)
	dst = append(dst, '"')
	if channel != "" {
		dst = append(dst, `,"channel":`...)
		dst = AppendString(dst, channel)
	}
	dst = append(dst, `,"data":"`...)
	dst = AppendEscaped(dst, data)
	return append(dst, '"', '}')
}

// AppendEstablished appends the first frame of a connection (section 1.5);
// activityTimeout is in seconds and at least 1.
func AppendEstablished(dst []byte, socketID string, activityTimeout int) []byte {
	dst = append(dst, `{"event":"pusher:connection_established","data":"{\"socket_id\":\"`...)
	dst = append(dst, socketID...)
	dst = append(dst, `\",\"activity_timeout\":`...)
	dst = strconv.AppendInt(dst, int64(activityTimeout), 10)
	return append(dst, `}"}`...)
}

// AppendError appends a pusher:error, the only frame whose data is an object.
func AppendError(dst []byte, code int, message string) []byte {
	dst = append(dst, `{"event":"pusher:error","data":{"code":`...)
	dst = strconv.AppendInt(dst, int64(code), 10)
	dst = append(dst, `,"message":`...)
	dst = AppendString(dst, message)
	return append(dst, '}', '}')
}

// AppendSubscriptionError appends the frame that tells a channel why it could
// not be joined (section 2.4).
func AppendSubscriptionError(dst []byte, e *SubscriptionError) []byte {
	data := append([]byte(`{"type":"`), e.Type...)
	data = append(data, `","error":`...)
	data = AppendString(data, e.Message)
	data = append(data, `,"status":`...)
	data = strconv.AppendInt(data, int64(e.Status), 10)
	return appendInternal(dst, EventSubscriptionError, e.Channel, append(data, '}'))
}

// AppendSucceeded appends the success frame of a channel without members.
func AppendSucceeded(dst []byte, channel string) []byte {
	return appendInternal(dst, EventSubscriptionSucceeded, channel, []byte("{}"))
}

// A Member is a user of a presence channel. Info is compact JSON text; empty
// stands for {}.
type Member struct {
	ID   string
	Info string
}

func appendInfo(dst []byte, info string) []byte {
	if info == "" {
		return append(dst, '{', '}')
	}
	return append(dst, info...)
}

// AppendPresence appends the success frame of a presence channel with all of
// its members, whom each yields.
func AppendPresence(dst []byte, channel string, each func(yield func(Member) bool)) []byte {
	data := append(make([]byte, 0, 512), `{"presence":{"ids":[`...)
	count := 0
	hash := make([]byte, 0, 512)
	each(func(m Member) bool {
		if count > 0 {
			data = append(data, ',')
			hash = append(hash, ',')
		}
		data = AppendString(data, m.ID)
		hash = append(AppendString(hash, m.ID), ':')
		hash = appendInfo(hash, m.Info)
		count++
		return true
	})
	data = append(data, `],"hash":{`...)
	data = append(data, hash...)
	data = append(data, `},"count":`...)
	data = strconv.AppendInt(data, int64(count), 10)
	return appendInternal(dst, EventSubscriptionSucceeded, channel, append(data, '}', '}'))
}

// AppendMemberAdded appends the frame that announces a member.
func AppendMemberAdded(dst []byte, channel string, m Member) []byte {
	data := append([]byte(nil), `{"user_id":`...)
	data = AppendString(data, m.ID)
	data = append(data, `,"user_info":`...)
	data = appendInfo(data, m.Info)
	return appendInternal(dst, EventMemberAdded, channel, append(data, '}'))
}

// AppendMemberRemoved appends the frame that takes a member away.
func AppendMemberRemoved(dst []byte, channel, userID string) []byte {
	data := append([]byte(nil), `{"user_id":`...)
	data = AppendString(data, userID)
	return appendInternal(dst, EventMemberRemoved, channel, append(data, '}'))
}

// AppendCount appends a subscription_count event (section 2.10).
func AppendCount(dst []byte, channel string, n int) []byte {
	data := strconv.AppendInt([]byte(`{"subscription_count":`), int64(n), 10)
	return appendInternal(dst, EventSubscriptionCount, channel, append(data, '}'))
}

// AppendCacheMiss appends the frame that says that a cache channel is empty.
func AppendCacheMiss(dst []byte, channel string) []byte {
	return appendInternal(dst, EventCacheMiss, channel, []byte("{}"))
}

// AppendSigninSuccess appends the answer to a sign-in; userData is repeated byte for byte.
func AppendSigninSuccess(dst []byte, userData string) []byte {
	data := append([]byte(nil), `{"user_data":`...)
	data = AppendString(data, userData)
	return appendInternal(dst, EventSigninSuccess, "", append(data, '}'))
}

// AppendWatchlist appends a watchlist frame; an empty list has no entry (section 2.13).
func AppendWatchlist(dst []byte, online, offline []string) []byte {
	data := append([]byte(nil), `{"events":[`...)
	entry := func(name string, ids []string) {
		if len(ids) == 0 {
			return
		}
		if data[len(data)-1] != '[' {
			data = append(data, ',')
		}
		data = append(data, `{"name":"`...)
		data = append(data, name...)
		data = append(data, `","user_ids":[`...)
		for i, id := range ids {
			if i > 0 {
				data = append(data, ',')
			}
			data = AppendString(data, id)
		}
		data = append(data, `]}`...)
	}
	entry("online", online)
	entry("offline", offline)
	return appendInternal(dst, EventWatchlist, "", append(data, ']', '}'))
}

// Ping and Pong are the JSON keep-alive frames as the server sends them. They
// must not be changed.
const (
	Ping = `{"event":"pusher:ping","data":"{}"}`
	Pong = `{"event":"pusher:pong","data":"{}"}`
)
