package pushertest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// Patterns are JSON with three additions: … as a value stands for any value, as
// the last element of an object or a list for any further elements, and within a
// string for any characters; json… before a value is a string whose content is
// JSON that matches the value. They are rewritten to JSON with marks that no
// protocol text contains.
const (
	anything = "\x00…"
	further  = "\x00more"
	nested   = "\x00json"
)

// compile rewrites a pattern to JSON. When marks is false, … is ordinary text
// and json… becomes the string that it stands for, so that frames to send can be
// written the same way.
func compile(pattern string, marks bool) (string, error) {
	var out strings.Builder
	for i := 0; i < len(pattern); {
		rest := pattern[i:]
		switch {
		case rest[0] == '"':
			end := stringEnd(rest)
			if end < 0 {
				return "", fmt.Errorf("unfinished string: %s", rest)
			}
			out.WriteString(rest[:end])
			i += end
		case marks && strings.HasPrefix(rest, "…"):
			before := strings.TrimRight(out.String(), " ")
			after := strings.TrimLeft(rest[len("…"):], " ")
			switch {
			case strings.HasSuffix(before, ":") || before == "":
				out.WriteString(quote(anything))
			case strings.HasPrefix(after, "}"):
				out.WriteString(quote(further) + ":0")
			case strings.HasPrefix(after, "]"):
				out.WriteString(quote(further))
			default:
				out.WriteString(quote(anything))
			}
			i += len("…")
		case strings.HasPrefix(rest, "json"):
			end := valueEnd(rest[len("json"):])
			if end < 0 {
				return "", fmt.Errorf("no value after json: %s", rest)
			}
			inner := rest[len("json") : len("json")+end]
			if marks {
				value, err := compile(inner, true)
				if err != nil {
					return "", err
				}
				out.WriteString(`{` + quote(nested) + `:` + value + `}`)
			} else {
				out.WriteString(quote(inner))
			}
			i += len("json") + end
		default:
			out.WriteByte(rest[0])
			i++
		}
	}
	return out.String(), nil
}

// quote encodes as a JSON string without the escapes for HTML.
func quote(s string) string {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(s) // a string can always be encoded
	return strings.TrimSuffix(b.String(), "\n")
}

// stringEnd returns the length of the JSON string that s begins with, -1 if it
// does not end.
func stringEnd(s string) int {
	for i := 1; i < len(s); i++ {
		switch s[i] {
		case '\\':
			i++
		case '"':
			return i + 1
		}
	}
	return -1
}

// valueEnd returns the length of the value that s begins with: a string, an
// object, a list, or a word.
func valueEnd(s string) int {
	if s == "" {
		return -1
	}
	if s[0] == '"' {
		return stringEnd(s)
	}
	depth := 0
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '"':
			end := stringEnd(s[i:])
			if end < 0 {
				return -1
			}
			i += end - 1
		case '{', '[':
			depth++
		case '}', ']':
			if depth--; depth == 0 {
				return i + 1
			}
			if depth < 0 {
				return i
			}
		case ',':
			if depth == 0 {
				return i
			}
		}
	}
	if depth > 0 {
		return -1
	}
	return len(s)
}

// match compares JSON text with a pattern; the error names the place.
func match(pattern, got string) error {
	compiled, err := compile(pattern, true)
	if err != nil {
		return err
	}
	want, err := decode(compiled)
	if err != nil {
		return fmt.Errorf("pattern %s: %w", pattern, err)
	}
	have, err := decode(got)
	if err != nil {
		return fmt.Errorf("not JSON: %w", err)
	}
	return matchValue("", want, have)
}

// decode keeps numbers as they are written.
func decode(text string) (v any, err error) {
	dec := json.NewDecoder(strings.NewReader(text))
	dec.UseNumber()
	if err := dec.Decode(&v); err != nil {
		return nil, err
	}
	if dec.More() {
		return nil, fmt.Errorf("more than one value")
	}
	return v, nil
}

func matchValue(at string, want, got any) error {
	switch want := want.(type) {
	case map[string]any:
		if inner, ok := want[nested]; ok {
			return matchNested(at, inner, got)
		}
		object, ok := got.(map[string]any)
		if !ok {
			return mismatch(at, want, got)
		}
		return matchObject(at, want, object)
	case []any:
		list, ok := got.([]any)
		if !ok {
			return mismatch(at, want, got)
		}
		return matchList(at, want, list)
	case string:
		if want == anything {
			return nil
		}
		if text, ok := got.(string); ok && matchText(want, text) {
			return nil
		}
	default:
		if want == got {
			return nil
		}
	}
	return mismatch(at, want, got)
}

func matchNested(at string, want, got any) error {
	text, ok := got.(string)
	if !ok {
		return fmt.Errorf("%s is not a string but %s", place(at), show(got))
	}
	inner, err := decode(text)
	if err != nil {
		return fmt.Errorf("%s holds no JSON: %q", place(at), text)
	}
	return matchValue(at+"(json)", want, inner)
}

func matchObject(at string, want, got map[string]any) error {
	_, open := want[further]
	for _, key := range slices.Sorted(maps.Keys(want)) {
		if key == further {
			continue
		}
		value, ok := got[key]
		if !ok {
			return fmt.Errorf("%s has no %q", place(at), key)
		}
		if err := matchValue(at+"."+key, want[key], value); err != nil {
			return err
		}
	}
	for _, key := range slices.Sorted(maps.Keys(got)) {
		if _, ok := want[key]; !ok && !open {
			return fmt.Errorf("%s has %q, which was not expected", place(at), key)
		}
	}
	return nil
}

func matchList(at string, want, got []any) error {
	open := len(want) > 0 && want[len(want)-1] == any(further)
	if open {
		want = want[:len(want)-1]
	}
	if len(got) < len(want) || len(got) > len(want) && !open {
		return fmt.Errorf("%s has %d elements, want %d", place(at), len(got), len(want))
	}
	for i := range want {
		if err := matchValue(at+"["+strconv.Itoa(i)+"]", want[i], got[i]); err != nil {
			return err
		}
	}
	return nil
}

// matchText compares a text with one in which … stands for any characters.
func matchText(want, got string) bool {
	parts := strings.Split(want, "…")
	if len(parts) == 1 {
		return want == got
	}
	rest, ok := strings.CutPrefix(got, parts[0])
	if !ok {
		return false
	}
	for _, part := range parts[1 : len(parts)-1] {
		if _, rest, ok = strings.Cut(rest, part); !ok {
			return false
		}
	}
	return strings.HasSuffix(rest, parts[len(parts)-1])
}

func mismatch(at string, want, got any) error {
	return fmt.Errorf("%s is %s, want %s", place(at), show(got), show(want))
}

func place(at string) string {
	if at == "" {
		return "it"
	}
	return strings.TrimPrefix(at, ".")
}

func show(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Sprint(v)
	}
	return string(b)
}
