// Package rediscache is the cache in Redis: one server, the master that
// Sentinels name, or a Redis Cluster.
//
// A server that does not answer costs its callers the time limit once; from
// then on calls fail at once, until the server is found well in the background.
package rediscache

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"

	"sockudo/internal/cache"
	"sockudo/internal/redisconn"
)

// Options are the parts of a cache that have a default.
type Options struct {
	Prefix  string        // of all keys; a colon follows it
	Timeout time.Duration // of one call; 0: 1 s
	Log     *slog.Logger  // nil: nothing is logged
}

const (
	defaultTimeout = time.Second
	retries        = 2                     // of a call whose connection broke
	retryPause     = 10 * time.Millisecond // grows
)

// A Cache keeps values in Redis under PREFIX:KEY.
//
// Locks: owed's, which is held only to change it.
type Cache struct {
	client  rueidis.Client
	prefix  string
	timeout time.Duration
	log     *slog.Logger
	shards  []shard
	calls   sync.WaitGroup

	lostShards atomic.Int32
}

// Open connects to the Redis at e; it gives up when ctx is done. Afterwards
// the connection is mended without help. Close the cache.
func Open(ctx context.Context, e redisconn.Endpoint, opts Options) (*Cache, error) {
	if opts.Timeout <= 0 {
		opts.Timeout = defaultTimeout
	}
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	opt := redisconn.Options(e)
	// One connection per server, and always as a pipeline: writes of a key must
	// not overtake each other, not even those that were given up.
	opt.PipelineMultiplex, opt.AlwaysPipelining = -1, true
	opt.RetryDelay = func(attempts int, _ rueidis.Completed, _ error) time.Duration {
		if attempts > retries {
			return -1
		}
		return time.Duration(attempts) * retryPause
	}
	client, err := redisconn.Dial(ctx, opt)
	if err != nil {
		return nil, fmt.Errorf("rediscache: %s: %w", e, err)
	}
	driver := "redis"
	if e.Cluster {
		driver = "redis-cluster"
	}
	c := &Cache{
		client:  client,
		prefix:  opts.Prefix + ":",
		timeout: opts.Timeout,
		log:     opts.Log.With("component", "cache", "driver", driver),
	}
	c.makeShards(e.Cluster)
	return c, nil
}

// Close ends the connections. Calls that go on fail.
func (c *Cache) Close() {
	c.client.Close()
	c.calls.Wait()
}

// Get returns a value; see cache.Cache.
func (c *Cache) Get(ctx context.Context, key string) ([]byte, time.Duration, error) {
	name := c.prefix + key
	s := c.shard(name)
	if s.owed.has(name) {
		// What the server has is older than what it should have.
		if err := c.Delete(ctx, key); err != nil {
			return nil, 0, err
		}
		return nil, 0, cache.ErrMiss
	}
	a := c.do(ctx, s, name, func(ctx context.Context) answer {
		got := c.client.DoMulti(ctx, pin(c.client.B().Get().Key(name).Build()), pin(c.client.B().Pttl().Key(name).Build()))
		value, err := got[0].AsBytes()
		if err != nil {
			return answer{err: err}
		}
		ms, err := got[1].AsInt64()
		switch {
		case err != nil:
			return answer{err: err}
		case ms == -1:
			return answer{value: value}
		case ms <= 0: // it expired between the two
			return answer{err: rueidis.Nil}
		}
		return answer{value: value, ttl: time.Duration(ms) * time.Millisecond}
	})
	switch {
	case rueidis.IsRedisNil(a.err):
		return nil, 0, cache.ErrMiss
	case a.err != nil:
		return nil, 0, wrap("get", a.err)
	}
	return a.value, a.ttl, nil
}

// Set keeps a value, without an end if ttl is 0; see cache.Cache.
func (c *Cache) Set(ctx context.Context, key string, value []byte, ttl time.Duration) error {
	name := c.prefix + key
	set := c.client.B().Set().Key(name).Value(rueidis.BinaryString(value))
	if ttl > 0 {
		return c.write(ctx, "set", name, set.PxMilliseconds(max(1, ttl.Milliseconds())).Build())
	}
	return c.write(ctx, "set", name, set.Build())
}

// Delete forgets a value; see cache.Cache.
func (c *Cache) Delete(ctx context.Context, key string) error {
	name := c.prefix + key
	return c.write(ctx, "delete", name, c.client.B().Del().Key(name).Build())
}

// write changes a key. If that fails, the key is deleted as soon as the server
// lets it: no value at all is better than an old one.
func (c *Cache) write(ctx context.Context, what, name string, cmd rueidis.Completed) error {
	s := c.shard(name)
	change := s.owed.begin(name)
	cmd = pin(cmd.ToRetryable()) // writing the same again is harmless
	a := c.do(ctx, s, name, func(ctx context.Context) answer { return answer{err: c.client.Do(ctx, cmd).Error()} })
	s.owed.end(name, change, a.err == nil)
	if a.err != nil {
		return wrap(what, a.err)
	}
	c.settle(ctx, s)
	return nil
}

// pin keeps a command out of the library's pool. A connection that broke may
// still be writing it when it has been tried again with success.
func pin(cmd rueidis.Completed) rueidis.Completed { return cmd.Pin() }

// settle deletes the keys of a shard whose last write failed.
func (c *Cache) settle(ctx context.Context, s *shard) {
	if !s.owed.take() {
		return
	}
	defer s.owed.give()
	for ctx = context.WithoutCancel(ctx); ; {
		names := s.owed.batch()
		if len(names) == 0 {
			s.owed.settled(nil)
			return
		}
		a := c.within(ctx, s, func(ctx context.Context) answer {
			var err error
			cmds := make([]rueidis.Completed, len(names))
			for i, name := range names {
				cmds[i] = pin(c.client.B().Del().Key(name).Build().ToRetryable())
			}
			for _, result := range c.client.DoMulti(ctx, cmds...) {
				err = errors.Join(err, result.Error())
			}
			return answer{err: err}
		})
		if a.err != nil {
			s.owed.settled(nil) // the next write that works tries again
			return
		}
		s.owed.settled(names)
	}
}

// Ping asks the server, or every node of a cluster, on a spare connection
// whether it is well.
func (c *Cache) Ping(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	nodes := map[string]rueidis.Client{"": c.client}
	if c.client.Mode() == rueidis.ClientModeCluster {
		nodes = c.client.Nodes()
	}
	answers := make(chan error, len(nodes))
	for _, node := range nodes {
		go func() { answers <- node.Do(ctx, node.B().Arbitrary("PING").Blocking()).Error() }()
	}
	var failures []error
	for range nodes {
		if err := <-answers; err != nil {
			failures = append(failures, err)
		}
	}
	if len(failures) > 0 {
		return wrap(fmt.Sprintf("ping: %d of %d servers", len(failures), len(nodes)), failures[0])
	}
	return nil
}

// wrap says what failed. A server that does not know a command repeats its
// arguments, which may be secret.
func wrap(what string, err error) error {
	if refusal, ok := rueidis.IsRedisErr(err); ok {
		text, _, _ := strings.Cut(refusal.Error(), ", with args")
		return fmt.Errorf("rediscache: %s: the server answers %q", what, text)
	}
	return fmt.Errorf("rediscache: %s: %w", what, err)
}
