// Package archtest holds the layering of the packages.
package archtest

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"strings"
	"testing"
)

// layers are the packages below internal, the lowest first. A package imports
// only packages of lower layers; drivers, which are sub-packages, their parent.
var layers = [][]string{
	{"protocol", "sign", "origin", "clientip", "metrics", "logging", "backoff", "redisconn", "health", "epoll"},
	{"ws", "app", "cache", "queue", "ratelimit", "directory", "pushertest", "bench"},
	{"hub", "cluster", "webhook"},
	{"node"},
	{"session", "httpapi", "admin", "dashboard"},
	{"config"},
	{"server"},
	{"servertest", "servicetest", "e2e", "archtest"},
}

const module = "sockudo"

type pkg struct {
	ImportPath   string
	Imports      []string
	TestImports  []string
	XTestImports []string
}

func packages(t *testing.T) []pkg {
	t.Helper()
	out, err := exec.Command("go", "list", "-json=ImportPath,Imports,TestImports,XTestImports", module+"/...").Output()
	if err != nil {
		t.Fatal(err)
	}
	var all []pkg
	dec := json.NewDecoder(strings.NewReader(string(out)))
	for {
		var p pkg
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
}

// split returns the package below internal that a path belongs to, and the
// name of a driver inside it.
func split(path string) (name, driver string, ok bool) {
	rest, ok := strings.CutPrefix(path, module+"/internal/")
	name, driver, _ = strings.Cut(rest, "/")
	return name, driver, ok
}

func layerOf(name string) int {
	for i, names := range layers {
		for _, n := range names {
			if n == name {
				return i
			}
		}
	}
	return -1
}

func TestPackagesImportOnlyLowerLayers(t *testing.T) {
	for _, p := range packages(t) {
		from, driver, internal := split(p.ImportPath)
		if internal && layerOf(from) < 0 {
			t.Errorf("%s is in no layer", p.ImportPath)
			continue
		}
		for _, imported := range p.Imports {
			to, toDriver, ok := split(imported)
			if !ok {
				continue
			}
			switch {
			case !internal: // the command may import everything
			case strings.HasSuffix(driver, "test") && to == "servicetest": // a contract suite is tests only
			case from == to:
				if driver == "" {
					t.Errorf("%s imports its own driver %s", p.ImportPath, imported)
				}
			case layerOf(to) >= layerOf(from):
				t.Errorf("%s (layer %d) imports %s (layer %d)", p.ImportPath, layerOf(from), imported, layerOf(to))
			case toDriver != "" && from != "server" && !strings.HasSuffix(from, "test"):
				t.Errorf("%s imports the driver %s; only server does", p.ImportPath, imported)
			}
			if internal && to == "config" && from != "server" && layerOf(from) < layerOf("servertest") {
				t.Errorf("%s imports config; only server and cmd do", p.ImportPath)
			}
		}
	}
}

func TestTestHelpersStayInTests(t *testing.T) {
	for _, p := range packages(t) {
		for _, imported := range p.Imports {
			from, _, _ := split(p.ImportPath)
			to, _, _ := split(imported)
			if (to == "pushertest" || to == "servertest") && layerOf(from) < layerOf("servertest") {
				t.Errorf("%s imports %s outside of its tests", p.ImportPath, imported)
			}
		}
	}
}
