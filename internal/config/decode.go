package config

import (
	"errors"
	"fmt"
	"math"
	"reflect"
	"strconv"
	"strings"

	"sockudo/internal/app"
)

// field is one member of a section, as its tags describe it.
type field struct {
	key     string
	aliases []string
	index   []int
	oneof   []string
	also    map[string]string
	least   string
	most    string
	null    bool
}

func fieldsOf(t reflect.Type) []field {
	var fs []field
	for _, sf := range reflect.VisibleFields(t) {
		key := sf.Tag.Get("key")
		if key == "" {
			continue
		}
		f := field{
			key:     key,
			aliases: list(sf.Tag.Get("alias")),
			index:   sf.Index,
			oneof:   list(sf.Tag.Get("oneof")),
			also:    map[string]string{},
			least:   sf.Tag.Get("min"),
			most:    sf.Tag.Get("max"),
			null:    sf.Tag.Get("opt") == "null" || sf.Type.Kind() == reflect.Pointer,
		}
		for _, pair := range list(sf.Tag.Get("also")) {
			other, canonical, _ := strings.Cut(pair, "=")
			f.also[other] = canonical
		}
		fs = append(fs, f)
	}
	return fs
}

// list splits at commas, trims, and drops what is empty.
func list(s string) []string {
	var items []string
	for item := range strings.SplitSeq(s, ",") {
		if item = strings.TrimSpace(item); item != "" {
			items = append(items, item)
		}
	}
	return items
}

// Ways of a type to read itself.
type (
	textSetter  interface{ setText(s string) error }
	valueSetter interface{ setValue(v *value) error }
)

// decoder writes the values of one file into settings. It goes on after a
// problem, so that one run reports them all.
type decoder struct {
	file   string
	report *Report
	faults *faults
	types  map[reflect.Type][]field
	inApp  bool // nobody asks where a member of an app comes from
}

func (d *decoder) at(line int) Source { return Source{Kind: FromFile, Name: d.file, Line: line} }

func (d *decoder) fail(path string, line int, format string, args ...any) {
	d.faults.add(d.at(line), path, fmt.Sprintf(format, args...))
}

func (d *decoder) fields(t reflect.Type) []field {
	fs, ok := d.types[t]
	if !ok {
		fs = fieldsOf(t)
		d.types[t] = fs
	}
	return fs
}

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

// object reads the members of v into the struct dst.
func (d *decoder) object(path string, v *value, dst reflect.Value) {
	if v.kind != kindObject {
		d.fail(path, v.line, "expected an object, got %s", v)
		return
	}
	if p, ok := dst.Addr().Interface().(presetter); ok {
		p.preset()
	}
	fs := d.fields(dst.Type())
	known := make(map[string]bool, len(fs))
	for _, f := range fs {
		m, name := d.member(path, v, f, known)
		if m == nil || m.val.kind == kindNull && !f.null {
			continue
		}
		d.set(join(path, name), m.line, f, m.val, dst.FieldByIndex(f.index))
		if !d.inApp {
			d.report.sources[join(path, f.key)] = d.at(m.line)
		}
	}
	for _, m := range v.members {
		if !known[m.key] {
			d.unknown(path, m, fs)
		}
	}
}

// member finds f in v by its name or else by another one.
func (d *decoder) member(path string, v *value, f field, known map[string]bool) (*member, string) {
	var found *member
	for _, name := range append([]string{f.key}, f.aliases...) {
		known[name] = true
		i, ok := v.index[name]
		if !ok {
			continue
		}
		m := &v.members[i]
		if found == nil {
			found = m
			continue
		}
		d.report.warn(d.at(m.line), join(path, name), "ignored, because %s is given too", found.key)
	}
	if found == nil {
		return nil, ""
	}
	return found, found.key
}

func (d *decoder) unknown(path string, m member, siblings []field) {
	full := join(path, m.key)
	if isLater(full) {
		d.report.inform(d.at(m.line), full, "belongs to newer Sockudo versions and has no effect here")
		return
	}
	if near := nearest(m.key, siblings); near != "" {
		d.report.warn(d.at(m.line), full, "unknown key, ignored; did you mean %s?", join(path, near))
		return
	}
	d.report.warn(d.at(m.line), full, "unknown key, ignored")
}

// set reads v into dst. line is the one of the key, for values without a line
// of their own.
func (d *decoder) set(path string, line int, f field, v *value, dst reflect.Value) {
	if apps, ok := dst.Addr().Interface().(*[]*app.App); ok {
		*apps = d.apps(path, v)
		return
	}
	if s, ok := dst.Addr().Interface().(valueSetter); ok {
		if err := s.setValue(v); err != nil {
			d.fail(path, v.line, "%v", err)
		}
		return
	}
	switch dst.Kind() {
	case reflect.Pointer:
		if v.kind == kindNull {
			dst.SetZero()
			return
		}
		elem := reflect.New(dst.Type().Elem())
		d.set(path, line, f, v, elem.Elem())
		dst.Set(elem)
	case reflect.Struct:
		if s, ok := dst.Addr().Interface().(textSetter); ok && v.kind == kindString {
			if err := s.setText(v.text); err != nil {
				d.fail(path, v.line, "%v", err)
			}
			return
		}
		d.object(path, v, dst)
	case reflect.Slice:
		d.list(path, f, v, dst)
	case reflect.Map:
		d.stringMap(path, v, dst)
	default:
		if err := scalar(f, v, dst); err != nil {
			d.fail(path, v.line, "%v", err)
		}
	}
}

func (d *decoder) list(path string, f field, v *value, dst reflect.Value) {
	if v.kind != kindList {
		d.fail(path, v.line, "expected a list, got %s", v)
		return
	}
	items := reflect.MakeSlice(dst.Type(), len(v.items), len(v.items))
	for i, item := range v.items {
		d.set(fmt.Sprintf("%s[%d]", path, i), item.line, f, item, items.Index(i))
	}
	dst.Set(items)
}

func (d *decoder) stringMap(path string, v *value, dst reflect.Value) {
	if v.kind != kindObject {
		d.fail(path, v.line, "expected an object, got %s", v)
		return
	}
	m := make(map[string]string, len(v.members))
	for _, e := range v.members {
		if e.val.kind != kindString {
			d.fail(join(path, e.key), e.line, "expected a string, got %s", e.val)
			continue
		}
		m[e.key] = e.val.text
	}
	dst.Set(reflect.ValueOf(m))
}

// scalar reads a value of a file. Numbers and booleans may be written as
// strings: earlier versions demanded that for some and refused it for others.
func scalar(f field, v *value, dst reflect.Value) error {
	want := v.kind == kindString
	switch dst.Kind() {
	case reflect.Bool:
		want = v.kind == kindBool || want && (strings.EqualFold(v.text, "true") || strings.EqualFold(v.text, "false"))
	case reflect.String:
	default:
		want = want || v.kind == kindNumber
	}
	if !want && dst.Type() == reflect.TypeFor[Secret]() {
		return errors.New("expected a string") // and nobody shall read what it is
	}
	if !want {
		return fmt.Errorf("expected %s, got %s", describe(f, dst.Type()), v)
	}
	return fromText(f, v.text, dst)
}

// fromText reads a scalar, or a list separated by commas, as files, the
// environment and flags write it.
func fromText(f field, text string, dst reflect.Value) error {
	if s, ok := dst.Addr().Interface().(textSetter); ok {
		return s.setText(strings.TrimSpace(text))
	}
	bad := func() error { return fmt.Errorf("expected %s, got %q", describe(f, dst.Type()), shorten(text)) }
	switch k := dst.Kind(); {
	case k == reflect.Pointer:
		elem := reflect.New(dst.Type().Elem())
		if err := fromText(f, text, elem.Elem()); err != nil {
			return err
		}
		dst.Set(elem)
	case k == reflect.Slice:
		items := list(text)
		s := reflect.MakeSlice(dst.Type(), len(items), len(items))
		for i, item := range items {
			if err := fromText(f, item, s.Index(i)); err != nil {
				return err
			}
		}
		dst.Set(s)
	case k == reflect.Bool:
		b, ok := truth(text)
		if !ok {
			return bad()
		}
		dst.SetBool(b)
	case k == reflect.String:
		s, ok := f.choose(text)
		if !ok {
			return bad()
		}
		dst.SetString(s)
	case k == reflect.Float64:
		n, err := strconv.ParseFloat(strings.TrimSpace(text), 64)
		if err != nil || math.IsNaN(n) {
			return bad()
		}
		dst.SetFloat(n)
	case dst.CanInt():
		n, err := strconv.ParseInt(strings.TrimSpace(text), 10, dst.Type().Bits())
		if err != nil {
			return bad()
		}
		dst.SetInt(n)
	default:
		n, err := strconv.ParseUint(strings.TrimSpace(text), 10, dst.Type().Bits())
		if err != nil {
			return bad()
		}
		dst.SetUint(n)
	}
	return nil
}

func truth(s string) (value, ok bool) {
	switch strings.ToLower(strings.TrimSpace(s)) {
	case "true", "1", "yes", "on":
		return true, true
	case "false", "0", "no", "off":
		return false, true
	}
	return false, false
}

// choose returns the canonical spelling of one of the values of f.
func (f field) choose(s string) (string, bool) {
	if len(f.oneof) == 0 {
		return s, true
	}
	s = strings.ToLower(strings.TrimSpace(s))
	if c, ok := f.also[s]; ok {
		s = c
	}
	for _, o := range f.oneof {
		if s == o {
			return s, true
		}
	}
	return "", false
}

// describe says what is expected of f, for error texts.
func describe(f field, t reflect.Type) string {
	switch k := t.Kind(); k {
	case reflect.Pointer, reflect.Slice:
		return describe(f, t.Elem())
	case reflect.Bool:
		return "true or false"
	case reflect.String:
		if len(f.oneof) > 0 {
			return "one of " + strings.Join(f.oneof, ", ")
		}
		return "a string"
	case reflect.Float64:
		return "a number"
	case reflect.Int32:
		return fmt.Sprintf("an integer from %d to %d", math.MinInt32, math.MaxInt32)
	case reflect.Uint64:
		return "an integer from 0"
	default:
		return fmt.Sprintf("an integer from 0 to %d", uint64(1)<<t.Bits()-1)
	}
}
