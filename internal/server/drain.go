package server

import (
	"context"
	"time"

	"sockudo/internal/protocol"
)

// perClose is the pause between two closes while draining, when the grace
// period is long enough: pusher-js comes back at once and without jitter, so
// the peers of this node see at most 50 reconnects a second.
const perClose = 20 * time.Millisecond

// drain stops the server within the grace period. New clients and readiness
// probes are turned away first; then the clients are closed, spread evenly;
// the API goes on until the last of them has gone, so that what it accepts
// always has somebody to reach.
func (s *Server) drain() {
	grace := s.cfg.ShutdownGracePeriod.Duration()
	ctx, cancel := context.WithTimeout(context.Background(), grace)
	defer cancel()
	s.gate.Drain()
	s.health.SetDraining()
	s.log.Info("stopping", "connections", s.hub.Connections(), "grace", grace)

	s.closeClients(ctx, grace*8/10)
	if err := s.api.Shutdown(ctx); err != nil {
		s.log.Warn("API requests were cut off", "err", err)
		_ = s.api.Close()
	}
	s.hub.Wait()
	if err := s.sockets.Shutdown(ctx); err != nil {
		s.log.Warn("connections were cut off", "err", err)
	}
	if s.scrape != nil {
		_ = s.scrape.Close()
	}
	if s.tools != nil {
		_ = s.tools.Close()
	}
	s.log.Info("stopped")
}

// closeClients closes every connection with 4200, evenly over at most window.
func (s *Server) closeClients(ctx context.Context, window time.Duration) {
	sockets := s.hub.Sockets()
	if len(sockets) == 0 {
		return
	}
	window = min(window, time.Duration(len(sockets))*perClose)
	start := time.Now()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for i, sock := range sockets {
		timer.Reset(time.Until(start.Add(window * time.Duration(i) / time.Duration(len(sockets)))))
		select {
		case <-timer.C:
		case <-ctx.Done():
		}
		sock.Fail(protocol.CodeReconnect, "Server shutting down")
	}
}
