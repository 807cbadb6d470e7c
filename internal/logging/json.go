package logging

import (
	"encoding/json"
	"log/slog"
	"math"
	"strconv"
)

// json appends an object like
//
//	{"timestamp":"…","level":"INFO","target":"sockudo::hub","fields":{"message":"…","key":"value"}}
func (h *handler) json(b []byte, r slog.Record) []byte {
	b = append(b, `{"timestamp":"`...)
	b = r.Time.UTC().AppendFormat(b, "2006-01-02T15:04:05.000000Z")
	b = append(b, `","level":"`...)
	b = append(b, levelName(r.Level)...)
	b = append(b, `","target":`...)
	b = appendQuoted(b, h.target)
	if h.opts.Source {
		if file, line := source(r); file != "" {
			b = append(b, `,"filename":`...)
			b = appendQuoted(b, file)
			b = append(b, `,"line_number":`...)
			b = strconv.AppendInt(b, int64(line), 10)
		}
	}
	b = append(b, `,"fields":{"message":`...)
	b = appendQuoted(b, RedactText(r.Message))
	b = append(b, h.attrs...)
	r.Attrs(func(a slog.Attr) bool {
		b = h.attr(b, h.group, a)
		return true
	})
	return append(b, `}}`...)
}

func appendJSONValue(b []byte, v slog.Value) []byte {
	switch v.Kind() {
	case slog.KindBool:
		return strconv.AppendBool(b, v.Bool())
	case slog.KindInt64:
		return strconv.AppendInt(b, v.Int64(), 10)
	case slog.KindUint64:
		return strconv.AppendUint(b, v.Uint64(), 10)
	case slog.KindFloat64:
		if f := v.Float64(); !math.IsNaN(f) && !math.IsInf(f, 0) {
			return strconv.AppendFloat(b, f, 'g', -1, 64)
		}
	case slog.KindAny:
		switch x := v.Any().(type) {
		case nil:
			return append(b, "null"...)
		case []string:
			b = append(b, '[')
			for i, s := range x {
				if i > 0 {
					b = append(b, ',')
				}
				b = appendQuoted(b, RedactText(s))
			}
			return append(b, ']')
		}
	}
	return appendQuoted(b, text(v))
}

func appendQuoted(b []byte, s string) []byte {
	q, err := json.Marshal(s)
	if err != nil { // no string fails
		return append(b, `""`...)
	}
	return append(b, q...)
}
