package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"unicode/utf8"
)

// LoadOptions say where settings come from. The zero value reads the default
// file of the working directory and the environment of the process.
type LoadOptions struct {
	// Path is the file to read in place of the default one. It must exist.
	Path string
	// Dir is where the default files config/config.toml and, if that is
	// missing, config/config.json are looked for; empty: the working directory.
	Dir string
	// Env looks a variable of the environment up; nil: os.LookupEnv.
	Env func(name string) (string, bool)
	// Flags are settings of the command line, the strongest source.
	Flags []Flag
}

// Flag sets one setting from the command line.
type Flag struct {
	Name  string // as the user wrote it, such as --port
	Key   string // of the setting, such as port
	Value string // as in the environment; lists are separated by commas
}

// Load gathers the settings from their sources – defaults, one file, the
// environment, flags, each stronger than the ones before – and validates them.
// The report is never nil. The error is an *Error with every problem, or says
// why a file could not be read.
func Load(opts LoadOptions) (*Config, *Report, error) {
	if opts.Env == nil {
		opts.Env = os.LookupEnv
	}
	l := &loader{
		opts:   opts,
		cfg:    Default(),
		report: &Report{sources: map[string]Source{}},
		faults: &faults{},
	}
	l.report.File = l.opts.Path
	if l.report.File == "" {
		l.report.File = l.defaultFile()
	}
	if l.report.File != "" {
		if err := l.file(l.report.File); err != nil {
			return nil, l.report, err
		}
	}
	l.environment()
	l.flags()
	l.normalise()
	l.validate()
	if err := l.faults.err(); err != nil {
		return nil, l.report, err
	}
	return l.cfg, l.report, nil
}

type loader struct {
	opts   LoadOptions
	cfg    *Config
	report *Report
	faults *faults
}

// fail reports a problem of a setting at the place where it was set.
func (l *loader) fail(key, format string, args ...any) {
	l.faults.add(l.report.Source(key), key, fmt.Sprintf(format, args...))
}

func (l *loader) warn(key, format string, args ...any) {
	l.report.warn(l.report.Source(key), key, format, args...)
}

// defaultFile returns the first default file that is there, readable or not.
func (l *loader) defaultFile() string {
	for _, name := range []string{"config.toml", "config.json"} {
		path := filepath.Join(l.opts.Dir, "config", name)
		if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
			return path
		}
	}
	return ""
}

func (l *loader) file(path string) error {
	data, err := readFile(path)
	if err != nil {
		return err
	}
	return l.text(path, data)
}

// text reads the content of the file at path.
func (l *loader) text(path string, data []byte) error {
	isTOML := strings.EqualFold(filepath.Ext(path), ".toml")
	at := func(line int) Source { return Source{Kind: FromFile, Name: path, Line: line} }
	data = bytes.TrimPrefix(data, []byte("\xef\xbb\xbf"))
	if !utf8.Valid(data) {
		l.faults.add(at(invalidLine(data)), "", "is not UTF-8 text")
		return l.faults.err()
	}
	data = substitute(data, isTOML, l.opts.Env, func(line int, name, reason string) {
		l.faults.add(at(line), "${"+name+"}", reason)
	})
	if err := l.faults.err(); err != nil {
		return err
	}
	parse := parseJSON
	if isTOML {
		parse = parseTOML
	}
	root, err := parse(data)
	if err != nil {
		e, ok := errors.AsType[*syntaxError](err)
		if !ok {
			return fmt.Errorf("%s: %w", path, err)
		}
		l.faults.add(at(e.line), "", e.reason)
		return l.faults.err()
	}
	d := &decoder{file: path, report: l.report, faults: l.faults, types: map[reflect.Type][]field{}}
	d.object("", root, reflect.ValueOf(l.cfg).Elem())
	return nil
}

// readFile reads a file of bounded size.
func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("config: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFileBytes+1))
	if err != nil {
		return nil, fmt.Errorf("config: %w", err)
	}
	if len(data) > maxFileBytes {
		return nil, fmt.Errorf("config: %s is larger than %d MiB", path, maxFileBytes>>20)
	}
	return data, nil
}

func invalidLine(data []byte) int {
	at := 0
	for at < len(data) {
		r, n := utf8.DecodeRune(data[at:])
		if r == utf8.RuneError && n == 1 {
			break
		}
		at += n
	}
	return newLines(data).at(at)
}
