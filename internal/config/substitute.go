package config

import (
	"bytes"
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
)

var placeholder = regexp.MustCompile(`^\$\{([A-Za-z_][A-Za-z0-9_]*)(:-([^}\n]*))?\}`)

// substitute replaces ${NAME} and ${NAME:-default} by variables of the
// environment. The default counts if the variable is unset or empty. A value
// that lands within a string is escaped, so that no password can end it.
// missing is told the problems with their lines.
func substitute(data []byte, isTOML bool, env func(string) (string, bool), fail func(line int, name, reason string)) []byte {
	if !bytes.Contains(data, []byte("${")) {
		return data
	}
	s := scanner{toml: isTOML}
	var out bytes.Buffer
	line := 1
	for i := 0; i < len(data); {
		if m := placeholder.FindSubmatch(data[i:]); m != nil && s.state != inComment {
			name := string(m[1])
			v, ok := env(name)
			switch {
			case m[2] != nil && v == "":
				out.Write(m[3])
			case !ok:
				fail(line, name, "the environment has no such variable and there is no default")
			default:
				text, reason := s.fit(v)
				if reason != "" {
					fail(line, name, reason)
				}
				out.WriteString(text)
			}
			i += len(m[0])
			continue
		}
		n := s.step(data[i:])
		line += bytes.Count(data[i:i+n], []byte("\n"))
		out.Write(data[i : i+n])
		i += n
	}
	return out.Bytes()
}

type scanState uint8

const (
	inPlain scanState = iota
	inComment
	inString  // "…"
	inLong    // """…"""
	inLiteral // '…'
	inLongRaw // '''…'''
)

// scanner knows whether it is within a string or a comment.
type scanner struct {
	toml  bool
	state scanState
}

// step moves over the next piece of b and returns its length.
func (s *scanner) step(b []byte) int {
	has := func(p string) bool { return bytes.HasPrefix(b, []byte(p)) }
	enter := func(to scanState, n int) int { s.state = to; return n }
	switch s.state {
	case inPlain:
		switch {
		case s.toml && has(`"""`):
			return enter(inLong, 3)
		case s.toml && has(`'''`):
			return enter(inLongRaw, 3)
		case has(`"`):
			return enter(inString, 1)
		case s.toml && has(`'`):
			return enter(inLiteral, 1)
		case s.toml && has(`#`):
			return enter(inComment, 1)
		}
	case inComment:
		if has("\n") {
			s.state = inPlain
		}
	case inString, inLong:
		switch {
		case has(`\`):
			return min(2, len(b))
		case s.state == inLong && has(`"""`):
			return enter(inPlain, 3)
		case s.state == inString && (has(`"`) || has("\n")):
			s.state = inPlain
		}
	case inLiteral:
		if has(`'`) || has("\n") {
			s.state = inPlain
		}
	case inLongRaw:
		if has(`'''`) {
			return enter(inPlain, 3)
		}
	}
	return 1
}

// fit writes v so that it stays one value where the scanner is.
func (s *scanner) fit(v string) (text, reason string) {
	switch s.state {
	case inString, inLong:
		quoted, err := json.Marshal(v)
		if err != nil {
			return "", fmt.Sprintf("its value cannot be written in a string: %v", err)
		}
		// TOML knows the same escapes and wants one more character to be escaped.
		text := strings.ReplaceAll(string(quoted[1:len(quoted)-1]), "\x7f", `\u007f`)
		return text, ""
	case inLiteral, inLongRaw:
		if strings.ContainsFunc(v, func(r rune) bool { return r == '\'' || r < ' ' || r == 0x7f }) {
			return "", "its value does not fit between single quotes, use double quotes"
		}
	case inPlain:
		if !s.toml { // lines of the file shall keep their numbers
			return strings.NewReplacer("\n", " ", "\r", " ").Replace(v), ""
		}
	}
	return v, ""
}
