package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"sockudo/internal/config"
)

func newHealthcheck(opts *serveOptions) *cobra.Command {
	var url string
	cmd := &cobra.Command{
		Use:   "healthcheck",
		Short: "Ask the running server whether it is well",
		Long: `Ask GET /up of the server that the settings describe, or of --url. The exit code is
0 when the server is ready, also if degraded, and 1 when it is not or does not
answer within 3 seconds. Made for the health check of a container.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			target, client, err := opts.target(url)
			if err != nil {
				return err
			}
			return healthcheck(cmd.Context(), cmd.OutOrStdout(), client, target)
		},
	}
	cmd.Flags().StringVar(&url, "url", "", "base URL of the server (default: from the settings)")
	return cmd
}

func healthcheck(ctx context.Context, w io.Writer, client *http.Client, url string) error {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url+"/up", nil)
	if err != nil {
		return usageError{err}
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1024))
	if err != nil {
		return err
	}
	status := strings.TrimSpace(string(body))
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s/up answers %s: %s", url, resp.Status, status)
	}
	fmt.Fprintln(w, status)
	return nil
}

// clientFor returns the base URL of the server that cfg describes and a client
// that reaches it, also through a Unix socket.
func clientFor(cfg *config.Config) (string, *http.Client) {
	if cfg.UnixSocket.Enabled {
		dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", cfg.UnixSocket.Path)
		}
		return "http://localhost", &http.Client{Transport: &http.Transport{DialContext: dial}}
	}
	host := cfg.Host
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	address := net.JoinHostPort(host, fmt.Sprint(cfg.Port))
	if !cfg.SSL.Enabled {
		return "http://" + address, http.DefaultClient
	}
	return "https://" + address, &http.Client{Transport: &http.Transport{TLSClientConfig: tlsTo(host)}}
}

// tlsTo returns how to speak TLS with a server of the settings. Its certificate
// is for the name that clients use, which nobody could check on loopback; and
// nobody else can answer there.
func tlsTo(host string) *tls.Config {
	ip := net.ParseIP(host)
	return &tls.Config{InsecureSkipVerify: host == "localhost" || ip != nil && ip.IsLoopback()}
}
