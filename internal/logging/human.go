package logging

import (
	"log/slog"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

const (
	reset  = "\x1b[0m"
	dim    = "\x1b[2m"
	red    = "\x1b[31m"
	green  = "\x1b[32m"
	yellow = "\x1b[33m"
	blue   = "\x1b[34m"
	purple = "\x1b[35m"
)

// human appends a line like
//
//	2026-01-02T03:04:05.678901Z  INFO sockudo::hub: message key=value
func (h *handler) human(b []byte, r slog.Record) []byte {
	if !r.Time.IsZero() {
		b = h.paint(b, dim, r.Time.UTC().Format("2006-01-02T15:04:05.000000Z"))
		b = append(b, ' ')
	}
	name := levelName(r.Level)
	if len(name) == 4 {
		b = append(b, ' ')
	}
	b = h.paint(b, colorOf(name), name)
	b = append(b, ' ')
	if h.opts.Target {
		b = h.paint(b, dim, h.target+":")
		b = append(b, ' ')
	}
	if h.opts.Source {
		if file, line := source(r); file != "" {
			b = h.paint(b, dim, file+":"+strconv.Itoa(line)+":")
			b = append(b, ' ')
		}
	}
	b = appendPrintable(b, RedactText(r.Message))
	b = append(b, h.attrs...)
	r.Attrs(func(a slog.Attr) bool {
		b = h.attr(b, h.group, a)
		return true
	})
	return b
}

func (h *handler) paint(b []byte, color, s string) []byte {
	if !h.opts.Color {
		return append(b, s...)
	}
	return append(append(append(b, color...), s...), reset...)
}

func colorOf(level string) string {
	switch level {
	case "ERROR":
		return red
	case "WARN":
		return yellow
	case "INFO":
		return green
	case "DEBUG":
		return blue
	default:
		return purple
	}
}

// appendHumanValue quotes what would not be read back as one value.
func appendHumanValue(b []byte, v slog.Value) []byte {
	s := text(v)
	if s == "" || strings.ContainsFunc(s, func(r rune) bool {
		return r == ' ' || r == '"' || r == '=' || r == '\\' || r == utf8.RuneError || !unicode.IsPrint(r)
	}) {
		return strconv.AppendQuote(b, s)
	}
	return append(b, s...)
}

// appendPrintable escapes what is not printable: nothing that a client sends
// may begin a line of its own or move the cursor.
func appendPrintable(b []byte, s string) []byte {
	for _, r := range s {
		if r != utf8.RuneError && unicode.IsPrint(r) {
			b = utf8.AppendRune(b, r)
			continue
		}
		q := strconv.QuoteRune(r)
		b = append(b, q[1:len(q)-1]...)
	}
	return b
}
