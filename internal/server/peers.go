package server

import (
	"sockudo/internal/cluster"
	"sockudo/internal/config"
	"sockudo/internal/metrics"
)

// openPeers returns the other nodes over the bus of the settings, or nil if
// this node is alone.
func openPeers(cfg *config.Config, opts Options, m *metrics.Metrics) *cluster.Cluster {
	bus := opts.Bus
	if bus == nil {
		return nil
	}
	return cluster.New(bus, cluster.Options{
		Prefix:            topicPrefix(cfg),
		HeartbeatInterval: cfg.Adapter.ClusterHealth.HeartbeatInterval.Duration(),
		NodeTimeout:       cfg.Adapter.ClusterHealth.NodeTimeout.Duration(),
		Metrics:           m,
		Log:               opts.Log,
	})
}

// topicPrefix is what the topics of this deployment begin with.
func topicPrefix(cfg *config.Config) string {
	switch cfg.Adapter.Driver {
	case "redis":
		return cfg.Adapter.Redis.Prefix
	case "redis-cluster":
		return cfg.Adapter.Cluster.Prefix
	case "nats":
		return cfg.Adapter.NATS.Prefix
	}
	return ""
}

// peerTimeout bounds what waits for the broker.
func peerTimeout(cfg *config.Config) config.Millis {
	switch cfg.Adapter.Driver {
	case "redis":
		return cfg.Adapter.Redis.RequestsTimeout
	case "redis-cluster":
		return cfg.Adapter.Cluster.RequestTimeout
	case "nats":
		return cfg.Adapter.NATS.RequestTimeout
	}
	return 0
}
