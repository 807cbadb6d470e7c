package main

import (
	"context"
	"errors"
	"os"

	"github.com/spf13/cobra"

	"sockudo/internal/bench"
	"sockudo/internal/logging"
)

func newBench(opts *serveOptions) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "bench SCENARIO",
		Short: "Load a Pusher-compatible server and measure it",
		Long: `Load any server of the Pusher protocol and measure it: latency from the moment at
which a message should have been sent, what became of every single message, and
with --pid or a server that is started for it, what the server spent on each.

Sending follows the schedule and does not wait for answers. The time before
--warmup is over is not measured, but its messages are accounted for too.

The server is one that runs (--url), this program's own (--serve), one that a
command starts (--exec), or a bare loop of send to compare with (--floor).
Several can be compared with --case, in turn, and requirements be checked with
--require; docs/benchmarks.md has the commands behind our own numbers.

Exit codes: 0 measured, 1 not measured or a requirement does not hold, 2 wrong usage.`,
		Example: `  sockudo bench fanout --serve
  sockudo bench fanout --url http://127.0.0.1:6001 --app 1 --key KEY --secret SECRET --pid $(pgrep -x sockudo)
  sockudo bench idle --serve -n 18000 -d 150s`,
		Args: usage(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	for _, s := range bench.Scenarios() {
		cmd.AddCommand(newScenario(opts, s))
	}
	cmd.AddCommand(&cobra.Command{
		Use:    "floor-server ADDRESS",
		Short:  "The program behind --floor",
		Hidden: true,
		Args:   usage(cobra.ExactArgs(1)),
		RunE:   func(cmd *cobra.Command, args []string) error { return bench.ServeFloor(cmd.Context(), args[0]) },
	})
	return cmd
}

var errRequirement = errors.New("a requirement does not hold")

func newScenario(opts *serveOptions, s *bench.Scenario) *cobra.Command {
	o := s.Defaults()
	cmd := &cobra.Command{
		Use:     s.Name,
		Short:   s.Short,
		Long:    s.Long,
		Example: s.Example,
		Args:    usage(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := loadedApp(cmd.Context(), opts, &o); err != nil {
				return err
			}
			var err error
			if o.Program, err = os.Executable(); err != nil {
				return err
			}
			log, live := cmd.ErrOrStderr(), false
			if f, ok := log.(*os.File); ok {
				live = logging.Terminal(f)
			}
			if o.Quiet {
				log = nil
			}
			rep, err := bench.Measure(cmd.Context(), s, o, log, live)
			if wrong, ok := errors.AsType[*bench.UsageError](err); ok {
				return usageError{wrong}
			}
			if err != nil {
				return err
			}
			return showReport(cmd, rep, &o)
		},
	}
	o.Flags(cmd.Flags(), s)
	o.SharedFlags(cmd.Flags())
	cmd.Flags().SortFlags = false
	return cmd
}

// showReport writes a report where it was asked for.
func showReport(cmd *cobra.Command, rep *bench.Report, o *bench.Options) error {
	if o.Out != "" {
		f, err := os.Create(o.Out)
		if err != nil {
			return err
		}
		if err := errors.Join(rep.WriteJSON(f), f.Close()); err != nil {
			return err
		}
	}
	write := rep.WriteTable
	if o.JSON {
		write = rep.WriteJSON
	}
	if err := write(cmd.OutOrStdout()); err != nil {
		return err
	}
	if !rep.Passed() {
		return errRequirement
	}
	return nil
}

// loadedApp takes the app of a running server from the settings when the flags
// do not name one.
func loadedApp(ctx context.Context, opts *serveOptions, o *bench.Options) error {
	if len(o.URLs) == 0 && o.Config == "" || o.Key != "" && o.Secret != "" && o.AppID != "" {
		return nil
	}
	from := *opts
	if o.Config != "" {
		from.config = o.Config
	}
	a, err := (&credentials{}).find(ctx, &from, o.AppID)
	if _, unknown := errors.AsType[usageError](err); unknown {
		return nil // what is missing is told with the names of the flags
	}
	if err != nil {
		return err
	}
	fill := func(field *string, value string) {
		if *field == "" {
			*field = value
		}
	}
	fill(&o.AppID, a.ID)
	fill(&o.Key, a.Key)
	fill(&o.Secret, a.Secret.Reveal())
	return nil
}
