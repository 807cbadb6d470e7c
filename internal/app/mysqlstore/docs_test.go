package mysqlstore

import (
	"os"
	"strings"
	"testing"

	"sockudo/internal/app"
)

func TestTheManualHasTheTable(t *testing.T) {
	manual, err := os.ReadFile("../../../docs/stores/mysql.md")
	if err != nil {
		t.Fatal(err)
	}
	tab, err := parseTable("applications")
	if err != nil {
		t.Fatal(err)
	}
	want := []string{createTable(tab)}
	for _, c := range app.Columns() {
		if c.Need == app.Extra {
			want = append(want, alter(tab, &c))
		}
	}
	for _, w := range want {
		if !strings.Contains(string(manual), w) {
			t.Errorf("the manual lacks:\n%s", w)
		}
	}
}
