package httpapi

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"unicode/utf8"

	"sockudo/internal/protocol"
	"sockudo/internal/sign"
)

// published returns what encoding/json finds in an event that was accepted.
func published(t *testing.T, body []byte) (channels []string, data string) {
	t.Helper()
	var members map[string]json.RawMessage
	if err := json.Unmarshal(body, &members); err != nil {
		t.Fatalf("accepted what is not JSON: %v", err)
	}
	var name string
	if err := json.Unmarshal(members["name"], &name); err != nil || name == "" || protocol.ReservedEvent(name) {
		t.Fatalf("accepted the name %q (%v)", name, err)
	}
	_ = json.Unmarshal(members["channels"], &channels)
	if len(channels) == 0 {
		channels = make([]string, 1)
		if err := json.Unmarshal(members["channel"], &channels[0]); err != nil {
			t.Fatalf("accepted without a channel: %v", err)
		}
	}
	raw, ok := members["data"]
	if !ok {
		t.Fatal("accepted without data")
	}
	if json.Unmarshal(raw, &data) != nil || raw[0] != '"' {
		var compact bytes.Buffer
		if err := json.Compact(&compact, raw); err != nil {
			t.Fatal(err)
		}
		data = compact.String()
	}
	return channels, data
}

// What is accepted is what encoding/json reads, and reaches clients as text.
func FuzzEvents(f *testing.F) {
	for _, body := range []string{
		benchBody,
		`{"name":"e","channel":"cache-x","data":"{\"a\":\"\ud83d\ude00\\n\"}"}`,
		`{"name":"e","channel":"cache-x","data":{"a":[1, 2.50e+1, null, "\u0041\u2028"]}}`,
		`{"name":"e\\x","channels":["cache-a","cache-b","cache-a"],"data":null,"socket_id":"1.2","info":"user_count"}`,
		`{"name":"e","name":"f","channel":5,"channel":"private-encrypted-cache-x","data":"\ud800"}`,
		`{"name":"e","channel":"#server-to-user-\u0000 \u00e9","data":true}`,
		`{"name":"e","channels":[],"channel":"cache-x","data":""}`,
		`{"name":"pusher:e","channel":"x","data":""}`, `{"name":"e","channels":["a",1],"data":1}`, `[]`, `{`, ``, `{"a":{"b":[[[[]]]]}}`,
	} {
		f.Add([]byte(body))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		a := newAPI(t, Options{})
		w := a.post("/apps/app-id/events", string(body))
		if w.Code != 200 {
			if want(t, w, w.Code, slugOf(t, w)); w.Code != 400 && w.Code != 413 {
				t.Fatalf("status %d", w.Code)
			}
			return
		}
		channels, data := published(t, body)
		for _, channel := range channels {
			if !protocol.ValidChannel(channel) {
				t.Fatalf("accepted the channel %q", channel)
			}
			if !protocol.KindOf(channel).Is(protocol.Cached) {
				continue
			}
			if got := a.last("app-id", channel); got != data || !utf8.ValidString(got) {
				t.Fatalf("channel %s has %q, want %q", channel, got, data)
			}
		}
	})
}

func slugOf(t *testing.T, w *httptest.ResponseRecorder) string {
	t.Helper()
	var e struct{ Code string }
	decode(t, w, &e)
	return e.Code
}

func FuzzBatch(f *testing.F) {
	f.Add([]byte(`{"batch":[` + benchBody + `]}`))
	f.Add([]byte(`{"batch":[{"name":"e","channel":"cache-x","data":"1"},{"name":"e","channel":"cache-x","data":{"a":1},"info":"subscription_count"}]}`))
	f.Add([]byte(`{"batch":[],"batch":[{}]}`))
	f.Add([]byte(`{"b\u0061tch":[[],5]}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		a := newAPI(t, Options{})
		w := a.post("/apps/app-id/batch_events", string(body))
		if w.Code != 200 {
			if a.last("app-id", "cache-x") != "nothing" {
				t.Fatal("a part of a refused batch was published")
			}
			if want(t, w, w.Code, slugOf(t, w)); w.Code != 400 && w.Code != 413 {
				t.Fatalf("status %d", w.Code)
			}
			return
		}
		var members map[string]json.RawMessage
		if err := json.Unmarshal(body, &members); err != nil {
			t.Fatal(err)
		}
		var events []json.RawMessage
		if err := json.Unmarshal(members["batch"], &events); err != nil || len(events) > 10 {
			t.Fatalf("accepted %d events (%v)", len(events), err)
		}
		for _, e := range events {
			var one map[string]json.RawMessage
			if err := json.Unmarshal(e, &one); err != nil {
				t.Fatal(err)
			}
			delete(one, "channels") // does not count in a batch
			text, err := json.Marshal(one)
			if err != nil {
				t.Fatal(err)
			}
			published(t, text)
		}
		var answer struct{ Batch []map[string]int }
		decode(t, w, &answer)
		if answer.Batch != nil && len(answer.Batch) != len(events) {
			t.Fatalf("%d answers to %d events", len(answer.Batch), len(events))
		}
	})
}

// No request, however it is put together, is an error of the server.
func FuzzRequests(f *testing.F) {
	f.Add("GET", "/apps/app-id/channels/presence-x", "info=user_count", "")
	f.Add("POST", "/apps/app-id/events", "name=e&channel=x&data=1;2", "")
	f.Add("POST", "/mount/apps/app-id/users/a%2fb/terminate_connections", "", "{}")
	f.Add("HEAD", "/apps/app-id/channels/%ff/users", "filter_by_prefix=%zz", "x")
	f.Add("GET", "/up/%00/", "", "")
	f.Add("POST", "/apps/app-id/channels/cache-x/events", "name=e&socket_id=1.2", "\xff")
	f.Fuzz(func(t *testing.T, method, path, query, body string) {
		r, err := http.NewRequest(method, "http://host"+path+"?"+query, strings.NewReader(body))
		if err != nil {
			return // net/http would not let it through
		}
		a := newAPI(t, Options{PathPrefix: "/mount", Usage: true, Stats: true})
		signed := url.Values{}
		for key, values := range r.URL.Query() {
			signed[key] = values[:1]
		}
		r.URL.RawQuery = sign.Query("app-key", "app-secret", r.Method, r.URL.EscapedPath(), signed, []byte(body), clock)
		w := a.do(r)
		if w.Code >= 500 && !strings.Contains(path, "up") {
			t.Fatalf("status %d: %s", w.Code, w.Body)
		}
		if w.Code >= 400 && r.Method != http.MethodHead && w.Header().Get("Content-Type") == "application/json" {
			want(t, w, w.Code, slugOf(t, w))
		}
	})
}
