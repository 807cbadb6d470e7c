package app

import (
	"bytes"
	"encoding/json"
	"fmt"
	"unicode/utf8"
)

// MarshalRecord returns a as the flat JSON object of configuration section
// 4.2: numbers as numbers, null where an app inherits, the secret in the
// clear. Caches and exports hold it.
func MarshalRecord(a *App) []byte {
	b := []byte{'{'}
	for i := range columns {
		c := &columns[i]
		v := c.get(a)
		if v == nil && c.Need == Extra {
			continue // Sockudo does not know it
		}
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, '"')
		b = append(b, c.Name...)
		b = append(b, `":`...)
		switch v := v.(type) {
		case nil:
			b = append(b, "null"...)
		case string:
			if c.Kind == JSON {
				b = append(b, v...)
			} else {
				b = append(b, quote(v)...)
			}
		default:
			b = fmt.Append(b, v)
		}
	}
	return append(b, '}')
}

func quote(s string) []byte {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(s); err != nil {
		panic(fmt.Sprintf("app: a string cannot be encoded: %v", err))
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n"))
}

// UnmarshalRecord reads what MarshalRecord, or Sockudo, wrote: numbers and
// booleans may also be strings. For the result see FromColumns; the error says
// that raw is no JSON object.
func UnmarshalRecord(raw []byte) (*App, []*FieldError, error) {
	var members map[string]json.RawMessage
	// encoding/json would keep wrong bytes in one place and replace them in another.
	if err := json.Unmarshal(raw, &members); err != nil || members == nil || !utf8.Valid(raw) {
		return nil, nil, fmt.Errorf("app: a record of %d bytes is no JSON object", len(raw))
	}
	a, problems := FromColumns(func(column string) (string, bool) {
		m, ok := members[column]
		if !ok || string(m) == "null" {
			return "", false
		}
		var s string
		if m[0] == '"' && json.Unmarshal(m, &s) == nil {
			return s, true
		}
		return string(m), true
	})
	return a, problems, nil
}
