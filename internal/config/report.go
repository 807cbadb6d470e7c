package config

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// SourceKind is the kind of place a value comes from.
type SourceKind uint8

// The sources, weakest first.
const (
	FromDefault SourceKind = iota
	FromFile
	FromEnv
	FromFlag
)

// A Source is where a value comes from.
type Source struct {
	Kind SourceKind
	Name string // path of the file, name of the variable or of the flag
	Line int    // in the file, from 1
}

// String returns "default", "path:line", "env NAME" or "flag NAME".
func (s Source) String() string {
	switch s.Kind {
	case FromFile:
		return fmt.Sprintf("%s:%d", s.Name, s.Line)
	case FromEnv:
		return "env " + s.Name
	case FromFlag:
		return "flag " + s.Name
	default:
		return "default"
	}
}

// A Notice is one thing about the settings that somebody should read.
type Notice struct {
	Source Source
	Key    string // the full name of the setting, may be empty
	Text   string
}

// String returns "source: key: text".
func (n Notice) String() string {
	var b strings.Builder
	if n.Source.Kind != FromDefault {
		b.WriteString(n.Source.String() + ": ")
	}
	if n.Key != "" {
		b.WriteString(n.Key + ": ")
	}
	b.WriteString(n.Text)
	return b.String()
}

// A Report tells how a Config came about.
type Report struct {
	File     string   // the file that was read, empty if there was none
	Warnings []Notice // an operator should correct this
	Infos    []Notice // good to know

	sources map[string]Source
}

// maxNotices bounds each list of a report, and the problems of an Error.
const maxNotices = 200

// Source tells where the value of a setting, named like "ssl.cert_path", comes
// from. Of a list it is where the whole list comes from.
func (r *Report) Source(key string) Source { return r.sources[key] }

// Explicit reports whether any source but the defaults names a setting.
func (r *Report) Explicit(key string) bool { return r.sources[key].Kind != FromDefault }

func (r *Report) warn(at Source, key, format string, args ...any) {
	if len(r.Warnings) < maxNotices {
		r.Warnings = append(r.Warnings, Notice{at, key, fmt.Sprintf(format, args...)})
	}
}

func (r *Report) inform(at Source, key, format string, args ...any) {
	if len(r.Infos) < maxNotices {
		r.Infos = append(r.Infos, Notice{at, key, fmt.Sprintf(format, args...)})
	}
}

// Error is everything that makes settings unusable, in order of the file.
type Error struct {
	Problems []Notice
	More     int // problems that are not in the list
}

// Error returns one line per problem, each "source: key: reason".
func (e *Error) Error() string {
	texts := make([]string, 0, len(e.Problems)+1)
	for _, p := range e.Problems {
		texts = append(texts, p.String())
	}
	if e.More > 0 {
		texts = append(texts, fmt.Sprintf("and %d more", e.More))
	}
	return strings.Join(texts, "\n")
}

// faults gathers the problems of a load, one per setting.
type faults struct {
	problems []Notice
	seen     map[string]bool
	more     int
}

func (f *faults) add(at Source, key, reason string) {
	if f.seen == nil {
		f.seen = map[string]bool{}
	}
	switch {
	case key != "" && f.seen[key]:
	case len(f.problems) >= maxNotices:
		f.more++
	default:
		f.seen[key] = true
		f.problems = append(f.problems, Notice{at, key, reason})
	}
}

func (f *faults) err() error {
	if len(f.problems) == 0 {
		return nil
	}
	slices.SortStableFunc(f.problems, func(a, b Notice) int {
		return cmp.Or(cmp.Compare(a.Source.Kind, b.Source.Kind), cmp.Compare(a.Source.Line, b.Source.Line))
	})
	return &Error{Problems: f.problems, More: f.more}
}
