package config

import (
	"errors"
	"fmt"
	"log/slog"
	"math"
	"runtime"
	"strconv"
	"strings"
	"time"

	"sockudo/internal/app"
	"sockudo/internal/logging"
)

// Seconds is a time in whole seconds, as files write it.
type Seconds uint64

// Duration returns s as a duration, at most 292 years.
func (s Seconds) Duration() time.Duration {
	return time.Duration(min(uint64(s), math.MaxInt64/uint64(time.Second))) * time.Second
}

// Millis is a time in whole milliseconds, as files write it.
type Millis uint64

// Duration returns m as a duration, at most 292 years.
func (m Millis) Duration() time.Duration {
	return time.Duration(min(uint64(m), math.MaxInt64/uint64(time.Millisecond))) * time.Millisecond
}

// Secret prints as *** everywhere but through Reveal.
type Secret = app.Secret

// URL is an address that may hold credentials. It prints with *** in place of
// them; Reveal returns all of it.
type URL string

// String returns the URL with its credentials masked.
func (u URL) String() string { return logging.RedactURL(string(u)) }

// GoString hides credentials from %#v.
func (u URL) GoString() string { return strconv.Quote(u.String()) }

// LogValue hides credentials from slog.
func (u URL) LogValue() slog.Value { return slog.StringValue(u.String()) }

// Reveal returns the URL with its credentials.
func (u URL) Reveal() string { return string(u) }

// FileMode is the permission bits of a file, written in files as a string of
// octal digits: a number such as 660 could mean either base.
type FileMode uint32

// String returns the octal digits.
func (m FileMode) String() string { return strconv.FormatUint(uint64(m), 8) }

func (m *FileMode) setText(s string) error {
	n, err := strconv.ParseUint(s, 8, 32)
	if err != nil || n > 0o777 || strings.Trim(s, "01234567") != "" {
		return fmt.Errorf("expected octal digits up to 777 such as \"660\", got %q", s)
	}
	*m = FileMode(n)
	return nil
}

func (m *FileMode) setValue(v *value) error {
	if v.kind != kindString {
		return fmt.Errorf("expected octal digits in quotes such as \"660\", got %s", v)
	}
	return m.setText(v.text)
}

// Workers is a number of workers; 0 is written auto and depends on the machine.
type Workers uint32

// Count returns how many workers there shall be: for auto a quarter of the
// CPUs, from 1 to 4.
func (w Workers) Count() int {
	if w == 0 {
		return min(max(1, runtime.NumCPU()/4), 4)
	}
	return int(w)
}

// String returns auto or the number.
func (w Workers) String() string {
	if w == 0 {
		return "auto"
	}
	return strconv.FormatUint(uint64(w), 10)
}

var errWorkers = errors.New(`expected "auto" or a number of at least 1`)

func (w *Workers) setText(s string) error {
	if strings.EqualFold(s, "auto") {
		*w = 0
		return nil
	}
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil || n == 0 {
		return fmt.Errorf("%w, got %q", errWorkers, s)
	}
	*w = Workers(n)
	return nil
}

func (w *Workers) setValue(v *value) error {
	if v.kind != kindString && v.kind != kindNumber {
		return fmt.Errorf("%w, got %s", errWorkers, v)
	}
	return w.setText(v.text)
}

// Time is a point in time in seconds since 1970, written 2026-01-31T18:30:00Z
// in files; 0: none.
type Time int64

// Time returns t as a time, zero for none.
func (t Time) Time() time.Time {
	if t == 0 {
		return time.Time{}
	}
	return time.Unix(int64(t), 0).UTC()
}

func (t *Time) setValue(v *value) error {
	at, err := app.ParseTime(v.text)
	if err != nil || v.kind != kindString {
		return fmt.Errorf("expected a time such as \"2026-01-31T18:30:00Z\", got %s", v)
	}
	*t = Time(at.Unix())
	return nil
}

// Nodes may also be written "host:port", or as a URL; URL takes it apart.
func (n *SentinelNode) setText(s string) error { n.preset(); n.Host = URL(s); return nil }
func (n *ClusterNode) setText(s string) error  { n.preset(); n.Host = URL(s); return nil }
