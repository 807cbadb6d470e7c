// Package logging builds the server's logger: lines for people or JSON, from
// levels that differ by part of the server.
//
// A part is named by the attribute "component" of its logger, added once with
// With, and becomes the target of its records: component hub is the target
// sockudo::hub. URLs lose their credentials on the way out, and values that
// print themselves masked are never taken apart.
package logging

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
)

// Options say what a logger writes. The zero value writes lines for people,
// plain, from info on.
type Options struct {
	JSON   bool   // one JSON object per line
	Color  bool   // ANSI colours; not with JSON
	Target bool   // name the part of the server; always with JSON
	Source bool   // name file and line of the code
	Levels Levels // from where on records are written
}

// New returns a logger that writes to w, one Write per record.
func New(w io.Writer, o Options) *slog.Logger {
	out := &output{w: w}
	return slog.New(&handler{out: out, opts: o, target: root, level: o.Levels.Of(root)})
}

// Settings are what the server's own settings say about logging.
type Settings struct {
	Debug    bool // debug
	Colors   bool // logging.colors_enabled
	Target   bool // logging.include_target
	Terminal bool // the output is a terminal: see Terminal
}

// FromEnv completes settings with the variables that belong to logging alone:
// LOG_OUTPUT_FORMAT or LOG_FORMAT, RUST_LOG, SOCKUDO_LOG_DEBUG,
// SOCKUDO_LOG_PROD, LOG_LEVEL, and NO_COLOR. Colours need a terminal, unless
// LOG_COLORS_ENABLED is set. The strings are warnings to log with the result.
func FromEnv(env func(name string) (string, bool), s Settings) (Options, []string) {
	get := func(name string) string { v, _ := env(name); return strings.TrimSpace(v) }
	o := Options{Target: s.Target, Source: s.Debug}
	o.Color = s.Colors && get("NO_COLOR") == "" && (s.Terminal || get("LOG_COLORS_ENABLED") != "")
	levels, warnings := levelsFromEnv(get, s.Debug)
	o.Levels = levels
	format := get("LOG_OUTPUT_FORMAT")
	if format == "" {
		format = get("LOG_FORMAT")
	}
	switch strings.ToLower(format) {
	case "json":
		o.JSON = true
	case "", "human":
	default:
		warnings = append(warnings, fmt.Sprintf("LOG_OUTPUT_FORMAT ignored: expected human or json, got %q", clip(format)))
	}
	return o, warnings
}

// levelsFromEnv picks the one variable whose directives count.
func levelsFromEnv(get func(string) string, debug bool) (Levels, []string) {
	if d := get("RUST_LOG"); d != "" {
		return ParseLevels(d)
	}
	whenDebug, whenNot := get("SOCKUDO_LOG_DEBUG"), get("SOCKUDO_LOG_PROD")
	base, warnings := slog.LevelInfo, []string(nil)
	if d := get("LOG_LEVEL"); d != "" && whenDebug == "" && whenNot == "" {
		level, ok := parseLevel(d)
		if !ok {
			warnings = append(warnings, fmt.Sprintf("LOG_LEVEL ignored: %q is no level", clip(d)))
		} else {
			base = level
		}
	}
	switch {
	case debug && whenDebug != "":
		return ParseLevels(whenDebug)
	case debug:
		return Levels{base: min(base, slog.LevelDebug)}, warnings
	case whenNot != "":
		return ParseLevels(whenNot)
	default:
		return Levels{base: base}, warnings
	}
}

// Terminal reports whether f is a terminal.
func Terminal(f *os.File) bool {
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0 && f.Name() != os.DevNull
}
