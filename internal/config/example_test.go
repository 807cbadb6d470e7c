package config

import (
	"encoding/json"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"sockudo/internal/app"
)

func TestExamplesLoadWithoutAWarningAndMeanTheSame(t *testing.T) {
	var loaded []*Config
	for _, name := range []string{"config.json", "config.toml"} {
		c, r, err := Load(LoadOptions{Path: filepath.Join("../../docs/examples", name), Env: noEnv})
		if err != nil {
			t.Fatal(err)
		}
		if len(r.Warnings) > 0 || len(c.AppManager.Array.Apps) != 1 {
			t.Errorf("%s: %d apps, warnings:\n%s", name, len(c.AppManager.Array.Apps), warnings(r))
		}
		loaded = append(loaded, c)
	}
	if d := cmp.Diff(loaded[0], loaded[1], cmpopts.IgnoreFields(Instance{}, "ProcessID"), cmpopts.IgnoreTypes(app.Limits{})); d != "" {
		t.Error(d)
	}
}

func TestEveryKeyCanBeWrittenInAFile(t *testing.T) {
	tree := map[string]any{}
	walk("", reflect.ValueOf(Default()).Elem(), func(l leaf) {
		section, path := tree, strings.Split(l.key, ".")
		for _, name := range path[:len(path)-1] {
			below, ok := section[name].(map[string]any)
			if !ok {
				below = map[string]any{}
				section[name] = below
			}
			section = below
		}
		section[path[len(path)-1]] = plain(l.value)
	})
	text, err := json.MarshalIndent(tree, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	got, r := mustLoad(t, sources{json: string(text)})
	if len(r.Infos) > 0 || len(r.Warnings) != 1 || r.Warnings[0].Key != "cors.credentials" {
		t.Errorf("infos %v, warnings:\n%s", r.Infos, warnings(r))
	}
	for key := range Default().leaves() {
		if !r.Explicit(key) && Default().leaves()[key].value.Kind() != reflect.Pointer {
			t.Errorf("%s was not read", key)
		}
	}
	want, _ := mustLoad(t, sources{env: map[string]string{"QUEUE_DRIVER": "redis"}})
	// Lists that the file gives empty are empty and not nil.
	if d := cmp.Diff(want, got, cmpopts.IgnoreFields(Instance{}, "ProcessID"), cmpopts.EquateEmpty(), sameSecret); d != "" {
		t.Error(d)
	}
}
