package server

import (
	"context"
	"time"

	"sockudo/internal/cluster"
	"sockudo/internal/config"
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
	in := clusterOptions(s.cfg)
	in.Metrics, in.Log = s.metrics, opts.Log
	s.peers = cluster.New(bus, in)
	return nil
}

// clusterOptions are the settings of a cluster.
func clusterOptions(cfg *config.Config) cluster.Options {
	health := &cfg.Adapter.ClusterHealth
	prefix, setting, _ := adapter(cfg)
	return cluster.Options{
		Prefix:            prefix,
		PrefixSetting:     setting,
		ID:                cfg.Adapter.ClusterID,
		Secret:            []byte(cfg.Adapter.Secret.Reveal()),
		HeartbeatInterval: health.HeartbeatInterval.Duration(),
		NodeTimeout:       health.NodeTimeout.Duration(),
		Driver:            cfg.Adapter.Driver,
	}
}

// adapter returns what the topics of this deployment begin with, the setting
// that says so, and how long the broker may take for one thing; zero values if
// the driver has none of it.
func adapter(cfg *config.Config) (prefix, setting string, timeout time.Duration) {
	switch a := &cfg.Adapter; a.Driver {
	case "redis":
		return a.Redis.Prefix, "adapter.redis.prefix", a.Redis.RequestsTimeout.Duration()
	case "redis-cluster":
		return a.Cluster.Prefix, "adapter.cluster.prefix", a.Cluster.RequestTimeout.Duration()
	case "nats":
		return a.NATS.Prefix, "adapter.nats.prefix", a.NATS.RequestTimeout.Duration()
	}
	return "", "", 0
}
