package httpapi

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"

	"sockudo/internal/app"
	"sockudo/internal/sign"
)

// last returns the data string that a cache channel would replay.
func (a *api) last(appID, channel string) string {
	a.t.Helper()
	data, _, ok, err := a.node.LastEvent(a.t.Context(), &app.App{ID: appID}, channel)
	if err != nil {
		a.t.Fatal(err)
	}
	if !ok {
		return "nothing"
	}
	return data
}

func TestEventsThatAreRefused(t *testing.T) {
	long := strings.Repeat("x", 201)
	for _, c := range []struct {
		name, body string
		status     int
		slug       string
	}{
		{"no JSON", `{`, 400, "invalid_input"},
		{"nothing", ` `, 400, "invalid_input"},
		{"empty", ``, 400, "invalid_input"},
		{"an array", `[]`, 400, "invalid_input"},
		{"more behind it", `{"name":"e","channel":"cache-x","data":"1"} {}`, 400, "invalid_input"},
		{"invalid UTF-8", "{\"name\":\"e\",\"channel\":\"cache-x\",\"data\":\"\xff\"}", 400, "invalid_input"},
		{"too deep", `{"name":"e","channel":"cache-x","data":` + strings.Repeat("[", 300) + strings.Repeat("]", 300) + `}`, 400, "invalid_input"},
		{"no name", `{"channel":"cache-x","data":"1"}`, 400, "invalid_input"},
		{"empty name", `{"name":"","channel":"cache-x","data":"1"}`, 400, "invalid_input"},
		{"numeric name", `{"name":5,"channel":"cache-x","data":"1"}`, 400, "invalid_input"},
		{"null name", `{"name":null,"channel":"cache-x","data":"1"}`, 400, "invalid_input"},
		{"long name", `{"name":"` + long + `","channel":"cache-x","data":"1"}`, 400, "limit_exceeded"},
		{"reserved name", `{"name":"pusher:x","channel":"cache-x","data":"1"}`, 400, "invalid_input"},
		{"reserved name, escaped", `{"name":"push\u0065r_internal:x","channel":"cache-x","data":"1"}`, 400, "invalid_input"},
		{"no data", `{"name":"e","channel":"cache-x"}`, 400, "invalid_input"},
		{"no channel", `{"name":"e","data":"1"}`, 400, "missing_channel_info"},
		{"null channels", `{"name":"e","data":"1","channels":null,"channel":null}`, 400, "missing_channel_info"},
		{"empty channels", `{"name":"e","data":"1","channels":[]}`, 400, "missing_channel_info"},
		{"numeric channel", `{"name":"e","data":"1","channel":5}`, 400, "invalid_input"},
		{"channels as a string", `{"name":"e","data":"1","channels":"cache-x"}`, 400, "invalid_input"},
		{"a channel that is no string", `{"name":"e","data":"1","channels":["cache-x",5]}`, 400, "invalid_input"},
		{"an invalid channel among others", `{"name":"e","data":"1","channels":["cache-x","no good"]}`, 400, "invalid_input"},
		{"an invalid # channel", `{"name":"e","data":"1","channels":["cache-x","#foo"]}`, 400, "invalid_input"},
		{"a long channel", `{"name":"e","data":"1","channels":["cache-x","` + long + `"]}`, 400, "limit_exceeded"},
		{"encrypted among others", `{"name":"e","data":"1","channels":["cache-x","private-encrypted-x"]}`, 400, "invalid_input"},
		{"bad socket id", `{"name":"e","data":"1","channel":"cache-x","socket_id":"1"}`, 400, "invalid_input"},
		{"empty socket id", `{"name":"e","data":"1","channel":"cache-x","socket_id":""}`, 400, "invalid_input"},
		{"numeric socket id", `{"name":"e","data":"1","channel":"cache-x","socket_id":1.2}`, 400, "invalid_input"},
		{"info as an array", `{"name":"e","data":"1","channel":"cache-x","info":["user_count"]}`, 400, "invalid_input"},
		{"large data", `{"name":"e","channel":"cache-x","data":"` + strings.Repeat("x", 100<<10+1) + `"}`, 413, "payload_too_large"},
		{"large data that is an object", `{"name":"e","channel":"cache-x","data":{"a":"` + strings.Repeat("x", 100<<10-7) + `"}}`, 413, "payload_too_large"},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := newAPI(t, Options{})
			want(t, a.post("/apps/app-id/events", c.body), c.status, c.slug)
			if got := a.last("app-id", "cache-x"); got != "nothing" {
				t.Errorf("published %s", got)
			}
			// The same as the second of a batch: nothing of the batch is published.
			if strings.HasPrefix(c.body, "{") && !strings.Contains(c.body, `"channels":`) {
				w := a.post("/apps/app-id/batch_events", `{"batch":[{"name":"e","channel":"cache-x","data":"first"},`+c.body+`]}`)
				if want(t, w, c.status, c.slug); a.last("app-id", "cache-x") != "nothing" {
					t.Error("the first event of the batch was published")
				}
			}
		})
	}
}

func TestDataBecomesAString(t *testing.T) {
	for _, c := range []struct{ data, want string }{
		{`""`, ""}, {`"{\"a\":1}"`, `{"a":1}`}, {`"\u00e9\ud83d\ude00\n\/"`, "é😀\n/"}, {`null`, "null"}, {`true`, "true"}, {`-1.50E+3`, "-1.50E+3"},
		{`{ "a" : [ 1 , "x y" ] }`, `{"a":[1,"x y"]}`}, {" [ ] ", "[]"}, {`{"b":"\u0041<>&"}`, `{"b":"\u0041<>&"}`}, {`{"a":1,"a":2}`, `{"a":1,"a":2}`},
		{`"` + strings.Repeat("é", 50<<10) + `"`, strings.Repeat("é", 50<<10)},
		{`"` + strings.Repeat(`\u00e9`, 50<<10) + `"`, strings.Repeat("é", 50<<10)}, // the limit is on what is sent, not on how it is written
		{`{"a" : "` + strings.Repeat("x", 100<<10-8) + `"}`, `{"a":"` + strings.Repeat("x", 100<<10-8) + `"}`},
	} {
		a := newAPI(t, Options{})
		w := a.post("/apps/app-id/events", `{"name":"e","channel":"cache-x","data":`+c.data+`}`)
		if want(t, w, 200, ""); w.Body.String() != "{}" || w.Header().Get("Content-Type") != "application/json" {
			t.Errorf("answer %s %v", w.Body, w.Header())
		}
		if diff := cmp.Diff(c.want, a.last("app-id", "cache-x")); diff != "" {
			t.Errorf("data (-want +got):\n%s", diff)
		}
	}
}

func TestLastOfRepeatedKeysCounts(t *testing.T) {
	a := newAPI(t, Options{})
	want(t, a.post("/apps/app-id/events", `{"name":5,"data":{},"channel":"cache-a","name":"e","d\u0061ta":"2","channel":"cache-x"}`), 200, "")
	if a.last("app-id", "cache-x") != "2" || a.last("app-id", "cache-a") != "nothing" {
		t.Error("another than the last of the repeated keys counted")
	}
}

func TestTargets(t *testing.T) {
	a := newAPI(t, Options{})
	for _, c := range []struct {
		members string
		want    map[string]map[string]int // by channel, of the answer
	}{
		{`"channels":["a","presence-b"],"channel":"c","info":" user_count , subscription_count ,nonsense"`, map[string]map[string]int{"a": {"subscription_count": 0}, "presence-b": {"user_count": 0, "subscription_count": 0}}},
		{`"channels":[],"channel":"c","info":"user_count"`, map[string]map[string]int{"c": {}}},
		{`"channels":["a","a","b","a"],"info":"subscription_count"`, map[string]map[string]int{"a": {"subscription_count": 0}, "b": {"subscription_count": 0}}},
		{`"channels":["private-encrypted-a","private-encrypted-a"],"info":"subscription_count"`, map[string]map[string]int{"private-encrypted-a": {"subscription_count": 0}}},
		{`"channel":"#server-to-user-a b","info":"nonsense"`, map[string]map[string]int{"#server-to-user-a b": {}}},
		{`"channel":"a","info":null,"socket_id":null`, nil},
		{`"channel":"a","info":"","socket_id":"1.2"`, nil},
	} {
		w := a.post("/apps/app-id/events", `{"name":"client-e\\x.y","data":1,`+c.members+`}`)
		want(t, w, 200, "")
		var got struct{ Channels map[string]map[string]int }
		if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(c.want, got.Channels); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.members, diff)
		}
	}
}

func TestEventOfTheQuery(t *testing.T) {
	a := newAPI(t, Options{})
	query := url.Values{"Name": {"e"}, "channel": {"cache-x"}, "data": {"a;b&c\"\\é"}, "info": {"subscription_count"}}
	w := a.do(a.request(http.MethodPost, "/apps/app-id/events", "", query))
	if want(t, w, 200, ""); w.Body.String() != `{"channels":{"cache-x":{"subscription_count":0}}}` || a.last("app-id", "cache-x") != "a;b&c\"\\é" {
		t.Errorf("%s, data %s", w.Body, a.last("app-id", "cache-x"))
	}
	// Bytes that are no text do not reach clients, whose connections they would end.
	want(t, a.do(a.request(http.MethodPost, "/apps/app-id/events", "", url.Values{"name": {"e\xff"}, "channel": {"cache-x"}, "data": {"a\xffb"}})), 200, "")
	if got := a.last("app-id", "cache-x"); got != "a\ufffdb" {
		t.Errorf("data %q", got)
	}
}

func TestBatches(t *testing.T) {
	a := newAPI(t, Options{})
	event := func(members string) string { return `{"name":"e","channel":"cache-x",` + members + `}` }
	many := func(n int) string {
		return `{"batch":[` + strings.TrimSuffix(strings.Repeat(event(`"data":"1"`)+",", n), ",") + `]}`
	}
	for _, c := range []struct {
		name, body string
		status     int
		answer     string // the body, or the slug
	}{
		{"empty", `{"batch":[]}`, 200, `{}`},
		{"no info", `{"batch":[` + event(`"data":"1"`) + `,` + event(`"data":"2"`) + `]}`, 200, `{}`},
		{"info of some", `{"batch":[` + event(`"data":"1"`) + `,` + event(`"data":"2","info":"subscription_count"`) + `,{"name":"e","channel":"presence-x","data":1,"info":"user_count"}]}`, 200,
			`{"batch":[{},{"subscription_count":0},{"user_count":0}]}`},
		{"ten", many(10), 200, `{}`},
		{"eleven", many(11), 400, "limit_exceeded"},
		{"missing", `{}`, 400, "invalid_input"},
		{"null", `{"batch":null}`, 400, "invalid_input"},
		{"an object", `{"batch":{}}`, 400, "invalid_input"},
		{"no JSON", `{"batch":[}`, 400, "invalid_input"},
		{"empty body", ``, 400, "invalid_input"},
		{"an item that is no object", `{"batch":[1]}`, 400, "invalid_input"},
		{"channels instead of channel", `{"batch":[{"name":"e","data":"1","channels":["a"]}]}`, 400, "missing_channel_info"},
	} {
		w := a.post("/apps/app-id/batch_events", c.body)
		if c.status != 200 {
			want(t, w, c.status, c.answer)
		} else if want(t, w, 200, ""); w.Body.String() != c.answer {
			t.Errorf("%s: %s, want %s", c.name, w.Body, c.answer)
		}
	}
	if got := a.last("app-id", "cache-x"); got != "1" {
		t.Errorf("last event %s", got)
	}
	w := a.post("/apps/app-id/batch_events", `{"batch":[{"name":"e","channel":"a","data":"1"},{"name":"e","channel":"a"}]}`)
	if want(t, w, 400, ""); !strings.Contains(w.Body.String(), "batch[1]: data is missing") {
		t.Errorf("the item is not named: %s", w.Body)
	}
}

func TestBodiesThatAreTooLarge(t *testing.T) {
	a := newAPI(t, Options{MaxBodyBytes: 1000})
	body := func(n int) string {
		const around = `{"name":"e","channel":"cache-x","data":""}`
		return strings.Replace(around, `""`, `"`+strings.Repeat("x", n-len(around))+`"`, 1)
	}
	want(t, a.post("/apps/app-id/events", body(1000)), 200, "")
	for _, announced := range []int64{1001, -1} {
		r := a.request(http.MethodPost, "/apps/app-id/events", body(1001), nil)
		r.ContentLength = announced
		if w := a.do(r); w.Header().Get("Connection") != "close" {
			t.Errorf("the connection stays open: %v", w.Header())
		} else {
			want(t, w, 413, "payload_too_large")
		}
	}
	// Before the signature is looked at, but after what the query alone tells.
	r := httptest.NewRequest(http.MethodPost, "/apps/app-id/events?auth_key=app-key&auth_timestamp=1700000000&auth_version=1.0&auth_signature=0", strings.NewReader(body(1001)))
	want(t, a.do(r), 413, "payload_too_large")
	r = httptest.NewRequest(http.MethodPost, "/apps/app-id/events?auth_key=other&auth_timestamp=1700000000&auth_version=1.0&auth_signature=0", strings.NewReader(body(1001)))
	want(t, a.do(r), 401, "auth_failed")
}

func TestBodyThatBreaksOff(t *testing.T) {
	a := newAPI(t, Options{})
	r := a.request(http.MethodPost, "/apps/app-id/events", benchBody, nil)
	r.Body = io.NopCloser(io.MultiReader(strings.NewReader(benchBody[:10]), iotest.ErrReader(io.ErrUnexpectedEOF)))
	want(t, a.do(r), 400, "invalid_input")
	r = a.request(http.MethodPost, "/apps/app-id/events", benchBody, nil)
	r.Body = io.NopCloser(strings.NewReader(benchBody[:10]))
	want(t, a.do(r), 401, "auth_failed") // it is not what was signed
	r = a.request(http.MethodPost, "/apps/app-id/events", benchBody, nil)
	r.Body = io.NopCloser(iotest.OneByteReader(strings.NewReader(benchBody)))
	want(t, a.do(r), 200, "")
}

func TestEitherSecretSigns(t *testing.T) {
	a := newAPI(t, Options{})
	for secret, status := range map[string]int{"app-secret": 200, "old-secret": 200, "": 401, "***": 401, "slow-secret": 401} {
		query := sign.Query("app-key", secret, http.MethodGet, "/apps/app-id/channels", nil, nil, clock)
		if w := a.do(httptest.NewRequest(http.MethodGet, "/apps/app-id/channels?"+query, nil)); w.Code != status {
			t.Errorf("secret %q: %d, want %d", secret, w.Code, status)
		}
	}
}

func TestDeprecatedEventsRoute(t *testing.T) {
	a := newAPI(t, Options{})
	w := a.do(a.request(http.MethodPost, "/apps/app-id/channels/cache-x/events", `raw "text"`, url.Values{"name": {"e"}, "socket_id": {"1.2"}}))
	if want(t, w, 202, ""); w.Body.Len() > 0 || a.last("app-id", "cache-x") != `raw "text"` {
		t.Errorf("%s, data %s", w.Body, a.last("app-id", "cache-x"))
	}
	want(t, a.do(a.request(http.MethodPost, "/apps/app-id/channels/cache-x/events", "x", nil)), 400, "invalid_input")
	want(t, a.do(a.request(http.MethodPost, "/apps/app-id/channels/no%20good/events", "x", url.Values{"name": {"e"}})), 400, "invalid_input")
	want(t, a.do(a.request(http.MethodPost, "/apps/app-id/channels/cache-x/events", "\xff", url.Values{"name": {"e"}})), 400, "invalid_input")
}

// A list that is refused anyhow costs no more memory than its text.
func TestLongListsAreNotKept(t *testing.T) {
	const n = 200_000
	a := newAPI(t, Options{})
	channels := `{"name":"e","data":"1","channels":[` + strings.TrimSuffix(strings.Repeat(`"a",`, n), ",") + `]}`
	batch := `{"batch":[` + strings.TrimSuffix(strings.Repeat(`{},`, n), ",") + `]}`
	for path, body := range map[string]string{"/apps/app-id/events": channels, "/apps/app-id/batch_events": batch} {
		r := a.request(http.MethodPost, path, body, nil)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		w := a.do(r)
		runtime.ReadMemStats(&after)
		want(t, w, 400, "limit_exceeded")
		if allocated := after.TotalAlloc - before.TotalAlloc; allocated > uint64(8*len(body)) {
			t.Errorf("%s: %d bytes allocated for a body of %d", path, allocated, len(body))
		}
	}
	// Where the operator took the limit off, repetitions cost linear time.
	names := make([]string, 50_000)
	for i := range names {
		names[i] = fmt.Sprintf(`"c%d"`, i)
	}
	want(t, a.post("/apps/free-id/events", `{"name":"e","data":"1","channels":[`+strings.Join(names, ",")+`]}`), 200, "")
}
