package cluster_test

import (
	"testing"

	"sockudo/internal/cluster"
	"sockudo/internal/cluster/bustest"
)

func TestMemoryBusKeepsTheContract(t *testing.T) {
	broker := cluster.NewMemoryBus()
	bustest.Run(t, func(*testing.T) cluster.Bus { return broker.Connect() })
}
