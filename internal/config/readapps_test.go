package config

import (
	"strings"
	"testing"
)

func TestAppsAreReadFromFilesAndLists(t *testing.T) {
	t.Setenv("SECRET_OF_A", "from outside")
	t.Setenv("SOCKUDO_DEFAULT_APP_ID", "not this")
	t.Setenv("SOCKUDO_DEFAULT_APP_KEY", "k")
	t.Setenv("SOCKUDO_DEFAULT_APP_SECRET", "s")
	const a = `{"id":"a","key":"k","secret":"${SECRET_OF_A}"}`
	for name, text := range map[string]string{
		"x.json":    `{"app_manager":{"array":{"apps":[` + a + `]}},"port":1}`,
		"list.json": "\n [\n\n" + a + "]\n",
		"":          "[" + a + "]",
		"x.toml":    "[[app_manager.array.apps]]\nid = \"a\"\nkey = \"k\"\nsecret = \"${SECRET_OF_A}\"\n",
	} {
		apps, report, err := ReadApps(name, []byte(text))
		if err != nil || len(apps) != 1 || apps[0].ID != "a" || apps[0].Secret.Reveal() != "from outside" {
			t.Errorf("%s: %d apps, %v", name, len(apps), err)
			continue
		}
		if at := report.AppSource("a"); at.Kind != FromFile {
			t.Errorf("%s: a is from %v", name, at)
		}
	}
	for text, want := range map[string]string{
		"[\n{\"id\":\"a\",\"key\":\"k\"}]": "l.json:2", "[{]": "l.json:1", `{"app_manager":{"array":{"apps":[{"id":5}]}}}`: "id",
		`[{"id":"a","key":"k","secret":"geheim","max_connections":"x"}]`: "max_connections",
	} {
		if apps, _, err := ReadApps("l.json", []byte(text)); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "geheim") {
			t.Errorf("%s: %d apps, %v; want %q", text, len(apps), err, want)
		}
	}
}
