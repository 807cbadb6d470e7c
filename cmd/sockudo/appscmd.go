package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"sockudo/internal/app"
	"sockudo/internal/config"
	"sockudo/internal/server"
)

const memoryDriver = "memory"

func newApps(opts *serveOptions) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "apps",
		Short: "List and edit the apps of the store",
		Long: `List and edit apps in the store of the settings: app_manager.driver mysql, pgsql or
dynamodb. Running nodes are told what was changed: through the admin listener of the node
that the settings describe, or else through the broker of adapter.driver. Those that cannot
be told notice within about 10 seconds. The last line, on standard error, says which.

With the driver memory the apps are those of the settings. They can be listed, shown and
exported. The other commands change nothing then: they print what to put into the
settings, and end with exit code 1.

Exit codes: 0 done, 1 could not be done, 2 wrong usage, 3 no such app, 4 the id or key is
taken, 5 the store could not be asked, 6 somebody else changed the app at the same moment:
nothing was done, look at it and try again.`,
		Example: `  sockudo apps list
  sockudo apps create shop --max-connections 1000 --enable-client-messages
  sockudo apps rotate-secret shop --keep 24h
  sockudo apps import .env --dry-run`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newAppsList(opts), newAppsShow(opts), newAppsCreate(opts), newAppsUpdate(opts), newAppsRotate(opts),
		newAppsDelete(opts), newAppsImport(opts), newAppsExport(opts))
	return cmd
}

// An appStore is the store of the settings as a command sees it.
type appStore struct {
	*server.Store
	cfg    *config.Config
	report *config.Report
}

// openApps opens the store of the settings. Close it.
func (o *serveOptions) openApps(cmd *cobra.Command) (*appStore, error) {
	ctx := cmd.Context()
	cfg, report, err := o.load(ctx)
	if err != nil {
		return nil, err
	}
	if err := o.checkDev(cfg); err != nil {
		return nil, err
	}
	log := slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), &slog.HandlerOptions{Level: slog.LevelWarn}))
	s, err := server.OpenApps(ctx, cfg, log)
	if err != nil {
		return nil, coded(fmt.Errorf("app_manager.driver %s: %w", cfg.AppManager.Driver, err))
	}
	if cfg.AppManager.Driver == memoryDriver {
		for _, a := range cfg.AppManager.Array.Apps {
			if err := s.Upsert(ctx, a); err != nil {
				s.Close()
				return nil, err
			}
		}
	}
	return &appStore{s, cfg, report}, nil
}

// withApps opens the store of the settings for as long as do needs it.
func (o *serveOptions) withApps(cmd *cobra.Command, do func(s *appStore) error) error {
	s, err := o.openApps(cmd)
	if err != nil {
		return err
	}
	defer s.Close()
	return do(s)
}

// withApp is withApps for the app with an id.
func (o *serveOptions) withApp(cmd *cobra.Command, id string, do func(s *appStore, a *app.App) error) error {
	return o.withApps(cmd, func(s *appStore) error {
		a, err := s.find(cmd.Context(), id)
		if err != nil {
			return err
		}
		return do(s, a)
	})
}

func (s *appStore) inMemory() bool { return s.cfg.AppManager.Driver == memoryDriver }

// coded gives an error the exit code of its kind.
func coded(err error) error {
	for _, c := range []struct {
		kind error
		code int
	}{{app.ErrUnavailable, exitUnavailable}, {app.ErrNotFound, exitNotFound}, {app.ErrExists, exitExists}, {app.ErrChanged, exitChanged}} {
		if errors.Is(err, c.kind) {
			return codeError{err, c.code}
		}
	}
	return err
}

// find returns the app with an id.
func (s *appStore) find(ctx context.Context, id string) (*app.App, error) {
	a, err := s.ByID(ctx, id)
	if err != nil {
		return nil, coded(fmt.Errorf("app %q: %w", id, err))
	}
	return a, nil
}

// inSettings returns an error if the settings have an app too: what is changed
// in the store would be undone when a server starts.
func (s *appStore) inSettings(id string) error {
	for _, a := range s.cfg.AppManager.Array.Apps {
		if a.ID == id {
			return fmt.Errorf("app %q is set in %s too, which every start of a server writes into the store: change it there, or use --force if it will be removed from there", id, s.report.AppSource(id))
		}
	}
	return nil
}

// mayEdit returns an error if a change to a must not be made in the store.
func (s *appStore) mayEdit(cmd *cobra.Command, a *app.App, force bool) error {
	if s.inMemory() {
		return s.mustEdit(cmd, "put", a)
	}
	if force {
		return nil
	}
	return s.inSettings(a.ID)
}

// mustEdit prints what to put into the settings where the store is those, and
// returns an error that says so.
func (s *appStore) mustEdit(cmd *cobra.Command, what string, a *app.App) error {
	file := s.report.File
	if file == "" {
		file = "config/config.json"
	}
	where := "app_manager.array.apps of " + file
	if a == nil {
		return fmt.Errorf("apps are kept in the settings (app_manager.driver is memory), which this command does not edit: %s from %s, and sockudo restarted", what, where)
	}
	text, err := settingsOf([]*app.App{a}, strings.HasSuffix(strings.ToLower(file), ".toml"), true)
	if err != nil {
		return err
	}
	if _, err := cmd.OutOrStdout().Write(text); err != nil {
		return err
	}
	return fmt.Errorf("apps are kept in the settings (app_manager.driver is memory), which this command does not edit: %s the app above in %s and restart sockudo", what, where)
}

// completeApps completes ids of apps.
func completeApps(opts *serveOptions) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 && cmd.Name() != "export" {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		ctx, cancel := context.WithTimeout(cmd.Context(), 2*time.Second)
		defer cancel()
		cmd.SetContext(ctx)
		var ids []string
		err := opts.withApps(cmd, func(s *appStore) error {
			return s.List(ctx, func(a *app.App) bool {
				if strings.HasPrefix(a.ID, typed) {
					ids = append(ids, a.ID)
				}
				return len(ids) < 100
			})
		})
		if err != nil && len(ids) == 0 {
			return nil, cobra.ShellCompDirectiveError
		}
		return ids, cobra.ShellCompDirectiveNoFileComp
	}
}
