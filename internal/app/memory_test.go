package app_test

import (
	"testing"

	"sockudo/internal/app"
	"sockudo/internal/app/apptest"
)

func TestMemoryKeepsTheContract(t *testing.T) {
	apptest.Run(t, func() func(*testing.T, string) app.Backend {
		stores := map[string]*app.Memory{}
		return func(_ *testing.T, name string) app.Backend {
			if stores[name] == nil {
				stores[name] = app.NewMemory(app.StandardDefaults())
			}
			return stores[name]
		}
	}())
}

func TestCachedKeepsTheContract(t *testing.T) {
	stores := map[string]*app.Cached{}
	apptest.Run(t, func(_ *testing.T, name string) app.Backend {
		if stores[name] == nil {
			d := app.StandardDefaults()
			stores[name] = app.NewCached(app.NewMemory(d), d, app.CachedOptions{NegativeTTL: 1 << 40})
		}
		return stores[name]
	})
}
