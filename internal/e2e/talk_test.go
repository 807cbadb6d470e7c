package e2e

import (
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"sockudo/internal/pushertest"
)

var titleLine = regexp.MustCompile(`(?m)^== ([0-9, ]+)\. `)

// runTalk runs a file of conversations and books the items that its titles name.
func runTalk(t *testing.T, name, addr string, apps ...pushertest.App) {
	t.Helper()
	path := "testdata/" + name + ".talk"
	source, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, title := range titleLine.FindAllStringSubmatch(string(source), -1) {
		for number := range strings.SplitSeq(title[1], ",") {
			n, err := strconv.Atoi(strings.TrimSpace(number))
			if err != nil {
				t.Fatal(err)
			}
			items(t, n)
		}
	}
	pushertest.RunTalk(t, path, pushertest.Env{Addrs: []string{addr}, Apps: apps})
}

func TestConversations(t *testing.T) {
	s := serve(t, nil)
	for _, name := range []string{"public", "private", "presence", "clientevents", "cache", "counts", "users", "publish", "queries"} {
		t.Run(name, func(t *testing.T) {
			runTalk(t, name, s.Addr, plain, appB, appC, appNamed("quiet"), appNamed("small"), appNamed("nosignin"))
		})
	}
}
