// Package redisbus carries messages between nodes by Redis: one server, the
// master that Sentinels name, or a Redis Cluster. Every topic is a channel of
// PUBLISH and SUBSCRIBE, on a cluster whose masters all know it of SPUBLISH and
// SSUBSCRIBE.
//
// A server has one connection for publishing and few for subscribing. Of a
// cluster, a topic belongs to the master that owns its slot, for both ways of
// publishing: so the order of a publisher is kept without help of the servers.
// A slot that moves takes its topics along; the Bus says that continuity was
// lost meanwhile.
//
// Bus.mu is a leaf: it is held for no command and no callback.
package redisbus

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"reflect"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"

	"sockudo/internal/backoff"
	"sockudo/internal/cluster"
	"sockudo/internal/cluster/driver"
	"sockudo/internal/redisconn"
)

const (
	defaultConnections = 2
	defaultTimeout     = 5 * time.Second
	// pingInterval is how long a connection is idle before the server is asked
	// whether it is there. It has the timeout to answer.
	pingInterval = 2 * time.Second
	// ringScale bounds commands under way to 2^8 a connection; batches are few.
	ringScale = 8
	// maxRedirections bounds how often one publish follows a slot.
	maxRedirections = 5
)

// Options are the parts of a Bus that have a default.
type Options struct {
	Connections int            // for subscriptions, to each server; 0: 2, of a cluster 1
	Timeout     time.Duration  // for an answer of the server; 0: 5 s
	Retry       backoff.Policy // pauses between attempts to connect; the zero value: 50 ms to 1 s, half of it by chance
	Log         *slog.Logger   // nil: nothing is logged
}

var (
	errEnded        = errors.New("the bus has ended")
	errUnsubscribed = errors.New("was unsubscribed meanwhile")
	errDemoted      = errors.New("the server has become a replica")
	errNoSlot       = errors.New("no server of the cluster owns its slot now")
)

// A Bus is a cluster.Bus by Redis.
type Bus struct {
	// Fixed at creation.
	opts       Options
	log        *slog.Logger
	pub, sub   rueidis.Client     // of one server or of Sentinels
	seeds      redisconn.Endpoint // of a cluster
	where      string             // what was asked for, for the log
	found      *found             // the cluster when the Bus was opened
	conns      *driver.Conns      // not of a cluster
	continuity *driver.Continuity
	requests   chan chan struct{} // to look at the cluster again; closed when it was
	looks      chan struct{}      // the same when nobody waits
	ready      chan struct{}      // closed when the topology is known
	ended      chan struct{}

	topology atomic.Pointer[topology]

	mu       sync.Mutex // guards what follows and the marked fields of topics and links
	topics   map[string]*topic
	homeless map[*topic]struct{} // topics of slots without a server
	missing  int                 // links that are not complete: of the start, or were before
	broken   int                 // topics that were subscribed, should be and are not
}

// Open connects to what pub and sub describe, which is the same for a cluster.
// It gives up when ctx is done. Close the Bus.
func Open(ctx context.Context, pub, sub redisconn.Endpoint, opts Options) (*Bus, error) {
	if opts.Timeout <= 0 {
		opts.Timeout = defaultTimeout
	}
	if opts.Connections <= 0 {
		opts.Connections = defaultConnections
		if pub.Cluster {
			opts.Connections = 1
		}
	}
	if opts.Retry == (backoff.Policy{}) {
		opts.Retry = backoff.Policy{First: 50 * time.Millisecond, Max: time.Second, Jitter: 0.5}
	}
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	b := &Bus{
		opts:       opts,
		log:        opts.Log.With("component", "bus", "driver", "redis"),
		conns:      driver.NewConns(),
		continuity: driver.NewContinuity(),
		requests:   make(chan chan struct{}),
		looks:      make(chan struct{}, 1),
		ready:      make(chan struct{}),
		ended:      make(chan struct{}),
		topics:     map[string]*topic{},
		homeless:   map[*topic]struct{}{},
		where:      sub.String(),
	}
	if err := b.open(ctx, pub, sub); err != nil {
		return nil, fmt.Errorf("redisbus: %v: %w", pub, err)
	}
	return b, nil
}

func (b *Bus) open(ctx context.Context, pub, sub redisconn.Endpoint) (err error) {
	if pub.Cluster {
		b.seeds = pub
		b.log = b.opts.Log.With("component", "bus", "driver", "redis-cluster")
		b.found, err = b.askSeeds(ctx)
		return err
	}
	if b.pub, err = redisconn.Dial(ctx, b.options(pub, b.conns)); err != nil {
		return err
	}
	b.sub = b.pub
	if reflect.DeepEqual(pub, sub) {
		return nil
	}
	if b.sub, err = redisconn.Dial(ctx, b.options(sub, b.conns)); err != nil {
		b.pub.Close()
		return fmt.Errorf("to subscribe: %v: %w", sub, err)
	}
	return nil
}

// options are those of redisconn with everything off that would hide from the
// Bus what happens.
func (b *Bus) options(e redisconn.Endpoint, conns *driver.Conns) rueidis.ClientOption {
	opt := redisconn.Options(e)
	opt.PipelineMultiplex = -1 // one connection, so that nothing overtakes
	opt.AlwaysPipelining = true
	opt.DisableRetry = true
	opt.RingScaleEachConn = ringScale
	opt.ConnWriteTimeout = b.opts.Timeout
	opt.Dialer.KeepAlive = pingInterval
	opt.Dialer.Timeout = min(opt.Dialer.Timeout, b.opts.Timeout)
	opt.Sentinel.Dialer = opt.Dialer
	dial := opt.DialCtxFn
	if dial == nil {
		dial = redisconn.DialTCP
	}
	opt.DialCtxFn = func(ctx context.Context, addr string, d *net.Dialer, conf *tls.Config) (net.Conn, error) {
		return conns.Dial(ctx, func(ctx context.Context) (net.Conn, error) { return dial(ctx, addr, d, conf) })
	}
	return opt
}

// Close releases what Open took. It is called when Run is not running.
func (b *Bus) Close() {
	b.conns.Close()
	if b.pub != nil {
		b.pub.Close()
		if b.sub != b.pub {
			b.sub.Close()
		}
	}
}

// Run delivers to on until ctx is done. A Bus runs once.
func (b *Bus) Run(ctx context.Context, on cluster.Events) error {
	// What is being dialled or greeted at the end would hold it up.
	stop := context.AfterFunc(ctx, b.conns.Close)
	defer stop()
	var running sync.WaitGroup
	running.Go(func() { b.continuity.Run(ctx, on) })
	if b.pub == nil {
		running.Go(func() { b.watch(ctx, on) })
	} else {
		s := b.newServer("", b.conns, on)
		b.adopt(&topology{servers: map[string]*server{"": s}})
		running.Go(func() { s.serve(ctx, b.pub) })
	}
	<-ctx.Done()
	close(b.ended)
	running.Wait()
	return nil
}

// Publish returns when the server has replied.
func (b *Bus) Publish(ctx context.Context, topic string, msg []byte) error {
	if err := b.publish(ctx, topic, msg); err != nil {
		return fmt.Errorf("redisbus: publish: %w", err)
	}
	return nil
}

func (b *Bus) publish(ctx context.Context, topic string, msg []byte) error {
	if err := b.wait(ctx, b.ready); err != nil {
		return err
	}
	for attempt := 1; ; attempt++ {
		err := errNoSlot
		if s := b.topology.Load().server(topic); s != nil {
			err = s.lane.Publish(ctx, topic, msg)
		}
		if err == nil || b.pub != nil || attempt > maxRedirections || !elsewhere(err) {
			return err
		}
		if again := b.lookAgain(ctx); again != nil {
			return errors.Join(err, again)
		}
	}
}

// elsewhere says whether a message was not taken because its slot is not
// where it was.
func elsewhere(err error) bool {
	if errors.Is(err, driver.ErrStopped) || errors.Is(err, errNoSlot) {
		return true
	}
	re, ok := errors.AsType[*rueidis.RedisError](err)
	if !ok {
		return false
	}
	_, moved := re.IsMoved()
	return moved
}

// lookAgain waits until the cluster was looked at after now.
func (b *Bus) lookAgain(ctx context.Context) error {
	done := make(chan struct{})
	select {
	case b.requests <- done:
		return b.wait(ctx, done)
	case <-b.ended:
		return errEnded
	case <-ctx.Done():
		return ctx.Err()
	}
}

// wait returns nil when done is closed.
func (b *Bus) wait(ctx context.Context, done <-chan struct{}) error {
	select {
	case <-done:
		return nil
	case <-b.ended:
		return errEnded
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Ping asks every server that topics need.
func (b *Bus) Ping(ctx context.Context) error {
	if err := b.wait(ctx, b.ready); err != nil {
		return fmt.Errorf("redisbus: %w", err)
	}
	for _, s := range b.topology.Load().servers {
		if err := s.ping(ctx); err != nil {
			return fmt.Errorf("redisbus: %s: %w", s.addr, err)
		}
	}
	return nil
}

// look makes the cluster be looked at again, soon.
func (b *Bus) look() {
	select {
	case b.looks <- struct{}{}:
	default:
	}
}

// pause is d, a little shorter or longer.
func pause(d time.Duration) time.Duration {
	return d*3/4 + rand.N(d/2)
}
