package server

import (
	"log/slog"

	"sockudo/internal/config"
	"sockudo/internal/health"
	"sockudo/internal/httpapi"
	"sockudo/internal/metrics"
)

// apiOptions are the settings of the HTTP API.
func apiOptions(cfg *config.Config, h *health.Health, m *metrics.Metrics, log *slog.Logger) httpapi.Options {
	origins := cfg.CORS.Origin
	if origins == nil {
		origins = []string{} // the settings always say: none
	}
	return httpapi.Options{
		PathPrefix:   cfg.PathPrefix,
		MaxBodyBytes: int64(cfg.HTTPAPI.RequestLimitMB) << 20,
		CORS: httpapi.CORS{
			Origins:     origins,
			Methods:     cfg.CORS.Methods,
			Headers:     cfg.CORS.AllowedHeaders,
			Credentials: cfg.CORS.Credentials,
		},
		EnforceLimits: cfg.RateLimiter.EnforceAppLimits,
		Usage:         cfg.HTTPAPI.UsageEnabled,
		Stats:         cfg.HTTPAPI.StatsEnabled,
		Health:        h,
		Metrics:       m,
		Log:           log,
	}
}
