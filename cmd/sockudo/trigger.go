package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/spf13/cobra"

	"sockudo/internal/app"
	"sockudo/internal/sign"
)

// credentials say as which app a command speaks.
type credentials struct {
	url, key, secret string
}

func (c *credentials) flags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&c.url, "url", "", "base URL of the server, such as https://ws.example.com (default: from the settings)")
	cmd.Flags().StringVar(&c.key, "key", "", "key of the app (default: from the settings)")
	cmd.Flags().StringVar(&c.secret, "secret", "", "secret of the app (default: from the settings)")
}

// find returns the app with an id, or with an empty id the only one, from the
// flags or the settings.
func (c *credentials) find(ctx context.Context, opts *serveOptions, id string) (*app.App, error) {
	if c.key != "" && c.secret != "" {
		return &app.App{ID: id, Key: c.key, Secret: app.Secret(c.secret)}, nil
	}
	cfg, _, err := opts.load(ctx)
	if err != nil {
		return nil, err
	}
	apps := cfg.AppManager.Array.Apps
	if id == "" && len(apps) == 1 {
		return apps[0], nil
	}
	for _, a := range apps {
		if a.ID == id || id == "" && a.Key == c.key {
			return a, nil
		}
	}
	if id == "" {
		return nil, usageError{fmt.Errorf("the settings have %d apps: choose one with --app, or give --key and --secret", len(apps))}
	}
	return nil, usageError{fmt.Errorf("the settings have no app %q: give --key and --secret", id)}
}

func newTrigger(opts *serveOptions) *cobra.Command {
	var cred credentials
	var except string
	cmd := &cobra.Command{
		Use:   "trigger APP CHANNEL EVENT DATA",
		Short: "Publish an event through the API of a running server",
		Long: `Publish EVENT with DATA on CHANNEL of the app with the id APP. DATA is sent as it is;
- reads it from the standard input. The app's key and secret come from the
settings or from --key and --secret.`,
		Example: `  sockudo trigger --dev demo-app my-channel my-event '{"message":"hello"}'
  sockudo trigger --url https://ws.example.com --key KEY --secret SECRET 1 news headline - < story.json`,
		Args: usage(cobra.ExactArgs(4)),
		RunE: func(cmd *cobra.Command, args []string) error {
			a, err := cred.find(cmd.Context(), opts, args[0])
			if err != nil {
				return err
			}
			base, client, err := opts.target(cred.url)
			if err != nil {
				return err
			}
			data := args[3]
			if data == "-" {
				in, err := io.ReadAll(cmd.InOrStdin())
				if err != nil {
					return fmt.Errorf("standard input: %w", err)
				}
				data = string(in)
			}
			return trigger(cmd.Context(), client, base, a, event{Name: args[2], Channels: []string{args[1]}, Data: data, SocketID: except})
		},
	}
	cred.flags(cmd)
	cmd.Flags().StringVar(&except, "socket-id", "", "socket that does not get the event")
	return cmd
}

type event struct {
	Name     string   `json:"name"`
	Channels []string `json:"channels"`
	Data     string   `json:"data"`
	SocketID string   `json:"socket_id,omitempty"`
}

func trigger(ctx context.Context, client *http.Client, base string, a *app.App, e event) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	body, err := json.Marshal(e)
	if err != nil {
		return err
	}
	path := "/apps/" + a.ID + "/events"
	query := sign.Query(a.Key, a.Secret.Reveal(), http.MethodPost, path, nil, body, time.Now())
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, base+path+"?"+query, bytes.NewReader(body))
	if err != nil {
		return usageError{err}
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := client.Do(req)
	if err != nil {
		return errors.Unwrap(err) // without the URL and the signature in it
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, 4096))
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("the server answers %s: %s", resp.Status, bytes.TrimSpace(answer))
	}
	return nil
}
