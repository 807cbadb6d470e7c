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
func runTalk(t *testing.T, name string, env pushertest.Env) {
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
	env.Apps = []pushertest.App{plain, appB, appC, appNamed("quiet"), appNamed("small"), appNamed("nosignin")}
	pushertest.RunTalk(t, path, env)
}

var talks = []string{"public", "private", "presence", "clientevents", "cache", "counts", "users", "publish", "queries"}

func TestConversations(t *testing.T) {
	s := serve(t, nil)
	for _, name := range talks {
		t.Run(name, func(t *testing.T) { runTalk(t, name, pushertest.Env{Addrs: []string{s.Addr}}) })
	}
}

// The same conversations, with each client and each call at another node than
// the one before.
func TestConversationsOnTwoNodes(t *testing.T) {
	c := serveCluster(t, 2, nil)
	settle := settler(t, c)
	for _, name := range talks {
		t.Run(name, func(t *testing.T) { runTalk(t, name, pushertest.Env{Addrs: c.Addrs(), Settle: settle}) })
	}
}
