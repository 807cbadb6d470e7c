package protocol

import (
	"encoding/json"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestVersions(t *testing.T) {
	for value, code := range map[string]int{
		"5": 0, "6": 0, "7": 0, "": 0, "07": 0,
		"abc": 4006, "7.0": 4006, "-": 4006, "+7": 4006, " 7": 4006, "0x7": 4006, "٧": 4006,
		"4": 4007, "0": 4007, "8": 4007, "99": 4007, "-1": 4007, "99999999999999999999999": 4007, "-99999999999999999999999": 4007,
	} {
		err := CheckVersion(value, false)
		got := 0
		if err != nil {
			got = err.Code
		}
		if got != code {
			t.Errorf("protocol=%s: %d, want %d", value, got, code)
		}
	}
	if err := CheckVersion("", true); err == nil || err.Code != 4008 {
		t.Errorf("strict and absent: %v", err)
	}
}

func TestSocketIDs(t *testing.T) {
	form := regexp.MustCompile(`^\d+\.\d+$`)
	seen := map[string]bool{}
	for range 10_000 {
		n := NewSocketID()
		id := n.String()
		if !form.MatchString(id) || !ValidSocketID(id) || seen[id] {
			t.Fatalf("socket id %q", id)
		}
		if back, ok := ParseSocketID(id); !ok || back != n {
			t.Fatalf("%q was read as %v, %v", id, back, ok)
		}
		seen[id] = true
	}
	if text, err := json.Marshal(SocketID(7<<32 | 42)); string(text) != `"7.42"` || err != nil {
		t.Errorf("as JSON: %s, %v", text, err)
	}
	for _, other := range []string{"", ".", "1", "1.", ".1", "1.2.3", "1.02", "01.2", "1.4294967296", "+1.2", "1.2 "} {
		if id, ok := ParseSocketID(other); ok {
			t.Errorf("%q was read as %v", other, id)
		}
	}
	for _, bad := range []string{"", ".", "1", "1.", ".1", "1.2.3", "a.b", "1.2\n", "-1.2", "1 .2", "١.٢", strings.Repeat("1", 40) + "." + strings.Repeat("1", 40)} {
		if ValidSocketID(bad) {
			t.Errorf("%q is valid", bad)
		}
	}
}

func TestKindsOfChannels(t *testing.T) {
	for name, want := range map[string]Kind{
		"private-encrypted-cache-x": Private | Encrypted | Cached,
		"private-encrypted-x":       Private | Encrypted,
		"private-cache-x":           Private | Cached,
		"private-x":                 Private,
		"presence-cache-x":          Private | Presence | Cached,
		"presence-x":                Private | Presence,
		"cache-x":                   Cached,
		"#server-to-user-1":         User,
		"#foo":                      Invalid,
		"x":                         0, "": 0, "Private-x": 0, "Cache-x": 0, "my-cache-x": 0,
		"private-mycache-x": Private, "private-cache": Private, "private-": Private,
		"cache-private-x": Cached, "presence-encrypted-x": Private | Presence, "private-encrypted": Private,
	} {
		if got := KindOf(name); got != want {
			t.Errorf("%s: %b, want %b", name, got, want)
		}
	}
}

func TestNamesOfChannels(t *testing.T) {
	for name, want := range map[string]bool{
		"foo-bar_1234@=,.;": true, "a": true, "#server-to-user-1": true, "#server-to-user-a b/é:": true,
		"": false, "#server-to-user-": false, "#": false, "#foo": false, "a b": false, "a/b": false, "a:b": false,
		"ü": false, "a#b": false, "a\x00": false, "a\n": false, "#server-to-user-\xff": false,
	} {
		if got := ValidChannel(name); got != want {
			t.Errorf("%q: %v, want %v", name, got, want)
		}
	}
}

// Every frame of section 2.2, as the document writes it.
func TestFramesAreExactlyThoseOfTheProtocol(t *testing.T) {
	members := func(yield func(Member) bool) { yield(Member{"1", `{"name":"Ann"}`}) }
	for _, f := range []struct {
		got  []byte
		want string
	}{
		{AppendEstablished(nil, "445294.25458239", 120), `{"event":"pusher:connection_established","data":"{\"socket_id\":\"445294.25458239\",\"activity_timeout\":120}"}`},
		{AppendError(nil, 4009, `say "no"`), `{"event":"pusher:error","data":{"code":4009,"message":"say \"no\""}}`},
		{[]byte(Ping), `{"event":"pusher:ping","data":"{}"}`},
		{[]byte(Pong), `{"event":"pusher:pong","data":"{}"}`},
		{AppendSucceeded(nil, "x"), `{"event":"pusher_internal:subscription_succeeded","channel":"x","data":"{}"}`},
		{AppendPresence(nil, "presence-x", members), `{"event":"pusher_internal:subscription_succeeded","channel":"presence-x","data":"{\"presence\":{\"ids\":[\"1\"],\"hash\":{\"1\":{\"name\":\"Ann\"}},\"count\":1}}"}`},
		{AppendMemberAdded(nil, "presence-x", Member{"2", `{"name":"Bob"}`}), `{"event":"pusher_internal:member_added","channel":"presence-x","data":"{\"user_id\":\"2\",\"user_info\":{\"name\":\"Bob\"}}"}`},
		{AppendMemberAdded(nil, "presence-x", Member{ID: "2"}), `{"event":"pusher_internal:member_added","channel":"presence-x","data":"{\"user_id\":\"2\",\"user_info\":{}}"}`},
		{AppendMemberRemoved(nil, "presence-x", "2"), `{"event":"pusher_internal:member_removed","channel":"presence-x","data":"{\"user_id\":\"2\"}"}`},
		{AppendCount(nil, "x", 5), `{"event":"pusher_internal:subscription_count","channel":"x","data":"{\"subscription_count\":5}"}`},
		{AppendSubscriptionError(nil, &SubscriptionError{Channel: "private-x", Type: TypeAuthError, Status: 401, Message: "…"}), `{"event":"pusher:subscription_error","channel":"private-x","data":"{\"type\":\"AuthError\",\"error\":\"…\",\"status\":401}"}`},
		{AppendCacheMiss(nil, "cache-x"), `{"event":"pusher:cache_miss","channel":"cache-x","data":"{}"}`},
		{AppendEvent(nil, "my-event", "x", []byte(`{\"a\":1}`), ""), `{"event":"my-event","channel":"x","data":"{\"a\":1}"}`},
		{AppendEvent(nil, "client-typing", "presence-x", []byte(`{\"on\":true}`), "1"), `{"event":"client-typing","channel":"presence-x","data":"{\"on\":true}","user_id":"1"}`},
		{AppendSigninSuccess(nil, `{"id":"42"}`), `{"event":"pusher:signin_success","data":"{\"user_data\":\"{\\\"id\\\":\\\"42\\\"}\"}"}`},
		{AppendWatchlist(nil, []string{"7"}, nil), `{"event":"pusher_internal:watchlist_events","data":"{\"events\":[{\"name\":\"online\",\"user_ids\":[\"7\"]}]}"}`},
		{AppendWatchlist(nil, []string{"7"}, []string{"8", "9"}), `{"event":"pusher_internal:watchlist_events","data":"{\"events\":[{\"name\":\"online\",\"user_ids\":[\"7\"]},{\"name\":\"offline\",\"user_ids\":[\"8\",\"9\"]}]}"}`},
	} {
		if diff := cmp.Diff(f.want, string(f.got)); diff != "" {
			t.Error(diff)
		}
		if !json.Valid(f.got) {
			t.Errorf("not JSON: %s", f.got)
		}
	}
}

func TestEmptyPresenceIsWellFormed(t *testing.T) {
	got := string(AppendPresence(nil, "presence-x", func(func(Member) bool) {}))
	if want := `{"event":"pusher_internal:subscription_succeeded","channel":"presence-x","data":"{\"presence\":{\"ids\":[],\"hash\":{},\"count\":0}}"}`; got != want {
		t.Errorf("%s", got)
	}
}

func TestSubscribeIsReadInBothForms(t *testing.T) {
	data := `{"user_id":"1"}`
	want := Subscribe{Channel: "presence-é", Auth: "k:s", ChannelData: &data}
	for _, frame := range []string{
		`{"event":"pusher:subscribe","data":{"auth":"k:s","channel_data":"{\"user_id\":\"1\"}","channel":"presence-\u00e9"}}`,
		`{"data":"{\"auth\":\"k:s\",\"channel_data\":\"{\\\"user_id\\\":\\\"1\\\"}\",\"channel\":\"presence-é\"}","event":"pusher:subscribe"}`,
	} {
		m, err := Decode([]byte(frame))
		if err != nil {
			t.Fatal(err)
		}
		got, err := DecodeSubscribe(m.Data)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
	}
	for _, bad := range []string{`{"channel":"x","auth":5}`, `{"channel":"x","channel_data":{}}`, `{"channel":null}`, `[]`, `5`} {
		v, err := ScanValue([]byte(bad))
		if err != nil {
			t.Fatal(err)
		}
		if s, err := DecodeSubscribe(v); err == nil {
			t.Errorf("%s was read as %+v", bad, s)
		}
	}
}

func TestMembersKeepTheLiteralOfANumber(t *testing.T) {
	for data, want := range map[string]Member{
		`{"user_id":9007199254740993}`:                   {ID: "9007199254740993"},
		`{"user_id":"10","user_info":{"a" : [1, 2.50]}}`: {ID: "10", Info: `{"a":[1,2.50]}`},
		`{"user_id":10,"user_info":null}`:                {ID: "10", Info: "null"},
		`{"user_id":"a","user_info":"x \u00e9"}`:         {ID: "a", Info: `"x \u00e9"`},
		`{"user_id":"a","user_id":"b"}`:                  {ID: "b"},
	} {
		got, err := DecodeMember(data)
		if err != nil || got != want {
			t.Errorf("%s: %+v, %v, want %+v", data, got, err, want)
		}
	}
	for _, bad := range []string{``, `{}`, `[]`, `{"user_id":""}`, `{"user_id":true}`, `{"user_id":null}`, `{"user_id":{}}`, `{"user_id":"1"`, `{"user_id":01}`} {
		if m, err := DecodeMember(bad); err == nil {
			t.Errorf("%s was read as %+v", bad, m)
		}
	}
}

func TestUserData(t *testing.T) {
	u, err := DecodeUserData(`{"id":"42","user_info":{"n": 1},"watchlist":["7",8,"7",null,true,"",{"x":1}],"more":1}`)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(UserData{ID: "42", Info: `{"n":1}`, Watchlist: []string{"7", "8"}}, u); diff != "" {
		t.Error(diff)
	}
	for _, bad := range []string{`{"id":42}`, `{"id":""}`, `{}`, `x`, `{"id":"` + strings.Repeat("é", 200) + `"}`} {
		if _, err := DecodeUserData(bad); err == nil {
			t.Errorf("%s was accepted", bad)
		}
	}
}
