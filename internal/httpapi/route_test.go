package httpapi

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"sockudo/internal/app"
	"sockudo/internal/cache"
	"sockudo/internal/health"
	"sockudo/internal/hub"
	"sockudo/internal/metrics"
	"sockudo/internal/node"
)

func TestRoutes(t *testing.T) {
	a := newAPI(t, Options{Usage: true, Stats: true, PathPrefix: "mount/"})
	for _, c := range []struct {
		method, path string
		status       int
	}{
		{"GET", "/up", 200}, {"GET", "/up/", 200}, {"GET", "/up/app-id", 200}, {"GET", "/live", 200}, {"GET", "/usage", 200}, {"GET", "/usage/", 200}, {"GET", "/stats", 200},
		{"HEAD", "/up", 200}, {"HEAD", "/live", 200}, {"GET", "/mount/up", 200}, {"GET", "/mount/live/", 200},
		{"GET", "/up/nobody", 404}, {"GET", "/up/off-id", 503}, {"GET", "/up/app-id/x", 404}, {"GET", "/up//", 404}, {"GET", "//up", 404},
		{"GET", "/", 404}, {"GET", "/nonsense", 404}, {"GET", "/mount", 404}, {"GET", "/mount/mount/up", 404}, {"GET", "/mountup", 404}, {"GET", "/upper", 404},
		{"GET", "/apps", 404}, {"GET", "/apps/app-id", 404}, {"GET", "/apps/app-id/", 404}, {"GET", "/apps/app-id/nonsense", 404}, {"GET", "/apps//channels", 404},
		{"GET", "/apps/app-id/channels//users", 404}, {"GET", "/apps/app-id/channels/x/nonsense", 404}, {"POST", "/apps/app-id/users/x/nonsense", 404},
		{"GET", "/app/app-key", 426}, {"GET", "/mount/app/app-key", 426},
		{"POST", "/up", 405}, {"DELETE", "/usage", 405}, {"POST", "/app/app-key", 405}, {"GET", "/apps/app-id/events", 405}, {"HEAD", "/apps/app-id/events", 405},
		{"PUT", "/apps/app-id/batch_events", 405}, {"POST", "/apps/app-id/channels", 405}, {"GET", "/apps/nobody/users/x/terminate_connections", 405},
		{"GET", "/apps/nobody/channels", 404}, {"GET", "/apps/off-id/channels", 403}, {"GET", "/apps/app-id/channels", 401}, {"GET", "/mount/apps/app-id/channels", 401},
		{"OPTIONS", "/apps/app-id/events", 200}, {"OPTIONS", "/anything", 200},
	} {
		w := a.do(httptest.NewRequest(c.method, c.path, nil))
		if w.Code != c.status {
			t.Errorf("%s %s: %d, want %d: %s", c.method, c.path, w.Code, c.status, w.Body)
		}
		if c.method == http.MethodHead && w.Body.Len() > 0 {
			t.Errorf("HEAD %s has a body: %s", c.path, w.Body)
		}
		allow := w.Header().Get("Allow")
		if (c.status == 405) != (allow != "") || c.status == 405 && strings.Contains(allow, c.method) {
			t.Errorf("%s %s: Allow %q", c.method, c.path, allow)
		}
		if w.Header().Get("Access-Control-Allow-Origin") != "*" {
			t.Errorf("%s %s: no CORS header", c.method, c.path)
		}
	}
	for _, path := range []string{"/usage", "/stats"} {
		if w := newAPI(t, Options{}).do(httptest.NewRequest("GET", path, nil)); w.Code != 404 {
			t.Errorf("%s is served although it is off: %d", path, w.Code)
		}
	}
}

func TestHeadIsGetWithoutBody(t *testing.T) {
	a := newAPI(t, Options{})
	get := a.get("/apps/app-id/channels")
	head := a.do(a.request(http.MethodHead, "/apps/app-id/channels", "", nil))
	want(t, get, 200, "")
	want(t, head, 200, "")
	if head.Body.Len() > 0 || head.Header().Get("Content-Length") != get.Header().Get("Content-Length") {
		t.Errorf("HEAD: %v %q, GET: %v", head.Header(), head.Body, get.Header())
	}
}

func TestMountPrefixMayBeSignedOrNot(t *testing.T) {
	a := newAPI(t, Options{PathPrefix: "/mount"})
	r := a.request(http.MethodGet, "/apps/app-id/channels", "", nil)
	r.URL.Path = "/mount" + r.URL.Path
	want(t, a.do(r), 200, "")
	want(t, a.get("/apps/app-id/channels"), 200, "")
}

func TestCORS(t *testing.T) {
	const origin = "https://a.example"
	type headers struct{ origin, credentials, vary, methods string }
	for _, c := range []struct {
		name string
		cors CORS
		from string
		want headers
	}{
		{"default", CORS{}, origin, headers{"*", "", "", "GET, POST, OPTIONS"}},
		{"no credentials with the star", CORS{Origins: []string{"*", origin}, Credentials: true}, origin, headers{"*", "", "", "GET, POST, OPTIONS"}},
		{"listed", CORS{Origins: []string{origin}}, origin, headers{origin, "", "Origin", "GET, POST, OPTIONS"}},
		{"listed with credentials", CORS{Origins: []string{"https://b.example", origin}, Credentials: true, Methods: []string{"GET"}}, origin, headers{origin, "true", "Origin", "GET"}},
		{"not listed", CORS{Origins: []string{origin}, Credentials: true}, "https://a.example.evil", headers{"", "", "Origin", "GET, POST, OPTIONS"}},
		{"no origin", CORS{Origins: []string{origin}, Credentials: true}, "", headers{"", "", "Origin", "GET, POST, OPTIONS"}},
		{"nobody", CORS{Origins: []string{}, Credentials: true}, origin, headers{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := newAPI(t, Options{CORS: c.cors})
			for _, method := range []string{http.MethodOptions, http.MethodGet} {
				r := httptest.NewRequest(method, "/live", nil)
				if c.from != "" {
					r.Header.Set("Origin", c.from)
				}
				w := a.do(r)
				h := w.Header()
				got := headers{h.Get("Access-Control-Allow-Origin"), h.Get("Access-Control-Allow-Credentials"), h.Get("Vary"), h.Get("Access-Control-Allow-Methods")}
				expected := c.want
				if method == http.MethodGet {
					expected.methods = ""
				}
				if w.Code != 200 || got != expected {
					t.Errorf("%s: %d %+v, want %+v", method, w.Code, got, expected)
				}
			}
		})
	}
}

// broken is a store that cannot be asked.
type broken struct{ err error }

func (b broken) ByID(context.Context, string) (*app.App, error)  { return nil, b.err }
func (b broken) ByKey(context.Context, string) (*app.App, error) { return nil, b.err }

func TestStoreThatCannotBeAsked(t *testing.T) {
	n := node.New(hub.New(hub.Options{}), cache.NewMemory(cache.MemoryOptions{}), node.Options{})
	a := New(broken{fmt.Errorf("mysql: dial 10.0.0.7: %w", app.ErrUnavailable)}, n, Options{})
	w := httptest.NewRecorder()
	a.ServeHTTP(w, httptest.NewRequest("GET", "/apps/app-id/channels", nil))
	if want(t, w, 503, "service_unavailable"); w.Header().Get("Retry-After") == "" || strings.Contains(w.Body.String(), "10.0.0.7") {
		t.Errorf("%v %s", w.Header(), w.Body)
	}
	w = httptest.NewRecorder()
	if a.ServeHTTP(w, httptest.NewRequest("GET", "/up/app-id", nil)); w.Code != 503 || w.Body.String() != "ERROR" {
		t.Errorf("/up/app-id: %d %s", w.Code, w.Body)
	}
}

func TestHealthRoutes(t *testing.T) {
	down := func(context.Context) error { return errors.New("down") }
	minor := health.New(0, slog.New(slog.DiscardHandler))
	minor.Add("queue", false, down)
	major := health.New(0, slog.New(slog.DiscardHandler))
	major.Add("adapter", true, down)
	draining := health.New(0, slog.New(slog.DiscardHandler))
	draining.SetDraining()
	for _, c := range []struct {
		health       *health.Health
		path, status string
		code         int
	}{
		{nil, "/up", "OK", 200}, {nil, "/up/app-id", "OK", 200}, {nil, "/up/off-id", "ERROR", 503}, {nil, "/up/nobody", "NOT_FOUND", 404},
		{minor, "/up", "DEGRADED", 200}, {minor, "/up/app-id", "DEGRADED", 200}, {minor, "/up/off-id", "ERROR", 503}, {minor, "/up/nobody", "NOT_FOUND", 404},
		{major, "/up", "ERROR", 503}, {major, "/up/app-id", "ERROR", 503}, {major, "/up/nobody", "NOT_FOUND", 404}, {major, "/live", "OK", 200},
		{draining, "/up", "DRAINING", 503}, {draining, "/up/app-id", "DRAINING", 503}, {draining, "/up/nobody", "DRAINING", 503}, {draining, "/live", "OK", 200},
	} {
		w := newAPI(t, Options{Health: c.health}).do(httptest.NewRequest("GET", c.path, nil))
		h := w.Header()
		if w.Code != c.code || w.Body.String() != c.status || !strings.HasPrefix(h.Get("Content-Type"), "text/plain") || c.path != "/live" && h.Get("X-Health-Check") != c.status {
			t.Errorf("%s: %d %s %v, want %d %s", c.path, w.Code, w.Body, h, c.code, c.status)
		}
	}
}

func TestAdmitIsAskedOnlyWhereLimitsApply(t *testing.T) {
	asked := 0
	a := newAPI(t, Options{Usage: true, Admit: func(w http.ResponseWriter, _ *http.Request) bool {
		asked++
		w.WriteHeader(http.StatusTooManyRequests)
		return false
	}})
	for _, c := range []struct {
		method, path string
		asked        int
	}{
		{"GET", "/up", 0}, {"GET", "/up/app-id", 0}, {"GET", "/live", 0}, {"OPTIONS", "/apps/app-id/events", 0},
		{"GET", "/usage", 1}, {"GET", "/nonsense", 1}, {"GET", "/apps/nobody/channels", 1}, {"POST", "/apps/app-id/events", 1},
	} {
		asked = 0
		w := a.do(httptest.NewRequest(c.method, c.path, nil))
		if asked != c.asked || (w.Code == 429) != (c.asked == 1) || w.Header().Get("Access-Control-Allow-Origin") != "*" {
			t.Errorf("%s %s: asked %d times, %d %v", c.method, c.path, asked, w.Code, w.Header())
		}
	}
}

func TestCallsAreBooked(t *testing.T) {
	m := metrics.New(metrics.Options{})
	a := newAPI(t, Options{Metrics: m})
	body := `{"name":"e","channel":"x","data":"1"}`
	want(t, a.post("/apps/app-id/events", body), 200, "")
	want(t, a.post("/apps/app-id/events", "{"), 400, "invalid_input")
	want(t, a.get("/apps/nobody-id/channels"), 404, "app_not_found")
	want(t, a.do(httptest.NewRequest("GET", "/apps/another-id/channels", nil)), 404, "app_not_found")
	want(t, a.do(httptest.NewRequest("GET", "/apps/off-id/channels", nil)), 403, "forbidden")
	want(t, a.do(httptest.NewRequest("GET", "/apps/slow-id/channels", nil)), 401, "auth_failed")
	a.do(httptest.NewRequest("GET", "/up", nil))
	a.do(httptest.NewRequest("GET", "/up/app-id", nil))
	a.do(httptest.NewRequest("GET", "/up/whatever", nil))
	w := httptest.NewRecorder()
	m.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	for _, line := range []string{
		`http_calls_received_total{app_id="app-id",port="0"} 3`,
		fmt.Sprintf(`http_received_bytes{app_id="app-id",port="0"} %d`, len(body)+1),
		`http_calls_received_total{app_id="off-id",port="0"} 1`,
		`http_calls_received_total{app_id="slow-id",port="0"} 1`,
		`http_calls_received_total{app_id="unknown",port="0"} 3`,
		`http_calls_received_total{app_id="system",port="0"} 1`,
		`http_transmitted_bytes{app_id="system",port="0"} 2`,
		`connection_errors_total{app_id="slow-id",error_type="authentication_failed",port="0"} 1`,
		`http_request_duration_seconds_count{endpoint="/apps/:app_id/events",method="POST"} 2`,
		`http_request_duration_seconds_count{endpoint="/up/:app_id",method="GET"} 2`,
	} {
		if !strings.Contains(w.Body.String(), line+"\n") {
			t.Errorf("%s is missing", line)
		}
	}
	for _, name := range []string{"nobody", "another", "whatever"} {
		if strings.Contains(w.Body.String(), name) {
			t.Errorf("the name %s, which a client made up, is in the metrics", name)
		}
	}
}

func TestServerBoundsWhatAClientCanHold(t *testing.T) {
	a := newAPI(t, Options{})
	s := httptest.NewUnstartedServer(nil)
	s.Config = Server(a)
	s.Start()
	defer s.Close()
	if c := s.Config; c.ReadHeaderTimeout <= 0 || c.ReadTimeout <= 0 || c.WriteTimeout <= 0 || c.IdleTimeout <= 0 {
		t.Errorf("a bound is missing: %+v", c)
	}
	for size, status := range map[int]int{8 << 10: 200, 64 << 10: 431} {
		r, err := http.NewRequest(http.MethodGet, s.URL+"/live", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("X-Filler", strings.Repeat("x", size))
		resp, err := s.Client().Do(r)
		if err != nil {
			t.Fatal(err)
		}
		if _ = resp.Body.Close(); resp.StatusCode != status {
			t.Errorf("a header of %d bytes: %s, want %d", size, resp.Status, status)
		}
	}
}
