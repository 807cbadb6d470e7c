// Package httpapi is the REST API (protocol section 5): publishing, queries,
// and the service routes.
package httpapi

import (
	"errors"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"time"

	"sockudo/internal/app"
	"sockudo/internal/health"
	"sockudo/internal/metrics"
	"sockudo/internal/node"
	"sockudo/internal/sign"
)

// Options are the parts of the API that have a default.
type Options struct {
	PathPrefix    string // the routes are served below it too; "" or "/": none
	MaxBodyBytes  int64  // 0: 10 MiB
	CORS          CORS   // the zero value allows every origin
	EnforceLimits bool   // per-second limits of apps
	Usage         bool   // serve GET /usage
	Stats         bool   // serve GET /stats
	// Admit is asked before anything else is done for a request that is neither
	// a preflight nor a health probe; what it sets in the header is part of the
	// answer. When it returns false, it has answered. nil: everybody is admitted.
	Admit   func(w http.ResponseWriter, r *http.Request) bool
	Health  *health.Health   // nil: always well
	Now     func() time.Time // the clock that timestamps are compared with; nil: time.Now
	Metrics *metrics.Metrics // nil: nothing is counted
	Log     *slog.Logger     // nil: nothing is logged
}

// An API is the handler of all routes.
type API struct {
	apps      app.Store
	node      *node.Node
	opts      Options
	prefix    string // "", or with a leading and without a trailing slash
	cors      cors
	limits    limiters
	endpoints [routeCount]*metrics.Endpoint
	log       *slog.Logger
}

// New returns the API of a node.
func New(apps app.Store, n *node.Node, opts Options) *API {
	if opts.MaxBodyBytes == 0 {
		opts.MaxBodyBytes = 10 << 20
	}
	if opts.Now == nil {
		opts.Now = time.Now
	}
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	if opts.Health == nil {
		opts.Health = health.New(0, opts.Log)
	}
	prefix := strings.Trim(opts.PathPrefix, "/")
	if prefix != "" {
		prefix = "/" + prefix
	}
	a := &API{
		apps:   apps,
		node:   n,
		opts:   opts,
		prefix: prefix,
		cors:   newCORS(opts.CORS),
		limits: limiters{apps: map[string]*appLimiters{}},
		log:    opts.Log.With("component", "httpapi"),
	}
	for id, rt := range routes {
		a.endpoints[id] = opts.Metrics.Endpoint(rt.method, rt.template)
	}
	return a
}

// Server returns an HTTP server for the API that bounds what a slow or hostile
// client can hold: 10 s for a header, 60 s for a request, 16 KiB of header.
func Server(h http.Handler) *http.Server {
	return &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       60 * time.Second,
		WriteTimeout:      60 * time.Second,
		IdleTimeout:       120 * time.Second,
		MaxHeaderBytes:    16 << 10,
	}
}

// A call is one request on its way through the API.
type call struct {
	api    *API
	w      writer
	r      *http.Request
	path   []string     // the segments behind /apps/{id}, or behind /up, decoded
	params *sign.Params // of a signed route
	app    *app.App
	body   []byte
}

// ServeHTTP answers a request.
func (a *API) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c := &call{api: a, r: r}
	c.w = writer{ResponseWriter: w, head: r.Method == http.MethodHead}
	a.cors.headers(w.Header(), r)
	if r.Method == http.MethodOptions {
		a.cors.preflight(w)
		return
	}
	segments, ok := a.split(r.URL)
	id := noRoute
	if ok {
		id = a.find(c, segments)
	}
	if !id.health() && a.opts.Admit != nil && !a.opts.Admit(w, r) {
		return
	}
	if id == noRoute {
		c.fail(http.StatusNotFound, "not_found", "There is no such route: "+clip(r.URL.Path))
		return
	}
	rt := &routes[id]
	if r.Method != rt.method && !(c.w.head && rt.method == http.MethodGet) {
		w.Header().Set("Allow", rt.allow())
		c.fail(http.StatusMethodNotAllowed, "method_not_allowed", clip(r.Method)+" is not allowed here; use "+rt.method)
		return
	}
	began := time.Now()
	if rt.signed {
		c.signed(rt, segments[1])
	} else {
		rt.serve(c)
	}
	a.endpoints[id].Answered(time.Since(began))
}

// split returns the decoded segments of a path, without the mount prefix and
// without one trailing slash.
func (a *API) split(u *url.URL) ([]string, bool) {
	path := u.EscapedPath()
	if a.prefix != "" {
		if rest, ok := strings.CutPrefix(path, a.prefix+"/"); ok {
			path = "/" + rest
		}
	}
	path, ok := strings.CutPrefix(strings.TrimSuffix(path, "/"), "/")
	if !ok {
		return nil, false
	}
	segments := strings.Split(path, "/")
	for i, s := range segments {
		plain, err := url.PathUnescape(s)
		if err != nil || plain == "" {
			return nil, false
		}
		segments[i] = plain
	}
	return segments, true
}

// lookup finds the app of a path and answers when it cannot be used.
func (c *call) lookup(id string) bool {
	a, err := c.api.apps.ByID(c.r.Context(), id)
	switch {
	case errors.Is(err, app.ErrNotFound):
		c.fail(http.StatusNotFound, "app_not_found", "There is no app with the id "+clip(id))
		return false
	case err != nil:
		c.api.log.Warn("app not looked up", "app_id", clip(id), "err", err)
		c.unavailable("Apps cannot be looked up now, try again")
		return false
	}
	c.app = a
	if !a.Enabled {
		c.fail(http.StatusForbidden, "forbidden", "The app is disabled")
	}
	return a.Enabled
}

// socket answers a plain request to the path of a WebSocket.
func (c *call) socket() {
	c.w.Header().Set("Upgrade", "websocket")
	c.w.text(http.StatusUpgradeRequired, "This is a WebSocket endpoint: connect with ws:// or wss://\n")
}
