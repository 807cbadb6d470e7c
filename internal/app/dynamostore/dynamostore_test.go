package dynamostore

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb"

	"sockudo/internal/app"
	"sockudo/internal/app/apptest"
	"sockudo/internal/servicetest"
)

func TestMain(m *testing.M) { servicetest.VerifyNoLeaks(m) }

var tables atomic.Int64

// options are for a table of its own that is not there yet.
func options(t testing.TB, endpoint string) Options {
	t.Helper()
	return Options{
		Endpoint: endpoint, Table: fmt.Sprintf("t%d_%d", os.Getpid(), tables.Add(1)),
		AccessKeyID: "test", SecretAccessKey: servicetest.Password, Defaults: app.StandardDefaults(), poll: 5 * time.Millisecond,
	}
}

func server(t testing.TB) Options {
	t.Helper()
	return options(t, servicetest.Env(t, servicetest.DynamoDB))
}

func newStore(t testing.TB, opts Options) *Store {
	t.Helper()
	s, err := Open(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// A recorder stands before the server, notes what it is asked, and may answer
// in its place.
type recorder struct {
	url    string
	answer func(action string) (status int, body string) // status 0: the server answers

	mu      sync.Mutex // guards what follows
	actions map[string]int
	headers http.Header // of the last request
}

func newRecorder(t testing.TB, endpoint string) *recorder {
	t.Helper()
	return record(t, endpoint, httptest.NewServer)
}

func record(t testing.TB, endpoint string, serve func(http.Handler) *httptest.Server) *recorder {
	t.Helper()
	target, err := url.Parse(endpoint)
	if err != nil {
		t.Fatal(err)
	}
	r := &recorder{actions: map[string]int{}}
	transport := &http.Transport{}
	proxy := &httputil.ReverseProxy{Transport: transport, Rewrite: func(p *httputil.ProxyRequest) { p.SetURL(target) }}
	srv := serve(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		_, action, _ := strings.Cut(req.Header.Get("X-Amz-Target"), ".")
		r.mu.Lock()
		r.actions[action]++
		r.headers = req.Header.Clone()
		answer := r.answer
		r.mu.Unlock()
		if answer != nil {
			if status, body := answer(action); status != 0 {
				w.Header().Set("Content-Type", "application/x-amz-json-1.0")
				w.WriteHeader(status)
				_, _ = w.Write([]byte(body))
				return
			}
		}
		proxy.ServeHTTP(w, req)
	}))
	t.Cleanup(func() { srv.Close(); transport.CloseIdleConnections() })
	r.url = srv.URL
	return r
}

func (r *recorder) answers(answer func(action string) (int, string)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.answer = answer
}

// refusal is the answer of an error.
func refusal(code, message string) (int, string) {
	return http.StatusBadRequest, fmt.Sprintf(`{"__type":"com.amazonaws.dynamodb.v20120810#%s","message":%q}`, code, message)
}

// take returns what was asked since the last call.
func (r *recorder) take() map[string]int {
	r.mu.Lock()
	defer r.mu.Unlock()
	a := r.actions
	r.actions = map[string]int{}
	return a
}

func (r *recorder) header(name string) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.headers.Get(name)
}

func TestContract(t *testing.T) {
	all := map[string]Options{}
	var mu sync.Mutex
	apptest.Run(t, func(t *testing.T, name string) app.Backend {
		mu.Lock()
		defer mu.Unlock()
		if _, ok := all[name]; !ok {
			all[name] = server(t)
		}
		return newStore(t, all[name])
	})
}

// put stores an item as a person, or Sockudo, wrote it.
func (s *Store) putRaw(t testing.TB, it item) {
	t.Helper()
	if _, err := s.db.PutItem(context.WithoutCancel(t.Context()), &dynamodb.PutItemInput{TableName: &s.opts.Table, Item: it}); err != nil {
		t.Fatal(err)
	}
}
