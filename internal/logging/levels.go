package logging

import (
	"fmt"
	"log/slog"
	"strings"
)

// Levels of records that slog has no name for.
const (
	LevelTrace = slog.Level(-8)
	LevelOff   = slog.Level(1 << 10) // above every record
)

// root is the target of everything; parts of the server have targets below it,
// such as sockudo::hub.
const root = "sockudo"

// Levels say from which level on records are written, for everything and for
// single targets. The zero value writes from info on.
type Levels struct {
	base    slog.Level
	targets []targetLevel
}

type targetLevel struct {
	target string
	level  slog.Level
}

// ParseLevels reads a comma separated list of directives: a level for
// everything, and target=level for one part of the server and what is below
// it, the longest target winning. Levels are error, warn, info, debug, trace
// and off; a target alone means trace. Without a level for everything it is
// info. Targets of other programs are ignored, because one RUST_LOG often
// serves many.
//
// What cannot be understood is left out and returned as warnings, one for each
// directive.
func ParseLevels(directives string) (Levels, []string) {
	var l Levels
	var warnings []string
	for d := range strings.SplitSeq(directives, ",") {
		if d = strings.TrimSpace(d); d == "" {
			continue
		}
		if reason := l.add(d); reason != "" {
			warnings = append(warnings, fmt.Sprintf("log directive %q ignored: %s", clip(d), reason))
		}
	}
	return l, warnings
}

// add takes one directive in or returns why it cannot.
func (l *Levels) add(directive string) string {
	target, name, paired := strings.Cut(directive, "=")
	if !paired {
		if level, ok := parseLevel(directive); ok {
			l.base = level
			return ""
		}
		if !ours(directive) {
			return "neither a level nor a target of this server"
		}
		name = "trace"
	}
	target = strings.TrimSpace(target)
	level, ok := parseLevel(name)
	switch {
	case !ok:
		return "expected error, warn, info, debug, trace or off as the level"
	case !isTarget(target):
		return "expected a target before ="
	case ours(target):
		l.set(target, level)
	}
	return ""
}

func (l *Levels) set(target string, level slog.Level) {
	for i := range l.targets {
		if l.targets[i].target == target {
			l.targets[i].level = level
			return
		}
	}
	l.targets = append(l.targets, targetLevel{target, level})
}

// Of returns the level from which on records of target are written.
func (l Levels) Of(target string) slog.Level {
	level, longest := l.base, -1
	for _, t := range l.targets {
		if len(t.target) > longest && (target == t.target || strings.HasPrefix(target, t.target+"::")) {
			level, longest = t.level, len(t.target)
		}
	}
	return level
}

func parseLevel(s string) (slog.Level, bool) {
	switch strings.ToLower(strings.TrimSpace(s)) {
	case "error":
		return slog.LevelError, true
	case "warn":
		return slog.LevelWarn, true
	case "info":
		return slog.LevelInfo, true
	case "debug":
		return slog.LevelDebug, true
	case "trace":
		return LevelTrace, true
	case "off":
		return LevelOff, true
	}
	return 0, false
}

func ours(target string) bool { return target == root || strings.HasPrefix(target, root+"::") }

// isTarget reports whether s is a path of names such as sockudo::hub.
func isTarget(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool {
		switch {
		case 'a' <= r && r <= 'z', 'A' <= r && r <= 'Z', '0' <= r && r <= '9', r == '_', r == '-', r == ':', r == '.':
			return false
		}
		return true
	})
}

func levelName(l slog.Level) string {
	switch {
	case l >= slog.LevelError:
		return "ERROR"
	case l >= slog.LevelWarn:
		return "WARN"
	case l >= slog.LevelInfo:
		return "INFO"
	case l >= slog.LevelDebug:
		return "DEBUG"
	default:
		return "TRACE"
	}
}

func clip(s string) string {
	const most = 60
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "…"
}
