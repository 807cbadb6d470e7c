package redisconn

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/redis/rueidis"
)

const (
	dialTimeout = 5 * time.Second
	// bufferSize is for reading and for writing, per connection. The library's
	// default of 512 KiB is 4 MiB per client.
	bufferSize = 64 << 10
	// topologyInterval is how late a failover that nobody told of is noticed.
	topologyInterval = 5 * time.Second
	maxRedirections  = 16
)

// Options returns how the library reaches e. Callers may change what
// concerns their use, such as retries and hooks, before Dial. Client-side
// caching is off, so that proxies and servers before Redis 6 work.
func Options(e Endpoint) rueidis.ClientOption {
	opt := rueidis.ClientOption{
		InitAddress:         e.Addrs,
		ClientName:          "sockudo",
		Username:            e.Username,
		Password:            e.Password,
		TLSConfig:           e.tlsConfig(),
		Dialer:              net.Dialer{Timeout: dialTimeout},
		ReadBufferEachConn:  bufferSize,
		WriteBufferEachConn: bufferSize,
		DisableCache:        true,
	}
	switch {
	case e.Cluster: // has one database only
		opt.ShuffleInit = true
		opt.InitAddress = append([]string(nil), e.Addrs...) // is shuffled in place
		opt.ClusterOption = rueidis.ClusterOption{ShardsRefreshInterval: topologyInterval, MaxMovedRedirections: maxRedirections}
	case e.Master != "":
		opt.SelectDB = e.DB
		opt.Sentinel = rueidis.SentinelOption{
			MasterSet:               e.Master,
			Password:                e.SentinelPassword,
			ClientName:              opt.ClientName,
			TLSConfig:               opt.TLSConfig,
			Dialer:                  opt.Dialer,
			TopologyRefreshInterval: topologyInterval,
		}
	default:
		opt.SelectDB = e.DB
		opt.ForceSingleClient = true
	}
	if e.Network == "unix" {
		opt.DialCtxFn = func(ctx context.Context, path string, d *net.Dialer, _ *tls.Config) (net.Conn, error) {
			return d.DialContext(ctx, "unix", path)
		}
	}
	return opt
}

func (e Endpoint) tlsConfig() *tls.Config {
	if !e.TLS {
		return nil
	}
	return &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: e.Insecure}
}

// Dial connects a client; it gives up when ctx is done. Afterwards the client
// connects again by itself whenever it has to. Close it.
func Dial(ctx context.Context, opt rueidis.ClientOption) (rueidis.Client, error) {
	if len(opt.InitAddress) == 0 {
		return nil, fmt.Errorf("redisconn: %w", rueidis.ErrNoAddr)
	}
	start := starting{dial: opt.DialCtxFn}
	if start.dial == nil {
		start.dial = DialTCP
	}
	opt.DialCtxFn = func(own context.Context, addr string, d *net.Dialer, conf *tls.Config) (net.Conn, error) {
		return start.connect(ctx, own, addr, d, conf)
	}
	client, err := rueidis.NewClient(opt)
	start.end()
	if err != nil {
		return nil, fmt.Errorf("redisconn: connect: %w", err)
	}
	return client, nil
}

// starting bounds the first connections of a client, because the library
// takes no context for them, neither to dial nor to greet the server. Later
// connections are not bounded by it.
type starting struct {
	dial func(context.Context, string, *net.Dialer, *tls.Config) (net.Conn, error)

	mu       sync.Mutex // guards what follows
	ended    bool
	releases []func() bool // keep connections from being closed with ctx
}

// connect dials within own, and within start while the client starts.
func (s *starting) connect(start, own context.Context, addr string, d *net.Dialer, conf *tls.Config) (net.Conn, error) {
	s.mu.Lock()
	ended := s.ended
	s.mu.Unlock()
	if ended {
		return s.dial(own, addr, d, conf)
	}
	both, cancel := context.WithCancelCause(own)
	defer cancel(nil)
	stop := context.AfterFunc(start, func() { cancel(context.Cause(start)) })
	defer stop()
	conn, err := s.dial(both, addr, d, conf)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.ended {
		s.releases = append(s.releases, context.AfterFunc(start, func() { _ = conn.Close() }))
	}
	return conn, nil
}

func (s *starting) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = true
	for _, release := range s.releases {
		release()
	}
	s.releases = nil
}

// DialTCP connects by TCP, with TLS unless conf is nil.
func DialTCP(ctx context.Context, addr string, d *net.Dialer, conf *tls.Config) (net.Conn, error) {
	if conf == nil {
		return d.DialContext(ctx, "tcp", addr)
	}
	// Without ServerName it takes the name that was dialled, which differs
	// between the nodes of a cluster.
	t := tls.Dialer{NetDialer: d, Config: conf}
	return t.DialContext(ctx, "tcp", addr)
}
