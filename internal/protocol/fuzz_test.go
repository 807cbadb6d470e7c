package protocol

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"
)

var frames = []string{
	`{"event":"pusher:subscribe","data":{"auth":"","channel":"my-channel"}}`,
	`{"event":"client-x","channel":"private-x","data":{"on":[1,-2.5e+10,true,null,"\ud83d\ude00\u00e9\n\\"]}}`,
	`{"event":"x","event":"y"}`, `{"\u0065vent":"x"}`, `{"event":"\ud800"}`, `{"event":5}`, `[]`, `"x"`, `5`, `null`, `{}`, ``, ` `,
	`{"a":01}`, `{"a":1.}`, `{"a":.5}`, `{"a":1e}`, `{"a":+1}`, `{"a":-}`, `{"a":"\x"}`, `{"a":"\u12"}`, "{\"a\":\"\x01\"}", `{"a":tru}`, `{"a":1,}`, `{,}`, `{"a"}`, `{"a":1}}`,
	strings.Repeat("[", 300), strings.Repeat(`{"a":`, 300),
}

// depth returns how deeply valid JSON is nested.
func depth(text []byte) int {
	most, now, inString := 0, 0, false
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case inString && c == '\\':
			i++
		case c == '"':
			inString = !inString
		case inString:
		case c == '{' || c == '[':
			now++
			most = max(most, now)
		case c == '}' || c == ']':
			now--
		}
	}
	return most
}

// The scanner accepts exactly what encoding/json accepts, up to its depth, and
// finds the same values.
func FuzzScanEqualsEncodingJSON(f *testing.F) {
	for _, s := range frames {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		if !utf8.Valid(text) {
			return // the transport has refused it before
		}
		v, err := ScanValue(text)
		valid := json.Valid(text) && depth(text) <= MaxDepth
		if valid != (err == nil) {
			t.Fatalf("%q: valid is %v, the scanner says %v", text, valid, err)
		}
		if err != nil {
			return
		}
		switch v.Kind {
		case String:
			var want string
			if err := json.Unmarshal(text, &want); err != nil {
				t.Fatal(err)
			}
			if got := v.Text(); got != want || v.Size() != len(want) {
				t.Fatalf("%q: text %q of size %d, want %q", text, got, v.Size(), want)
			}
			again, err := ScanValue([]byte(`"` + string(v.AppendSpan(nil)) + `"`))
			if err != nil || again.Text() != want {
				t.Fatalf("%q: its span is not the same string: %v", text, err)
			}
		case Object:
			var want map[string]json.RawMessage
			if err := json.Unmarshal(text, &want); err != nil {
				t.Fatal(err)
			}
			got := map[string]string{}
			if err := ScanObject(text, func(key, v Value) {
				raw := string(v.Raw)
				if v.Kind == String {
					raw = `"` + raw + `"`
				}
				got[key.Text()] = raw
			}); err != nil {
				t.Fatal(err)
			}
			if len(got) != len(want) {
				t.Fatalf("%q: %d members, want %d", text, len(got), len(want))
			}
			for k, raw := range want {
				if got[k] != string(raw) {
					t.Fatalf("%q: member %q is %q, want %q", text, k, got[k], raw)
				}
			}
		}
	})
}

// Whatever a client sends, the frames made from it are JSON and carry it
// unchanged.
func FuzzClientEventSurvivesTheRelay(f *testing.F) {
	for _, s := range frames {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, frame []byte) {
		if !utf8.Valid(frame) {
			return
		}
		m, err := Decode(frame)
		if err != nil {
			return
		}
		out := AppendEvent(nil, m.Event, m.Channel.Text(), m.Data.AppendSpan(nil), "user")
		var got struct{ Event, Channel, Data string }
		if err := json.Unmarshal(out, &got); err != nil {
			t.Fatalf("%q became %q: %v", frame, out, err)
		}
		want := "null"
		if m.Data.Kind != Absent {
			want = m.Data.Text()
		}
		if got.Data != want || got.Event != m.Event {
			t.Fatalf("%q became %q", frame, out)
		}
	})
}

// No data of a protocol event can make the decoders fail in any other way than
// by an error.
func FuzzProtocolEvents(f *testing.F) {
	for _, s := range append(frames, `{"user_id":1,"user_info":{}}`, `{"id":"1","watchlist":["a",1]}`, `"{\"channel\":\"x\"}"`) {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if !utf8.ValidString(text) {
			return
		}
		if v, err := ScanValue([]byte(text)); err == nil {
			if s, err := DecodeSubscribe(v); err == nil && !json.Valid(AppendSucceeded(nil, s.Channel)) {
				t.Fatal("unusable success frame")
			}
			DecodeSignin(v)
		}
		if m, err := DecodeMember(text); err == nil {
			if m.ID == "" || m.Info != "" && !json.Valid([]byte(m.Info)) {
				t.Fatalf("member %+v", m)
			}
			if !json.Valid(AppendMemberAdded(nil, "presence-x", m)) {
				t.Fatal("unusable member frame")
			}
		}
		if u, err := DecodeUserData(text); err == nil && (u.ID == "" || Length(u.ID) > MaxSigninIDLength) {
			t.Fatalf("user %+v", u)
		}
	})
}

func FuzzChannelNames(f *testing.F) {
	for _, s := range []string{"x", "private-encrypted-cache-", "presence-", "#server-to-user-é", "#", "a b", "\xff", "cache-:"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, name string) {
		k := KindOf(name)
		if k.Is(Presence) && !k.Is(Private) || k.Is(Encrypted) && !k.Is(Private) {
			t.Fatalf("%q is %b", name, k)
		}
		if k.Is(Invalid) && ValidChannel(name) {
			t.Fatalf("%q is valid", name)
		}
		if ValidChannel(name) && !k.Is(User) && strings.ContainsAny(name, ": #/\n\"\\") {
			t.Fatalf("%q is valid", name)
		}
	})
}

func FuzzEscaping(f *testing.F) {
	for _, s := range []string{"", "é\u2028\u2029\x00\x1f\x7f\"\\/", "\xff\xc0", "\U0001F600"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		out := AppendString(nil, s)
		if !bytes.Equal(out, AppendString(nil, []byte(s))) {
			t.Fatal("strings and bytes are escaped differently")
		}
		var got string
		if err := json.Unmarshal(out, &got); err != nil {
			t.Fatalf("%q: %v", out, err)
		}
		if want := strings.ToValidUTF8(s, "\ufffd"); utf8.ValidString(s) && got != want {
			t.Fatalf("%q became %q", s, got)
		}
	})
}
