package app

import "log/slog"

// LogProblems logs what was wrong with one stored app: what FromColumns and
// Prepare returned. An app that cannot be used is an error, the rest is not.
func LogProblems(log *slog.Logger, a *App, fields []*FieldError, origins []error) {
	for _, f := range fields {
		if a == nil {
			log.Error("app cannot be used", "app_id", f.AppID, "column", f.Column, "err", f.Err)
		} else {
			log.Warn("field of an app is malformed", "app_id", f.AppID, "column", f.Column, "err", f.Err)
		}
	}
	for _, err := range origins {
		log.Warn("field of an app is malformed", "app_id", a.ID, "column", "allowed_origins", "err", err)
	}
}
