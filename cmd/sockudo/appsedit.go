package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"sockudo/internal/app"
	"sockudo/internal/logging"
)

func newAppsCreate(opts *serveOptions) *cobra.Command {
	var key, secretFile string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "create [ID]",
		Short: "Create an app",
		Long: `Create an app and print its credentials, once. What is not given is made up: a random
id, key and secret. Limits that are not given are those of the server.`,
		Example: `  sockudo apps create
  sockudo apps create shop --max-connections 1000 --allowed-origin https://shop.example.com
  sockudo apps create shop --key my-key --secret-file secret.txt --json`,
		Args: usage(cobra.MaximumNArgs(1)),
	}
	members := newMemberFlags(cmd)
	cmd.Flags().StringVar(&key, "key", "", "key of the app (default: random)")
	cmd.Flags().StringVar(&secretFile, "secret-file", "", "file with the secret, - for standard input (default: random)")
	cmd.Flags().BoolVar(&asJSON, "json", false, "as JSON")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		secret, err := newSecret(cmd, secretFile)
		if err != nil {
			return err
		}
		a := &app.App{ID: randomHex(4), Key: randomHex(10), Secret: secret, Enabled: true}
		if len(args) == 1 {
			a.ID = args[0]
		}
		if key != "" {
			a.Key = key
		}
		if a, err = members.apply(a); err != nil {
			return err
		}
		return opts.withApps(cmd, func(s *appStore) error {
			if err := s.Create(cmd.Context(), a); err != nil {
				return coded(fmt.Errorf("app %q: %w", a.ID, err))
			}
			if s.inMemory() {
				return s.mustEdit(cmd, "put", a)
			}
			err := tellSecret(cmd, "created", a, asJSON)
			s.tellNodes(cmd, a.ID)
			return err
		})
	}
	return cmd
}

// newSecret returns a random secret, or the one of a file.
func newSecret(cmd *cobra.Command, file string) (app.Secret, error) {
	if file == "" {
		return app.Secret(randomHex(16)), nil
	}
	data, err := readInput(cmd, file, 64<<10)
	if err != nil {
		return "", err
	}
	secret := app.Secret(strings.TrimRight(string(data), "\r\n"))
	if err := app.ValidateSecrets(secret, ""); err != nil {
		return "", err
	}
	return secret, nil
}

// readInput reads a file, or standard input for -.
func readInput(cmd *cobra.Command, file string, most int64) ([]byte, error) {
	in := cmd.InOrStdin()
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return nil, err
		}
		defer func() { _ = f.Close() }()
		in = f
	}
	data, err := io.ReadAll(io.LimitReader(in, most+1))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	if int64(len(data)) > most {
		return nil, fmt.Errorf("%s is larger than %d KiB", file, most>>10)
	}
	return data, nil
}

// tellSecret prints the credentials of an app, the only time.
func tellSecret(cmd *cobra.Command, done string, a *app.App, asJSON bool) error {
	if asJSON {
		return writeJSON(cmd.OutOrStdout(), recordOf(a))
	}
	tw := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 8, 2, ' ', 0)
	fmt.Fprintf(tw, "app %s %s\n\n", a.ID, done)
	fmt.Fprintf(tw, "  id\t%s\n  key\t%s\n  secret\t%s\n", a.ID, a.Key, a.Secret.Reveal())
	if a.PreviousSecret != "" {
		fmt.Fprintf(tw, "\nThe secret before this one is accepted %s.\n", untilText(a.PreviousUntil))
	}
	fmt.Fprint(tw, "\nKeep the secret now: it is not shown again without --show-secrets.\n")
	return tw.Flush()
}

// tellDone prints what happened to an app, without its secrets.
func tellDone(cmd *cobra.Command, a *app.App, done string, asJSON bool) error {
	if asJSON {
		return writeJSON(cmd.OutOrStdout(), recordOf(masked(a, false)))
	}
	_, err := fmt.Fprintf(cmd.OutOrStdout(), "app %s %s\n", a.ID, done)
	return err
}

func newAppsUpdate(opts *serveOptions) *cobra.Command {
	var key string
	var asJSON, force bool
	cmd := &cobra.Command{
		Use:   "update ID",
		Short: "Change settings of an app",
		Long: `Change what is given and nothing else. The value 'default' takes a setting back to the
one of the server. For the secret see 'sockudo apps rotate-secret'.`,
		Example: `  sockudo apps update shop --max-connections 5000 --enable-client-messages=false
  sockudo apps update shop --max-event-payload-in-kb default
  sockudo apps update shop --enabled=false`,
		Args:              usage(cobra.ExactArgs(1)),
		ValidArgsFunction: completeApps(opts),
	}
	members := newMemberFlags(cmd)
	cmd.Flags().StringVar(&key, "key", "", "new key of the app; the old one stops working")
	cmd.Flags().BoolVar(&asJSON, "json", false, "as JSON")
	cmd.Flags().BoolVar(&force, "force", false, "also if the settings have the app too and will undo it")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if !members.changed() && !cmd.Flags().Changed("key") {
			return usageError{errors.New("nothing to change: give a flag for what shall be different")}
		}
		return opts.withApp(cmd, args[0], func(s *appStore, a *app.App) error {
			next, err := s.change(cmd.Context(), a, func(a *app.App) (*app.App, error) {
				next, err := members.apply(a)
				if err != nil {
					return nil, err
				}
				if cmd.Flags().Changed("key") {
					next.Key = key
				}
				return next, s.mayEdit(cmd, next, force)
			})
			if err != nil {
				return err
			}
			err = tellDone(cmd, next, "updated", asJSON)
			s.tellNodes(cmd, a.ID)
			return err
		})
	}
	return cmd
}

// mostChanges is how often a change of settings is tried that others get ahead of.
const mostChanges = 5

// change updates an app. If somebody else has changed it after it was read, the
// same is done with the app as it is now.
func (s *appStore) change(ctx context.Context, a *app.App, apply func(*app.App) (*app.App, error)) (*app.App, error) {
	for tries := 1; ; tries++ {
		next, err := apply(a)
		if err != nil {
			return nil, err
		}
		err = s.Update(ctx, a, next)
		switch {
		case err == nil:
			return next, nil
		case !errors.Is(err, app.ErrChanged) || tries == mostChanges:
			return nil, coded(fmt.Errorf("app %q: %w", a.ID, err))
		}
		if a, err = s.find(ctx, a.ID); err != nil {
			return nil, err
		}
	}
}

func newAppsRotate(opts *serveOptions) *cobra.Command {
	var keep, secretFile string
	var finish, asJSON, force bool
	cmd := &cobra.Command{
		Use:   "rotate-secret ID",
		Short: "Give an app a new secret while the old one still works",
		Long: `Make a new random secret and print it, once. From then on it signs, and both it and the
old one are accepted: in channel tokens, sign-ins and API requests. Put the new one into
your backends, then end the old one with --finish, or let it end by itself with --keep.
Of two rotations at the same moment one happens; the other ends with exit code 6.

Running nodes are told, and the command says so. Those that cannot be told know the new
secret within 10 seconds: wait for that long before a backend uses it.`,
		Example: `  sockudo apps rotate-secret shop                # the old secret works until --finish
  sockudo apps rotate-secret shop --finish
  sockudo apps rotate-secret shop --keep 24h     # or ends by itself, here after a day
  sockudo apps rotate-secret shop --keep 0       # it is stolen: ends at once`,
		Args:              usage(cobra.ExactArgs(1)),
		ValidArgsFunction: completeApps(opts),
	}
	cmd.Flags().StringVar(&keep, "keep", "", "how long the old secret is accepted, such as 90m, 24h or 7d; 0: not at all (default: until it is finished)")
	cmd.Flags().BoolVar(&finish, "finish", false, "end the old secret now; makes no new one")
	cmd.Flags().StringVar(&secretFile, "secret-file", "", "file with the new secret, - for standard input (default: random)")
	cmd.Flags().BoolVar(&asJSON, "json", false, "as JSON")
	cmd.Flags().BoolVar(&force, "force", false, "also while a rotation goes on, whose older secret then ends; also if the settings have the app too and will undo it")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := exclusive(cmd, "finish", "keep", "secret-file"); err != nil {
			return err
		}
		r := rotation{finish: finish, force: force}
		var err error
		if keep != "" {
			if r.keep, err = parseKeep(keep); err != nil {
				return usageError{err}
			}
			r.ends = true
		}
		if r.secret, err = newSecret(cmd, secretFile); err != nil {
			return err
		}
		return opts.withApp(cmd, args[0], func(s *appStore, a *app.App) error {
			next, err := r.apply(a)
			if err != nil {
				return err
			}
			if err := s.mayEdit(cmd, next, force); err != nil {
				return err
			}
			if err := s.SetSecrets(cmd.Context(), a, next); err != nil {
				return coded(fmt.Errorf("app %q: %w", a.ID, err))
			}
			if finish {
				err = tellDone(cmd, next, "accepts its newest secret only", asJSON)
			} else {
				err = tellSecret(cmd, "has a new secret", next, asJSON)
			}
			s.tellNodes(cmd, a.ID)
			return err
		})
	}
	return cmd
}

// A rotation is what happens to the secrets of an app.
type rotation struct {
	secret app.Secret
	keep   time.Duration
	ends   bool // after keep, or else by finish
	finish bool
	force  bool
}

func (r *rotation) apply(a *app.App) (*app.App, error) {
	next := *a
	if r.finish {
		next.PreviousSecret, next.PreviousUntil = "", time.Time{}
		return &next, nil
	}
	if len(a.Secrets()) > 1 && !r.force {
		return nil, fmt.Errorf("app %q: a rotation goes on: the secret before the present one is accepted %s. End it with --finish first, or with --force, which lets it end now", a.ID, untilText(a.PreviousUntil))
	}
	next.Secret, next.PreviousSecret, next.PreviousUntil = r.secret, a.Secret, time.Time{}
	switch {
	case r.ends && r.keep == 0:
		next.PreviousSecret = ""
	case r.ends:
		next.PreviousUntil = time.Now().Add(r.keep).UTC().Truncate(time.Second)
	}
	return &next, nil
}

// parseKeep reads a duration, in days too.
func parseKeep(text string) (time.Duration, error) {
	var d time.Duration
	var err error
	if days, ok := strings.CutSuffix(text, "d"); ok {
		var n uint64
		if n, err = strconv.ParseUint(days, 10, 16); err == nil {
			d = time.Duration(n) * 24 * time.Hour
		}
	} else {
		d, err = time.ParseDuration(text)
	}
	if err != nil || d < 0 || d > 0 && d < time.Second {
		return 0, fmt.Errorf("--keep %q: expected 0, or a time of at least a second such as 90m, 24h or 7d", text)
	}
	return d, nil
}

func newAppsDelete(opts *serveOptions) *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use:   "delete ID",
		Short: "Delete an app",
		Long: `Delete an app. Its clients are disconnected with 4001, which tells them not to come back.
Asks first, on a terminal; elsewhere --yes is needed. To switch an app off for a while
use 'sockudo apps update ID --enabled=false'.`,
		Args:              usage(cobra.ExactArgs(1)),
		ValidArgsFunction: completeApps(opts),
		RunE: func(cmd *cobra.Command, args []string) error {
			return opts.withApp(cmd, args[0], func(s *appStore, a *app.App) error {
				if s.inMemory() {
					return s.mustEdit(cmd, fmt.Sprintf("app %q must be removed", a.ID), nil)
				}
				if !yes {
					if err := confirm(cmd, a); err != nil {
						return err
					}
				}
				if err := s.Delete(cmd.Context(), a.ID); err != nil {
					return coded(fmt.Errorf("app %q: %w", a.ID, err))
				}
				if err := s.inSettings(a.ID); err != nil {
					fmt.Fprintf(cmd.ErrOrStderr(), "sockudo: app %q comes back at the next start of a server: it is set in %s too\n", a.ID, s.report.AppSource(a.ID))
				}
				_, err := fmt.Fprintf(cmd.OutOrStdout(), "app %s deleted\n", a.ID)
				s.tellNodes(cmd, a.ID)
				return err
			})
		},
	}
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	return cmd
}

// confirm asks whether an app shall really be deleted.
func confirm(cmd *cobra.Command, a *app.App) error {
	in, ok := cmd.InOrStdin().(*os.File)
	if !ok || !logging.Terminal(in) {
		return usageError{fmt.Errorf("deleting app %q needs --yes where nobody can be asked", a.ID)}
	}
	fmt.Fprintf(cmd.ErrOrStderr(), "Delete app %s with the key %s? Its clients are disconnected for good. Type its id to go on: ", printable(a.ID), printable(a.Key))
	line := make([]byte, 1024)
	n, _ := in.Read(line)
	if string(bytes.TrimSpace(line[:n])) != a.ID {
		return errors.New("nothing was deleted")
	}
	return nil
}
