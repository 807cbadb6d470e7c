package pushertest

import (
	"strings"
	"testing"
)

func TestPatternsMatchWhatTheySay(t *testing.T) {
	for _, tt := range []struct {
		pattern, got, err string // err "": matches
	}{
		{`{"a":1,"b":"x"}`, `{"b":"x","a":1}`, ""},
		{`{"a":1}`, `{"a":1,"b":2}`, `it has "b", which was not expected`},
		{`{"a":1,"b":2}`, `{"a":1}`, `it has no "b"`},
		{`{"a":1,…}`, `{"a":1,"b":2}`, ""},
		{`{…}`, `{}`, ""},
		{`{"a":1, … }`, `{"a":2}`, `a is 2, want 1`},
		{`{"a":…}`, `{"a":{"b":null}}`, ""},
		{`{"a":…}`, `{}`, `it has no "a"`},
		{`{"a":…,"b":1}`, `{"a":2,"b":1}`, ""},
		{`[1,…]`, `[1,2,3]`, ""},
		{`[1,…]`, `[]`, "it has 0 elements, want 1"},
		{`[1]`, `[1,2]`, "it has 2 elements, want 1"},
		{`[…,2]`, `[1,2]`, ""},
		{`{"a":"Invalid … 'x…'"}`, `{"a":"Invalid key: 'xyz'"}`, ""},
		{`{"a":"Invalid … 'x…'"}`, `{"a":"Invalid key: 'y'"}`, "a is"},
		{`{"a":"…"}`, `{"a":5}`, "a is 5"},
		{`{"a":9007199254740993}`, `{"a":9007199254740992}`, "a is 9007199254740992"},
		{`{"a":1}`, `{"a":1.0}`, "a is 1.0"},
		{`{"a":true,"b":null,"c":-1.5e3}`, `{"a":true,"b":null,"c":-1.5e3}`, ""},
		{`{"a":json{"b":[1,…],…}}`, `{"a":"{\"c\":0,\"b\":[1,2]}"}`, ""},
		{`{"a":json{"b":1}}`, `{"a":{"b":1}}`, "a is not a string"},
		{`{"a":json{"b":1}}`, `{"a":"b"}`, "a holds no JSON"},
		{`{"a":json{"b":json{"c":"…"}}}`, `{"a":"{\"b\":\"{\\\"c\\\":\\\"x\\\"}\"}"}`, ""},
		{`{"a":json5,"b":json"x"}`, `{"a":"5","b":"\"x\""}`, ""},
		{`{"a":"\"…\\"}`, `{"a":"\"x\\"}`, ""},
		{`{"a":1`, `{"a":1}`, "pattern"},
		{`{"a":1}`, `{"a":1} {}`, "not JSON"},
	} {
		err := match(tt.pattern, tt.got)
		if tt.err == "" && err != nil || tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err)) {
			t.Errorf("%s against %s: got %v, want %q", tt.pattern, tt.got, err, tt.err)
		}
	}
}

func TestFramesToSendMayHoldJSONInStrings(t *testing.T) {
	got, err := compile(`{"data":json{"user_id":"1","n":"…<"},"x":"json{"}`, false)
	if err != nil {
		t.Fatal(err)
	}
	if want := `{"data":"{\"user_id\":\"1\",\"n\":\"…<\"}","x":"json{"}`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}
