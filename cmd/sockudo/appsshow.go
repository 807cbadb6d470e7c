package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"sockudo/internal/app"
	"sockudo/internal/logging"
)

func newAppsList(opts *serveOptions) *cobra.Command {
	var asJSON, secrets bool
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List all apps",
		Long: `List all apps of the store, in no special order. --json prints a list with one app in
each line, which 'sockudo apps import' reads if the secrets are shown.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return opts.withApps(cmd, func(s *appStore) error {
				if asJSON {
					return s.listJSON(cmd, secrets)
				}
				return s.listTable(cmd, secrets)
			})
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "as JSON")
	cmd.Flags().BoolVar(&secrets, "show-secrets", false, "print secrets in the clear")
	return cmd
}

func (s *appStore) listJSON(cmd *cobra.Command, secrets bool) error {
	out, between := cmd.OutOrStdout(), "[\n"
	var failed error
	err := s.List(cmd.Context(), func(a *app.App) bool {
		_, failed = fmt.Fprintf(out, "%s  %s", between, recordOf(masked(a, secrets)))
		between = ",\n"
		return failed == nil
	})
	if err != nil {
		return coded(fmt.Errorf("list: %w", err))
	}
	if failed == nil && between == "[\n" {
		between = "["
	} else {
		between = "\n"
	}
	if failed == nil {
		_, failed = fmt.Fprintf(out, "%s]\n", between)
	}
	return failed
}

// tableRows is how many lines are aligned with each other.
const tableRows = 500

func (s *appStore) listTable(cmd *cobra.Command, secrets bool) error {
	tw := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 8, 2, ' ', 0)
	head := []string{"ID", "KEY", "ENABLED", "CONNECTIONS", "CLIENT EVENTS", "ORIGINS", "WEBHOOKS", "SECRETS"}
	if secrets {
		head = append(head, "SECRET")
	}
	fmt.Fprintln(tw, strings.Join(head, "\t"))
	rows := 0
	var failed error
	err := s.List(cmd.Context(), func(a *app.App) bool {
		row := []string{
			printable(a.ID), printable(a.Key), yesNo(a.Enabled), orUnlimited(a.MaxConnections), yesNo(a.EnableClientMessages),
			count(len(a.AllowedOrigins), "all"), count(len(a.Webhooks), "-"), fmt.Sprint(len(a.Secrets())),
		}
		if secrets {
			row = append(row, printable(a.Secret.Reveal()))
		}
		fmt.Fprintln(tw, strings.Join(row, "\t"))
		if rows++; rows%tableRows == 0 {
			failed = tw.Flush()
		}
		return failed == nil
	})
	if err != nil {
		return coded(fmt.Errorf("list: %w", err))
	}
	if failed == nil {
		failed = tw.Flush()
	}
	return failed
}

// printable keeps control characters from a terminal.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return '\uFFFD'
		}
		return r
	}, s)
}

func yesNo(v bool) string {
	if v {
		return "yes"
	}
	return "no"
}

func orUnlimited(n uint32) string {
	if n == 0 {
		return "unlimited"
	}
	return fmt.Sprint(n)
}

func count(n int, none string) string {
	if n == 0 {
		return none
	}
	return fmt.Sprint(n)
}

func newAppsShow(opts *serveOptions) *cobra.Command {
	var asJSON, secrets, byKey bool
	cmd := &cobra.Command{
		Use:   "show ID",
		Short: "Show one app",
		Long: `Show the app with an id, with all of its settings and the limits in force. Secrets and
the headers of webhooks are masked.`,
		Example:           "  sockudo apps show shop\n  sockudo apps show --by-key 8f2c1a\n  sockudo apps show shop --json --show-secrets",
		Args:              usage(cobra.ExactArgs(1)),
		ValidArgsFunction: completeApps(opts),
		RunE: func(cmd *cobra.Command, args []string) error {
			return opts.withApps(cmd, func(s *appStore) error {
				look := s.ByID
				if byKey {
					look = s.ByKey
				}
				a, err := look(cmd.Context(), args[0])
				if err != nil {
					return coded(fmt.Errorf("app %q: %w", args[0], err))
				}
				return showApp(cmd.OutOrStdout(), a, asJSON, secrets)
			})
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "as JSON")
	cmd.Flags().BoolVar(&secrets, "show-secrets", false, "print secrets in the clear")
	cmd.Flags().BoolVar(&byKey, "by-key", false, "the argument is the key of the app")
	return cmd
}

// masked returns a with *** for what must not be seen.
func masked(a *app.App, secrets bool) *app.App {
	if secrets {
		return a
	}
	own := *a
	own.Secret = "***"
	if own.PreviousSecret != "" {
		own.PreviousSecret = "***"
	}
	own.Webhooks = nil
	for _, w := range a.Webhooks {
		w.URL = logging.RedactURL(w.URL)
		w.Headers = maps.Clone(w.Headers)
		for name := range w.Headers {
			w.Headers[name] = "***"
		}
		own.Webhooks = append(own.Webhooks, w)
	}
	return &own
}

func showApp(w io.Writer, a *app.App, asJSON, secrets bool) error {
	shown := masked(a, secrets)
	if asJSON {
		return writeJSON(w, recordOf(shown))
	}
	tw := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	limits := inForce(a)
	for _, c := range app.Columns() {
		v := c.Value(shown)
		if v == nil && c.Need == app.Extra {
			continue
		}
		text := "-"
		if v != nil {
			text = printable(fmt.Sprint(v))
		}
		if limit, ok := limits[c.Name]; ok && text != limit {
			text += "  (" + limit + ")"
		}
		fmt.Fprintf(tw, "%s\t%s\n", c.Name, text)
	}
	if a.PreviousSecret != "" && len(a.Secrets()) == 1 {
		fmt.Fprintln(tw, "\tthe previous secret has ended")
	}
	return tw.Flush()
}

// inForce tells the limits of an app with what it inherits.
func inForce(a *app.App) map[string]string {
	l := a.Limits
	text := func(n int) string {
		if n == 0 {
			return "unlimited"
		}
		return fmt.Sprint(n)
	}
	return map[string]string{
		"max_connections":                  text(l.MaxConnections),
		"max_client_events_per_second":     text(l.ClientEventsPerSecond),
		"max_backend_events_per_second":    text(l.BackendEventsPerSecond),
		"max_read_requests_per_second":     text(l.ReadRequestsPerSecond),
		"max_presence_members_per_channel": text(l.PresenceMembers),
		"max_presence_member_size_in_kb":   text(l.PresenceMemberBytes >> 10),
		"max_channel_name_length":          text(l.ChannelNameLength),
		"max_event_channels_at_once":       text(l.EventChannels),
		"max_event_name_length":            text(l.EventNameLength),
		"max_event_payload_in_kb":          text(l.EventPayloadBytes >> 10),
		"max_event_batch_size":             text(l.BatchSize),
	}
}

// recordOf returns an app as JSON that import reads back: ${ would be taken for
// a variable.
func recordOf(a *app.App) json.RawMessage {
	return bytes.ReplaceAll(app.MarshalRecord(a), []byte("${"), []byte(`\u0024{`))
}

func writeJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

// untilText tells when a previous secret ends.
func untilText(at time.Time) string {
	if at.IsZero() {
		return "until 'sockudo apps rotate-secret --finish'"
	}
	return "until " + app.FormatTime(at)
}
