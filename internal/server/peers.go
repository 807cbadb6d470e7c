package server

import (
	"context"
	"time"

	"sockudo/internal/cluster"
)

// openPeers sets the other nodes and what closes the way to them; both stay
// nil if this node is alone.
func (s *Server) openPeers(ctx context.Context, opts Options) error {
	bus := opts.Bus
	if bus == nil {
		var err error
		if bus, s.closeBus, err = openBus(ctx, s.cfg, opts.Log); err != nil || bus == nil {
			return err
		}
	}
	health := &s.cfg.Adapter.ClusterHealth
	prefix, setting, _ := s.adapter()
	s.peers = cluster.New(bus, cluster.Options{
		Prefix:            prefix,
		PrefixSetting:     setting,
		ID:                s.cfg.Adapter.ClusterID,
		Secret:            []byte(s.cfg.Adapter.Secret.Reveal()),
		HeartbeatInterval: health.HeartbeatInterval.Duration(),
		NodeTimeout:       health.NodeTimeout.Duration(),
		Driver:            s.cfg.Adapter.Driver,
		Metrics:           s.metrics,
		Log:               opts.Log,
	})
	return nil
}

// adapter returns what the topics of this deployment begin with, the setting
// that says so, and how long the broker may take for one thing; zero values if
// the driver has none of it.
func (s *Server) adapter() (prefix, setting string, timeout time.Duration) {
	switch a := &s.cfg.Adapter; a.Driver {
	case "redis":
		return a.Redis.Prefix, "adapter.redis.prefix", a.Redis.RequestsTimeout.Duration()
	case "redis-cluster":
		return a.Cluster.Prefix, "adapter.cluster.prefix", a.Cluster.RequestTimeout.Duration()
	case "nats":
		return a.NATS.Prefix, "adapter.nats.prefix", a.NATS.RequestTimeout.Duration()
	}
	return "", "", 0
}
