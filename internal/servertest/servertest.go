// Package servertest runs whole servers inside a test.
package servertest

import (
	"context"
	"log/slog"
	"net/http"
	"testing"
	"time"

	"sockudo/internal/app"
	"sockudo/internal/config"
	"sockudo/internal/server"
)

// A Server is a running server on loopback. It is stopped when the test ends.
type Server struct {
	*server.Server
	Addr        string // host:port of the main listener, or the path of a Unix socket
	MetricsAddr string // host:port, "" when metrics are off

	stop context.CancelFunc
	done chan error // holds the result of Run, closed behind it
}

// Start runs a server whose settings are the defaults after edit, on free
// ports, with a grace period of one second.
func Start(t testing.TB, edit func(*config.Config)) *Server {
	t.Helper()
	return start(t, edit, server.Options{})
}

// StartLogged is Start with a log.
func StartLogged(t testing.TB, log *slog.Logger, edit func(*config.Config)) *Server {
	t.Helper()
	return start(t, edit, server.Options{Log: log})
}

func start(t testing.TB, edit func(*config.Config), opts server.Options) *Server {
	t.Helper()
	cfg := config.Default()
	cfg.Host, cfg.Port = "127.0.0.1", 0
	cfg.Metrics.Host, cfg.Metrics.Port = "127.0.0.1", 0
	cfg.Queue.Driver = "memory"
	cfg.ShutdownGracePeriod = 1
	if edit != nil {
		edit(cfg)
	}
	ctx, cancel := context.WithCancel(context.Background())
	s, err := server.New(ctx, cfg, opts)
	if err != nil {
		cancel()
		t.Fatal(err)
	}
	out := &Server{Server: s, Addr: s.Addr().String(), stop: cancel, done: make(chan error, 1)}
	if a := s.MetricsAddr(); a != nil {
		out.MetricsAddr = a.String()
	}
	go func() {
		out.done <- s.Run(ctx)
		close(out.done)
	}()
	t.Cleanup(func() {
		if err := out.Stop(); err != nil {
			t.Errorf("server: %v", err)
		}
		http.DefaultClient.CloseIdleConnections()
	})
	return out
}

// Signal begins to stop the server, as a signal would.
func (s *Server) Signal() { s.stop() }

// Stop stops the server and returns its error; later calls return nil.
func (s *Server) Stop() error {
	s.stop()
	select {
	case err := <-s.done:
		return err
	case <-time.After(30 * time.Second):
		panic("servertest: the server does not stop")
	}
}

// Ptr returns a pointer to v, for optional limits and flags of an app.
func Ptr[T any](v T) *T { return &v }

// Profile are the apps of the conformance tests: app B with everything on and
// the official limits, the same without subscription counts, app C for
// isolation, and one app for each thing that can be refused.
func Profile() []*app.App {
	full := func(id, key, secret string) *app.App {
		return &app.App{
			ID: id, Key: key, Secret: app.Secret(secret), Enabled: true,
			EnableClientMessages: true, MaxClientEventsPerSecond: 10,
			MaxEventPayloadInKB: Ptr[uint32](10), MaxPresenceMemberSizeInKB: Ptr[uint32](1),
			EnableWatchlistEvents: Ptr(true), EnableSubscriptionCount: Ptr(true),
		}
	}
	b := full("app-id", "app-key", "app-secret")
	plain := full("plain-id", "plain-key", "plain-secret")
	plain.EnableSubscriptionCount, plain.EnableWatchlistEvents = nil, nil
	c := full("other-id", "other-key", "other-secret")
	apps := []*app.App{b, plain, c}
	add := func(name string, edit func(*app.App)) {
		a := full(name+"-id", name+"-key", name+"-secret")
		a.EnableSubscriptionCount = nil
		edit(a)
		apps = append(apps, a)
	}
	add("disabled", func(a *app.App) { a.Enabled = false })
	add("single", func(a *app.App) { a.MaxConnections = 1 })
	add("origin", func(a *app.App) { a.AllowedOrigins = []string{"https://good.example", "*.example.com"} })
	add("tls", func(a *app.App) { a.RequireTLS = Ptr(true) })
	add("auth", func(a *app.App) { a.EnableUserAuthentication = Ptr(true) })
	add("quiet", func(a *app.App) { a.EnableClientMessages = false })
	add("small", func(a *app.App) { a.MaxPresenceMembersPerChannel = Ptr[uint32](3) })
	add("slow", func(a *app.App) {
		a.MaxBackendEventsPerSecond, a.MaxReadRequestsPerSecond = Ptr[uint32](2), Ptr[uint32](2)
	})
	add("nosignin", func(a *app.App) { a.EnableSignin = Ptr(false) })
	return apps
}
