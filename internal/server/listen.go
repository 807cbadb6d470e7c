package server

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"sockudo/internal/config"
	"sockudo/internal/ws"
)

// listen opens the main listener: a Unix socket, or TCP with or without TLS.
func listen(ctx context.Context, cfg *config.Config, log *slog.Logger) (net.Listener, error) {
	if cfg.UnixSocket.Enabled {
		return listenUnix(cfg, log)
	}
	ln, err := listenTCP(ctx, cfg.Host, cfg.Port, cfg.WebSocket.CongestionControl)
	if err != nil {
		return nil, fmt.Errorf("listen on %s port %d (settings host and port): %w", cfg.Host, cfg.Port, err)
	}
	if !cfg.SSL.Enabled {
		return ln, nil
	}
	conf, err := tlsConfig(cfg)
	if err != nil {
		return nil, errors.Join(err, ln.Close())
	}
	return tls.NewListener(ws.Quiet(ln), conf), nil
}

// listenTCP binds a literal address or the best address of a name; IPv4 wins
// when a name has both. Connections use a congestion control if one is named.
func listenTCP(ctx context.Context, host string, port uint16, control string) (net.Listener, error) {
	if host != "" && net.ParseIP(host) == nil {
		ips, err := net.DefaultResolver.LookupIP(ctx, "ip", host)
		if err != nil {
			return nil, err
		}
		host = ips[0].String()
		for _, ip := range ips {
			if ip.To4() != nil {
				host = ip.String()
				break
			}
		}
	}
	// Clients are pinged by the protocol, and API connections have a time that
	// they may be idle.
	lc := net.ListenConfig{KeepAlive: -1, Control: congestion(control)}
	lc.SetMultipathTCP(false) // no client asks for it, and it makes every accept dearer
	return lc.Listen(ctx, "tcp", net.JoinHostPort(host, strconv.Itoa(int(port))))
}

func tlsConfig(cfg *config.Config) (*tls.Config, error) {
	cert, err := tls.LoadX509KeyPair(cfg.SSL.CertPath, cfg.SSL.KeyPath)
	if err != nil {
		return nil, fmt.Errorf("TLS: ssl.cert_path %s, ssl.key_path %s: %w", cfg.SSL.CertPath, cfg.SSL.KeyPath, err)
	}
	conf := &tls.Config{
		MinVersion:   tls.VersionTLS12,
		Certificates: []tls.Certificate{cert},
		NextProtos:   []string{"http/1.1"},
		// What is sent together is one record, and one call to the kernel.
		DynamicRecordSizingDisabled: true,
	}
	if cfg.SSL.CAPath != "" {
		pem, err := os.ReadFile(cfg.SSL.CAPath)
		if err != nil {
			return nil, fmt.Errorf("TLS: ssl.ca_path: %w", err)
		}
		conf.ClientCAs = x509.NewCertPool()
		if !conf.ClientCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("TLS: ssl.ca_path %s holds no PEM certificate", cfg.SSL.CAPath)
		}
		conf.ClientAuth = tls.VerifyClientCertIfGiven
	}
	return conf, nil
}

// listenUnix binds a Unix socket. It replaces a socket that nobody listens on
// any more, and nothing else; it changes only what it made itself.
func listenUnix(cfg *config.Config, log *slog.Logger) (net.Listener, error) {
	path := cfg.UnixSocket.Path
	if cfg.Mode == "production" && strings.HasPrefix(path, "/tmp/") {
		log.Warn("unix socket is under /tmp, which every local user can write to", "path", path)
	}
	ln, err := listenSocket(path, fs.FileMode(cfg.UnixSocket.PermissionMode))
	if err != nil {
		return nil, fmt.Errorf("unix_socket.path, unix_socket.permission_mode: %w", err)
	}
	return ln, nil
}

// listenSocket binds a Unix socket with the permissions mode.
func listenSocket(path string, mode fs.FileMode) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	if err := removeStale(path); err != nil {
		return nil, err
	}
	ln, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, mode); err != nil {
		return nil, errors.Join(err, ln.Close())
	}
	return ln, nil
}

// removeStale removes the socket that a process left behind.
func removeStale(path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case info.Mode().Type() != fs.ModeSocket:
		return fmt.Errorf("%s is there already and is not a socket", path)
	}
	c, err := net.DialTimeout("unix", path, time.Second)
	if err == nil {
		return errors.Join(fmt.Errorf("%s is in use by another process", path), c.Close())
	}
	return os.Remove(path)
}
