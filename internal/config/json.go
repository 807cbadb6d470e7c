package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// parseJSON reads a JSON document. Any error is a *syntaxError.
func parseJSON(data []byte) (*value, error) {
	r := &jsonReader{data: data, dec: json.NewDecoder(bytes.NewReader(data)), lines: newLines(data)}
	r.dec.UseNumber()
	v, err := r.value(0)
	if err != nil {
		return nil, r.describe(err)
	}
	if at := len(data) - len(bytes.TrimLeft(data[r.dec.InputOffset():], " \t\r\n")); at < len(data) {
		return nil, &syntaxError{r.lines.at(at), fmt.Sprintf("unexpected %q after the end of the document", data[at])}
	}
	return v, nil
}

type jsonReader struct {
	data  []byte
	dec   *json.Decoder
	lines lines
}

// skip returns where the next token begins.
func (r *jsonReader) skip() int {
	at := int(r.dec.InputOffset())
	for at < len(r.data) && bytes.IndexByte([]byte(" \t\r\n,:"), r.data[at]) >= 0 {
		at++
	}
	return at
}

func (r *jsonReader) value(depth int) (*value, error) {
	v := &value{line: r.lines.at(r.skip())}
	tok, err := r.dec.Token()
	if err != nil {
		return nil, err
	}
	switch t := tok.(type) {
	case nil:
	case bool:
		v.kind, v.text = kindBool, fmt.Sprint(t)
	case json.Number:
		v.kind, v.text = kindNumber, t.String()
	case string:
		v.kind, v.text = kindString, t
	case json.Delim:
		if depth >= maxDepth {
			return nil, &syntaxError{v.line, fmt.Sprintf("nested deeper than %d levels", maxDepth)}
		}
		if t == '[' {
			err = r.list(v, depth+1)
		} else {
			err = r.object(v, depth+1)
		}
	}
	return v, err
}

func (r *jsonReader) list(v *value, depth int) error {
	v.kind = kindList
	for r.dec.More() {
		item, err := r.value(depth)
		if err != nil {
			return err
		}
		v.items = append(v.items, item)
	}
	_, err := r.dec.Token()
	return err
}

func (r *jsonReader) object(v *value, depth int) error {
	v.kind = kindObject
	for r.dec.More() {
		line := r.lines.at(r.skip())
		tok, err := r.dec.Token()
		if err != nil {
			return err
		}
		key, ok := tok.(string)
		if !ok {
			return &syntaxError{line, "expected a key in double quotes"}
		}
		val, err := r.value(depth)
		if err != nil {
			return err
		}
		if err := v.put(key, line, val); err != nil {
			return err
		}
	}
	_, err := r.dec.Token()
	return err
}

// describe turns an error of the decoder into one with a line, and explains
// the two habits from other formats that JSON does not allow.
func (r *jsonReader) describe(err error) error {
	if e, ok := errors.AsType[*syntaxError](err); ok {
		return e
	}
	at := r.skip()
	if e, ok := errors.AsType[*json.SyntaxError](err); ok && e.Offset > int64(at) {
		at = int(e.Offset) - 1
	}
	reason := err.Error()
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), at >= len(r.data):
		at, reason = len(r.data), "the document ends too early"
	case r.data[at] == '/', r.data[at] == '#':
		reason = "JSON has no comments"
	case (r.data[at] == '}' || r.data[at] == ']') && r.afterComma(at):
		reason = fmt.Sprintf("JSON allows no comma before %q", r.data[at])
	}
	return &syntaxError{r.lines.at(at), reason}
}

func (r *jsonReader) afterComma(at int) bool {
	before := bytes.TrimRight(r.data[:at], " \t\r\n")
	return bytes.HasSuffix(before, []byte(","))
}
