package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"sockudo/internal/admin"
	"sockudo/internal/app"
	"sockudo/internal/cluster"
	"sockudo/internal/config"
)

func newCluster(opts *serveOptions) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "cluster",
		Short: "Look into the nodes that run",
		Long: `Look into the nodes that run, through the admin listener of one of them: it asks the
others. Which one is in the settings, as the server reads them: with the same file,
variables and --port as a node of this machine it is that node. For a node elsewhere use
--url, which needs admin.host and admin.token there.

Exit codes: 0 all is well, 1 something differs or a node does not answer, 2 wrong usage,
5 the admin listener does not answer.`,
		Example: `  sockudo cluster status
  sockudo -c node2.toml cluster audit
  sockudo cluster status --port 6002 --json`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newClusterStatus(opts), newClusterAudit(opts))
	return cmd
}

// An asker is a command that asks a node.
type asker struct {
	url, tokenFile string
	asJSON         bool
}

func (a *asker) flags(cmd *cobra.Command, opts *serveOptions) {
	cmd.Flags().StringVar(&a.url, "url", "", "base URL of an admin listener (default: from the settings)")
	cmd.Flags().StringVar(&a.tokenFile, "token-file", "", "file with its token, - for standard input (default: setting admin.token)")
	cmd.Flags().Var(&opts.port, "port", "main port of the node of this machine that is asked (default: setting port)")
	cmd.Flags().BoolVar(&a.asJSON, "json", false, "as JSON")
}

// client returns who asks.
func (a *asker) client(cmd *cobra.Command, opts *serveOptions) (*admin.Client, error) {
	cfg, _, err := opts.load(cmd.Context())
	if err != nil {
		return nil, err
	}
	c := adminOf(cfg)
	if a.tokenFile != "" {
		token, err := readInput(cmd, a.tokenFile, 4<<10)
		if err != nil {
			return nil, err
		}
		c.Token = app.Secret(strings.TrimSpace(string(token)))
	}
	if a.url != "" {
		c.URL, err = checkURL(a.url)
		return c, err
	}
	switch _, address := cfg.AdminAddr(); {
	case !cfg.Admin.Enabled:
		return nil, codeError{errors.New("admin.enabled is false: the nodes have no admin listener to be asked; switch it on, or give --url for a node that has one"), exitUnavailable}
	case strings.HasSuffix(address, ":0"):
		return nil, codeError{errors.New("port is 0 and admin.port too, so the node took any free port: its log says which (listening … admin=); give --url"), exitUnavailable}
	}
	return c, nil
}

// adminOf returns who asks the node of these settings.
func adminOf(cfg *config.Config) *admin.Client {
	c := &admin.Client{Token: cfg.Admin.Token}
	c.Network, c.Address = cfg.AdminAddr()
	for _, any := range []string{"0.0.0.0:", "[::]:"} {
		if port, ok := strings.CutPrefix(c.Address, any); ok {
			c.Address = "127.0.0.1:" + port
		}
	}
	return c
}

// unreached adds what to do when a listener does not answer.
func unreached(err error) error {
	if err == nil {
		return nil
	}
	if !errors.Is(err, admin.ErrRefused) {
		err = fmt.Errorf("%w: does the node run, with the same settings port, admin.host, admin.port and admin.unix_socket? For another one use --port or --url", err)
	}
	return codeError{err, exitUnavailable}
}

func newClusterStatus(opts *serveOptions) *cobra.Command {
	var a asker
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show the nodes and what each of them holds",
		Long: `Show the nodes: since when they run, whether they are ready, how long what they say takes
through the broker, and what their own sockets hold. A node that is known to live and does
not answer within 2 seconds is shown as silent.

Of a node that runs alone (adapter.driver local) only its connections are shown.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.client(cmd, opts)
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), 20*time.Second)
			defer cancel()
			s, err := c.Status(ctx)
			if err != nil {
				return unreached(err)
			}
			if a.asJSON {
				err = writeJSON(cmd.OutOrStdout(), s)
			} else {
				err = showStatus(cmd.OutOrStdout(), &s)
			}
			return errors.Join(err, unwell(&s.Survey))
		},
	}
	a.flags(cmd, opts)
	return cmd
}

// unwell returns an error when a node is silent or not ready.
func unwell(s *cluster.Survey) error {
	var errs []error
	for _, n := range s.Nodes {
		if n.Ready != "" {
			errs = append(errs, fmt.Errorf("node %s is not ready: %s", n.Node, printable(n.Ready)))
		}
	}
	return errors.Join(append(errs, silent(s))...)
}

func silent(s *cluster.Survey) error {
	if len(s.Silent) == 0 {
		return nil
	}
	return fmt.Errorf("no answer of %s", printable(strings.Join(s.Silent, ", ")))
}

func showStatus(w io.Writer, s *admin.Status) error {
	if alone(w, &s.Identity) {
		fmt.Fprintf(w, "%d connections\n", s.Connections)
		return nil
	}
	showIdentity(w, &s.Identity, &s.Survey)
	tw := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintln(tw, "NODE\tEPOCH\tSTARTED\tREADY\tLAG\tSOCKETS\tCHANNELS\tMEMBERS\tUSERS\tCHANGES\tDIFFERENCES")
	for _, n := range s.Nodes {
		ready := "yes"
		if n.Ready != "" {
			ready = "NO"
		}
		differences := n.Own.Differences
		for _, p := range n.Peers {
			differences += p.Differences
		}
		fmt.Fprintf(tw, "%s\t%s\t%s\t%s\t%.1f ms\t%d\t%d\t%d\t%d\t%d\t%d\n", printable(n.Node), printable(n.Epoch), started(n.Epoch), ready, n.CanaryLagMs,
			n.Own.Sockets, n.Own.Channels, n.Own.Members, n.Own.Users, n.Own.Seq, differences)
	}
	for _, node := range s.Silent {
		fmt.Fprintf(tw, "%s\t\t\tSILENT\t\t%s\n", printable(node), known(s, node))
	}
	return tw.Flush()
}

// known are the sizes that the node which was asked last heard of a silent one.
func known(s *admin.Status, node string) string {
	for _, n := range s.Nodes {
		for _, p := range n.Peers {
			if p.Node == node {
				return fmt.Sprintf("%d\t%d\t%d\t%d\t%d\theard %.1f s ago", p.Sockets, p.Channels, p.Members, p.Users, p.Seq, p.HeardMs/1000)
			}
		}
	}
	return ""
}

// started is when the process began that has an epoch.
func started(epoch string) string {
	at, err := cluster.EpochTime(epoch)
	if err != nil {
		return "?"
	}
	return at.Local().Format(time.DateTime)
}

// alone reports whether a node is, and says so.
func alone(w io.Writer, id *admin.Identity) bool {
	if id.Driver != "local" {
		return false
	}
	fmt.Fprintln(w, "this node runs alone (adapter.driver local)")
	return true
}

func showIdentity(w io.Writer, id *admin.Identity, s *cluster.Survey) {
	fmt.Fprintf(w, "cluster %s over %s, prefix %s: %d nodes", printable(id.Cluster), printable(id.Driver), printable(id.Prefix), len(s.Nodes)+len(s.Silent))
	if len(s.Silent) > 0 {
		fmt.Fprintf(w, ", %d of them silent", len(s.Silent))
	}
	fmt.Fprint(w, "\n\n")
}

func newClusterAudit(opts *serveOptions) *cobra.Command {
	var a asker
	cmd := &cobra.Command{
		Use:   "audit",
		Short: "Compare what every node knows with the truth",
		Long: `Have every node compare what it told of itself with its own sockets, and what it knows of
each other node with what that one says; entry by entry, counted anew. Zero differences are
normal at all times. What changes while it is compared is named as moving: it is compared
when it rests.

The exit code is 0 without differences, 1 when entries differ or a node does not answer
within 4 seconds.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.client(cmd, opts)
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), 20*time.Second)
			defer cancel()
			result, err := c.Audit(ctx)
			if err != nil {
				return unreached(err)
			}
			if a.asJSON {
				err = writeJSON(cmd.OutOrStdout(), result)
			} else {
				err = showAudit(cmd.OutOrStdout(), &result)
			}
			if result.Differences > 0 {
				err = errors.Join(err, fmt.Errorf("%d entries differ", result.Differences))
			}
			return errors.Join(err, silent(&result.Survey))
		},
	}
	a.flags(cmd, opts)
	return cmd
}

func showAudit(w io.Writer, a *admin.Audit) error {
	if alone(w, &a.Identity) {
		fmt.Fprintln(w, "there is nothing to compare")
		return nil
	}
	showIdentity(w, &a.Identity, &a.Survey)
	tw := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintln(tw, "NODE\tKNOWS\tCHANNELS\tMEMBERS\tUSERS\tSOCKETS\tAT CHANGE\tDIFFERENCES")
	row := func(node, of string, p *cluster.Partition) {
		fmt.Fprintf(tw, "%s\t%s\t%d\t%d\t%d\t%d\t%d\t%d\n", printable(node), of, p.Channels, p.Members, p.Users, p.Sockets, p.Seq, p.Differences)
	}
	for _, n := range a.Nodes {
		row(n.Node, "itself", &n.Own)
		for _, p := range n.Peers {
			row(n.Node, printable(p.Node), &p.Partition)
		}
	}
	fmt.Fprintln(tw)
	for _, d := range a.Disagreements {
		fmt.Fprintf(tw, "DIFFERS  %s\n", printable(d))
	}
	for _, m := range a.Moving {
		fmt.Fprintf(tw, "moving  %s\n", printable(m))
	}
	fmt.Fprintf(tw, "%d differences\n", a.Differences)
	return tw.Flush()
}
