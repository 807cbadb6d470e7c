package natsbus

import (
	"strings"
	"testing"
)

func TestSubjectsAreLegalAndReadable(t *testing.T) {
	for topic, want := range map[string]string{
		"sockudo:dir":               "sockudo.dir",
		"sockudo:c:app:presence-a":  "sockudo.c.app.presence-a",
		"p:a.b":                     "p.a%2Eb",
		"p:*:>":                     "p.%2A.%3E",
		"$SYS:x":                    "%24SYS.x",
		"p::x:":                     "p.%_.x.%_",
		"":                          "%_",
		"100%":                      "100%25",
		"p:#server-to-user-a@b,c;d": "p.#server-to-user-a@b,c;d",
	} {
		if got := subject(topic); got != want {
			t.Errorf("subject(%q) = %q, want %q", topic, got, want)
		}
	}
}

func FuzzSubject(f *testing.F) {
	for _, s := range []string{"sockudo:c:app:a.b", "::", "%_", "%2E", "%", "a b\r\n\x00é"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		subj := subject(s)
		if back := topic(subj); back != s {
			t.Errorf("%q became %q and then %q", s, subj, back)
		}
		for token := range strings.SplitSeq(subj, ".") {
			if token == "" || strings.ContainsAny(token, " \t\r\n*>") {
				t.Errorf("%q became %q with the token %q", s, subj, token)
			}
		}
	})
}

func FuzzTopic(f *testing.F) {
	for _, s := range []string{"a.b", "%", "%2", "%ZZ", "%_", ""} {
		f.Add(s)
	}
	f.Fuzz(func(_ *testing.T, s string) { topic(s) }) // what others publish must not panic
}
