// Command sockudo is a realtime WebSocket server for Pusher clients.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
)

// Exit codes, as in docs/command-line.md.
const (
	exitOK    = 0
	exitFatal = 1 // the command could not do its work
	exitUsage = 2 // unknown flag, missing argument

	// Of the commands that edit apps; exitUnavailable also of those that ask nodes.
	exitNotFound    = 3 // there is no such app
	exitExists      = 4 // an app with this id or key is there already
	exitUnavailable = 5 // the store or the node could not be asked; trying again may help
	exitChanged     = 6 // somebody else changed the app meanwhile; nothing was done
)

func main() {
	// The first signal stops the server in good order, the second at once.
	ctx, cancel := context.WithCancel(context.Background())
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		<-signals
		cancel()
		<-signals
		os.Exit(exitFatal)
	}()
	os.Exit(run(ctx, os.Args[1:]))
}

// usageError marks an error of how the command was called.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

// toldError marks an error that the user has read already.
type toldError struct{ error }

func (e toldError) Unwrap() error { return e.error }

// codeError marks an error with an exit code of its own.
type codeError struct {
	error
	code int
}

func (e codeError) Unwrap() error { return e.error }

func run(ctx context.Context, args []string) int {
	root := newRoot()
	root.SetArgs(args)
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return exitOK
	}
	if _, told := errors.AsType[toldError](err); !told {
		fmt.Fprintln(os.Stderr, "sockudo:", err)
	}
	if _, ok := errors.AsType[usageError](err); ok {
		fmt.Fprintf(os.Stderr, "Run '%s --help' for usage.\n", cmd.CommandPath())
		return exitUsage
	}
	if coded, ok := errors.AsType[codeError](err); ok {
		return coded.code
	}
	return exitFatal
}

// newRoot returns the whole command line; serving is what it does by itself.
func newRoot() *cobra.Command {
	var opts serveOptions
	root := &cobra.Command{
		Use:   "sockudo",
		Short: "A realtime WebSocket server for Pusher clients",
		Long: `sockudo is a realtime WebSocket server that pusher-js, Laravel Echo and the Pusher
server libraries use unmodified. Without a command it serves.

Exit codes: 0 stopped or done, 1 the command could not do its work, 2 wrong usage;
'sockudo apps' and 'sockudo cluster' have more.`,
		Example: `  sockudo                           serve; makes up an app if none is configured
  sockudo --dev                     serve the app demo-app on loopback, with verbose logs
  sockudo -c config.toml            serve with the settings of a file
  sockudo config check config.toml  look for mistakes in it
  sockudo listen --dev my-channel   print the events of a channel
  sockudo apps create --help        apps in a database
  sockudo cluster status            the nodes and what they know of each other`,
		Version:           buildVersion(),
		Args:              noArgs,
		SilenceErrors:     true,
		SilenceUsage:      true,
		DisableAutoGenTag: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return serve(cmd.Context(), cmd.OutOrStdout(), cmd.ErrOrStderr(), opts)
		},
	}
	root.SetVersionTemplate("sockudo {{.Version}}\n")
	root.Flags().BoolP("version", "V", false, "print the version")
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	root.PersistentFlags().StringVarP(&opts.config, "config", "c", "",
		"settings file, JSON or TOML (default config/config.toml, then config/config.json)")
	root.PersistentFlags().BoolVar(&opts.dev, "dev", false, "use the well-known app demo-app and verbose logs, on loopback only")
	opts.serveFlags(root)

	serveCmd := &cobra.Command{
		Use:   "serve",
		Short: "Serve until a signal comes (the default)",
		Long: `Serve until SIGINT or SIGTERM, then stop in good order within shutdown_grace_period.
A second signal stops at once.`,
		Args: noArgs,
		RunE: root.RunE,
	}
	opts.serveFlags(serveCmd)
	root.AddCommand(serveCmd, newConfig(&opts), newVersion(), newHealthcheck(&opts), newTrigger(&opts), newListen(&opts), newApps(&opts), newCluster(&opts), newBench(&opts))
	return root
}

// usage marks the errors of an argument check as wrong usage.
func usage(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if err := check(cmd, args); err != nil {
			return usageError{err}
		}
		return nil
	}
}

// noArgs refuses arguments; what stands where a command could is taken for a
// command that does not exist.
func noArgs(cmd *cobra.Command, args []string) error {
	switch {
	case len(args) == 0:
		return nil
	case !cmd.HasSubCommands():
		return usageError{fmt.Errorf("%s takes no arguments, got %q", cmd.CommandPath(), args[0])}
	}
	text := fmt.Sprintf("unknown command %q for %q", args[0], cmd.CommandPath())
	cmd.SuggestionsMinimumDistance = 2
	if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
		text += "; did you mean " + strings.Join(near, " or ") + "?"
	}
	return usageError{errors.New(text)}
}
