package pushertest

import (
	"crypto/md5"
	"encoding/hex"
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// An API calls the HTTP API in the name of an app (section 5). Its methods may
// be used by several goroutines.
type API struct {
	App  App
	Base string // scheme, address and prefix
	Now  func() time.Time

	t      testing.TB
	client *http.Client
}

// NewAPI returns the API client of an app for the server at addr.
func NewAPI(t testing.TB, addr string, app App) *API {
	transport := &http.Transport{MaxIdleConnsPerHost: 4, DisableCompression: true}
	t.Cleanup(transport.CloseIdleConnections)
	return &API{
		App: app, Base: "http://" + addr, Now: time.Now, t: t,
		client: &http.Client{Transport: transport, Timeout: 2 * Wait},
	}
}

// A Call is one request. What is not set is what an official library sends.
type Call struct {
	Method string            // default POST with a body, else GET
	Path   string            // whole path as it stands on the request line, e.g. /apps/app-id/events
	Query  map[string]string // further parameters, not percent-encoded
	Body   string
	Header http.Header

	App        App    // whose key and secret sign; default the app of the API
	SignedPath string // the path that is signed; default Path
	Unsigned   bool
	NoMD5      bool // leaves body_md5 out although there is a body

	// RawQuery, when AfterSign has set it, is sent instead of Query, as it is.
	RawQuery string

	// BeforeSign may change everything, the auth parameters in Query included;
	// what it leaves is signed. AfterSign may change everything once more, and
	// nothing is signed again.
	BeforeSign, AfterSign func(*Call)
}

// A Response is an HTTP answer.
type Response struct {
	Status int
	Header http.Header
	Body   string

	t testing.TB
}

// JSON reads the body into v.
func (r Response) JSON(v any) {
	r.t.Helper()
	if err := json.Unmarshal([]byte(r.Body), v); err != nil {
		r.t.Fatalf("the answer %d holds no usable JSON: %v: %s", r.Status, err, r.Body)
	}
}

// Expect fails the test when the status is another one.
func (r Response) Expect(status int) Response {
	r.t.Helper()
	if r.Status != status {
		r.t.Fatalf("got status %d, want %d: %s", r.Status, status, r.Body)
	}
	return r
}

// StringToSign returns METHOD, path and the sorted parameters (section 5.1,
// steps 3 to 5).
func StringToSign(method, path string, query map[string]string) string {
	lower := map[string]string{}
	for key, value := range query {
		if key = strings.ToLower(key); key != "auth_signature" {
			lower[key] = value
		}
	}
	pairs := make([]string, 0, len(lower))
	for _, key := range slices.Sorted(maps.Keys(lower)) {
		pairs = append(pairs, key+"="+lower[key])
	}
	return strings.ToUpper(method) + "\n" + path + "\n" + strings.Join(pairs, "&")
}

// sign adds the auth parameters to the query of the call.
func (c *Call) sign(now time.Time) {
	c.Query["auth_key"] = c.App.Key
	c.Query["auth_timestamp"] = strconv.FormatInt(now.Unix(), 10)
	c.Query["auth_version"] = "1.0"
	if c.Body != "" && !c.NoMD5 {
		sum := md5.Sum([]byte(c.Body))
		c.Query["body_md5"] = hex.EncodeToString(sum[:])
	}
	if c.BeforeSign != nil {
		c.BeforeSign(c)
	}
	path := c.SignedPath
	if path == "" {
		path = c.Path
	}
	c.Query["auth_signature"] = c.App.MAC(StringToSign(c.Method, path, c.Query))
	if c.AfterSign != nil {
		c.AfterSign(c)
	}
}

// Do signs the call, unless it is to stay unsigned, and sends it. There has to
// be an answer.
func (a *API) Do(c Call) Response {
	a.t.Helper()
	resp, err := a.Try(c)
	if err != nil {
		a.t.Fatalf("%s %s: %v", c.Method, c.Path, err)
	}
	return resp
}

// Try is Do for a server that may be gone: without an answer it returns why.
func (a *API) Try(c Call) (Response, error) {
	a.t.Helper()
	query := map[string]string{}
	maps.Copy(query, c.Query)
	c.Query = query
	if c.App == (App{}) {
		c.App = a.App
	}
	if c.Method == "" {
		c.Method = http.MethodGet
		if c.Body != "" {
			c.Method = http.MethodPost
		}
	}
	if !c.Unsigned {
		c.sign(a.Now())
	}
	raw := c.RawQuery
	if raw == "" {
		values := url.Values{}
		for key, value := range c.Query {
			values.Set(key, value)
		}
		raw = values.Encode()
	}
	target := a.Base + c.Path
	if raw != "" {
		target += "?" + raw
	}
	return a.send(c, target)
}

func (a *API) send(c Call, target string) (Response, error) {
	a.t.Helper()
	req, err := http.NewRequestWithContext(a.t.Context(), c.Method, target, strings.NewReader(c.Body))
	if err != nil {
		a.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	for name, values := range c.Header {
		req.Header[http.CanonicalHeaderKey(name)] = values
	}
	resp, err := a.client.Do(req)
	if err != nil {
		return Response{}, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return Response{}, err
	}
	return Response{Status: resp.StatusCode, Header: resp.Header, Body: string(body), t: a.t}, nil
}

// Get asks for a path below the app, such as /channels. Pairs are further
// parameters: key, value, key, value.
func (a *API) Get(path string, pairs ...string) Response {
	a.t.Helper()
	query := map[string]string{}
	for i := 0; i+1 < len(pairs); i += 2 {
		query[pairs[i]] = pairs[i+1]
	}
	return a.Do(Call{Method: http.MethodGet, Path: a.path(path), Query: query})
}

// Post posts a body to a path below the app, such as /events.
func (a *API) Post(path, body string) Response {
	a.t.Helper()
	return a.Do(Call{Method: http.MethodPost, Path: a.path(path), Body: body})
}

// path returns the whole path of a path below the app.
func (a *API) path(below string) string { return "/apps/" + a.App.ID + below }

// An Event is one event of a publish or of a batch. Data is any JSON value and
// sent as such: a Go string becomes a JSON string.
type Event struct {
	Name     string   `json:"name"`
	Channel  string   `json:"channel,omitempty"`
	Channels []string `json:"channels,omitempty"`
	Data     any      `json:"data"`
	SocketID string   `json:"socket_id,omitempty"`
	Info     string   `json:"info,omitempty"`
}

// Publish posts an event and returns the answer, whatever it is.
func (a *API) Publish(e Event) Response {
	a.t.Helper()
	return a.Post("/events", a.marshal(e))
}

// Trigger publishes one event on one channel, which has to succeed.
func (a *API) Trigger(channel, event string, data any) {
	a.t.Helper()
	a.Publish(Event{Name: event, Channel: channel, Data: data}).Expect(http.StatusOK)
}

// Batch posts a batch of events and returns the answer, whatever it is.
func (a *API) Batch(events ...Event) Response {
	a.t.Helper()
	return a.Post("/batch_events", a.marshal(map[string]any{"batch": events}))
}

// Terminate ends the connections that are signed in as the user, which has to
// succeed.
func (a *API) Terminate(userID string) {
	a.t.Helper()
	a.Post("/users/"+url.PathEscape(userID)+"/terminate_connections", "{}").Expect(http.StatusOK)
}

// marshal encodes without the escapes for HTML, as no other library has them.
func (a *API) marshal(v any) string {
	a.t.Helper()
	var b strings.Builder
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		a.t.Fatal(err)
	}
	return strings.TrimSuffix(b.String(), "\n")
}
