package config

import (
	"errors"
	"fmt"
	"io"
)

// Check loads the file at path, or the default file if path is empty, as a
// server started here and now would, and writes to w what is to be said about
// it, one finding per line. further, which may be nil, looks for what only the
// server can find in settings that are right by themselves. The error is the
// one of Load, or has what further found; w has it already.
func Check(w io.Writer, path string, further func(*Config) []Notice) error {
	return check(w, LoadOptions{Path: path}, further)
}

func check(w io.Writer, opts LoadOptions, further func(*Config) []Notice) error {
	cfg, report, err := Load(opts)
	if err == nil && further != nil {
		found := further(cfg)
		for i, n := range found {
			found[i].Source = report.Source(n.Key)
		}
		if len(found) > 0 {
			err = &Error{Problems: found}
		}
	}
	for _, n := range report.Infos {
		fmt.Fprintf(w, "note: %s\n", n)
	}
	for _, n := range report.Warnings {
		fmt.Fprintf(w, "warning: %s\n", n)
	}
	name := report.File
	if name == "" {
		name = "no file, defaults and environment"
	}
	if e, ok := errors.AsType[*Error](err); ok {
		for _, p := range e.Problems {
			fmt.Fprintf(w, "error: %s\n", p)
		}
		if e.More > 0 {
			fmt.Fprintf(w, "error: and %d more\n", e.More)
		}
		return err
	}
	if err != nil {
		fmt.Fprintf(w, "error: %v\n", err)
		return err
	}
	fmt.Fprintf(w, "ok: %s\n", name)
	return nil
}
