package config

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"reflect"
	"strings"
	"testing"

	"sockudo/internal/app"
)

// The manual is written by people. Of its tables of settings only the columns
// that the code knows better are checked, and rewritten by
//
//	go test ./internal/config -run Manual -update
//
// which leaves the column Meaning alone.
var update = flag.Bool("update", false, "rewrite the tables of docs/configuration.md")

const manual = "../../docs/configuration.md"

const (
	settingsHeader = "| Key | Type | Default | Environment | Meaning |"
	membersHeader  = "| Member | Type | Default | Meaning |"
	envAppHeader   = "| Variable | Default | Member |"
)

func TestManualAgreesWithTheCode(t *testing.T) {
	text, err := os.ReadFile(manual)
	if err != nil {
		t.Fatal(err)
	}
	m := &manualCheck{t: t, settings: map[string][]string{}, members: map[string][]string{}}
	m.expect()
	got := m.rewrite(strings.Split(string(text), "\n"))
	for key := range m.settings {
		t.Errorf("%s has no row", key)
	}
	for key := range m.members {
		t.Errorf("member %s of an app has no row", key)
	}
	if *update {
		if err := os.WriteFile(manual, []byte(strings.Join(got, "\n")), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	for i, line := range strings.Split(string(text), "\n") {
		if i >= len(got) || line != got[i] {
			t.Fatalf("line %d is\n\t%s\nand should be\n\t%s\n(run with -update)", i+1, line, got[min(i, len(got)-1)])
		}
	}
}

// manualCheck holds the columns that each row must have, without those that
// were found already.
type manualCheck struct {
	t        *testing.T
	settings map[string][]string // key, type, default, environment
	members  map[string][]string // member, type, default
}

func (m *manualCheck) expect() {
	vars := map[string][]string{}
	for _, row := range envTable {
		name := "`" + row.name + "`"
		if row.alt {
			name = "*" + name + "*"
		}
		vars[row.key] = append(vars[row.key], name)
	}
	walk("", reflect.ValueOf(Default()).Elem(), func(l leaf) {
		m.settings[l.key] = []string{"`" + l.key + "`", typeText(l), defaultText(l), strings.Join(vars[l.key], ", ")}
	})
	f := new(appFields)
	f.preset()
	walk("", reflect.ValueOf(f).Elem(), func(l leaf) {
		if l.key != "policy" {
			m.members[l.key] = []string{"`" + l.key + "`", typeText(l), defaultText(l)}
		}
	})
}

// rewrite returns the lines of the manual as they should be.
func (m *manualCheck) rewrite(lines []string) []string {
	var out []string
	header := ""
	for _, line := range lines {
		switch {
		case !strings.HasPrefix(line, "|"):
			header = ""
		case line == settingsHeader, line == membersHeader, line == envAppHeader:
			header = line
		case strings.HasPrefix(line, "|---"):
			if header == envAppHeader {
				out = append(append(out, line), envAppRows()...)
				continue
			}
		case header == settingsHeader:
			line = m.row(line, m.settings)
		case header == membersHeader:
			line = m.row(line, m.members)
		case header == envAppHeader:
			continue // written with the header
		}
		out = append(out, line)
	}
	return out
}

func (m *manualCheck) row(line string, expected map[string][]string) string {
	cells := strings.Split(strings.Trim(line, "|"), "|")
	key := strings.Trim(cells[0], " `")
	want, ok := expected[key]
	if !ok {
		m.t.Errorf("row of %s: no such key, or its second row", key)
		return line
	}
	delete(expected, key)
	meaning := strings.TrimSpace(cells[len(cells)-1])
	if meaning == "" && !strings.HasPrefix(key, "database.") && !strings.HasPrefix(key, "metrics.") {
		m.t.Errorf("%s has no meaning", key)
	}
	return squeeze("| " + strings.Join(want, " | ") + " | " + meaning + " |")
}

// squeeze writes empty cells as "| |".
func squeeze(row string) string {
	for strings.Contains(row, "|  |") {
		row = strings.ReplaceAll(row, "|  |", "| |")
	}
	return row
}

func envAppRows() []string {
	var rows []string
	for i := 0; i < len(envAppTable); i++ {
		row := envAppTable[i]
		names := "`" + row.name + "`"
		if i+1 < len(envAppTable) && envAppTable[i+1].key == row.key {
			names = "*" + names + "*, `" + envAppTable[i+1].name + "`"
			i++
		}
		fallback := ""
		if row.fallback != "" {
			fallback = "`" + row.fallback + "`"
		}
		rows = append(rows, squeeze(fmt.Sprintf("| %s | %s | `%s` |", names, fallback, row.key)))
	}
	return rows
}

func typeText(l leaf) string {
	t, suffix := l.value.Type(), ""
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if l.value.Kind() == reflect.Pointer {
		suffix = " or null"
	}
	if len(l.field.oneof) > 0 {
		return "`" + strings.Join(l.field.oneof, "` `") + "`"
	}
	if l.field.least != "" && l.field.least != "0" || l.field.most != "" {
		suffix = " " + l.field.interval() + suffix
	}
	return map[reflect.Type]string{
		reflect.TypeFor[Seconds]():         "seconds",
		reflect.TypeFor[Millis]():          "milliseconds",
		reflect.TypeFor[Secret]():          "secret",
		reflect.TypeFor[URL]():             "URL",
		reflect.TypeFor[FileMode]():        "octal string",
		reflect.TypeFor[Workers]():         "`auto` or integer",
		reflect.TypeFor[Time]():            "time",
		reflect.TypeFor[bool]():            "boolean",
		reflect.TypeFor[string]():          "string",
		reflect.TypeFor[uint16]():          "port",
		reflect.TypeFor[uint32]():          "integer",
		reflect.TypeFor[uint64]():          "integer",
		reflect.TypeFor[int32]():           "integer",
		reflect.TypeFor[float64]():         "number",
		reflect.TypeFor[[]string]():        "list",
		reflect.TypeFor[[]URL]():           "list of URLs",
		reflect.TypeFor[[]SentinelNode]():  "list of nodes",
		reflect.TypeFor[[]ClusterNode]():   "list of nodes",
		reflect.TypeFor[[]*app.App]():      "list of apps",
		reflect.TypeFor[[]webhookFields](): "list of webhooks",
	}[t] + suffix
}

func defaultText(l leaf) string {
	switch l.key {
	case "queue.driver":
		return "see there"
	case "instance.process_id":
		return "a random UUID"
	}
	if l.value.IsZero() && (l.value.Type() == reflect.TypeFor[Time]() || l.value.Kind() == reflect.String || l.value.Kind() == reflect.Pointer || l.value.Kind() == reflect.Slice) {
		return ""
	}
	text, err := json.Marshal(plain(l.value))
	if err != nil {
		panic(err)
	}
	s := strings.ReplaceAll(string(text), `","`, `", "`)
	if l.value.Kind() != reflect.Slice {
		s = strings.Trim(s, `"`)
	}
	return "`" + s + "`"
}

func TestManualNamesEveryVariable(t *testing.T) {
	text, err := os.ReadFile(manual)
	if err != nil {
		t.Fatal(err)
	}
	names := []string{"DEBUG", "LOG_OUTPUT_FORMAT", "LOG_FORMAT", "NO_COLOR", "RUST_LOG", "SOCKUDO_LOG_DEBUG", "SOCKUDO_LOG_PROD",
		"LOG_LEVEL", "REDIS_URL", "REDIS_CLUSTER_NODES"}
	for _, row := range envTable {
		names = append(names, row.name)
	}
	for _, row := range envAppTable {
		names = append(names, row.name)
	}
	for _, name := range names {
		if !strings.Contains(string(text), "`"+name+"`") {
			t.Errorf("%s is not in the manual", name)
		}
	}
}
