package main

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"sockudo/internal/app"
	"sockudo/internal/origin"
)

// memberHelp says what the flags of app members are for, in their order.
var memberHelp = []struct{ column, help string }{
	{"enabled", "a disabled app refuses connections"},
	{"max_connections", "open connections in the whole cluster; 0: no limit"},
	{"enable_client_messages", "clients may send client- events"},
	{"max_client_events_per_second", "of one connection; 0: no limit"},
	{"max_backend_events_per_second", "over the API, of one node; 0: no limit"},
	{"max_read_requests_per_second", "of the API, of one node; 0: no limit"},
	{"max_presence_members_per_channel", "users of a presence channel; 0: no limit"},
	{"max_presence_member_size_in_kb", "KiB of user_info; 0: no limit"},
	{"max_channel_name_length", "characters; 0: no limit"},
	{"max_event_channels_at_once", "channels of one event; 0: no limit"},
	{"max_event_name_length", "characters; 0: no limit"},
	{"max_event_payload_in_kb", "KiB of the data of an event; 0: no limit"},
	{"max_event_batch_size", "events of one batch; 0: no limit"},
	{"enable_user_authentication", "connections must sign in or join a private channel in time"},
	{"enable_watchlist_events", "clients hear when users they watch come and go"},
	{"enable_subscription_count", "subscribers hear how many they are"},
	{"enable_signin", "false refuses pusher:signin"},
	{"require_tls", "plain connections are refused"},
}

// memberFlags are the flags for the members of an app, but for its identity.
type memberFlags struct {
	values   map[string]*memberValue
	origins  []string
	webhooks string
	cmd      *cobra.Command
}

// A memberValue is the text of one member; default stands for none of its own.
type memberValue struct {
	kind app.Kind
	text string
}

// Set takes what a person may write; stores are more tolerant.
func (v *memberValue) Set(s string) error {
	v.text = strings.ToLower(s)
	if v.text == "default" || v.text == "null" || v.text == "" {
		v.text = ""
		return nil
	}
	if v.kind == app.Bool {
		if !slices.Contains([]string{"true", "false", "yes", "no", "on", "off", "1", "0"}, v.text) {
			return errors.New("expected true, false or default")
		}
		return nil
	}
	if _, err := strconv.ParseUint(v.text, 10, 32); err != nil {
		return errors.New("expected a number from 0 to 4294967295, or default")
	}
	return nil
}

func (v *memberValue) String() string { return v.text }

func (v *memberValue) Type() string {
	if v.kind == app.Bool {
		return "bool"
	}
	return "number"
}

func newMemberFlags(cmd *cobra.Command) *memberFlags {
	m := &memberFlags{values: map[string]*memberValue{}, cmd: cmd}
	kinds := map[string]app.Column{}
	for _, c := range app.Columns() {
		kinds[c.Name] = c
	}
	for _, h := range memberHelp {
		v := &memberValue{kind: kinds[h.column].Kind}
		m.values[h.column] = v
		f := cmd.Flags().VarPF(v, flagName(h.column), "", h.help)
		if v.kind == app.Bool {
			f.NoOptDefVal = "true"
			_ = cmd.RegisterFlagCompletionFunc(f.Name, cobra.FixedCompletions([]string{"true", "false", "default"}, cobra.ShellCompDirectiveNoFileComp))
		}
	}
	cmd.Flags().StringArrayVar(&m.origins, "allowed-origin", nil, "page that may connect, such as https://example.com or *.example.com; may be repeated, '' for all")
	cmd.Flags().StringVar(&m.webhooks, "webhooks", "", "JSON list of webhooks, or @FILE; '[]' for none")
	return m
}

func flagName(column string) string { return strings.ReplaceAll(column, "_", "-") }

// changed reports whether any of the flags was given.
func (m *memberFlags) changed() bool {
	for _, h := range memberHelp {
		if m.cmd.Flags().Changed(flagName(h.column)) {
			return true
		}
	}
	return m.cmd.Flags().Changed("allowed-origin") || m.cmd.Flags().Changed("webhooks")
}

// apply returns a with what the flags say.
func (m *memberFlags) apply(a *app.App) (*app.App, error) {
	texts := map[string]string{}
	for _, c := range app.Columns() {
		if v := c.Value(a); v != nil {
			texts[c.Name] = fmt.Sprint(v)
		}
	}
	for _, h := range memberHelp {
		if !m.cmd.Flags().Changed(flagName(h.column)) {
			continue
		}
		if text := m.values[h.column].text; text != "" {
			texts[h.column] = text
		} else {
			delete(texts, h.column)
		}
	}
	if m.cmd.Flags().Changed("webhooks") {
		text, err := orFile(m.webhooks)
		if err != nil {
			return nil, err
		}
		texts["webhooks"] = text
	}
	next, problems := app.FromColumns(func(column string) (string, bool) { s, ok := texts[column]; return s, ok })
	if len(problems) > 0 {
		var errs []error
		for _, p := range problems {
			errs = append(errs, fmt.Errorf("--%s %w", flagName(p.Column), p.Err))
		}
		return nil, usageError{errors.Join(errs...)}
	}
	if m.cmd.Flags().Changed("allowed-origin") {
		next.AllowedOrigins = nil
		for _, o := range m.origins {
			if o != "" {
				next.AllowedOrigins = append(next.AllowedOrigins, o)
			}
		}
		if _, errs := origin.ParseLenient(next.AllowedOrigins); len(errs) > 0 {
			return nil, usageError{fmt.Errorf("--allowed-origin: %w", errors.Join(errs...))}
		}
	}
	return next, nil
}

// exclusive returns an error if a flag is given together with one of others.
func exclusive(cmd *cobra.Command, flag string, others ...string) error {
	for _, other := range others {
		if cmd.Flags().Changed(flag) && cmd.Flags().Changed(other) {
			return usageError{fmt.Errorf("--%s and --%s do not go together", flag, other)}
		}
	}
	return nil
}

// orFile returns text, or the content of FILE if it is @FILE.
func orFile(text string) (string, error) {
	name, ok := strings.CutPrefix(text, "@")
	if !ok {
		return text, nil
	}
	data, err := os.ReadFile(name)
	if err != nil {
		return "", err
	}
	return string(data), nil
}
