package redisbus_test

import (
	"log/slog"
	"testing"

	"sockudo/internal/cluster"
	"sockudo/internal/cluster/bustest"
	"sockudo/internal/cluster/redisbus"
	"sockudo/internal/redisconn"
	"sockudo/internal/servicetest"
)

func TestMain(m *testing.M) { servicetest.VerifyNoLeaks(m) }

func open(t *testing.T, e redisconn.Endpoint) cluster.Bus {
	t.Helper()
	b, err := redisbus.Open(t.Context(), e, e, redisbus.Options{Log: slog.New(slog.NewTextHandler(t.Output(), nil))})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	return b
}

func TestContract(t *testing.T) {
	for name, e := range map[string]func(testing.TB) redisconn.Endpoint{
		"one server": servicetest.RedisEndpoint,
		"sentinels":  servicetest.SentinelEndpoint,
		"cluster":    servicetest.RedisClusterEndpoint,
	} {
		t.Run(name, func(t *testing.T) {
			bustest.Run(t, func(t *testing.T) cluster.Bus { return open(t, e(t)) })
		})
	}
}
