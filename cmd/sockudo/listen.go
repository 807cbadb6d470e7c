package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"sockudo/internal/app"
	"sockudo/internal/protocol"
	"sockudo/internal/sign"
	"sockudo/internal/ws"
)

func newListen(opts *serveOptions) *cobra.Command {
	var cred credentials
	var appID, user string
	cmd := &cobra.Command{
		Use:   "listen CHANNEL...",
		Short: "Subscribe to channels and print their events",
		Long: `Subscribe to channels like a client and print every event as one line of JSON until a
signal comes or the server closes the connection. Private and presence channels
are signed with the app's secret, which comes from the settings or from
--secret; for a channel #server-to-user-ID the client signs in as ID.`,
		Example: `  sockudo listen --dev my-channel private-orders presence-room
  sockudo listen --dev '#server-to-user-42'
  sockudo listen --url https://ws.example.com --key KEY --secret SECRET news`,
		Args: usage(cobra.MinimumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			for _, channel := range args {
				if !protocol.ValidChannel(channel) {
					return usageError{fmt.Errorf("%q cannot be a channel: only letters, digits and _ - = @ , . ; are allowed", channel)}
				}
			}
			a, err := cred.find(cmd.Context(), opts, appID)
			if err != nil {
				return err
			}
			l := listener{app: a, user: user, channels: args, out: cmd.OutOrStdout()}
			if l.signIn, err = signInFor(args); err != nil {
				return err
			}
			if l.url, l.dial, err = opts.socketURL(cred.url, a.Key); err != nil {
				return err
			}
			return l.run(cmd.Context())
		},
	}
	cred.flags(cmd)
	cmd.Flags().StringVar(&appID, "app", "", "id of the app, when the settings have several")
	cmd.Flags().StringVar(&user, "user", "listen", "user id on presence channels")
	return cmd
}

// signInFor returns as whom a client of the channels has to sign in, "" if it need not.
func signInFor(channels []string) (string, error) {
	id := ""
	for _, channel := range channels {
		user, ok := strings.CutPrefix(channel, protocol.UserPrefix)
		switch {
		case !ok || user == id:
		case id != "":
			return "", usageError{fmt.Errorf("one connection cannot be signed in as %q and as %q", id, user)}
		default:
			id = user
		}
	}
	return id, nil
}

// socketURL returns where an app's clients connect to.
func (o *serveOptions) socketURL(base, key string) (string, ws.DialOptions, error) {
	var dial ws.DialOptions
	if base == "" {
		cfg, _, err := o.load(context.Background())
		if err != nil {
			return "", dial, err
		}
		base, _ = clientFor(cfg)
		if cfg.UnixSocket.Enabled {
			dial.Network, dial.Address = "unix", cfg.UnixSocket.Path
		}
		if u, err := url.Parse(base); err == nil {
			dial.TLS = tlsTo(u.Hostname())
		}
	}
	base, err := checkURL(base)
	if err != nil {
		return "", dial, err
	}
	return "ws" + strings.TrimPrefix(base, "http") + "/app/" + url.PathEscape(key) + "?protocol=7&client=sockudo&version=" + url.QueryEscape(buildVersion()), dial, nil
}

type listener struct {
	app      *app.App
	user     string // on presence channels
	signIn   string // whom to sign in as, "" for nobody
	channels []string
	url      string
	dial     ws.DialOptions
	out      io.Writer
}

// frame is what the server sends.
type frame struct {
	Event   string          `json:"event"`
	Channel string          `json:"channel,omitempty"`
	Data    json.RawMessage `json:"data,omitempty"`
	UserID  string          `json:"user_id,omitempty"`
}

func (l *listener) run(ctx context.Context) error {
	c, err := ws.Dial(ctx, l.url, l.dial)
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = c.Close() })
	defer stop()
	go l.keepAlive(ctx, c)
	for {
		message, err := c.Read()
		switch {
		case ctx.Err() != nil, errors.Is(err, net.ErrClosed):
			return nil
		case err != nil:
			return err
		}
		if err := l.handle(c, message); err != nil {
			return err
		}
	}
}

// keepAlive pings, so that neither the server nor anything between gives up.
func (l *listener) keepAlive(ctx context.Context, c *ws.Client) {
	tick := time.NewTicker(30 * time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if c.Write([]byte(protocol.Ping)) != nil {
				return // Read tells why
			}
		}
	}
}

func (l *listener) handle(c *ws.Client, message []byte) error {
	var f frame
	if err := json.Unmarshal(message, &f); err != nil {
		return fmt.Errorf("the server sent %q: %w", message, err)
	}
	switch f.Event {
	case protocol.EventPing:
		return c.Write([]byte(protocol.Pong))
	case protocol.EventPong:
		return nil
	case protocol.EventConnectionEstablished:
		return l.subscribe(c, f.Data)
	}
	_, err := fmt.Fprintf(l.out, "%s\n", message)
	return err
}

// subscribe joins all channels; data is that of the first frame.
func (l *listener) subscribe(c *ws.Client, data json.RawMessage) error {
	var text string
	var hello struct {
		SocketID string `json:"socket_id"`
	}
	if err := json.Unmarshal(data, &text); err != nil {
		return fmt.Errorf("the server's greeting: %w", err)
	}
	if err := json.Unmarshal([]byte(text), &hello); err != nil {
		return fmt.Errorf("the server's greeting: %w", err)
	}
	if l.signIn != "" {
		user := string(protocol.AppendString([]byte(`{"id":`), l.signIn)) + "}"
		if err := emit(c, protocol.EventSignin, map[string]string{
			"user_data": user,
			"auth":      sign.User(l.app.Key, l.app.Secret.Reveal(), hello.SocketID, user),
		}); err != nil {
			return err
		}
	}
	for _, channel := range l.channels {
		sub := map[string]string{"channel": channel}
		kind := protocol.KindOf(channel)
		if kind.Is(protocol.Private) {
			var member *string
			if kind.Is(protocol.Presence) {
				m := string(protocol.AppendString([]byte(`{"user_id":`), l.user)) + "}"
				member, sub["channel_data"] = &m, m
			}
			sub["auth"] = sign.Channel(l.app.Key, l.app.Secret.Reveal(), hello.SocketID, channel, member)
		}
		if err := emit(c, protocol.EventSubscribe, sub); err != nil {
			return err
		}
	}
	return nil
}

func emit(c *ws.Client, event string, data map[string]string) error {
	message, err := json.Marshal(map[string]any{"event": event, "data": data})
	if err != nil {
		return err
	}
	return c.Write(message)
}
