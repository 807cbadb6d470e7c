// Package httpapi is the REST API (protocol section 5): publishing, queries,
// and the service routes.
package httpapi

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"sockudo/internal/app"
	"sockudo/internal/health"
	"sockudo/internal/metrics"
	"sockudo/internal/node"
)

// Options are the parts of the API that have a default.
type Options struct {
	PathPrefix    string           // the routes are served below it too; "" or "/": none
	MaxBodyBytes  int64            // 0: 10 MiB
	CORS          CORS             // the zero value allows every origin
	EnforceLimits bool             // per-second limits of apps
	Usage         bool             // serve GET /usage
	Stats         bool             // serve GET /stats
	LookupTimeout time.Duration    // bound of finding an app; 0: 5 s
	Health        *health.Health   // nil: always well
	Now           func() time.Time // the clock that timestamps are compared with; nil: time.Now
	Metrics       *metrics.Metrics // nil: nothing is counted
	Log           *slog.Logger     // nil: nothing is logged
}

// An API is the handler of all routes.
type API struct {
	apps   app.Store
	node   *node.Node
	opts   Options
	prefix string
	cors   cors
	limits limiters
	log    *slog.Logger
}

// New returns the API of a node.
func New(apps app.Store, n *node.Node, opts Options) *API {
	if opts.MaxBodyBytes == 0 {
		opts.MaxBodyBytes = 10 << 20
	}
	if opts.LookupTimeout == 0 {
		opts.LookupTimeout = 5 * time.Second
	}
	if opts.Now == nil {
		opts.Now = time.Now
	}
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	if opts.Health == nil {
		opts.Health = health.New(time.Second, opts.Log)
	}
	return &API{
		apps:   apps,
		node:   n,
		opts:   opts,
		prefix: strings.TrimSuffix(opts.PathPrefix, "/"),
		cors:   newCORS(opts.CORS),
		limits: limiters{apps: map[string]*appLimiters{}},
		log:    opts.Log.With("component", "httpapi"),
	}
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

// A route is a path with its methods.
type route struct {
	methods []string
	serve   func(c *call)
	app     bool // signed, and below /apps/{id}
	read    bool // counts as a read request
}

// A call is one request on its way through the API.
type call struct {
	api  *API
	w    *writer
	r    *http.Request
	path []string // the segments behind /apps/{id}, decoded
	app  *app.App
	body []byte
	in   int // bytes of the body
}

// ServeHTTP answers a request.
func (a *API) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c := &call{api: a, w: &writer{ResponseWriter: w, head: r.Method == http.MethodHead}, r: r}
	a.cors.headers(w.Header(), r)
	if r.Method == http.MethodOptions {
		a.cors.preflight(w)
		return
	}
	segments, ok := a.split(r.URL)
	var rt *route
	if ok {
		rt = a.find(c, segments)
	}
	switch {
	case rt == nil:
		c.fail(http.StatusNotFound, "not_found", "There is no such route: "+clip(r.URL.Path))
	case !allows(rt.methods, r.Method):
		w.Header().Set("Allow", strings.Join(append(rt.methods, http.MethodOptions), ", "))
		c.fail(http.StatusMethodNotAllowed, "method_not_allowed", r.Method+" is not allowed here; use "+strings.Join(rt.methods, " or "))
	case rt.app:
		c.signed(rt, segments[1])
	default:
		rt.serve(c)
	}
}

func allows(methods []string, method string) bool {
	for _, m := range methods {
		if m == method || m == http.MethodGet && method == http.MethodHead {
			return true
		}
	}
	return false
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

var (
	get  = []string{http.MethodGet}
	post = []string{http.MethodPost}
)

// The routes that every request is compared with.
var (
	eventsRoute     = &route{methods: post, app: true, serve: (*call).events}
	batchRoute      = &route{methods: post, app: true, serve: (*call).batch}
	channelsRoute   = &route{methods: get, app: true, read: true, serve: (*call).channels}
	channelRoute    = &route{methods: get, app: true, read: true, serve: (*call).channel}
	usersRoute      = &route{methods: get, app: true, read: true, serve: (*call).users}
	statsRoute      = &route{methods: get, app: true, read: true, serve: (*call).oldStats}
	oldEventsRoute  = &route{methods: post, app: true, serve: (*call).oldEvents}
	terminateRoute  = &route{methods: post, app: true, serve: (*call).terminate}
	reconnectRoute  = &route{methods: post, app: true, serve: (*call).reconnect}
	upRoute         = &route{methods: get, serve: (*call).up}
	liveRoute       = &route{methods: get, serve: (*call).live}
	usageRoute      = &route{methods: get, serve: (*call).usage}
	serverStatRoute = &route{methods: get, serve: (*call).serverStats}
	socketRoute     = &route{methods: get, serve: (*call).socket}
)

// find returns the route of a path, or nil, and sets the call's path.
func (a *API) find(c *call, s []string) *route {
	switch {
	case len(s) == 1 && s[0] == "up", len(s) == 2 && s[0] == "up":
		c.path = s[1:]
		return upRoute
	case len(s) == 1 && s[0] == "live":
		return liveRoute
	case len(s) == 1 && s[0] == "usage" && a.opts.Usage:
		return usageRoute
	case len(s) == 1 && s[0] == "stats" && a.opts.Stats:
		return serverStatRoute
	case len(s) == 2 && s[0] == "app":
		return socketRoute
	case len(s) < 3 || s[0] != "apps":
		return nil
	}
	c.path = s[2:]
	switch p := c.path; {
	case len(p) == 1 && p[0] == "events":
		return eventsRoute
	case len(p) == 1 && p[0] == "batch_events":
		return batchRoute
	case p[0] == "channels" && len(p) == 1:
		return channelsRoute
	case p[0] == "channels" && len(p) == 2:
		return channelRoute
	case p[0] == "channels" && len(p) == 3 && p[2] == "users":
		return usersRoute
	case p[0] == "channels" && len(p) == 3 && p[2] == "stats":
		return statsRoute
	case p[0] == "channels" && len(p) == 3 && p[2] == "events":
		return oldEventsRoute
	case p[0] == "users" && len(p) == 3 && p[2] == "terminate_connections":
		return terminateRoute
	case p[0] == "users" && len(p) == 3 && p[2] == "force_reconnect":
		return reconnectRoute
	}
	return nil
}

// lookup finds the app of a path and answers when it cannot be used.
func (c *call) lookup(id string) bool {
	ctx, cancel := context.WithTimeout(c.r.Context(), c.api.opts.LookupTimeout)
	defer cancel()
	a, err := c.api.apps.ByID(ctx, id)
	switch {
	case errors.Is(err, app.ErrNotFound):
		c.fail(http.StatusNotFound, "app_not_found", "There is no app with the id "+clip(id))
	case err != nil:
		c.api.log.Warn("app not looked up", "err", err)
		c.unavailable("Apps cannot be looked up now, try again")
	case !a.Enabled:
		c.app = a
		c.fail(http.StatusForbidden, "forbidden", "The app is disabled")
	default:
		c.app = a
		return true
	}
	return false
}

// socket answers a plain request to the path of a WebSocket.
func (c *call) socket() {
	c.w.Header().Set("Upgrade", "websocket")
	c.w.text(http.StatusUpgradeRequired, "This is a WebSocket endpoint: connect with ws:// or wss://\n")
}

func clip(s string) string {
	const most = 200
	if len(s) > most {
		s = s[:most] + "…"
	}
	return strings.ToValidUTF8(s, "\ufffd")
}

func (c *call) unavailable(message string) {
	c.w.Header().Set("Retry-After", "1")
	c.fail(http.StatusServiceUnavailable, "service_unavailable", message)
}

// tooMany answers a call that is over a per-second limit.
func (c *call) tooMany(limit int, wait time.Duration, setting string) {
	seconds := strconv.Itoa(int((wait + time.Second - 1) / time.Second))
	h := c.w.Header()
	h.Set("X-RateLimit-Limit", strconv.Itoa(limit))
	h.Set("X-RateLimit-Remaining", "0")
	h.Set("X-RateLimit-Reset", seconds)
	h.Set("Retry-After", seconds)
	c.fail(http.StatusTooManyRequests, "rate_limited", "Too many requests: "+setting+" is "+strconv.Itoa(limit))
}
