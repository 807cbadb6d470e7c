// Package natsbus carries messages between nodes by NATS, without JetStream.
// Every topic is a subject.
//
// There is one connection for publishing, on which a batch of messages counts
// as taken when the server has answered the ping behind it, and one for
// subscribing, where the same confirms interest. Both move to another server of
// the cluster when theirs is gone. One more to every server makes interest
// certain in the whole cluster, see witnesses.
//
// Bus.mu is a leaf: it is held for no call of the library, which keeps its own
// lock while it dials.
package natsbus

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"sockudo/internal/backoff"
	"sockudo/internal/cluster"
	"sockudo/internal/cluster/driver"
)

const (
	defaultServer  = "nats://localhost:4222"
	defaultTimeout = 5 * time.Second
)

// Options are the parts of a Bus that have a default. They print without
// credentials.
type Options struct {
	Servers  []string // nats://host:port or tls://host:port; empty: nats://localhost:4222
	Username string   // counts only together with Password
	Password string
	Token    string      // counts if Username and Password do not
	TLS      *tls.Config // nil: as the system trusts, where a URL or the server asks for TLS

	Prefix         string         // begins the topics of the Bus's own, as those of the nodes, for permissions; "": sockudo
	ConnectTimeout time.Duration  // for each server; 0: 5 s
	Timeout        time.Duration  // for an answer of the server; 0: 5 s
	Retry          backoff.Policy // pauses after all servers were tried; the zero value: 50 ms to 1 s, half of it by chance
	Log            *slog.Logger   // nil: nothing is logged
}

// String hides credentials.
func (o Options) String() string {
	hosts := make([]string, 0, len(o.Servers))
	for _, s := range o.Servers {
		if u, err := url.Parse(s); err == nil && u.Host != "" {
			hosts = append(hosts, u.Host)
		}
	}
	return "nats " + strings.Join(hosts, ", ")
}

// GoString hides credentials from %#v.
func (o Options) GoString() string { return "natsbus.Options{" + o.String() + "}" }

// LogValue hides credentials from slog.
func (o Options) LogValue() slog.Value { return slog.StringValue(o.String()) }

var (
	errEnded        = errors.New("the bus has ended")
	errUnsubscribed = errors.New("was unsubscribed meanwhile")
	errDown         = errors.New("no server is connected")
)

// A Bus is a cluster.Bus by NATS.
type Bus struct {
	// Fixed at creation.
	opts       Options
	log        *slog.Logger
	pub, sub   *connection
	conns      *driver.Conns
	lane       *driver.Lane
	inbox      *inbox
	witnesses  *witnesses
	continuity *driver.Continuity
	wake       chan struct{} // for the one who subscribes
	ended      chan struct{}

	over     atomic.Bool // what is lost from now on is no news
	pubUp    atomic.Bool
	received atomic.Pointer[connection] // sub, as soon as it is there

	mu      sync.Mutex // guards what follows and the topics
	topics  map[string]*interest
	changes []*interest
	losses  int             // how often a connection was lost
	lost    bool            // and was not restored since
	told    <-chan struct{} // closed when that was told
}

// Open connects. It gives up when ctx is done. Close the Bus.
func Open(ctx context.Context, opts Options) (*Bus, error) {
	if len(opts.Servers) == 0 {
		opts.Servers = []string{defaultServer}
	}
	if opts.Prefix == "" {
		opts.Prefix = "sockudo"
	}
	if opts.ConnectTimeout <= 0 {
		opts.ConnectTimeout = defaultTimeout
	}
	if opts.Timeout <= 0 {
		opts.Timeout = defaultTimeout
	}
	if opts.Retry == (backoff.Policy{}) {
		opts.Retry = backoff.Policy{First: 50 * time.Millisecond, Max: time.Second, Jitter: 0.5}
	}
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	for i, s := range opts.Servers {
		if err := checkURL(s); err != nil {
			return nil, fmt.Errorf("natsbus: server %d: %w", i+1, err)
		}
	}
	b := &Bus{
		opts:       opts,
		log:        opts.Log.With("component", "bus", "driver", "nats"),
		conns:      driver.NewConns(),
		inbox:      newInbox(),
		continuity: driver.NewContinuity(),
		wake:       make(chan struct{}, 1),
		ended:      make(chan struct{}),
		topics:     map[string]*interest{},
		lost:       true,
	}
	b.witnesses = newWitnesses(b)
	b.lane = driver.NewLane(opts.Timeout, b.send)
	if err := b.connect(ctx); err != nil {
		b.Close()
		return nil, fmt.Errorf("natsbus: %v: %w", opts, err)
	}
	return b, nil
}

// checkURL refuses what the library would repeat in its error, credentials
// included.
func checkURL(s string) error {
	if !strings.Contains(s, "://") {
		s = "nats://" + s
	}
	u, err := url.Parse(s)
	if err != nil || u.Hostname() == "" {
		return errors.New("expected nats://[user:password@]host[:port] or tls://…")
	}
	switch u.Scheme {
	case "nats", "tls":
		return nil
	}
	return fmt.Errorf("the scheme is %q, expected nats or tls", u.Scheme)
}

func (b *Bus) connect(ctx context.Context) (err error) {
	// The library takes no context to connect.
	stop := context.AfterFunc(ctx, b.conns.Close)
	defer stop()
	if b.pub, err = b.open(&publisher{downside{bus: b}}, b.options()); err == nil {
		b.pubUp.Store(true)
		b.sub, err = b.open(&subscriber{downside{bus: b}}, b.options())
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err == nil {
		b.received.Store(b.sub)
	}
	return err
}

// A connection is one of the library's.
type connection struct {
	*nats.Conn
	closed chan struct{}
}

// close returns when no callback will come any more.
func (c *connection) close() {
	c.Conn.Close()
	<-c.closed
}

// A side is what a connection is for.
type side interface {
	nats.CustomDialer
	disconnected(error)
	reconnected(addr string)
}

func (b *Bus) options() nats.Options {
	o := nats.GetDefaultOptions()
	o.Name = "sockudo"
	o.Servers = b.opts.Servers
	switch {
	case b.opts.Username != "" && b.opts.Password != "":
		o.User, o.Password = b.opts.Username, b.opts.Password
	default:
		o.Token = b.opts.Token
	}
	o.TLSConfig = b.opts.TLS
	o.Timeout = b.opts.ConnectTimeout
	o.FlusherTimeout = b.opts.Timeout
	o.PingInterval = b.opts.Timeout / 2
	o.MaxPingsOut = 1
	o.MaxReconnect = -1
	o.ReconnectBufSize = -1 // what cannot be sent now is an error
	o.IgnoreAuthErrorAbort = true
	o.CustomReconnectDelayCB = b.opts.Retry.Delay
	o.AsyncErrorCB = func(_ *nats.Conn, _ *nats.Subscription, err error) { b.refused(err) }
	return o
}

func (b *Bus) open(s side, o nats.Options) (*connection, error) {
	c := &connection{closed: make(chan struct{})}
	o.CustomDialer = s
	o.DisconnectedErrCB = func(_ *nats.Conn, err error) {
		if !b.over.Load() {
			s.disconnected(err)
		}
	}
	o.ReconnectedCB = func(conn *nats.Conn) { s.reconnected(conn.ConnectedAddr()) }
	o.ClosedCB = func(*nats.Conn) { close(c.closed) }
	var err error
	c.Conn, err = o.Connect()
	if err != nil {
		return nil, err
	}
	return c, nil
}

func (b *Bus) dial(network, addr string) (net.Conn, error) {
	d := net.Dialer{Timeout: b.opts.ConnectTimeout}
	return b.conns.Dial(context.Background(), func(ctx context.Context) (net.Conn, error) { return d.DialContext(ctx, network, addr) })
}

// refused logs what a server says outside of any call, such as that a
// permission is missing.
func (b *Bus) refused(err error) {
	if errors.Is(err, nats.ErrSlowConsumer) {
		// The inbox does not let it come to that; but if it does, messages were
		// dropped, and only a new connection counts that as a loss.
		if conn := b.received.Load(); conn != nil {
			_ = conn.ForceReconnect()
		}
	}
	b.log.Error("the server refuses", "err", err)
}

// Close releases what Open took. It is called when Run is not running.
func (b *Bus) Close() {
	b.over.Store(true)
	b.conns.Close()
	b.inbox.close()
	for _, conn := range []*connection{b.pub, b.sub} {
		if conn != nil {
			conn.close()
		}
	}
}

// Run delivers to on until ctx is done. A Bus runs once.
func (b *Bus) Run(ctx context.Context, on cluster.Events) error {
	stop := context.AfterFunc(ctx, func() {
		b.over.Store(true)
		b.conns.Close()
		b.inbox.close()
	})
	defer stop()
	var running sync.WaitGroup
	running.Go(func() { b.continuity.Run(ctx, on) })
	running.Go(func() { b.inbox.run(ctx, on) })
	running.Go(func() { b.lane.Run(ctx) })
	running.Go(func() { b.witnesses.run(ctx) })
	running.Go(func() { b.subscribeAll(ctx) })
	<-ctx.Done()
	close(b.ended)
	running.Wait()
	return nil
}

// Ping asks the servers of both connections.
func (b *Bus) Ping(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, b.opts.Timeout) // the library insists on an end
	defer cancel()
	for _, conn := range []*connection{b.pub, b.sub} {
		if err := conn.FlushWithContext(ctx); err != nil {
			return fmt.Errorf("natsbus: %w", err)
		}
	}
	return nil
}

// Publish returns when the server has answered a ping that came after msg.
func (b *Bus) Publish(ctx context.Context, topic string, msg []byte) error {
	if err := b.lane.Publish(ctx, topic, msg); err != nil {
		return fmt.Errorf("natsbus: publish: %w", err)
	}
	return nil
}

// send publishes a batch.
func (b *Bus) send(ctx context.Context, batch []*driver.Message) {
	fail := func(err error) {
		for _, m := range batch {
			if m.Err == nil {
				m.Err = err
			}
		}
	}
	if !b.pubUp.Load() {
		fail(errDown) // the library would wait for its lock while it dials
		return
	}
	sent := 0
	for _, m := range batch {
		m.Err = b.pub.Publish(subject(m.Topic), m.Data)
		if errors.Is(m.Err, nats.ErrMaxPayload) {
			m.Err = fmt.Errorf("the message has %d bytes, max_payload of the server is %d", len(m.Data), b.pub.MaxPayload())
		}
		if errors.Is(m.Err, nats.ErrReconnectBufExceeded) {
			m.Err = errDown
		}
		if m.Err == nil {
			sent++
		}
	}
	if sent == 0 {
		return
	}
	if err := b.pub.FlushWithContext(ctx); err != nil {
		fail(err)
	}
}

// publisher is the side that publishes. Its loss is one of continuity, too: the
// server may have died before it passed on what it had taken.
type publisher struct{ downside }

func (p *publisher) Dial(network, addr string) (net.Conn, error) {
	p.bus.pubUp.Store(false)
	return p.dial(network, addr)
}

func (p *publisher) disconnected(err error) {
	p.bus.pubUp.Store(false)
	p.lose()
	p.bus.log.Warn("bus connection lost, retrying", "side", "publish", "err", err)
}

func (p *publisher) reconnected(addr string) {
	p.bus.pubUp.Store(true)
	p.bus.log.Info("bus connection is back", "side", "publish", "server", addr)
	p.regain()
}
