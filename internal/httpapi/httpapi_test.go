package httpapi

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"sockudo/internal/app"
	"sockudo/internal/cache"
	"sockudo/internal/hub"
	"sockudo/internal/node"
	"sockudo/internal/sign"
)

// clock is what the API under test believes the time to be.
var clock = time.Unix(1700000000, 0)

// An api is the API under test, called without a network.
type api struct {
	*API
	t     testing.TB
	store *app.Memory
	node  *node.Node
}

func u32(n uint32) *uint32 { return &n }

// newAPI returns the API of a node with the app app-id and, below it, apps
// that have small limits or are disabled.
func newAPI(t testing.TB, opts Options) *api {
	t.Helper()
	store := app.NewMemory(app.StandardDefaults())
	for _, a := range []*app.App{
		{ID: "app-id", Key: "app-key", Secret: "app-secret", PreviousSecret: "old-secret", Enabled: true},
		{ID: "off-id", Key: "off-key", Secret: "off-secret"},
		{ID: "free-id", Key: "free-key", Secret: "free-secret", Enabled: true, MaxEventChannelsAtOnce: u32(0), MaxEventBatchSize: u32(0), MaxEventPayloadInKB: u32(0)},
		{ID: "slow-id", Key: "slow-key", Secret: "slow-secret", Enabled: true, MaxBackendEventsPerSecond: u32(3), MaxReadRequestsPerSecond: u32(2)},
	} {
		if err := store.Create(t.Context(), a); err != nil {
			t.Fatal(err)
		}
	}
	if opts.Now == nil {
		opts.Now = func() time.Time { return clock }
	}
	n := node.New(hub.New(hub.Options{}), cache.NewMemory(cache.MemoryOptions{}), node.Options{})
	return &api{API: New(store, n, opts), t: t, store: store, node: n}
}

// request returns a signed request of the app whose id begins the path.
func (a *api) request(method, path, body string, query url.Values) *http.Request {
	a.t.Helper()
	name, _, _ := strings.Cut(strings.TrimPrefix(path, "/apps/"), "-id/")
	signed := sign.Query(name+"-key", name+"-secret", method, path, query, []byte(body), clock)
	return httptest.NewRequest(method, path+"?"+signed, strings.NewReader(body))
}

func (a *api) do(r *http.Request) *httptest.ResponseRecorder {
	a.t.Helper()
	w := httptest.NewRecorder()
	a.ServeHTTP(w, r)
	return w
}

func (a *api) post(path, body string) *httptest.ResponseRecorder {
	a.t.Helper()
	return a.do(a.request(http.MethodPost, path, body, nil))
}

// get calls with parameters as pairs of name and value.
func (a *api) get(path string, pairs ...string) *httptest.ResponseRecorder {
	a.t.Helper()
	query := url.Values{}
	for i := 0; i < len(pairs); i += 2 {
		query.Set(pairs[i], pairs[i+1])
	}
	return a.do(a.request(http.MethodGet, path, "", query))
}

// want checks the status and, of an error, the whole of its body.
func want(t testing.TB, w *httptest.ResponseRecorder, status int, slug string) {
	t.Helper()
	if w.Code != status {
		t.Fatalf("status %d, want %d: %s", w.Code, status, w.Body)
	}
	if slug == "" {
		return
	}
	var e struct {
		Error, Code string
		Status      int
	}
	decode(t, w, &e)
	if e.Error == "" || e.Code != slug || e.Status != status || w.Header().Get("Content-Type") != "application/json" {
		t.Fatalf("error %s, content type %q, want code %s and status %d", w.Body, w.Header().Get("Content-Type"), slug, status)
	}
}

func decode(t testing.TB, w *httptest.ResponseRecorder, v any) {
	t.Helper()
	if err := json.Unmarshal(w.Body.Bytes(), v); err != nil {
		t.Fatalf("%v: %s", err, w.Body)
	}
}

func TestSignedParametersAreReadAsTheyWereSigned(t *testing.T) {
	a := newAPI(t, Options{})
	const auth = "auth_key=app-key&auth_timestamp=1700000000&auth_version=1.0"
	get := func(path, sent, signed string) *httptest.ResponseRecorder {
		signature := sign.HMAC("app-secret", "GET\n"+path+"\n"+signed)
		return a.do(httptest.NewRequest(http.MethodGet, path+"?"+sent+"&auth_signature="+signature, nil))
	}
	// A name in other letter case is the same parameter.
	w := get("/apps/app-id/channels/presence-x", auth+"&Info=user_count", auth+"&info=user_count")
	if want(t, w, 200, ""); w.Body.String() != `{"occupied":false,"user_count":0}` {
		t.Errorf("Info=user_count: %s", w.Body)
	}
	// A semicolon that is not percent-encoded belongs to the value.
	want(t, get("/apps/app-id/channels", auth+"&filter_by_prefix=presence-;a&info=user_count", auth+"&filter_by_prefix=presence-;a&info=user_count"), 200, "")
}
