package main

import (
	"github.com/spf13/cobra"

	"sockudo/internal/config"
	"sockudo/internal/server"
)

func newConfig(opts *serveOptions) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "config",
		Short: "Check and show settings",
		Args:  noArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	check := &cobra.Command{
		Use:   "check [FILE]",
		Short: "Look for mistakes in the settings",
		Long: `Read FILE, or the settings that 'serve' would use, together with the environment, and
list every mistake with path, line and reason. The exit code is 1 if there is one.
Warnings do not change the exit code.`,
		Args: usage(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			path := opts.config
			if len(args) == 1 {
				path = args[0]
			}
			if err := config.Check(cmd.OutOrStdout(), path, server.Check); err != nil {
				return toldError{err}
			}
			return nil
		},
	}
	var asJSON bool
	show := &cobra.Command{
		Use:   "show",
		Short: "Print every setting in force and where it comes from",
		Long:  `Print every setting with its value and its source: default, file and line, variable of the environment, or flag. Secrets are masked.`,
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, report, err := opts.load(cmd.Context())
			if err != nil {
				return err
			}
			return cfg.Show(cmd.OutOrStdout(), report, asJSON)
		},
	}
	show.Flags().BoolVar(&asJSON, "json", false, "as JSON")
	cmd.AddCommand(check, show)
	return cmd
}
