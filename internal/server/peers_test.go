package server

import (
	"context"
	"strings"
	"testing"
	"time"

	"sockudo/internal/cluster"
	"sockudo/internal/config"
)

// A node that cannot take part does not serve as if it were alone.
func TestServerEndsWhenItCannotTakePart(t *testing.T) {
	cfg := config.Default()
	cfg.Host, cfg.Port, cfg.Metrics.Enabled, cfg.ShutdownGracePeriod = "127.0.0.1", 0, false, 1
	cfg.Queue.Driver = "memory"
	cfg.Adapter.ClusterID = strings.Repeat("x", 100)
	s, err := New(t.Context(), cfg, Options{Bus: cluster.NewMemoryBus().Connect()})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := s.Run(ctx); err == nil || !strings.Contains(err.Error(), "100 bytes") || ctx.Err() != nil {
		t.Errorf("err = %v", err)
	}
}

func TestTopicsBeginAsTheSettingsSay(t *testing.T) {
	for driver, want := range map[string]string{"local": "", "redis": "r", "redis-cluster": "c", "nats": "n"} {
		cfg := config.Default()
		cfg.Adapter.Driver = driver
		cfg.Adapter.Redis.Prefix, cfg.Adapter.Cluster.Prefix, cfg.Adapter.NATS.Prefix = "r", "c", "n"
		prefix, setting, timeout := adapter(cfg)
		if prefix != want || driver != "local" && (setting == "" || timeout != 5*time.Second) {
			t.Errorf("%s: prefix %q of %q, timeout %v", driver, prefix, setting, timeout)
		}
	}
}
