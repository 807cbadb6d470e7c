package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"sockudo/internal/app"
)

func newAppsExport(opts *serveOptions) *cobra.Command {
	var file string
	var force, asTOML bool
	cmd := &cobra.Command{
		Use:   "export [ID...]",
		Short: "Write apps as a settings file",
		Long: `Write all apps, or those with the ids, as a settings file in JSON, in the form that
Sockudo 2.9 reads, or in TOML. 'sockudo apps import' reads it back, and a server with the
driver memory uses it as it is. SECRETS ARE IN IT IN THE CLEAR; a file that is made is for
its owner only.`,
		Example:           "  sockudo apps export -o apps.json\n  sockudo apps export shop --toml",
		ValidArgsFunction: completeApps(opts),
		RunE: func(cmd *cobra.Command, args []string) error {
			var apps []*app.App
			err := opts.withApps(cmd, func(s *appStore) (err error) {
				apps, err = s.some(cmd, args)
				return err
			})
			if err != nil {
				return err
			}
			text, err := settingsOf(apps, asTOML || strings.HasSuffix(strings.ToLower(file), ".toml"), false)
			if err != nil {
				return err
			}
			if file == "" || file == "-" {
				_, err = cmd.OutOrStdout().Write(text)
				return err
			}
			if err := writeSecretFile(file, text, force); err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.ErrOrStderr(), "%d apps written to %s\n", len(apps), file)
			return err
		},
	}
	cmd.Flags().StringVarP(&file, "output", "o", "", "file to write (default: standard output)")
	cmd.Flags().BoolVar(&asTOML, "toml", false, "as TOML; also if the name of the file ends in .toml")
	cmd.Flags().BoolVar(&force, "force", false, "replace a file that is there already")
	return cmd
}

// some returns the apps with the ids, all apps if there are no ids.
func (s *appStore) some(cmd *cobra.Command, ids []string) ([]*app.App, error) {
	var apps []*app.App
	if len(ids) == 0 {
		err := s.List(cmd.Context(), func(a *app.App) bool { apps = append(apps, a); return true })
		if err != nil {
			return nil, coded(fmt.Errorf("list: %w", err))
		}
		return apps, nil
	}
	for _, id := range ids {
		a, err := s.find(cmd.Context(), id)
		if err != nil {
			return nil, err
		}
		apps = append(apps, a)
	}
	return apps, nil
}

// writeSecretFile writes a file that only its owner reads, whole or not at all.
func writeSecretFile(name string, text []byte, replace bool) error {
	if _, err := os.Lstat(name); err == nil && !replace {
		return fmt.Errorf("%s is there already; --force replaces it", name)
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(name), ".sockudo-*") // is for its owner only
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), name)
	}
	if err != nil {
		_ = os.Remove(f.Name())
	}
	return err
}

// asString are the numbers that Sockudo 2.9 reads as strings only. It demands
// numbers for the others.
var asString = map[string]bool{
	"max_backend_events_per_second": true, "max_read_requests_per_second": true, "max_presence_members_per_channel": true,
	"max_presence_member_size_in_kb": true, "max_event_channels_at_once": true, "max_event_payload_in_kb": true, "max_event_batch_size": true,
}

// settingsOf returns apps as a settings file, or bare is true for one app as it
// stands in such a file.
func settingsOf(apps []*app.App, asTOML, bare bool) ([]byte, error) {
	var b bytes.Buffer
	switch {
	case asTOML:
		for i, a := range apps {
			if i > 0 {
				b.WriteByte('\n')
			}
			writeTOML(&b, a)
		}
	case bare:
		b.WriteString(appJSON(apps[0], ""))
		b.WriteByte('\n')
	default:
		b.WriteString("{\n  \"app_manager\": {\n    \"array\": {\n      \"apps\": [")
		for i, a := range apps {
			if i > 0 {
				b.WriteByte(',')
			}
			b.WriteString("\n        " + appJSON(a, "        "))
		}
		if len(apps) > 0 {
			b.WriteString("\n      ")
		}
		b.WriteString("]\n    }\n  }\n}\n")
	}
	// Within strings, where else; it would be taken for a variable.
	return bytes.ReplaceAll(b.Bytes(), []byte("${"), []byte(`\u0024{`)), nil
}

// appJSON writes an app as Sockudo 2.9 reads it. Members of which Sockudo
// knows nothing are left out if they are not set.
func appJSON(a *app.App, indent string) string {
	var b strings.Builder
	between := "{\n"
	for _, c := range app.Columns() {
		v := c.Value(a)
		if v == nil && c.Need == app.Extra {
			continue
		}
		b.WriteString(between + indent + "  " + jsonText(c.Name) + ": ")
		between = ",\n"
		switch text, isText := v.(string); {
		case v == nil:
			b.WriteString("null")
		case c.Kind == app.JSON && isText:
			b.WriteString(text)
		case isText || asString[c.Name]:
			b.WriteString(jsonText(fmt.Sprint(v)))
		default:
			fmt.Fprint(&b, v)
		}
	}
	return b.String() + "\n" + indent + "}"
}

func writeTOML(b *bytes.Buffer, a *app.App) {
	b.WriteString("[[app_manager.array.apps]]\n")
	for _, c := range app.Columns() {
		v := c.Value(a)
		text, isText := v.(string)
		switch {
		case v == nil:
			continue
		case c.Kind == app.JSON:
			var list any
			dec := json.NewDecoder(strings.NewReader(text))
			dec.UseNumber()
			if dec.Decode(&list) != nil {
				continue // cannot be: it was encoded a moment ago
			}
			text = tomlText(list)
		case isText:
			text = jsonText(text) // a JSON string is one of TOML
		default:
			text = fmt.Sprint(v)
		}
		fmt.Fprintf(b, "%s = %s\n", c.Name, text)
	}
}

// tomlText writes a JSON value on one line of TOML, which has no null.
func tomlText(v any) string {
	switch v := v.(type) {
	case map[string]any:
		var parts []string
		for _, name := range slices.Sorted(maps.Keys(v)) {
			if v[name] != nil {
				parts = append(parts, jsonText(name)+" = "+tomlText(v[name]))
			}
		}
		return "{ " + strings.Join(parts, ", ") + " }"
	case []any:
		var parts []string
		for _, item := range v {
			parts = append(parts, tomlText(item))
		}
		return "[" + strings.Join(parts, ", ") + "]"
	case string:
		return jsonText(v)
	case bool:
		return strconv.FormatBool(v)
	default:
		return fmt.Sprint(v)
	}
}

func jsonText(s string) string {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(s); err != nil {
		panic(fmt.Sprintf("a string cannot be encoded: %v", err))
	}
	// TOML wants DEL escaped, JSON does not mind.
	return strings.ReplaceAll(strings.TrimSuffix(b.String(), "\n"), "\x7f", `\u007f`)
}
