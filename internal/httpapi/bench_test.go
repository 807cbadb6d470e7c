package httpapi

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"sockudo/internal/sign"
)

const benchBody = `{"name":"my-event","channels":["my-channel"],"data":"{\"message\":\"hello world\",\"n\":12345}"}`

// A sink is a ResponseWriter that keeps nothing.
type sink struct {
	header http.Header
	status int
}

func (s *sink) Header() http.Header         { return s.header }
func (s *sink) WriteHeader(status int)      { s.status = status }
func (s *sink) Write(b []byte) (int, error) { return len(b), nil }

// BenchmarkPostEvents is a publish without net/http and without subscribers.
func BenchmarkPostEvents(b *testing.B) {
	a := newAPI(b, Options{})
	r := a.request(http.MethodPost, "/apps/app-id/events", benchBody, nil)
	body := strings.NewReader(benchBody)
	r.Body = io.NopCloser(body)
	w := &sink{header: http.Header{}}
	b.ReportAllocs()
	b.SetBytes(int64(len(benchBody)))
	for b.Loop() {
		body.Reset(benchBody)
		if a.ServeHTTP(w, r); w.status != 200 {
			b.Fatal(w.status)
		}
	}
}

// BenchmarkPublishOverHTTP is a publish over one kept-alive connection on
// loopback, client and server in one process, without subscribers.
func BenchmarkPublishOverHTTP(b *testing.B) {
	a := newAPI(b, Options{})
	s := httptest.NewUnstartedServer(a)
	s.Config = Server(a)
	s.Start()
	defer s.Close()
	url := s.URL + "/apps/app-id/events?" + sign.Query("app-key", "app-secret", http.MethodPost, "/apps/app-id/events", nil, []byte(benchBody), clock)
	b.ReportAllocs()
	for b.Loop() {
		resp, err := s.Client().Post(url, "application/json", strings.NewReader(benchBody))
		if err != nil {
			b.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		if _ = resp.Body.Close(); resp.StatusCode != 200 {
			b.Fatal(resp.Status)
		}
	}
}

// BenchmarkDecodeEvent reads and checks a body and does not publish it.
func BenchmarkDecodeEvent(b *testing.B) {
	a := newAPI(b, Options{})
	found, err := a.store.ByID(b.Context(), "app-id")
	if err != nil {
		b.Fatal(err)
	}
	large := `{"name":"my-event","channels":["my-channel"],"data":"` + strings.Repeat(`{\"a\":\"some text\"}`, 500) + `"}`
	for name, body := range map[string]string{"small": benchBody, "10k": large} {
		b.Run(name, func(b *testing.B) {
			c := &call{api: a.API, app: found, body: []byte(body)}
			b.ReportAllocs()
			b.SetBytes(int64(len(body)))
			for b.Loop() {
				var e event
				if err := c.scan(&e); err != nil {
					b.Fatal(err)
				}
				if p := c.check(&e, false); p != nil {
					b.Fatal(p.message)
				}
			}
		})
	}
}
