package server

import (
	"context"
	"log/slog"
	"time"

	"sockudo/internal/app"
	"sockudo/internal/app/dynamostore"
	"sockudo/internal/app/mysqlstore"
	"sockudo/internal/app/pgstore"
	"sockudo/internal/backoff"
	"sockudo/internal/cache"
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

// appPatience is how long a start waits for the server of the app store
// (configuration section 14.2).
const appPatience = 30 * time.Second

// OpenApps opens the app store of the settings for commands that edit apps.
// What is read comes from the store itself; what is changed is forgotten by the
// cache that nodes share. The apps of the settings are not put into it.
func OpenApps(ctx context.Context, cfg *config.Config, log *slog.Logger) (*Store, error) {
	store, err := openStore(ctx, cfg, log)
	if err != nil || !sharesApps(cfg) {
		return store, err
	}
	c, err := openSharedCache(ctx, cfg, log)
	if err != nil {
		log.Warn("cache is not reached: nodes may use what it has of a changed app until it expires",
			"driver", cfg.Cache.Driver, "ttl", cfg.AppManager.Cache.TTL.Duration(), "err", err)
		return store, nil
	}
	own := store.close
	store.close = func() { own(); closeCache(c) }
	store.Backend = fresh{app.NewCached(store.Backend, appDefaults(cfg), cachedOptions(cfg, c, log)), store.Backend}
	return store, nil
}

// fresh is a caching store that is only written through.
type fresh struct {
	*app.Cached
	store app.Backend
}

func (f fresh) ByID(ctx context.Context, id string) (*app.App, error) { return f.store.ByID(ctx, id) }
func (f fresh) ByKey(ctx context.Context, key string) (*app.App, error) {
	return f.store.ByKey(ctx, key)
}
func (f fresh) List(ctx context.Context, yield func(*app.App) bool) error {
	return f.store.List(ctx, yield)
}

// openNodeApps opens the app store of the settings for a node: it waits for its
// server, remembers apps, and shares them with other nodes over c.
func openNodeApps(ctx context.Context, cfg *config.Config, c cache.Cache, log *slog.Logger) (*Store, error) {
	patient, cancel := context.WithTimeout(ctx, appPatience)
	defer cancel()
	var store *Store
	var last error
	err := backoff.Retry(patient, backoff.Policy{First: 250 * time.Millisecond, Max: 5 * time.Second}, func(ctx context.Context) (err error) {
		store, err = openStore(ctx, cfg, log)
		if err == nil || last == nil || ctx.Err() == nil {
			last = err
		}
		return last // and not that the last attempt was cut short
	}, func(err error, pause time.Duration) {
		log.Warn("app store not reached, trying again", "driver", cfg.AppManager.Driver, "after", pause, "err", err)
	})
	if err != nil {
		return nil, err
	}
	if cfg.AppManager.Driver != "memory" {
		if !sharesApps(cfg) {
			c = nil
		}
		store.Backend = app.NewCached(store.Backend, appDefaults(cfg), cachedOptions(cfg, c, log))
	}
	return store, nil
}

// openStore opens the app store of the settings and nothing in front of it.
func openStore(ctx context.Context, cfg *config.Config, log *slog.Logger) (*Store, error) {
	db, d := &cfg.Database, appDefaults(cfg)
	switch driver := cfg.AppManager.Driver; driver {
	case "memory":
		return &Store{Backend: app.NewMemory(d), close: func() {}}, nil
	case "mysql":
		least, most := cfg.Pool(&db.MySQL)
		s, err := mysqlstore.Open(ctx, mysqlstore.Options{
			Host: db.MySQL.Host, Port: db.MySQL.Port, Username: db.MySQL.Username, Password: db.MySQL.Password,
			Database: db.MySQL.Database, Table: db.MySQL.TableName, MinConns: int(least), MaxConns: int(most), Defaults: d, Log: log,
		})
		return opened(s, err)
	case "pgsql":
		least, most := cfg.Pool(&db.Postgres)
		s, err := pgstore.Open(ctx, pgstore.Options{
			Host: db.Postgres.Host, Port: db.Postgres.Port, Username: db.Postgres.Username, Password: db.Postgres.Password,
			Database: db.Postgres.Database, Table: db.Postgres.TableName, MinConns: int(least), MaxConns: int(most), Defaults: d, Log: log,
		})
		return opened(s, err)
	case "dynamodb":
		s, err := dynamostore.Open(ctx, dynamostore.Options{
			Region: db.DynamoDB.Region, Endpoint: db.DynamoDB.EndpointURL.Reveal(), Table: db.DynamoDB.TableName,
			AccessKeyID: db.DynamoDB.AccessKeyID, SecretAccessKey: db.DynamoDB.SecretAccessKey, Profile: db.DynamoDB.ProfileName,
			Defaults: d, Log: log,
		})
		return opened(s, err)
	default:
		return nil, backoff.Permanent(notBuilt("app_manager.driver", driver))
	}
}

// opened is a store on a server.
func opened[S interface {
	app.Backend
	Close() error
}](s S, err error) (*Store, error) {
	if err != nil {
		return nil, err
	}
	return &Store{Backend: s, close: func() { _ = s.Close() }}, nil
}

// sharesApps reports whether nodes share a cache of apps. The cache in memory
// is none: apps would only be kept twice in this process, and a change on
// another node would be seen as late as the time to live.
func sharesApps(cfg *config.Config) bool {
	return cfg.AppManager.Driver != "memory" && cfg.AppManager.Cache.Enabled && cfg.Cache.Driver != "memory" && cfg.Cache.Driver != "none"
}

// uncachedFor is how long a node uses an app when it is told not to cache: so
// that a burst of connections is one question.
const uncachedFor = time.Second

func cachedOptions(cfg *config.Config, c cache.Cache, log *slog.Logger) app.CachedOptions {
	opts := app.CachedOptions{
		TTL:         cfg.AppManager.Cache.TTL.Duration(),
		NegativeTTL: cfg.AppManager.Cache.NegativeTTL.Duration(),
		Log:         log,
	}
	switch c := c.(type) {
	case nil:
	case *cache.Late:
		opts.Cache = reached{c}
	default:
		opts.Cache = c
	}
	if !cfg.AppManager.Cache.Enabled {
		opts.Local = uncachedFor
	}
	return opts
}

// reached is a cache that has nothing before its server is reached: what
// memory has meanwhile, other nodes cannot change.
type reached struct{ *cache.Late }

func (r reached) Get(ctx context.Context, key string) ([]byte, time.Duration, error) {
	if !r.Reached() {
		return nil, 0, cache.ErrMiss
	}
	return r.Late.Get(ctx, key)
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
