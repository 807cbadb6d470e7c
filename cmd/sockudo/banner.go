package main

import (
	"io"
	"net"
	"strconv"
	"text/template"

	"sockudo/internal/app"
	"sockudo/internal/config"
)

// bannerText is what a first start shows: where the server is, the app, and
// what to paste where.
var bannerText = template.Must(template.New("banner").Parse(`
  sockudo is ready at {{.Scheme}}://{{.Address}}
{{if .Made}}
  No app is configured, so this one was made up. It is gone when the server
  stops; to keep it, put it in config/config.json:

    {"app_manager": {"array": {"apps": [
      {"id": "{{.ID}}", "key": "{{.Key}}", "secret": "{{.Secret}}", "enable_client_messages": true}
    ]}}}
{{end}}
    app id   {{.ID}}
    key      {{.Key}}
    secret   {{.Secret}}

  Browser, pusher-js
    const pusher = new Pusher("{{.Key}}", { cluster: "", wsHost: "{{.Host}}", wsPort: {{.Port}},
      forceTLS: {{.TLS}}, enabledTransports: ["ws", "wss"] });
    pusher.subscribe("my-channel").bind("my-event", (data) => console.log(data));

  Browser, Laravel Echo
    new Echo({ broadcaster: "pusher", key: "{{.Key}}", cluster: "", wsHost: "{{.Host}}", wsPort: {{.Port}},
      forceTLS: {{.TLS}}, enabledTransports: ["ws", "wss"] });

  Node, npm install pusher
    const pusher = new Pusher({ appId: "{{.ID}}", key: "{{.Key}}", secret: "{{.Secret}}",
      host: "{{.Host}}", port: "{{.Port}}", useTLS: {{.TLS}} });
    pusher.trigger("my-channel", "my-event", { message: "hello" });

  PHP, composer require pusher/pusher-php-server
    $pusher = new Pusher\Pusher("{{.Key}}", "{{.Secret}}", "{{.ID}}",
      ["host" => "{{.Host}}", "port" => {{.Port}}, "scheme" => "{{.Scheme}}", "useTLS" => {{.TLS}}]);
    $pusher->trigger("my-channel", "my-event", ["message" => "hello"]);

`))

// banner writes the first steps for an app.
func banner(w io.Writer, addr net.Addr, cfg *config.Config, a *app.App, made bool) error {
	tcp, ok := addr.(*net.TCPAddr)
	if !ok {
		return nil // a Unix socket: there is nothing that a browser could paste
	}
	host := cfg.Host
	if tcp.IP.IsUnspecified() || tcp.IP.IsLoopback() {
		host = "localhost"
		if !tcp.IP.IsUnspecified() && tcp.IP.To4() != nil {
			host = "127.0.0.1"
		}
	}
	scheme := "http"
	if cfg.SSL.Enabled {
		scheme = "https"
	}
	return bannerText.Execute(w, map[string]any{
		"Scheme": scheme, "Host": host, "Port": tcp.Port, "TLS": cfg.SSL.Enabled,
		"Address": net.JoinHostPort(host, strconv.Itoa(tcp.Port)),
		"ID":      a.ID, "Key": a.Key, "Secret": a.Secret.Reveal(), "Made": made,
	})
}
