package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"sockudo/internal/admin"
	"sockudo/internal/config"
	"sockudo/internal/server"
)

const (
	// askTimeout bounds the wait for the admin listener, tellTimeout that for the
	// broker.
	askTimeout  = 3 * time.Second
	tellTimeout = 5 * time.Second
)

// tellNodes tells running nodes which apps were changed and prints how that
// went. It is no part of the command's work: without it nodes notice too.
func (s *appStore) tellNodes(cmd *cobra.Command, apps ...string) {
	if s.inMemory() || len(apps) == 0 {
		return
	}
	// Standard output belongs to the result.
	fmt.Fprintln(cmd.ErrOrStderr(), tell(cmd.Context(), s.cfg, apps))
}

func tell(ctx context.Context, cfg *config.Config, apps []string) string {
	among := cfg.Adapter.Driver != "local"
	told, err := tellAdmin(ctx, cfg, apps)
	switch {
	case err == nil && told.Identity == server.AdminIdentity(cfg, among) && among:
		return fmt.Sprintf("running nodes: told, %d of them (through the admin listener)", told.Peers+1)
	case err == nil && !among && told.Driver == "local":
		return "running nodes: the one of this machine was told, others notice within about 10 seconds"
	case err == nil && !among:
		return fmt.Sprintf("running nodes: told, %d of them, by the one of this machine; others notice within about 10 seconds", told.Peers+1)
	}
	if among {
		ctx, cancel := context.WithTimeout(ctx, tellTimeout)
		defer cancel()
		busErr := server.TellApps(ctx, cfg, apps)
		if busErr == nil {
			return fmt.Sprintf("running nodes: told (over %s)", cfg.Adapter.Driver)
		}
		err = errors.Join(err, fmt.Errorf("adapter.driver %s: %w", cfg.Adapter.Driver, busErr))
	}
	why := strings.ReplaceAll(err.Error(), "\n", "; ")
	return "running nodes: not told, they notice within about 10 seconds (" + printable(why) + ")"
}

// tellAdmin tells the node of this machine that the settings describe.
func tellAdmin(ctx context.Context, cfg *config.Config, apps []string) (admin.Told, error) {
	if !cfg.Admin.Enabled {
		return admin.Told{}, errors.New("admin.enabled is false")
	}
	c := adminOf(cfg)
	if strings.HasSuffix(c.Address, ":0") {
		return admin.Told{}, errors.New("admin.port is any free one")
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	return c.Changed(ctx, apps)
}
