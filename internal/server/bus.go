package server

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"sockudo/internal/backoff"
	"sockudo/internal/cluster"
	"sockudo/internal/cluster/natsbus"
	"sockudo/internal/cluster/redisbus"
	"sockudo/internal/config"
	"sockudo/internal/redisconn"
)

// brokerTimeout is how long a start waits for the broker.
const brokerTimeout = 30 * time.Second

// A brokerBus is a bus with connections to close.
type brokerBus interface {
	cluster.Bus
	cluster.Pinger
	Close()
}

// openBus connects to the broker that the nodes share, again and again for
// brokerTimeout. The bus is nil if this node is alone: by its settings, or
// because there is no broker and the settings prefer that to no start. What it
// returns beside the bus closes it, when nobody runs it any more.
func openBus(ctx context.Context, cfg *config.Config, log *slog.Logger) (cluster.Bus, func() error, error) {
	return openBusWithin(ctx, brokerTimeout, cfg, log)
}

func openBusWithin(ctx context.Context, timeout time.Duration, cfg *config.Config, log *slog.Logger) (cluster.Bus, func() error, error) {
	open, err := busOpener(cfg, log)
	if err != nil {
		return nil, nil, err
	}
	nothing := func() error { return nil }
	if open == nil {
		return nil, nothing, nil
	}
	limited, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	var bus brokerBus
	err = backoff.Retry(limited, backoff.Policy{First: 250 * time.Millisecond, Max: 4 * time.Second}, func(ctx context.Context) (err error) {
		bus, err = open(ctx)
		return err
	}, func(err error, pause time.Duration) {
		log.Warn("broker not reached, retrying", "driver", cfg.Adapter.Driver, "after", pause, "err", err)
	})
	switch {
	case err == nil:
		return bus, func() error { bus.Close(); return nil }, nil
	case ctx.Err() == nil && cfg.Adapter.FallbackToLocal:
		log.Error("broker not reached, this node is alone until it is started again", "driver", cfg.Adapter.Driver, "err", err)
		return nil, nothing, nil
	}
	return nil, nil, fmt.Errorf("adapter.driver %s: %w", cfg.Adapter.Driver, err)
}

// busOpener returns what connects once, or nil for the driver that needs nothing.
func busOpener(cfg *config.Config, log *slog.Logger) (func(context.Context) (brokerBus, error), error) {
	a := &cfg.Adapter
	switch a.Driver {
	case "local":
		return nil, nil
	case "redis", "redis-cluster":
		pub, sub, err := cfg.AdapterRedisEndpoints()
		if err != nil {
			return nil, err
		}
		timeout := a.Redis.RequestsTimeout
		if a.Driver == "redis-cluster" {
			timeout = a.Cluster.RequestTimeout
		}
		return func(ctx context.Context) (brokerBus, error) {
			return orNil(redisbus.Open(ctx, redisEndpoint(pub), redisEndpoint(sub), redisbus.Options{Timeout: timeout.Duration(), Log: log}))
		}, nil
	case "nats":
		n := &a.NATS
		opts := natsbus.Options{
			Prefix:         n.Prefix,
			Username:       n.Username,
			Password:       n.Password.Reveal(),
			Token:          n.Token.Reveal(),
			ConnectTimeout: n.ConnectionTimeout.Duration(),
			Timeout:        n.RequestTimeout.Duration(),
			Log:            log,
		}
		for _, s := range n.Servers {
			opts.Servers = append(opts.Servers, strings.TrimSpace(s.Reveal()))
		}
		return func(ctx context.Context) (brokerBus, error) { return orNil(natsbus.Open(ctx, opts)) }, nil
	}
	return nil, fmt.Errorf("adapter.driver: %q is unknown", a.Driver)
}

// orNil keeps a nil pointer from becoming a bus that is not nil.
func orNil[B brokerBus](bus B, err error) (brokerBus, error) {
	if err != nil {
		return nil, err
	}
	return bus, nil
}

// redisEndpoint says the same to redisconn, which does not know the settings.
func redisEndpoint(e config.RedisEndpoint) redisconn.Endpoint {
	return redisconn.Endpoint{
		Network:          e.Network,
		Addrs:            e.Addrs,
		Cluster:          e.Cluster,
		Master:           e.Master,
		TLS:              e.TLS,
		Insecure:         e.Insecure,
		Username:         e.Username,
		Password:         e.Password.Reveal(),
		DB:               e.DB,
		SentinelPassword: e.SentinelPassword.Reveal(),
	}
}
