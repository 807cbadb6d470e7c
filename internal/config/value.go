package config

import (
	"fmt"
	"sort"
	"strconv"
	"strings"
)

// maxDepth and maxFileBytes bound what a file may cost before it is refused.
const (
	maxDepth     = 64
	maxFileBytes = 32 << 20
)

type kind uint8

const (
	kindNull kind = iota
	kindBool
	kindNumber
	kindString
	kindList
	kindObject
)

// A value is one node of a configuration file, JSON or TOML, that remembers
// where it stands.
type value struct {
	kind    kind
	line    int
	text    string // string: content; number and bool: the literal
	items   []*value
	members []member       // in order of the file, keys unique
	index   map[string]int // of members
}

type member struct {
	key  string
	line int
	val  *value
}

// get returns the member of an object, nil if there is none.
func (v *value) get(key string) *value {
	if i, ok := v.index[key]; ok {
		return v.members[i].val
	}
	return nil
}

// put adds a member to an object. It is an error if there is one already.
func (v *value) put(key string, line int, val *value) error {
	if i, ok := v.index[key]; ok {
		return &syntaxError{line, fmt.Sprintf("%s: given twice, first in line %d", shorten(key), v.members[i].line)}
	}
	if v.index == nil {
		v.index = map[string]int{}
	}
	v.index[key] = len(v.members)
	v.members = append(v.members, member{key, line, val})
	return nil
}

// present is get without null members: null means absent for everything that
// has no meaning for it.
func (v *value) present(key string) *value {
	if m := v.get(key); m != nil && m.kind != kindNull {
		return m
	}
	return nil
}

// String describes v for the end of "expected …, got".
func (v *value) String() string {
	switch v.kind {
	case kindNull:
		return "null"
	case kindString:
		return "the string " + strconv.Quote(shorten(v.text))
	case kindNumber:
		return "the number " + shorten(v.text)
	case kindList:
		return "a list"
	case kindObject:
		return "an object"
	default:
		return v.text
	}
}

func shorten(s string) string {
	const most = 60
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "…"
}

// A syntaxError says that a file is not what its format asks for.
type syntaxError struct {
	line   int
	reason string
}

func (e *syntaxError) Error() string { return fmt.Sprintf("line %d: %s", e.line, e.reason) }

// lines finds the line of an offset without counting from the start each time.
type lines []int

func newLines(data []byte) lines {
	l := lines{0}
	for i, c := range data {
		if c == '\n' {
			l = append(l, i+1)
		}
	}
	return l
}

// at returns the line of the byte at offset, from 1.
func (l lines) at(offset int) int {
	return sort.Search(len(l), func(i int) bool { return l[i] > offset })
}
