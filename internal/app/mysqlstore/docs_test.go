package mysqlstore

import (
	"testing"

	"sockudo/internal/app"
	"sockudo/internal/app/apptest"
)

func TestTheManualHasTheTable(t *testing.T) {
	tab, err := parseTable("applications")
	if err != nil {
		t.Fatal(err)
	}
	apptest.Manual(t, "mysql.md", createTable(tab), func(c *app.Column) string { return alter(tab, c) })
}
