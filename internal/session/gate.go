// Package session is one connected client: admission, liveness, and what its
// messages cause. Its callbacks run on the event loop of the connection and do
// not wait; what may wait goes through ws.Conn.Await.
package session

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"sockudo/internal/app"
	"sockudo/internal/clientip"
	"sockudo/internal/hub"
	"sockudo/internal/metrics"
	"sockudo/internal/node"
	"sockudo/internal/protocol"
	"sockudo/internal/ws"
)

// Options are the parts of a gate that have a default.
type Options struct {
	ActivityTimeout time.Duration // silence before the server pings; 0: 120 s
	PongTimeout     time.Duration // silence after the ping before 4201; 0: 30 s
	AuthTimeout     time.Duration // for apps with EnableUserAuthentication; 0: 1 h
	LookupTimeout   time.Duration // bound of finding the app; 0: 5 s
	StrictProtocol  bool          // a missing protocol parameter is refused with 4008
	PathPrefix      string        // paths are also served below it; "" or "/": none
	TrustHops       int           // trusted proxies in front of the server
	MaxConnections  int           // of this node; 0: no limit
	// MaxMessageBytes is how large messages of clients may be whose app does not
	// allow larger events; 0: what the WebSocket server says, below 0: no limit.
	MaxMessageBytes int
	// MaxSubscriptions bounds the channels of one connection; 0: no limit.
	MaxSubscriptions int
	// Limit is asked about each upgrade after the draining check; what it
	// returns refuses the upgrade over HTTP. nil: nobody is refused.
	Limit   func(r *http.Request) *ws.Refusal
	Metrics *metrics.Metrics // nil: nothing is counted
	Log     *slog.Logger     // nil: nothing is logged
}

// A Gate admits connections (protocol 1.4) and makes their sessions.
type Gate struct {
	apps     app.Store
	hub      *hub.Hub
	node     *node.Node
	opts     Options
	log      *slog.Logger
	prefix   string
	made     time.Time
	draining atomic.Bool
	changed  chan struct{} // holds one when an app is to be looked up at once
	nobody   *scope        // of clients whose app is not known
	current  sync.Map      // of *scope by id of the app, as they were found last

	mu    sync.Mutex          // guards what follows
	stale map[string]struct{} // ids of such apps
}

// NewGate returns a gate to n for the apps of a store.
func NewGate(apps app.Store, h *hub.Hub, n *node.Node, opts Options) *Gate {
	setDefault(&opts.ActivityTimeout, 120*time.Second)
	setDefault(&opts.PongTimeout, 30*time.Second)
	setDefault(&opts.AuthTimeout, time.Hour)
	setDefault(&opts.LookupTimeout, 5*time.Second)
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	g := &Gate{
		apps:    apps,
		hub:     h,
		node:    n,
		opts:    opts,
		log:     opts.Log.With("component", "session"),
		prefix:  strings.TrimSuffix(opts.PathPrefix, "/"),
		made:    time.Now(),
		changed: make(chan struct{}, 1),
		stale:   map[string]struct{}{},
	}
	g.nobody = &scope{gate: g}
	return g
}

// moment returns t as sessions keep it, which takes less memory.
func (g *Gate) moment(t time.Time) time.Duration { return t.Sub(g.made) }

func setDefault(d *time.Duration, value time.Duration) {
	if *d == 0 {
		*d = value
	}
}

// Drain makes the gate answer every further upgrade with 503, so that a
// balancer picks another node.
func (g *Gate) Drain() { g.draining.Store(true) }

// Accept is the ws.Accept of the server. Only what a balancer should see is
// refused over HTTP; everything else is told after the upgrade, because
// pusher-js takes a failed upgrade for a network fault and retries for ever.
func (g *Gate) Accept(r *http.Request) (ws.Handler, *ws.Refusal) {
	if g.draining.Load() {
		return nil, &ws.Refusal{
			Status: http.StatusServiceUnavailable,
			Header: http.Header{"Retry-After": {"1"}},
			Body:   "The server is shutting down.\n",
		}
	}
	if g.opts.Limit != nil {
		if refusal := g.opts.Limit(r); refusal != nil {
			return nil, refusal
		}
	}
	s := &Session{scope: g.nobody}
	s.refusal = g.admit(r, s)
	return s, nil
}

// admit runs the checks of an upgrade that do not need the hub and sets the
// session's scope.
func (g *Gate) admit(r *http.Request, s *Session) *protocol.Error {
	key, ok := g.appKey(r.URL)
	if !ok {
		g.opts.Metrics.ConnectionError("unknown", "websocket_upgrade_failed")
		return &protocol.Error{Code: protocol.CodePathNotFound, Message: "Path not found"}
	}
	if err := protocol.CheckVersion(firstQuery(r.URL.RawQuery, "protocol"), g.opts.StrictProtocol); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(r.Context(), g.opts.LookupTimeout)
	defer cancel()
	a, err := g.apps.ByKey(ctx, key)
	switch {
	case errors.Is(err, app.ErrNotFound):
		g.opts.Metrics.ConnectionError("unknown", "app_not_found")
		return &protocol.Error{Code: protocol.CodeUnknownApp,
			Message: "App key " + key + " not in this cluster. Did you forget to specify the cluster?"}
	case err != nil:
		// Not 4001: clients would give up, and the app may well exist.
		g.log.Warn("app not looked up", "err", err)
		g.opts.Metrics.ConnectionError("unknown", "app_validation_failed")
		return &protocol.Error{Code: protocol.CodeOverCapacity, Message: "Applications cannot be looked up now, try again"}
	}
	s.scope = g.scope(a)
	if !a.Enabled {
		g.opts.Metrics.ConnectionError(a.ID, "app_disabled")
		return &protocol.Error{Code: protocol.CodeAppDisabled, Message: "Application disabled"}
	}
	if a.RequireTLS != nil && *a.RequireTLS && !g.secure(r) {
		return &protocol.Error{Code: protocol.CodeTLSRequired,
			Message: "Application only accepts SSL connections, reconnect using wss://"}
	}
	if _, present := r.Header["Origin"]; !a.Origins.Allows(r.Header.Get("Origin"), present) {
		g.opts.Metrics.ConnectionError(a.ID, "origin_not_allowed")
		return &protocol.Error{Code: protocol.CodeUnauthorized, Message: "Origin not allowed"}
	}
	if now, _ := g.current.Load(a.ID); now != any(s.scope) {
		g.current.Store(a.ID, s.scope) // older connections need not wait for Watch
	}
	return nil
}

// appKey returns the KEY of /app/KEY, with or without the prefix and one
// trailing slash, percent-decoded.
func (g *Gate) appKey(u *url.URL) (string, bool) {
	path := u.EscapedPath()
	rest, ok := strings.CutPrefix(path, "/app/")
	if !ok && g.prefix != "" {
		rest, ok = strings.CutPrefix(path, g.prefix+"/app/")
	}
	rest = strings.TrimSuffix(rest, "/")
	if !ok || rest == "" || strings.Contains(rest, "/") {
		return "", false
	}
	key, err := url.PathUnescape(rest)
	return key, err == nil
}

// firstQuery returns the first value of a query parameter. Pairs that are
// malformed are passed over.
func firstQuery(rawQuery, name string) string {
	values, _ := url.ParseQuery(rawQuery)
	return values.Get(name)
}

// secure reports whether the client's connection is encrypted, as far as the
// server sees it or a trusted proxy says.
func (g *Gate) secure(r *http.Request) bool {
	if r.TLS != nil {
		return true
	}
	peer, _ := netip.ParseAddrPort(r.RemoteAddr) // a Unix socket has no address
	return clientip.Secure(peer.Addr(), r.Header, g.opts.TrustHops)
}

// watchInterval is how often the apps of connected clients are looked up again.
const watchInterval = 5 * time.Second

// Watch closes the connections of apps that were disabled (4003) or deleted
// (4001) while they were open, and lets the others use new secrets, until ctx
// is done.
func (g *Gate) Watch(ctx context.Context) error {
	tick := time.NewTicker(watchInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-g.changed:
			for id := range g.takeStale() {
				g.changedApp(ctx, id)
			}
		case <-tick.C:
			for _, ns := range g.hub.Apps() {
				if ns.Connections() > 0 {
					g.recheck(ctx, ns)
				} else {
					g.current.Delete(ns.ID)
				}
			}
			for id := range g.current.Range {
				if g.hub.Lookup(id.(string)) == nil {
					g.current.Delete(id)
				}
			}
		}
	}
}

// Recheck has Watch forget what is remembered of an app and look it up at once,
// because its settings have changed. It does not wait.
func (g *Gate) Recheck(appID string) {
	g.mu.Lock()
	g.stale[appID] = struct{}{}
	g.mu.Unlock()
	select {
	case g.changed <- struct{}{}:
	default:
	}
}

// newest returns the app of a connection as it is now: since it was opened, its
// secrets may have been rotated.
func (g *Gate) newest(a *app.App) *app.App {
	if now, ok := g.current.Load(a.ID); ok {
		return now.(*scope).app
	}
	return a
}

// scope returns the scope of an app, the same one while the app is the same.
func (g *Gate) scope(a *app.App) *scope {
	if now, ok := g.current.Load(a.ID); ok && now.(*scope).app == a {
		return now.(*scope)
	}
	return &scope{gate: g, app: a}
}

func (g *Gate) takeStale() map[string]struct{} {
	g.mu.Lock()
	defer g.mu.Unlock()
	ids := g.stale
	g.stale = map[string]struct{}{}
	return ids
}

func (g *Gate) changedApp(ctx context.Context, id string) {
	if f, ok := g.apps.(app.Forgetter); ok {
		ctx, cancel := context.WithTimeout(ctx, g.opts.LookupTimeout)
		defer cancel()
		f.Forget(ctx, id)
	}
	if ns := g.hub.Lookup(id); ns != nil && ns.Connections() > 0 {
		g.recheck(ctx, ns)
	}
}

func (g *Gate) recheck(ctx context.Context, ns *hub.Namespace) {
	ctx, cancel := context.WithTimeout(ctx, g.opts.LookupTimeout)
	defer cancel()
	a, err := g.apps.ByID(ctx, ns.ID)
	var why *protocol.Error
	switch {
	case errors.Is(err, app.ErrNotFound):
		why = &protocol.Error{Code: protocol.CodeUnknownApp, Message: "Application deleted"}
	case err != nil:
		return
	case a.Enabled:
		g.current.Store(a.ID, g.scope(a))
		return
	default:
		why = &protocol.Error{Code: protocol.CodeAppDisabled, Message: "Application disabled"}
	}
	for _, s := range ns.Sockets() {
		s.Fail(why.Code, why.Message)
	}
}
