package config

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"reflect"
	"strings"
	"text/tabwriter"
	"time"

	"sockudo/internal/app"
	"sockudo/internal/logging"
)

// shown is one line of Show.
type shown struct {
	key    string
	value  any
	source Source
}

// Show writes every setting with its value and where it comes from, as lines
// for people or as one JSON object. Secrets, the credentials of URLs and the
// headers of webhooks are masked. r is the report of the Load that returned c.
func (c *Config) Show(w io.Writer, r *Report, asJSON bool) error {
	all := c.shown(r)
	if asJSON {
		return showJSON(w, r, all)
	}
	tw := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	for _, s := range all {
		text, err := compact(s.value)
		if err != nil {
			return fmt.Errorf("config: %s: %w", s.key, err)
		}
		fmt.Fprintf(tw, "%s\t= %s\t# %s\n", s.key, strings.ReplaceAll(text, "\t", `\t`), s.source)
	}
	if err := tw.Flush(); err != nil {
		return fmt.Errorf("config: %w", err)
	}
	return nil
}

func showJSON(w io.Writer, r *Report, all []shown) error {
	type setting struct {
		Value  any    `json:"value"`
		Source string `json:"source"`
	}
	doc := struct {
		File     *string            `json:"file"`
		Settings map[string]setting `json:"settings"`
	}{Settings: map[string]setting{}}
	if r.File != "" {
		doc.File = &r.File
	}
	for _, s := range all {
		doc.Settings[s.key] = setting{s.value, s.source.String()}
	}
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	if err := enc.Encode(doc); err != nil {
		return fmt.Errorf("config: %w", err)
	}
	return nil
}

func compact(v any) (string, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	err := enc.Encode(v)
	return strings.TrimSuffix(b.String(), "\n"), err
}

func (c *Config) shown(r *Report) []shown {
	var all []shown
	walk("", reflect.ValueOf(c).Elem(), func(l leaf) {
		apps, ok := l.value.Interface().([]*app.App)
		if !ok {
			all = append(all, shown{l.key, plain(l.value), r.Source(l.key)})
			return
		}
		if len(apps) == 0 {
			all = append(all, shown{l.key, []any{}, r.Source(l.key)})
		}
		for _, a := range apps {
			all = append(all, shownApp(a, r)...)
		}
	})
	return all
}

// shownApp lists the members of an app. Those of a file and those of the
// record have the same names in Go.
func shownApp(a *app.App, r *Report) []shown {
	var all []shown
	key, at := appKey(a.ID), r.Source(appKey(a.ID))
	v, shape := reflect.ValueOf(a).Elem(), reflect.TypeFor[appFields]()
	for _, f := range fieldsOf(shape) {
		if m := v.FieldByName(shape.FieldByIndex(f.index).Name); m.IsValid() {
			all = append(all, shown{join(key, f.key), plain(m), at})
		}
	}
	return all
}

// plain turns a setting into what encoding/json writes as files would hold it,
// without secrets.
func plain(v reflect.Value) any {
	switch x := v.Interface().(type) {
	case Secret:
		if x == "" {
			return ""
		}
		return x.String()
	case time.Time: // of an app
		if x.IsZero() {
			return ""
		}
		return app.FormatTime(x)
	case fmt.Stringer: // URL, FileMode, Workers
		return x.String()
	case string:
		if strings.Contains(x, "://") {
			return logging.RedactURL(x)
		}
		return x
	}
	switch v.Kind() {
	case reflect.Pointer:
		if v.IsNil() {
			return nil
		}
		return plain(v.Elem())
	case reflect.Slice:
		items := make([]any, v.Len())
		for i := range items {
			items[i] = plain(v.Index(i))
		}
		return items
	case reflect.Map: // headers of webhooks, which hold tokens
		m := map[string]any{}
		for it := v.MapRange(); it.Next(); {
			m[it.Key().String()] = "***"
		}
		return m
	case reflect.Struct:
		m := map[string]any{}
		for i := range v.NumField() {
			if f := v.Field(i); !f.IsZero() {
				m[memberName(v.Type().Field(i))] = plain(f)
			}
		}
		return m
	default:
		return v.Interface()
	}
}

func memberName(f reflect.StructField) string {
	if key := f.Tag.Get("key"); key != "" {
		return key
	}
	name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
	return name
}
