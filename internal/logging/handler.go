package logging

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"path"
	"runtime"
	"strings"
	"sync"
	"time"
)

// output is shared by all handlers of a logger, so that lines stay whole.
type output struct {
	mu  sync.Mutex
	w   io.Writer
	buf []byte
}

// maxKept bounds the buffer that is kept between records.
const maxKept = 64 << 10

// handler is a slog.Handler for both formats.
type handler struct {
	out    *output
	opts   Options
	target string
	level  slog.Level // of target
	group  string     // prefix of keys, ends with a dot
	attrs  []byte     // attributes of With, written already
}

// Enabled implements slog.Handler.
func (h *handler) Enabled(_ context.Context, level slog.Level) bool { return level >= h.level }

// WithAttrs implements slog.Handler. The attribute component names the target.
func (h *handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	c := *h
	c.attrs = append([]byte(nil), h.attrs...)
	for _, a := range attrs {
		if a.Key == "component" && h.group == "" {
			c.target = root + "::" + strings.ReplaceAll(a.Value.Resolve().String(), ".", "::")
			c.level = c.opts.Levels.Of(c.target)
			continue
		}
		c.attrs = c.attr(c.attrs, c.group, a)
	}
	return &c
}

// WithGroup implements slog.Handler.
func (h *handler) WithGroup(name string) slog.Handler {
	if name == "" {
		return h
	}
	c := *h
	c.group += name + "."
	return &c
}

// Handle implements slog.Handler.
func (h *handler) Handle(_ context.Context, r slog.Record) error {
	o := h.out
	o.mu.Lock()
	defer o.mu.Unlock()
	b := o.buf[:0]
	if h.opts.JSON {
		b = h.json(b, r)
	} else {
		b = h.human(b, r)
	}
	b = append(b, '\n')
	if o.buf = b; cap(b) > maxKept {
		o.buf = nil
	}
	_, err := o.w.Write(b)
	return err
}

// attr appends one attribute, or those of a group, in the handler's format.
func (h *handler) attr(b []byte, group string, a slog.Attr) []byte {
	v := a.Value.Resolve()
	if v.Kind() == slog.KindGroup {
		if a.Key != "" {
			group += a.Key + "."
		}
		for _, member := range v.Group() {
			b = h.attr(b, group, member)
		}
		return b
	}
	if a.Equal(slog.Attr{}) {
		return b
	}
	if h.opts.JSON {
		b = append(b, ',')
		b = appendQuoted(b, group+a.Key)
		b = append(b, ':')
		return appendJSONValue(b, v)
	}
	b = append(b, ' ')
	b = h.paint(b, dim, group+a.Key+"=")
	return appendHumanValue(b, v)
}

// text returns v as one string without secrets. Values are printed, never
// encoded: encoding would go around the methods by which secrets hide.
func text(v slog.Value) string {
	switch v.Kind() {
	case slog.KindTime:
		return v.Time().UTC().Format(time.RFC3339Nano)
	case slog.KindAny:
		switch x := v.Any().(type) {
		case error:
			return RedactText(x.Error())
		case fmt.Stringer:
			return RedactText(x.String())
		default:
			return RedactText(fmt.Sprintf("%+v", x))
		}
	default:
		return RedactText(v.String())
	}
}

// source returns file and line of the code, the file with its package only.
func source(r slog.Record) (file string, line int) {
	if r.PC == 0 {
		return "", 0
	}
	f, _ := runtime.CallersFrames([]uintptr{r.PC}).Next()
	return path.Join(path.Base(path.Dir(f.File)), path.Base(f.File)), f.Line
}
