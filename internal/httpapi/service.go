package httpapi

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"

	"sockudo/internal/app"
	"sockudo/internal/health"
	"sockudo/internal/metrics"
	"sockudo/internal/node"
)

// up handles GET /up and GET /up/{app}.
func (c *call) up() {
	series := metrics.System
	status := c.api.opts.Health.Run(c.r.Context())
	if len(c.path) == 1 && status != health.Draining {
		status, series = c.appStatus(status, c.path[0])
	}
	code := http.StatusOK
	switch status {
	case health.Error, health.Draining:
		code = http.StatusServiceUnavailable
	case health.NotFound:
		code = http.StatusNotFound
	}
	c.w.Header().Set("X-Health-Check", string(status))
	c.w.send(code, "text/plain", []byte(status))
	c.api.opts.Metrics.App(series).APICall(0, c.w.bytes)
}

// appStatus says how well a node of some status is for one app, and under
// which name that is booked. The look-up is one more check and has its bound.
func (c *call) appStatus(status health.Status, id string) (health.Status, string) {
	ctx, cancel := context.WithTimeout(c.r.Context(), c.api.opts.Health.Timeout())
	defer cancel()
	a, err := c.api.apps.ByID(ctx, id)
	switch {
	case errors.Is(err, app.ErrNotFound):
		return health.NotFound, metrics.Unknown
	case err != nil:
		c.api.log.Warn("app not looked up", "app_id", clip(id), "err", err)
		return health.Error, metrics.Unknown
	case !a.Enabled:
		return health.Error, a.ID
	}
	return status, a.ID
}

// live handles GET /live: the process runs.
func (c *call) live() { c.w.text(http.StatusOK, "OK") }

// usage handles GET /usage.
func (c *call) usage() {
	c.encode(struct {
		Memory memory `json:"memory"`
	}{readMemory()})
}

// stats handles GET /stats.
func (c *call) stats() {
	c.encode(struct {
		Memory memory `json:"memory"`
		node.Stats
	}{readMemory(), c.api.node.Stats()})
}

func (c *call) encode(v any) {
	body, err := json.Marshal(v)
	if err != nil {
		c.api.log.Error("answer not encoded", "err", err)
		c.internal()
		return
	}
	c.json(body)
}

// memory is the memory of the machine or of the container, in bytes.
type memory struct {
	Free    uint64  `json:"free"`
	Used    uint64  `json:"used"`
	Total   uint64  `json:"total"`
	Percent float64 `json:"percent"`
}

func newMemory(used, total uint64) memory {
	m := memory{Used: min(used, total), Total: total}
	m.Free = m.Total - m.Used
	if total > 0 {
		m.Percent = float64(m.Used) / float64(total) * 100
	}
	return m
}
