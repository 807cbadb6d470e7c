package pushertest

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestTalkIsCutIntoConversationsAndSteps(t *testing.T) {
	got, err := parseTalk(`# about
== 1. first

a> subscribe x
a< {"event":"e",
   "channel":"x"}
app other-id
http< 200 {}
== 2. second
b2> text a> b
`)
	if err != nil {
		t.Fatal(err)
	}
	want := []talk{
		{"1. first", []step{
			{4, "a", '>', "subscribe x"},
			{5, "a", '<', `{"event":"e","channel":"x"}`},
			{7, "", 0, "other-id"},
			{8, "http", '<', "200 {}"},
		}},
		{"2. second", []step{{10, "b2", '>', "text a> b"}}},
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(talk{}, step{})); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}

func TestTalkWithAMistakeNamesTheLine(t *testing.T) {
	for source, want := range map[string]string{
		"a> subscribe x":       "1: a conversation begins",
		"== t\n  more":         "2: nothing to continue",
		"== t\n\nA> x":         "3: want NAME>",
		"== t\na subscribes x": "2: want NAME>",
		"== t\n== u\na> cut":   `0: conversation "t" is empty`,
	} {
		if _, err := parseTalk(source); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want %q", source, err, want)
		}
	}
}

func TestPlaceholdersAreFilledIn(t *testing.T) {
	c := &Client{App: appB, SocketID: "1234.5678", t: t}
	r := &runner{t: t, app: appB, clients: map[string]*Client{"a": c}}
	for text, want := range map[string]string{
		"{{key}} {{id}} {{socket a}}":            "app-key app-id 1234.5678",
		`{"a":{"b":"{{repeat 3 xy}}"}}`:          `{"a":{"b":"xyxyxy"}}`,
		`{"auth":"{{auth private-room}}"}`:       `{"auth":"app-key:eac53072418f048540e99a8514ba31f8f84de872c812c2511c014ab7da4cd25f"}`,
		`{{auth presence-room {"user_id":2}}}`:   "app-key:52660f3a9fc42fe5cef96ae13731cdf9ceaadf87028851c038712cdc561a898f",
		`{{auth private-room }}`:                 "app-key:af54ee757f4ae5b0bd1ab8cba243b6bd3c36c8263fe1c1d3ad532be9b2bc4935",
		`"{{signin {"id":"42"}}}"`:               `"app-key:bad09d1aa98d9ffccc94c727f2b4e44869d55b80bd90d1f9ee89317bf95b480a"`,
		`{{"not a placeholder"}} {{authenticate`: `{{"not a placeholder"}} {{authenticate`,
	} {
		got, err := r.fill(c, text)
		if err != nil || got != want {
			t.Errorf("%s: got %s, %v, want %s", text, got, err, want)
		}
	}
	for _, text := range []string{"{{auth private-x}}", "{{repeat x y}}", "{{key"} {
		if got, err := r.fill(nil, text); err == nil {
			t.Errorf("%s: got %s, want an error", text, got)
		}
	}
}
