package httpapi

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"runtime"
	"testing"
)

func TestQueriesOfUnoccupiedChannels(t *testing.T) {
	a := newAPI(t, Options{})
	want(t, a.post("/apps/app-id/events", `{"name":"e","channel":"cache-full","data":{"a":"b"}}`), 200, "")
	for _, c := range []struct {
		path  string
		query []string
		want  string // "" for a refusal
	}{
		{"/channels", nil, `{"channels":{}}`},
		{"/channels/", nil, `{"channels":{}}`},
		{"/channels", []string{"filter_by_prefix", "x", "info", "subscription_count"}, `{"channels":{}}`},
		{"/channels", []string{"filter_by_prefix", "presence-x", "info", "user_count, subscription_count"}, `{"channels":{}}`},
		{"/channels", []string{"info", "user_count"}, ""},
		{"/channels", []string{"filter_by_prefix", "presence", "info", "user_count"}, ""},
		{"/channels", []string{"info", "cache"}, ""},
		{"/channels", []string{"info", "nonsense"}, ""},
		{"/channels/x", nil, `{"occupied":false}`},
		{"/channels/x", []string{"info", ""}, `{"occupied":false}`},
		{"/channels/x", []string{"info", "subscription_count"}, `{"occupied":false,"subscription_count":0}`},
		{"/channels/x", []string{"info", "user_count"}, ""},
		{"/channels/x", []string{"info", "cache"}, ""},
		{"/channels/x", []string{"info", "subscription_count,nonsense"}, ""},
		{"/channels/presence-x", []string{"info", "subscription_count,user_count"}, `{"occupied":false,"user_count":0,"subscription_count":0}`},
		{"/channels/cache-empty", []string{"info", "cache"}, `{"occupied":false,"cache":null}`},
		{"/channels/cache-full", []string{"info", "subscription_count,cache"}, `{"occupied":false,"subscription_count":0,"cache":{"data":"{\"a\":\"b\"}","ttl":1800}}`},
		{"/channels/%63ache-empty", []string{"info", "cache"}, `{"occupied":false,"cache":null}`},
		{"/channels/no%20good", nil, ""},
		{"/channels/a%2Fb", nil, ""},
		{"/channels/%23foo", nil, ""},
		{"/channels/%23server-to-user-1", nil, `{"occupied":false}`},
		{"/channels/presence-x/users", nil, `{"users":[]}`},
		{"/channels/presence-cache-x/users", nil, `{"users":[]}`},
		{"/channels/x/users", nil, ""},
		{"/channels/private-x/users", nil, ""},
		{"/channels/x/stats", nil, `{"occupied":false}`},
		{"/channels/presence-x/stats", nil, `{"occupied":false,"user_count":0}`},
	} {
		w := a.get("/apps/app-id"+c.path, c.query...)
		if c.want == "" {
			want(t, w, 400, "invalid_input")
			continue
		}
		if want(t, w, 200, ""); w.Body.String() != c.want || w.Header().Get("Content-Type") != "application/json" {
			t.Errorf("%s %v: %s, want %s", c.path, c.query, w.Body, c.want)
		}
	}
}

func TestCallsAboutUsers(t *testing.T) {
	a := newAPI(t, Options{})
	for _, action := range []string{"terminate_connections", "force_reconnect"} {
		for body, status := range map[string]int{"": 200, "{}": 200, ` {"x":1} `: 200, "[]": 400, "{": 400, "{}{}": 400, "null": 400, "\xff": 400} {
			w := a.post("/apps/app-id/users/ann%40x.io/"+action, body)
			if w.Code != status || status == 200 && w.Body.String() != "{}" {
				t.Errorf("%s %q: %d %s, want %d", action, body, w.Code, w.Body, status)
			}
		}
	}
}

func TestUsageIsPlausible(t *testing.T) {
	m := readMemory()
	if m.Total == 0 || m.Used == 0 || m.Used > m.Total || m.Free != m.Total-m.Used || m.Percent <= 0 || m.Percent > 100 {
		t.Errorf("%+v", m)
	}
	if _, err := os.Stat("/proc/meminfo"); err == nil {
		var process runtime.MemStats
		runtime.ReadMemStats(&process)
		if m.Total < process.Sys {
			t.Errorf("the machine has %d bytes, this process alone %d", m.Total, process.Sys)
		}
	}
	if got := newMemory(5, 0); got != (memory{}) {
		t.Errorf("unknown total: %+v", got)
	}
	if got := newMemory(7, 5); got != (memory{Used: 5, Total: 5, Percent: 100}) {
		t.Errorf("over the limit: %+v", got)
	}
}

func TestStatsOfAnEmptyNode(t *testing.T) {
	w := newAPI(t, Options{Stats: true}).do(httptest.NewRequest(http.MethodGet, "/stats", nil))
	want(t, w, 200, "")
	var got struct {
		Memory memory
		Totals struct{ Apps *int }
		Apps   *[]struct{}
	}
	decode(t, w, &got)
	if got.Apps == nil || got.Totals.Apps == nil || got.Memory.Total == 0 {
		t.Errorf("stats %s", w.Body)
	}
}

func TestUnknownAppIsNotReflectedInFull(t *testing.T) {
	a := newAPI(t, Options{})
	name := make([]byte, 4000)
	for i := range name {
		name[i] = 'x'
	}
	w := a.do(httptest.NewRequest(http.MethodGet, "/apps/"+string(name)+url.PathEscape("\xff")+"/channels", nil))
	if want(t, w, 404, "app_not_found"); w.Body.Len() > 400 {
		t.Errorf("%d bytes", w.Body.Len())
	}
}
