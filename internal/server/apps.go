package server

import (
	"context"
	"log/slog"

	"sockudo/internal/app"
	"sockudo/internal/config"
)

// A Store is the app store that the settings choose. Close it.
type Store struct {
	app.Backend
	close func()
}

// Close releases what the store holds.
func (s *Store) Close() { s.close() }

// Forget makes the next look-up of an app ask again, if anything is remembered
// of it.
func (s *Store) Forget(ctx context.Context, id string) {
	if f, ok := s.Backend.(app.Forgetter); ok {
		f.Forget(ctx, id)
	}
}

// OpenApps opens the app store of the settings, for the server and for the
// commands that edit apps. The apps of the settings are not put into it, and
// nothing is cached.
func OpenApps(_ context.Context, cfg *config.Config, _ *slog.Logger) (*Store, error) {
	switch driver := cfg.AppManager.Driver; driver {
	case "memory":
		return &Store{Backend: app.NewMemory(appDefaults(cfg)), close: func() {}}, nil
	default:
		return nil, notBuilt("app_manager.driver", driver)
	}
}

// appDefaults are the limits of apps that have none of their own.
func appDefaults(cfg *config.Config) app.Defaults {
	return app.Defaults{
		ChannelNameLength:    cfg.ChannelLimits.MaxNameLength,
		EventNameLength:      cfg.EventLimits.MaxNameLength,
		EventPayloadInKB:     cfg.EventLimits.MaxPayloadKB,
		EventChannels:        cfg.EventLimits.MaxChannelsAtOnce,
		BatchSize:            cfg.EventLimits.MaxBatchSize,
		PresenceMembers:      cfg.Presence.MaxMembersPerChannel,
		PresenceMemberSizeKB: cfg.Presence.MaxMemberSizeKB,
	}
}

// addApps puts the apps of the settings into the store. One that cannot be
// stored is logged and keeps the others from nothing.
func addApps(ctx context.Context, store app.Editor, cfg *config.Config, log *slog.Logger) {
	for _, a := range cfg.AppManager.Array.Apps {
		if err := store.Upsert(ctx, a); err != nil {
			log.Error("app not stored", "app_id", a.ID, "err", err)
		}
		if len(a.Webhooks) > 0 {
			log.Warn("this version does not deliver webhooks", "app_id", a.ID, "webhooks", len(a.Webhooks))
		}
	}
}
