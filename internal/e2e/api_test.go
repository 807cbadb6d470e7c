package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"sockudo/internal/app"
	"sockudo/internal/config"
	"sockudo/internal/health"
	"sockudo/internal/httpapi"
	"sockudo/internal/hub"
	"sockudo/internal/node"
	"sockudo/internal/pushertest"
	"sockudo/internal/servertest"

	"context"
	"net/http/httptest"

	"sockudo/internal/cache"
)

type call = pushertest.Call

// apiAt serves the API alone, with a clock.
func apiAt(t *testing.T, now func() time.Time, apps ...*app.App) *httptest.Server {
	t.Helper()
	store := app.NewMemory(app.StandardDefaults())
	for _, a := range apps {
		if err := store.Create(t.Context(), a); err != nil {
			t.Fatal(err)
		}
	}
	h := hub.New(hub.Options{})
	n := node.New(h, cache.NewMemory(cache.MemoryOptions{}), node.Options{})
	s := httptest.NewServer(httpapi.New(store, n, httpapi.Options{Now: now, EnforceLimits: true}))
	t.Cleanup(s.Close)
	return s
}

func TestSignaturesOfTheWorkedExamples(t *testing.T) {
	items(t, 195, 196, 209, 212)
	appA := &app.App{ID: "3", Key: "278d425bdf160c739803", Secret: "7ad3773142a6692b25b8", Enabled: true}
	b := &app.App{ID: "app-id", Key: "app-key", Secret: "app-secret", Enabled: true}
	const auth = "auth_key=app-key&auth_timestamp=1700000000&auth_version=1.0"
	const event = `{"name":"my-event","channels":["my-channel","presence-room"],"data":"{\"hello\":\"world\"}","socket_id":"1234.5678","info":"user_count,subscription_count"}`
	const batch = `{"batch":[{"name":"a","channel":"c1","data":"1"},{"name":"b","channel":"c2","data":"2"}]}`
	cases := []struct {
		now                       int64
		method, path, query, body string
		signature                 string
		status                    int
	}{
		{1353088179, "POST", "/apps/3/events", "auth_key=278d425bdf160c739803&auth_timestamp=1353088179&auth_version=1.0&body_md5=ec365a775a4cd0599faeb73354201b6f", `{"name":"foo","channels":["project-3"],"data":"{\"some\":\"data\"}"}`, "da454824c97ba181a32ccc17a72625ba02771f50b50e1e7430e47a1f3f457e6c", 200},
		{1700000000, "POST", "/apps/app-id/events", auth + "&body_md5=228df1b65c3d5464ea90a032a8425544", event, "1138e3e3038a684189f610908d7977e9bd00993beeaeed94d5e9f43305a6fb7b", 200},
		{1700000000, "POST", "/apps/app-id/events", auth + "&body_md5=48f425052e61f25d186c7d4b8cbd986e", `{"name":"greet","channel":"caf-é","data":"☃"}`, "4a40f4b0d5e058171923dfc82b1a9de78797240eedf35bd92705aebb54e239f1", 400},
		{1700000000, "POST", "/apps/app-id/batch_events", auth + "&body_md5=2b6d0d087be6f92e1c8ae2db10d9ff1a", batch, "fe3b8a838682feb337965908a72618248210416b399c3d54ca066bdae7023b81", 200},
		{1700000000, "GET", "/apps/app-id/channels", auth, "", "f5cc9dde83ebbd9328d72e076c2b869cdffad888c45f61285077cfc4ca1eca65", 200},
		{1700000000, "GET", "/apps/app-id/channels", auth + "&filter_by_prefix=presence-&info=user_count", "", "fd5a1b38d92aee2b7913a8cf43136cffab888ee5a097536910d6239f08eb68a2", 200},
		{1700000000, "GET", "/apps/app-id/channels", auth + "&filter_by_prefix=presence-&Info=user_count", "", "fd5a1b38d92aee2b7913a8cf43136cffab888ee5a097536910d6239f08eb68a2", 200},
		{1700000000, "GET", "/apps/app-id/channels", auth + "&filter_by_prefix=private-a%40b%3Bc%3Dd", "", "095e1c0736d8a3a73d5a21958bad9e10510bcb45efb2f68e8c0b2453d1576ecf", 200},
		{1700000000, "GET", "/apps/app-id/channels/presence-room", auth + "&info=user_count", "", "d3221afe6541a9231257fce7e249ef9e9d54b68eb0acecbe334a0746e1d223ce", 200},
		{1700000000, "GET", "/apps/app-id/channels/cache-room", auth + "&info=subscription_count%2Ccache", "", "39c5057c7462df569c54d97bc1048340843b6169462f7828b8475f4321e3ca5a", 200},
		{1700000000, "GET", "/apps/app-id/channels/cache-room", auth + "&info=subscription_count,cache", "", "39c5057c7462df569c54d97bc1048340843b6169462f7828b8475f4321e3ca5a", 200},
		{1700000000, "GET", "/apps/app-id/channels/presence-room/users", auth, "", "a7afae233250cdf3d2c9b18ed80afcd11f03f89614c48018dec50a034ca1143a", 200},
		{1700000000, "POST", "/apps/app-id/users/42/terminate_connections", auth + "&body_md5=99914b932bd37a50b983c5e7c90ae93b", "{}", "5c90601b7ede27346da725838a3837f982e9712e07d793968f91dbc6d56670ac", 200},
		{1700000000, "POST", "/apps/app-id/users/42/terminate_connections", auth, "", "5cc3ead47d8429d1ac4e02ab1f0bbf2c699b482cb8f9acfc18cfb79ab8833aea", 200},
		{1700000000, "POST", "/apps/app-id/users/ann%40x.io/terminate_connections", auth + "&body_md5=99914b932bd37a50b983c5e7c90ae93b", "{}", "39365732a5abd506cc9638dc1d5830ebc3d918cb043157ad6d7005fe89e36838", 200},
		{1700000000, "POST", "/apps/app-id/users/ann%40x.io/terminate_connections", auth + "&body_md5=99914b932bd37a50b983c5e7c90ae93b", "{}", "00722808c66aebaabe45c7e40afb741efa5b30d5a39b1f403439398c2d92f096", 200},
	}
	for i, c := range cases {
		s := apiAt(t, func() time.Time { return time.Unix(c.now, 0) }, appA, b)
		for _, signature := range []string{c.signature, strings.Repeat("0", 64)} {
			req, err := http.NewRequest(c.method, s.URL+c.path+"?"+c.query+"&auth_signature="+signature, strings.NewReader(c.body))
			if err != nil {
				t.Fatal(err)
			}
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			body, _ := io.ReadAll(resp.Body)
			_ = resp.Body.Close()
			want := c.status
			if signature != c.signature {
				want = 401
			}
			if resp.StatusCode != want {
				t.Errorf("example %d, %s %s: %s %s, want %d", i, c.method, c.path, resp.Status, body, want)
			}
		}
	}
}

func TestTimestampWindow(t *testing.T) {
	items(t, 197, 198)
	now := time.Unix(1700000000, 0)
	s := apiAt(t, func() time.Time { return now }, &app.App{ID: "app-id", Key: "app-key", Secret: "app-secret", Enabled: true})
	api := pushertest.NewAPI(t, strings.TrimPrefix(s.URL, "http://"), appB)
	get := func(stamp string) int {
		return api.Do(call{Path: "/apps/app-id/channels", BeforeSign: func(c *call) { c.Query["auth_timestamp"] = stamp }}).Status
	}
	for stamp, want := range map[string]int{
		"1700000000": 200, "1699999400": 200, "1700000600": 200, "1699999399": 401, "1700000601": 401,
		"abc": 401, "1700000000.5": 401, "-1": 401, "9223372036854775807": 401, "-9223372036854775808": 401, "99999999999999999999": 401,
	} {
		if got := get(stamp); got != want {
			t.Errorf("timestamp %s: %d, want %d", stamp, got, want)
		}
	}
}

func TestAuthenticationOfCalls(t *testing.T) {
	s := serve(t, nil)
	api := pushertest.NewAPI(t, s.Addr, appB)
	const channels, events = "/apps/app-id/channels", "/apps/app-id/events"
	const body = `{"name":"e","channel":"auth-calls","data":"1"}`
	set := func(key, value string) func(*call) { return func(c *call) { c.Query[key] = value } }
	drop := func(key string) func(*call) { return func(c *call) { delete(c.Query, key) } }
	cases := []struct {
		items  []int
		name   string
		call   call
		status int
	}{
		{nil, "good", call{Path: channels}, 200},
		{[]int{199}, "no key", call{Path: channels, BeforeSign: drop("auth_key")}, 401},
		{[]int{199}, "no timestamp", call{Path: channels, BeforeSign: drop("auth_timestamp")}, 401},
		{[]int{199}, "no version", call{Path: channels, BeforeSign: drop("auth_version")}, 401},
		{[]int{199}, "no signature", call{Path: channels, AfterSign: drop("auth_signature")}, 401},
		{nil, "nothing", call{Path: channels, Unsigned: true}, 401},
		{[]int{200}, "version 2.0", call{Path: channels, BeforeSign: set("auth_version", "2.0")}, 401},
		{[]int{201}, "unknown key", call{Path: channels, BeforeSign: set("auth_key", "nobody")}, 401},
		{[]int{202}, "another app", call{Path: channels, App: appC}, 401},
		{[]int{203}, "unknown app", call{Path: "/apps/nobody/channels"}, 404},
		{[]int{204}, "disabled app", call{Path: "/apps/disabled-id/channels", App: appNamed("disabled")}, 403},
		{[]int{205}, "altered body", call{Path: events, Body: body, AfterSign: func(c *call) { c.Body = strings.Replace(body, `"1"`, `"2"`, 1) }}, 401},
		{[]int{206}, "no body_md5", call{Path: events, Body: body, NoMD5: true}, 401},
		{nil, "upper-case body_md5", call{Path: events, Body: body, BeforeSign: func(c *call) { c.Query["body_md5"] = strings.ToUpper(c.Query["body_md5"]) }}, 200},
		{[]int{207}, "empty body", call{Method: "POST", Path: "/apps/app-id/users/x/terminate_connections"}, 200},
		{[]int{207}, "empty body with its digest", call{Method: "POST", Path: "/apps/app-id/users/x/terminate_connections", BeforeSign: set("body_md5", "d41d8cd98f00b204e9800998ecf8427e")}, 200},
		{[]int{208}, "GET with the empty digest", call{Path: channels, BeforeSign: set("body_md5", "d41d8cd98f00b204e9800998ecf8427e")}, 200},
		{nil, "GET with a wrong digest", call{Path: channels, BeforeSign: set("body_md5", "00000000000000000000000000000000")}, 401},
		{[]int{210}, "parameter added afterwards", call{Path: channels, AfterSign: set("filter_by_prefix", "x")}, 401},
		{[]int{210}, "unknown parameter that is signed", call{Path: channels, BeforeSign: set("foo", "bar baz")}, 200},
		{[]int{211}, "percent-encoded value", call{Path: channels, BeforeSign: set("filter_by_prefix", "a@b;c=d,é")}, 200},
		{[]int{212}, "path signed as sent", call{Method: "POST", Path: "/apps/app-id/users/a%40b/terminate_connections"}, 200},
		{[]int{212}, "path signed decoded", call{Method: "POST", Path: "/apps/app-id/users/a%40b/terminate_connections", SignedPath: "/apps/app-id/users/a@b/terminate_connections"}, 200},
		{[]int{213}, "another method", call{Method: "POST", Path: events, Body: body, AfterSign: func(c *call) { c.Path = "/apps/app-id/batch_events" }}, 401},
		{[]int{217}, "unknown route", call{Path: "/apps/app-id/nonsense"}, 404},
		{[]int{217}, "wrong method", call{Path: events}, 405},
		{[]int{237}, "content type text/plain", call{Path: events, Body: body, Header: http.Header{"Content-Type": {"text/plain"}}}, 200},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			items(t, c.items...)
			resp := api.Do(c.call)
			resp.Expect(c.status)
			if resp.Status == 200 {
				return
			}
			items(t, 214)
			var e struct {
				Error, Code string
				Status      int
			}
			resp.JSON(&e)
			if e.Error == "" || e.Code == "" || e.Status != c.status || !strings.HasPrefix(resp.Header.Get("Content-Type"), "application/json") {
				t.Errorf("error answer %s, %v", resp.Body, resp.Header)
			}
		})
	}
	t.Run("values as they are", func(t *testing.T) {
		items(t, 211)
		resp := api.Do(call{Path: channels, BeforeSign: set("filter_by_prefix", "a@b"), AfterSign: func(c *call) {
			var pairs []string
			for k, v := range c.Query {
				pairs = append(pairs, k+"="+v)
			}
			c.RawQuery = strings.Join(pairs, "&")
		}})
		resp.Expect(200)
	})
	t.Run("method is signed", func(t *testing.T) {
		items(t, 213)
		var signature string
		api.Do(call{Method: "GET", Path: channels, AfterSign: func(c *call) { signature = c.Query["auth_signature"] }}).Expect(200)
		api.Do(call{Method: "POST", Path: events, AfterSign: func(c *call) { c.Query["auth_signature"] = signature }}).Expect(401)
	})
	t.Run("no effect across apps", func(t *testing.T) {
		items(t, 202)
		c := pushertest.Dial(t, s.Addr, plain)
		c.Subscribe("tenant")
		api.Do(call{Path: "/apps/plain-id/events", Body: `{"name":"e","channel":"tenant","data":"1"}`, App: appB}).Expect(401)
		c.Quiet()
	})
	t.Run("the right signature is not told", func(t *testing.T) {
		items(t, 215)
		var right string
		resp := api.Do(call{Path: channels, AfterSign: func(c *call) { right = c.Query["auth_signature"]; c.Query["auth_signature"] = strings.Repeat("0", 64) }})
		resp.Expect(401)
		if strings.Contains(resp.Body, right) || strings.Contains(resp.Body, "app-secret") {
			t.Error(resp.Body)
		}
	})
	t.Run("preflight and CORS", func(t *testing.T) {
		items(t, 216)
		resp := api.Do(call{Method: "OPTIONS", Path: events, Unsigned: true, Header: http.Header{"Origin": {"https://x.example"}}})
		resp.Expect(200)
		if resp.Header.Get("Access-Control-Allow-Origin") != "*" || !strings.Contains(resp.Header.Get("Access-Control-Allow-Methods"), "POST") ||
			!strings.Contains(resp.Header.Get("Access-Control-Allow-Headers"), "Content-Type") || resp.Header.Get("Access-Control-Allow-Credentials") != "" {
			t.Errorf("headers %v", resp.Header)
		}
		for _, path := range []string{channels, "/nonsense"} {
			if h := api.Do(call{Path: path}).Header; h.Get("Access-Control-Allow-Origin") != "*" {
				t.Errorf("%s: headers %v", path, h)
			}
		}
	})
	t.Run("allowed methods are told", func(t *testing.T) {
		if a := api.Do(call{Path: events}).Header.Get("Allow"); !strings.Contains(a, "POST") {
			t.Errorf("Allow: %q", a)
		}
	})
	t.Run("invalid UTF-8", func(t *testing.T) {
		api.Do(call{Path: events, Body: "{\"name\":\"e\",\"channel\":\"x\",\"data\":\"\xff\"}"}).Expect(400)
	})
	t.Run("100 channels, 101 channels", func(t *testing.T) {
		items(t, 222)
		for n, status := range map[int]int{100: 200, 101: 400} {
			names := make([]string, n)
			for i := range names {
				names[i] = fmt.Sprint("c", i)
			}
			body, _ := json.Marshal(map[string]any{"name": "e", "channels": names, "data": "1"})
			api.Do(call{Path: events, Body: string(body)}).Expect(status)
		}
		names := make([]string, 10_000)
		for i := range names {
			names[i] = fmt.Sprint("c", i)
		}
		body, _ := json.Marshal(map[string]any{"name": "e", "channels": names, "data": "1"})
		if r := api.Do(call{Path: events, Body: string(body)}).Expect(400); !strings.Contains(r.Body, "10000") || !strings.Contains(r.Body, "max_event_channels_at_once is 100") {
			t.Error(r.Body)
		}
	})
}

func TestRequestCap(t *testing.T) {
	items(t, 218)
	s := serve(t, func(cfg *config.Config) { cfg.HTTPAPI.RequestLimitMB = 1 })
	api := pushertest.NewAPI(t, s.Addr, appB)
	api.Post("/events", `{"name":"e","channel":"x","data":"`+strings.Repeat("x", 1<<20)+`"}`).Expect(413)
	chunked, err := http.NewRequest("POST", "http://"+s.Addr+"/apps/app-id/events?auth_key=app-key&auth_version=1.0&auth_signature=0&auth_timestamp="+strconv.FormatInt(time.Now().Unix(), 10), io.MultiReader(strings.NewReader(strings.Repeat("x", 2<<20))))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(chunked) // no length is announced
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != 413 {
		t.Errorf("chunked: %s", resp.Status)
	}
}

func TestPerSecondLimits(t *testing.T) {
	items(t, 219)
	s := serve(t, nil)
	api := pushertest.NewAPI(t, s.Addr, appNamed("slow"))
	check := func(do func() pushertest.Response) {
		t.Helper()
		eventually(t, "a call is refused", func() bool {
			resp := do()
			if resp.Status == 200 {
				return false
			}
			resp.Expect(429)
			for _, h := range []string{"Retry-After", "X-Ratelimit-Limit", "X-Ratelimit-Remaining", "X-Ratelimit-Reset"} {
				if _, err := strconv.Atoi(resp.Header.Get(h)); err != nil {
					t.Errorf("%s: %q", h, resp.Header.Get(h))
				}
			}
			if !strings.Contains(resp.Body, "rate_limited") || resp.Header.Get("Access-Control-Allow-Origin") == "" {
				t.Errorf("%s %v", resp.Body, resp.Header)
			}
			return true
		})
		eventually(t, "calls are accepted again", func() bool { return do().Status == 200 })
	}
	check(func() pushertest.Response { return api.Get("/channels") })
	check(func() pushertest.Response {
		return api.Post("/events", `{"name":"e","channel":"x","data":"1"}`)
	})
	api.Post("/batch_events", `{"batch":[{"name":"e","channel":"x","data":"1"},{"name":"e","channel":"x","data":"1"},{"name":"e","channel":"x","data":"1"}]}`).Expect(429)
}

func TestChannelsOfAnEmptyNode(t *testing.T) {
	items(t, 246)
	s := serve(t, nil)
	if r := pushertest.NewAPI(t, s.Addr, appB).Get("/channels"); r.Expect(200).Body != `{"channels":{}}` {
		t.Error(r.Body)
	}
}

func TestServiceRoutes(t *testing.T) {
	s := serve(t, func(cfg *config.Config) { cfg.RateLimiter.EnforceAppLimits = true })
	get := func(url string) (int, string, http.Header) {
		t.Helper()
		resp, err := http.Get(url)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(body), resp.Header
	}
	base := "http://" + s.Addr
	t.Run("up", func(t *testing.T) {
		items(t, 265, 266, 267, 274)
		for path, want := range map[string]struct {
			status int
			body   string
		}{
			"/up": {200, "OK"}, "/up/": {200, "OK"}, "/up/app-id": {200, "OK"}, "/up/unknown": {404, "NOT_FOUND"}, "/up/disabled-id": {503, "ERROR"},
		} {
			status, body, h := get(base + path)
			if status != want.status || body != want.body || h.Get("X-Health-Check") != want.body || !strings.HasPrefix(h.Get("Content-Type"), "text/plain") {
				t.Errorf("%s: %d %s %v", path, status, body, h)
			}
		}
		for range 200 { // far above every limit of the profile
			if status, _, _ := get(base + "/up"); status != 200 {
				t.Fatalf("health was limited: %d", status)
			}
		}
		if status, body, _ := get(base + "/live"); status != 200 || body != "OK" {
			t.Errorf("/live: %d %s", status, body)
		}
	})
	t.Run("head", func(t *testing.T) {
		resp, err := http.Head(base + "/up")
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != 200 || resp.Header.Get("X-Health-Check") != "OK" {
			t.Errorf("%s %v", resp.Status, resp.Header)
		}
	})
	t.Run("usage", func(t *testing.T) {
		items(t, 270)
		_, body, _ := get(base + "/usage")
		var u struct {
			Memory struct {
				Free, Used, Total *uint64
				Percent           *float64
			}
		}
		if err := json.Unmarshal([]byte(body), &u); err != nil {
			t.Fatal(err)
		}
		m := u.Memory
		if m.Free == nil || m.Used == nil || m.Total == nil || m.Percent == nil || *m.Free+*m.Used != *m.Total || *m.Total < 1<<20 || *m.Percent <= 0 || *m.Percent > 100 {
			t.Errorf("usage %s", body)
		}
	})
	t.Run("stats", func(t *testing.T) {
		items(t, 271)
		a, b := pushertest.Dial(t, s.Addr, appB), pushertest.Dial(t, s.Addr, appB)
		a.Subscribe("presence-stats", `{"user_id":"1"}`)
		b.Subscribe("presence-stats", `{"user_id":"1"}`)
		a.Subscribe("stats")
		a.Expect("pusher_internal:subscription_count", "stats")
		a.Signin(`{"id":"7"}`)
		_, body, _ := get(base + "/stats")
		var st struct {
			Totals node.Totals
			Apps   []node.AppStats
		}
		if err := json.Unmarshal([]byte(body), &st); err != nil {
			t.Fatal(err)
		}
		want := node.Sums{Connections: 2, AuthenticatedConnections: 1, Users: 1, Occupancy: node.Occupancy{
			Channels: 2, Subscriptions: 3, PresenceChannels: 1, PresenceSubscriptions: 2, PresenceMembers: 1}}
		if st.Totals.Sums != want {
			t.Errorf("totals %+v, want %+v", st.Totals.Sums, want)
		}
	})
	t.Run("metrics", func(t *testing.T) {
		items(t, 272, 273)
		metric := func(name string) string {
			_, body, h := get("http://" + s.MetricsAddr + "/metrics")
			if ct := h.Get("Content-Type"); ct != "text/plain; version=0.0.4; charset=utf-8" {
				t.Errorf("content type %q", ct)
			}
			for line := range strings.Lines(body) {
				if strings.HasPrefix(line, name+`{app_id="other-id"`) {
					return strings.TrimSpace(line[strings.LastIndexByte(line, ' '):])
				}
			}
			return "absent"
		}
		if v := metric("sockudo_connected"); v != "0" {
			t.Errorf("connected %s at first, want 0", v)
		}
		c := pushertest.Dial(t, s.Addr, appC)
		if v := metric("sockudo_connected"); v != "1" {
			t.Errorf("connected %s, want 1", v)
		}
		c.Close(1000)
		eventually(t, "the gauge is back", func() bool { return metric("sockudo_connected") == "0" })
		if n, d := metric("sockudo_new_connections_total"), metric("sockudo_new_disconnections_total"); n != "1" || d != "1" {
			t.Errorf("%s connections, %s disconnections, want 1 of each", n, d)
		}
		if status, _, _ := get("http://" + s.MetricsAddr + "/other"); status != 404 {
			t.Errorf("another path on the metrics listener: %d", status)
		}
	})
}

func TestHealthOfABrokenNode(t *testing.T) {
	t.Run("no app", func(t *testing.T) {
		items(t, 268)
		s := servertest.Start(t, nil)
		resp, err := http.Get("http://" + s.Addr + "/up")
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if resp.StatusCode != 503 || string(body) != "ERROR" {
			t.Errorf("%s %s", resp.Status, body)
		}
	})
	t.Run("hanging dependency", func(t *testing.T) {
		items(t, 269)
		h := health.New(400*time.Millisecond, discard())
		release := make(chan struct{})
		defer close(release)
		h.Add("database", true, func(context.Context) error { <-release; return nil }) // not even its context ends it
		h.Add("cache", true, func(context.Context) error { return nil })
		n := node.New(hub.New(hub.Options{}), cache.NewMemory(cache.MemoryOptions{}), node.Options{})
		s := httptest.NewServer(httpapi.New(app.NewMemory(app.Defaults{}), n, httpapi.Options{Health: h}))
		defer s.Close()
		began := time.Now()
		resp, err := http.Get(s.URL + "/up")
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if d := time.Since(began); resp.StatusCode != 503 || d > 2*time.Second {
			t.Errorf("%s after %v", resp.Status, d)
		}
	})
}
