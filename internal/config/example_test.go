package config

import (
	"path/filepath"
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
