package natsbus

import "strings"

const hex = "0123456789ABCDEF"

// subject turns a topic into a subject: a colon begins the next token, so that
// permissions can be given for prefix.>, and what means something to NATS is
// escaped. Different topics have different subjects.
func subject(topic string) string {
	var s strings.Builder
	s.Grow(len(topic) + 8)
	empty := true // the token has nothing yet
	for i := range len(topic) {
		switch c := topic[i]; c {
		case ':':
			if empty {
				s.WriteString("%_")
			}
			s.WriteByte('.')
			empty = true
			continue
		case '.', '*', '>', '%', '$':
			s.Write([]byte{'%', hex[c>>4], hex[c&15]})
		default:
			if c <= ' ' || c >= 0x7f {
				s.Write([]byte{'%', hex[c>>4], hex[c&15]})
			} else {
				s.WriteByte(c)
			}
		}
		empty = false
	}
	if empty {
		s.WriteString("%_")
	}
	return s.String()
}

// topic is the reverse of subject.
func topic(subject string) string {
	var t strings.Builder
	t.Grow(len(subject))
	for i := 0; i < len(subject); i++ {
		switch c := subject[i]; {
		case c == '.':
			t.WriteByte(':')
		case c == '%' && i+1 < len(subject) && subject[i+1] == '_':
			i++
		case c == '%' && i+2 < len(subject):
			t.WriteByte(byte(strings.IndexByte(hex, subject[i+1])<<4 | strings.IndexByte(hex, subject[i+2])))
			i += 2
		default:
			t.WriteByte(c)
		}
	}
	return t.String()
}
