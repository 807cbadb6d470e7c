package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"sockudo/internal/app"
	"sockudo/internal/config"
	"sockudo/internal/logging"
	"sockudo/internal/server"
)

// serveOptions are the flags of the command line.
type serveOptions struct {
	config    string
	dev       bool
	devRemote bool
	host      string
	port      portFlag
}

func (o *serveOptions) serveFlags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&o.host, "host", "", "address to listen on (setting host)")
	cmd.Flags().Var(&o.port, "port", "port of the API and of WebSocket, 0 for any free one (setting port; default 6001)")
	cmd.Flags().BoolVar(&o.devRemote, "dev-remote", false, "let --dev listen on an address that others can reach")
}

// A portFlag is a port that may be given; 0 is one.
type portFlag struct {
	text string // "": not given
}

func (p *portFlag) Set(text string) error {
	n, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		return errors.New("expected a number from 0 to 65535")
	}
	p.text = strconv.FormatUint(n, 10)
	return nil
}

func (p *portFlag) String() string { return p.text }
func (p *portFlag) Type() string   { return "number" }

// The app of --dev. Everybody knows it.
const (
	demoID     = "demo-app"
	demoKey    = "demo-key"
	demoSecret = "demo-secret"
)

// load reads the settings from all sources.
func (o *serveOptions) load(context.Context) (*config.Config, *config.Report, error) {
	var flags []config.Flag
	if o.dev {
		flags = append(flags, config.Flag{Name: "--dev", Key: "debug", Value: "true"})
		if o.host == "" {
			flags = append(flags, config.Flag{Name: "--dev", Key: "host", Value: "127.0.0.1"})
		}
		if !o.devRemote {
			flags = append(flags, config.Flag{Name: "--dev", Key: "metrics.host", Value: "127.0.0.1"})
		}
	}
	if o.host != "" {
		flags = append(flags, config.Flag{Name: "--host", Key: "host", Value: o.host})
	}
	if o.port.text != "" {
		flags = append(flags, config.Flag{Name: "--port", Key: "port", Value: o.port.text})
	}
	cfg, report, err := config.Load(config.LoadOptions{Path: o.config, Flags: flags})
	if err != nil {
		return nil, report, err
	}
	if o.dev {
		if err := addDemoApp(cfg); err != nil {
			return nil, report, err
		}
	}
	return cfg, report, nil
}

// addDemoApp adds the app of --dev unless the settings have one of that id.
func addDemoApp(cfg *config.Config) error {
	for _, a := range cfg.AppManager.Array.Apps {
		if a.ID == demoID {
			return nil
		}
		if a.Key == demoKey {
			return fmt.Errorf("--dev: app %q has the key %q of the demo app", a.ID, demoKey)
		}
	}
	yes := true
	cfg.AppManager.Array.Apps = append(cfg.AppManager.Array.Apps, &app.App{
		ID: demoID, Key: demoKey, Secret: demoSecret, Enabled: true,
		EnableClientMessages: true, EnableWatchlistEvents: &yes, EnableSubscriptionCount: &yes,
	})
	return nil
}

func serve(ctx context.Context, out, errs io.Writer, o serveOptions) error {
	cfg, report, err := o.load(ctx)
	if err != nil {
		return err
	}
	log, isJSON := newLogger(out, cfg)
	for _, n := range report.Infos {
		log.Info("settings: " + n.String())
	}
	for _, n := range report.Warnings {
		log.Warn("settings: " + n.String())
	}
	if err := o.checkDev(cfg); err != nil {
		return err
	}
	made := firstApp(cfg)
	if !o.dev {
		warnOfKnownSecrets(cfg, log)
	}
	s, err := server.New(ctx, cfg, server.Options{Log: log})
	if err != nil {
		return err
	}
	if made != nil || o.dev {
		shown := made
		if shown == nil {
			shown = demoApp(cfg)
		}
		if isJSON {
			out = errs // whoever reads the log gets JSON and nothing else
		}
		if err := banner(out, s.Addr(), cfg, shown, made != nil); err != nil {
			return err
		}
	}
	return s.Run(ctx)
}

func newLogger(w io.Writer, cfg *config.Config) (log *slog.Logger, isJSON bool) {
	file, ok := w.(*os.File)
	opts, warnings := logging.FromEnv(os.LookupEnv, logging.Settings{
		Debug:    cfg.Debug,
		Colors:   cfg.Logging.ColorsEnabled,
		Target:   cfg.Logging.IncludeTarget,
		Terminal: ok && logging.Terminal(file),
	})
	log = logging.New(w, opts)
	for _, warning := range warnings {
		log.Warn(warning)
	}
	return log, opts.JSON
}

// checkDev keeps an app that everybody knows from being reachable by everybody.
func (o *serveOptions) checkDev(cfg *config.Config) error {
	if o.dev && cfg.AppManager.Driver != "memory" {
		return fmt.Errorf("--dev would write an app whose secret everybody knows into the %s store: set app_manager.driver to memory", cfg.AppManager.Driver)
	}
	if !o.dev || o.devRemote || cfg.UnixSocket.Enabled {
		return nil
	}
	if cfg.Host == "localhost" {
		return nil
	}
	if ip := net.ParseIP(cfg.Host); ip != nil && ip.IsLoopback() {
		return nil
	}
	return fmt.Errorf("--dev serves an app whose secret everybody knows and listens on loopback only; host is %q: use 127.0.0.1, or add --dev-remote if others may reach it", cfg.Host)
}

// firstApp makes an app with random credentials when there is none and no
// store that could hold one.
func firstApp(cfg *config.Config) *app.App {
	if len(cfg.AppManager.Array.Apps) > 0 || cfg.AppManager.Driver != "memory" {
		return nil
	}
	a := &app.App{
		ID: randomHex(4), Key: randomHex(10), Secret: app.Secret(randomHex(16)),
		Enabled: true, EnableClientMessages: true,
	}
	cfg.AppManager.Array.Apps = []*app.App{a}
	return a
}

func randomHex(bytes int) string {
	b := make([]byte, bytes)
	_, _ = rand.Read(b) // never fails
	return hex.EncodeToString(b)
}

func demoApp(cfg *config.Config) *app.App {
	for _, a := range cfg.AppManager.Array.Apps {
		if a.ID == demoID {
			return a
		}
	}
	return nil
}

// knownSecrets stand in manuals and example files.
var knownSecrets = map[string]bool{
	demoSecret: true, "app-secret": true, "your-app-secret": true, "secret": true, "change-me": true, "some-secret": true, "test-secret": true,
}

func warnOfKnownSecrets(cfg *config.Config, log *slog.Logger) {
	for _, a := range cfg.AppManager.Array.Apps {
		if knownSecrets[a.Secret.Reveal()] {
			log.Warn("THIS APP HAS A SECRET FROM A MANUAL: anybody can publish and join private channels; change it", "app_id", a.ID)
		}
	}
}

// target returns the base URL of the server to talk to and a client for it:
// base if it is given, else from the settings.
func (o *serveOptions) target(base string) (string, *http.Client, error) {
	if base != "" {
		base, err := checkURL(base)
		return base, http.DefaultClient, err
	}
	cfg, _, err := o.load(context.Background())
	if err != nil {
		return "", nil, err
	}
	base, client := clientFor(cfg)
	return base, client, nil
}

// checkURL returns the value of --url without slashes at its end.
func checkURL(base string) (string, error) {
	u, err := url.Parse(base)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.RawQuery != "" {
		return "", usageError{fmt.Errorf("--url must be like https://ws.example.com, got %q", base)}
	}
	return strings.TrimRight(base, "/"), nil
}
