package protocol

import (
	"errors"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

// MaxDepth is how deeply JSON from outside may be nested.
const MaxDepth = 256

var (
	errSyntax = errors.New("not valid JSON")
	errDepth  = errors.New("JSON nested more than " + strconv.Itoa(MaxDepth) + " levels deep")
)

// A ValueKind is the type of a JSON value.
type ValueKind uint8

// The types of JSON values. Absent is the zero Value.
const (
	Absent ValueKind = iota
	String
	Number
	Object
	Array
	Bool
	Null
)

// A Value is a JSON value that points into the text it was found in.
type Value struct {
	Kind ValueKind
	// Raw is the source text; of a string, what stands between the quotes.
	Raw []byte
	// Escaped says that a string contains escapes.
	Escaped bool
}

// Text returns the content of a string, or the source text of anything else.
func (v Value) Text() string {
	if !v.Escaped {
		return string(v.Raw)
	}
	return string(appendUnescaped(make([]byte, 0, len(v.Raw)), v.Raw))
}

// Size returns the length in bytes of what Text returns.
func (v Value) Size() int {
	if !v.Escaped {
		return len(v.Raw)
	}
	n := 0
	for i := 0; i < len(v.Raw); {
		if v.Raw[i] != '\\' {
			n++
			i++
			continue
		}
		r, w := unescape(v.Raw[i:])
		n += utf8.RuneLen(r)
		i += w
	}
	return n
}

// Is reports whether v is the string s.
func (v Value) Is(s string) bool {
	if v.Escaped {
		return v.Text() == s
	}
	return string(v.Raw) == s
}

// AppendSpan appends the content of a data string made from v (sections 2.7
// and 5.4) as a JSON-escaped span without quotes: a string's own span, and of
// anything else its source text, escaped. Absent becomes null.
func (v Value) AppendSpan(dst []byte) []byte {
	switch v.Kind {
	case Absent:
		return append(dst, "null"...)
	case String:
		return append(dst, v.Raw...)
	default:
		return AppendEscaped(dst, v.Raw)
	}
}

// ScanObject calls field for every member of the JSON object in text, in
// order, also for repeated keys. The values are complete and well formed; the
// text must be valid UTF-8.
func ScanObject(text []byte, field func(key, value Value)) error {
	s := scanner{b: text}
	s.space()
	if !s.take('{') {
		return errSyntax
	}
	if err := s.object(field); err != nil {
		return err
	}
	return s.end()
}

// ScanArray calls item for every element of the JSON array in text.
func ScanArray(text []byte, item func(value Value)) error {
	s := scanner{b: text}
	s.space()
	if !s.take('[') {
		return errSyntax
	}
	if err := s.array(item); err != nil {
		return err
	}
	return s.end()
}

// ScanValue returns the single JSON value of text.
func ScanValue(text []byte) (Value, error) {
	s := scanner{b: text}
	s.space()
	v, err := s.value()
	if err != nil {
		return Value{}, err
	}
	return v, s.end()
}

type scanner struct {
	b     []byte
	i     int
	depth int
}

func (s *scanner) space() {
	for s.i < len(s.b) {
		switch s.b[s.i] {
		case ' ', '\t', '\n', '\r':
			s.i++
		default:
			return
		}
	}
}

func (s *scanner) take(c byte) bool {
	if s.i < len(s.b) && s.b[s.i] == c {
		s.i++
		return true
	}
	return false
}

func (s *scanner) end() error {
	s.space()
	if s.i != len(s.b) {
		return errSyntax
	}
	return nil
}

// object reads the rest of an object whose brace has been taken.
func (s *scanner) object(field func(key, value Value)) error {
	if s.depth++; s.depth > MaxDepth {
		return errDepth
	}
	s.space()
	if s.take('}') {
		s.depth--
		return nil
	}
	for {
		s.space()
		if !s.take('"') {
			return errSyntax
		}
		key, err := s.str()
		if err != nil {
			return err
		}
		s.space()
		if !s.take(':') {
			return errSyntax
		}
		s.space()
		v, err := s.value()
		if err != nil {
			return err
		}
		if field != nil {
			field(key, v)
		}
		s.space()
		if s.take('}') {
			s.depth--
			return nil
		}
		if !s.take(',') {
			return errSyntax
		}
	}
}

// array reads the rest of an array whose bracket has been taken.
func (s *scanner) array(item func(Value)) error {
	if s.depth++; s.depth > MaxDepth {
		return errDepth
	}
	s.space()
	if s.take(']') {
		s.depth--
		return nil
	}
	for {
		s.space()
		v, err := s.value()
		if err != nil {
			return err
		}
		if item != nil {
			item(v)
		}
		s.space()
		if s.take(']') {
			s.depth--
			return nil
		}
		if !s.take(',') {
			return errSyntax
		}
	}
}

func (s *scanner) value() (Value, error) {
	if s.i >= len(s.b) {
		return Value{}, errSyntax
	}
	start := s.i
	switch c := s.b[s.i]; c {
	case '"':
		s.i++
		return s.str()
	case '{':
		s.i++
		err := s.object(nil)
		return Value{Kind: Object, Raw: s.b[start:s.i]}, err
	case '[':
		s.i++
		err := s.array(nil)
		return Value{Kind: Array, Raw: s.b[start:s.i]}, err
	case 't':
		return s.word("true", Bool)
	case 'f':
		return s.word("false", Bool)
	case 'n':
		return s.word("null", Null)
	default:
		return s.number()
	}
}

func (s *scanner) word(w string, k ValueKind) (Value, error) {
	if len(s.b)-s.i < len(w) || string(s.b[s.i:s.i+len(w)]) != w {
		return Value{}, errSyntax
	}
	s.i += len(w)
	return Value{Kind: k, Raw: s.b[s.i-len(w) : s.i]}, nil
}

// str reads the rest of a string whose opening quote has been taken.
func (s *scanner) str() (Value, error) {
	start, escaped := s.i, false
	for s.i < len(s.b) {
		c := s.b[s.i]
		switch {
		case c == '"':
			s.i++
			return Value{Kind: String, Raw: s.b[start : s.i-1], Escaped: escaped}, nil
		case c < 0x20:
			return Value{}, errSyntax
		case c == '\\':
			escaped = true
			if !s.escape() {
				return Value{}, errSyntax
			}
		default:
			s.i++
		}
	}
	return Value{}, errSyntax
}

// escape checks the escape at the backslash and steps over it.
func (s *scanner) escape() bool {
	if s.i+1 >= len(s.b) {
		return false
	}
	switch s.b[s.i+1] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		s.i += 2
		return true
	case 'u':
		if s.i+6 > len(s.b) {
			return false
		}
		for _, c := range s.b[s.i+2 : s.i+6] {
			if !isHex(c) {
				return false
			}
		}
		s.i += 6
		return true
	}
	return false
}

func isHex(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F'
}

func (s *scanner) digits() bool {
	start := s.i
	for s.i < len(s.b) && s.b[s.i] >= '0' && s.b[s.i] <= '9' {
		s.i++
	}
	return s.i > start
}

func (s *scanner) number() (Value, error) {
	start := s.i
	s.take('-')
	if !s.take('0') && !s.digits() {
		return Value{}, errSyntax
	}
	if s.take('.') && !s.digits() {
		return Value{}, errSyntax
	}
	if s.take('e') || s.take('E') {
		if !s.take('+') {
			s.take('-')
		}
		if !s.digits() {
			return Value{}, errSyntax
		}
	}
	return Value{Kind: Number, Raw: s.b[start:s.i]}, nil
}

// unescape decodes the well-formed escape at the start of b and returns its
// width. A lone surrogate becomes U+FFFD.
func unescape(b []byte) (rune, int) {
	switch b[1] {
	case 'b':
		return '\b', 2
	case 'f':
		return '\f', 2
	case 'n':
		return '\n', 2
	case 'r':
		return '\r', 2
	case 't':
		return '\t', 2
	case 'u':
		r := hex4(b[2:])
		if !utf16.IsSurrogate(r) {
			return r, 6
		}
		if len(b) >= 12 && b[6] == '\\' && b[7] == 'u' {
			if pair := utf16.DecodeRune(r, hex4(b[8:])); pair != utf8.RuneError {
				return pair, 12
			}
		}
		return utf8.RuneError, 6
	}
	return rune(b[1]), 2
}

func hex4(b []byte) rune {
	n, _ := strconv.ParseUint(string(b[:4]), 16, 16)
	return rune(n)
}

func appendUnescaped(dst, raw []byte) []byte {
	for i := 0; i < len(raw); {
		if raw[i] != '\\' {
			dst = append(dst, raw[i])
			i++
			continue
		}
		r, w := unescape(raw[i:])
		dst = utf8.AppendRune(dst, r)
		i += w
	}
	return dst
}
