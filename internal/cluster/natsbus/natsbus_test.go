package natsbus_test

import (
	"log/slog"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"sockudo/internal/cluster"
	"sockudo/internal/cluster/bustest"
	"sockudo/internal/cluster/natsbus"
	"sockudo/internal/servicetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func open(t *testing.T, servers ...string) cluster.Bus {
	t.Helper()
	b, err := natsbus.Open(t.Context(), natsbus.Options{Servers: servers, Log: slog.New(slog.NewTextHandler(t.Output(), nil))})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	return b
}

func TestContract(t *testing.T) {
	servers := strings.Split(servicetest.Env(t, servicetest.NATS), ",")
	t.Run("cluster", func(t *testing.T) {
		bustest.Run(t, func(t *testing.T) cluster.Bus { return open(t, servers...) })
	})
}
