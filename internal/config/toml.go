package config

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"
)

// parseTOML reads a TOML document. Any error is a *syntaxError.
func parseTOML(data []byte) (*value, error) {
	r := &tomlReader{lines: newLines(data), root: &value{kind: kindObject, line: 1}}
	r.table = r.root
	r.parser.Reset(data)
	for r.parser.NextExpression() {
		if err := r.expression(r.parser.Expression()); err != nil {
			return nil, err
		}
	}
	if err := r.parser.Error(); err != nil {
		return nil, r.describe(err)
	}
	// The reader above accepts more than TOML does where tables are defined
	// twice in pieces; the decoder knows all of those rules.
	var all map[string]any
	if err := toml.Unmarshal(data, &all); err != nil {
		if e, ok := errors.AsType[*toml.DecodeError](err); ok {
			line, _ := e.Position()
			return nil, &syntaxError{line, strings.TrimPrefix(e.Error(), "toml: ")}
		}
		return nil, &syntaxError{1, strings.TrimPrefix(err.Error(), "toml: ")}
	}
	return r.root, nil
}

type tomlReader struct {
	parser unstable.Parser
	lines  lines
	root   *value
	table  *value // the one that key = value lines belong to
}

func (r *tomlReader) expression(n *unstable.Node) error {
	switch n.Kind {
	case unstable.Table, unstable.ArrayTable:
		parent, last, line, err := r.descend(r.root, n.Key())
		if err != nil {
			return err
		}
		if n.Kind == unstable.ArrayTable {
			r.table, err = appendTable(parent, last, line)
		} else {
			r.table, err = child(parent, last, line)
		}
		return err
	case unstable.KeyValue:
		return r.keyValue(r.table, n, 0)
	}
	return nil
}

func (r *tomlReader) keyValue(into *value, n *unstable.Node, depth int) error {
	parent, last, line, err := r.descend(into, n.Key())
	if err != nil {
		return err
	}
	v, err := r.value(n.Value(), line, depth+1)
	if err != nil {
		return err
	}
	return parent.put(last, line, v)
}

// descend follows all but the last part of a dotted key.
func (r *tomlReader) descend(v *value, key unstable.Iterator) (parent *value, last string, line int, err error) {
	parent = v
	for depth := 0; key.Next(); depth++ {
		n := key.Node()
		if depth > 0 {
			if parent, err = child(parent, last, line); err != nil {
				return nil, "", 0, err
			}
		}
		last, line = string(n.Data), r.lines.at(int(n.Raw.Offset))
		if depth >= maxDepth {
			return nil, "", 0, tooDeep(line)
		}
	}
	return parent, last, line, nil
}

// child returns the object that is a member of v, the last one if the member
// is an array of tables.
func child(v *value, key string, line int) (*value, error) {
	m := v.get(key)
	if m == nil {
		m = &value{kind: kindObject, line: line}
		_ = v.put(key, line, m) // is new
	}
	if m.kind == kindList && len(m.items) > 0 {
		m = m.items[len(m.items)-1]
	}
	if m.kind != kindObject {
		return nil, &syntaxError{line, fmt.Sprintf("%s: is no table, see line %d", key, m.line)}
	}
	return m, nil
}

func appendTable(v *value, key string, line int) (*value, error) {
	m := v.get(key)
	if m == nil {
		m = &value{kind: kindList, line: line}
		_ = v.put(key, line, m) // is new
	}
	if m.kind != kindList {
		return nil, &syntaxError{line, fmt.Sprintf("%s: is no array of tables, see line %d", key, m.line)}
	}
	item := &value{kind: kindObject, line: line}
	m.items = append(m.items, item)
	return item, nil
}

func (r *tomlReader) value(n *unstable.Node, line, depth int) (*value, error) {
	if depth >= maxDepth {
		return nil, tooDeep(line)
	}
	if n.Raw.Length > 0 {
		line = r.lines.at(int(n.Raw.Offset))
	}
	v := &value{line: line, text: string(n.Data)}
	switch n.Kind {
	case unstable.Array:
		v.kind = kindList
		for it := n.Children(); it.Next(); {
			if it.Node().Kind == unstable.Comment {
				continue
			}
			item, err := r.value(it.Node(), line, depth+1)
			if err != nil {
				return nil, err
			}
			v.items = append(v.items, item)
		}
	case unstable.InlineTable:
		v.kind = kindObject
		for it := n.Children(); it.Next(); {
			if it.Node().Kind != unstable.KeyValue {
				continue
			}
			if err := r.keyValue(v, it.Node(), depth); err != nil {
				return nil, err
			}
		}
	case unstable.Bool:
		v.kind = kindBool
	case unstable.Integer:
		v.kind, v.text = kindNumber, decimal(v.text)
	case unstable.Float:
		v.kind, v.text = kindNumber, strings.ReplaceAll(v.text, "_", "")
	default: // strings; dates and times as they are written
		v.kind = kindString
	}
	return v, nil
}

// decimal writes a TOML integer (1_000, 0x1F, +5) as JSON would.
func decimal(s string) string {
	s = strings.TrimPrefix(strings.ReplaceAll(s, "_", ""), "+")
	if len(s) > 1 && s[0] == '0' {
		if n, err := strconv.ParseUint(s, 0, 64); err == nil {
			return strconv.FormatUint(n, 10)
		}
	}
	return s
}

func tooDeep(line int) error {
	return &syntaxError{line, fmt.Sprintf("nested deeper than %d levels", maxDepth)}
}

func (r *tomlReader) describe(err error) error {
	line, reason := 1, strings.TrimPrefix(err.Error(), "toml: ")
	if e, ok := errors.AsType[*unstable.ParserError](err); ok && cap(e.Highlight) > 0 {
		if at := cap(r.parser.Data()) - cap(e.Highlight); at >= 0 && at <= len(r.parser.Data()) {
			line = r.lines.at(at)
		}
	}
	return &syntaxError{line, reason}
}
