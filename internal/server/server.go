// Package server builds a whole server from its settings, runs it and stops it
// in reverse order.
package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"sockudo/internal/app"
	"sockudo/internal/cache"
	"sockudo/internal/cluster"
	"sockudo/internal/config"
	"sockudo/internal/health"
	"sockudo/internal/httpapi"
	"sockudo/internal/hub"
	"sockudo/internal/metrics"
	"sockudo/internal/node"
	"sockudo/internal/protocol"
	"sockudo/internal/session"
	"sockudo/internal/ws"
)

// Options are the parts of a server that have a default.
type Options struct {
	// Bus connects the node to its peers whatever adapter.driver says, for many
	// nodes in one process; nil: the settings decide.
	Bus cluster.Bus
	Log *slog.Logger // nil: nothing is logged
}

// A Server is one node with its listeners.
type Server struct {
	cfg     *config.Config
	log     *slog.Logger
	apps    *Store
	cache   cache.Cache
	peers   *cluster.Cluster // nil: the node is alone
	hub     *hub.Hub
	node    *node.Node
	gate    *session.Gate
	health  *health.Health
	metrics *metrics.Metrics
	sockets *ws.Server
	api     *http.Server
	scrape  *http.Server
	tools   *http.Server

	main    net.Listener
	scraped net.Listener // nil: metrics are off or could not be bound
	asked   net.Listener // of operators, nil: off or could not be bound

	runCache func(context.Context) error
	closeBus func() error // nil: there is nothing to close
}

// New builds a server and binds its listeners; Run serves.
func New(ctx context.Context, cfg *config.Config, opts Options) (_ *Server, err error) {
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	if err := checkBuilt(cfg); err != nil {
		return nil, err
	}
	s := &Server{cfg: cfg, log: opts.Log.With("component", "server")}
	defer func() {
		if err != nil {
			s.release()
		}
	}()
	if cfg.Metrics.Enabled {
		s.metrics = metrics.New(metrics.Options{Prefix: cfg.Metrics.Prometheus.Prefix, Port: int(cfg.Metrics.Port)})
	}
	if s.cache, s.runCache, err = openCache(ctx, cfg, opts.Log); err != nil {
		return nil, err
	}
	if s.apps, err = openNodeApps(ctx, cfg, s.cache, opts.Log); err != nil {
		return nil, fmt.Errorf("app manager: %w", err)
	}
	addApps(ctx, s.apps, cfg, s.log)
	for _, a := range cfg.AppManager.Array.Apps {
		s.metrics.App(a.ID) // so that dashboards know the app before its first connection
	}
	if err := s.openPeers(ctx, opts); err != nil {
		return nil, err
	}
	inHub := hub.Options{Metrics: s.metrics}
	if s.peers != nil {
		inHub.Peers = s.peers
	}
	s.hub = hub.New(inHub)
	_, _, timeout := adapter(cfg)
	s.node = node.New(s.hub, s.cache, node.Options{
		Peers:        s.peers,
		PeerTimeout:  timeout,
		LastEventTTL: cfg.ChannelLimits.CacheTTL.Duration(),
		CacheShared:  cfg.Cache.Driver != "memory",
		AppChanged:   func(id string) { s.gate.Recheck(id) },
		Dropped:      s.metrics.ClusterDropped,
		Room:         func(ctx context.Context, most time.Duration) error { return s.sockets.Room(ctx, most) },
		Log:          opts.Log,
	})
	s.health = checks(cfg, s.apps, s.cache, s.peers, opts.Log)
	s.gate = session.NewGate(s.apps, s.hub, s.node, session.Options{
		ActivityTimeout:  cfg.ActivityTimeout.Duration(),
		PongTimeout:      cfg.PongTimeout.Duration(),
		AuthTimeout:      cfg.UserAuthenticationTimeout.Duration(),
		StrictProtocol:   cfg.StrictProtocol,
		PathPrefix:       cfg.PathPrefix,
		TrustHops:        int(cfg.RateLimiter.WebSocket.TrustHops),
		MaxConnections:   int(cfg.MaxConnections),
		MaxMessageBytes:  messageLimit(cfg),
		MaxSubscriptions: int(cfg.WebSocket.MaxSubscriptions),
		Metrics:          s.metrics,
		Log:              opts.Log,
	})
	s.sockets = ws.NewServer(s.gate.Accept, socketOptions(cfg, opts.Log))
	s.api = httpapi.Server(s.route(httpapi.New(s.apps, s.node, apiOptions(cfg, s.health, s.metrics, opts.Log))))
	s.api.ErrorLog = slog.NewLogLogger(opts.Log.With("component", "http").Handler(), slog.LevelDebug)

	if s.main, err = listen(ctx, cfg, s.log); err != nil {
		return nil, err
	}
	if s.metrics != nil {
		s.listenMetrics(ctx)
	}
	if err := s.listenAdmin(ctx, opts); err != nil {
		return nil, errors.Join(err, s.main.Close())
	}
	return s, nil
}

// socketOptions are the settings of the WebSocket engine.
func socketOptions(cfg *config.Config, log *slog.Logger) ws.Options {
	return ws.Options{
		MaxMessageBytes: messageLimit(cfg),
		MaxQueuedBytes:  int(cfg.WebSocket.MaxQueuedBytes),
		MaxQueuedFrames: int(cfg.WebSocket.MaxQueuedMessages),
		MaxQueueAge:     cfg.WebSocket.MaxQueueAge.Duration(),
		DropSlow:        cfg.WebSocket.SlowConsumerPolicy == "drop",
		SlowCode:        protocol.CodeOverCapacity,
		SlowReason:      "Client does not read fast enough",
		ForceStream:     cfg.WebSocket.Transport == "stream",
		Log:             log,
	}
}

// messageLimit is how large a frame of a client may be: the setting, but
// always enough for a client event of the default size. An app may allow more.
func messageLimit(cfg *config.Config) int {
	if cfg.WebsocketMaxPayloadKB == 0 {
		return -1
	}
	return max(int(cfg.WebsocketMaxPayloadKB), int(cfg.EventLimits.MaxPayloadKB)+4) << 10
}

// checks are the dependencies that GET /up asks about.
func checks(cfg *config.Config, apps app.Pinger, c cache.Cache, peers *cluster.Cluster, log *slog.Logger) *health.Health {
	h := health.New(cfg.HealthCheckTimeout.Duration(), log)
	h.Add("app store", true, anyApp(apps))
	if p, ok := c.(cache.Pinger); ok {
		// Not critical: what cache channels replay is not worth a node (docs/decisions).
		h.Add("cache", false, p.Ping)
	}
	if peers != nil {
		h.Add("cluster", true, func(context.Context) error { return peers.Ready() })
	}
	return h
}

// anyFor is how long it is believed that there is an app.
const anyFor = 5 * time.Second

// anyApp returns the check that there is an app. Probes are not signed, and
// must not become questions to a database one by one.
func anyApp(apps app.Pinger) func(ctx context.Context) error {
	var until atomic.Pointer[time.Time]
	return func(ctx context.Context) error {
		if t := until.Load(); t != nil && time.Now().Before(*t) {
			return nil
		}
		there, err := apps.Any(ctx)
		if err != nil {
			return err
		}
		if !there {
			return errors.New("no app is configured")
		}
		t := time.Now().Add(anyFor)
		until.Store(&t)
		return nil
	}
}

// route sends upgrades that are not the first request of their connection, and
// all upgrades under TLS, to the WebSocket engine and everything else to the API.
func (s *Server) route(api http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.EqualFold(r.Header.Get("Upgrade"), "websocket") {
			s.sockets.ServeHTTP(w, r)
			return
		}
		api.ServeHTTP(w, r)
	})
}

// listenMetrics binds the listener of GET /metrics. That it cannot be bound
// ends nothing.
func (s *Server) listenMetrics(ctx context.Context) {
	ln, err := listenTCP(ctx, s.cfg.Metrics.Host, s.cfg.Metrics.Port, "")
	if err != nil {
		s.log.Error("metrics are not served", "host", s.cfg.Metrics.Host, "port", s.cfg.Metrics.Port, "err", err)
		return
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", s.metrics.Handler())
	s.scraped = ln
	s.scrape = &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: time.Minute}
}

// Addr is where the main listener listens.
func (s *Server) Addr() net.Addr { return s.main.Addr() }

// MetricsAddr is where metrics are served, or nil.
func (s *Server) MetricsAddr() net.Addr {
	if s.scraped == nil {
		return nil
	}
	return s.scraped.Addr()
}

// Hub returns the hub, for tests that look inside.
func (s *Server) Hub() *hub.Hub { return s.hub }

// Peers returns the other nodes, nil if there can be none, for tests that look
// inside.
func (s *Server) Peers() *cluster.Cluster { return s.peers }

// Node returns the node.
func (s *Server) Node() *node.Node { return s.node }

// Run serves until ctx is done, then stops the server within the grace period:
// readiness goes, clients are closed one after the other, what was accepted is
// delivered. It returns nil after a complete stop.
func (s *Server) Run(ctx context.Context) error {
	defer s.release()
	// What runs behind the doors stops after them.
	inner, stopInner := context.WithCancel(context.WithoutCancel(ctx))
	defer stopInner()
	failed := make(chan struct{}, 4)
	var behind, peers errgroup.Group
	among, leave := context.WithCancel(inner)
	defer leave()
	if s.peers != nil {
		peers.Go(func() error {
			err := s.peers.Run(among, s.node.Local())
			if err != nil {
				failed <- struct{}{}
				err = fmt.Errorf("adapter.driver %s: %w", s.cfg.Adapter.Driver, err)
			}
			return err
		})
	}
	behind.Go(func() error { return s.node.Run(inner) })
	behind.Go(func() error { return tidy(inner) })
	behind.Go(func() error { return s.gate.Watch(inner) })
	behind.Go(func() error { return s.runCache(inner) })

	var doors errgroup.Group
	serve := func(name string, serve func() error) {
		doors.Go(func() error {
			err := serve()
			if errors.Is(err, http.ErrServerClosed) || errors.Is(err, net.ErrClosed) {
				return nil
			}
			failed <- struct{}{}
			return fmt.Errorf("%s listener: %w", name, err)
		})
	}
	serve("main", func() error { return s.sockets.Serve(s.main, s.api) })
	if s.scrape != nil {
		serve("metrics", func() error { return s.scrape.Serve(s.scraped) })
	}
	if s.asked != nil {
		serve("admin", func() error { return s.tools.Serve(s.asked) })
	}
	scraped, asked := "off", "off"
	if s.scraped != nil {
		scraped = s.scraped.Addr().String()
	}
	if s.asked != nil {
		asked = s.asked.Addr().String()
	}
	s.log.Info("listening", "addr", s.main.Addr().String(), "tls", s.cfg.SSL.Enabled, "metrics", scraped, "admin", asked)
	s.logCapacity()

	select {
	case <-ctx.Done():
	case <-failed:
	}
	s.drain()
	err := doors.Wait()
	// Everybody has left this node before it says goodbye to its peers.
	leave()
	err = errors.Join(err, peers.Wait())
	stopInner()
	return errors.Join(err, behind.Wait())
}

// release closes what reaches other servers.
func (s *Server) release() {
	if s.apps != nil {
		s.apps.Close()
	}
	closeCache(s.cache)
	if s.closeBus != nil {
		if err := s.closeBus(); err != nil {
			s.log.Warn("broker not left", "err", err)
		}
	}
}
