package rediscache

import (
	"context"
	"fmt"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"

	"sockudo/internal/backoff"
	"sockudo/internal/cache"
)

// A shard is a part of the keys that lives or dies together: all of them on
// one server, a range of the slots of a cluster. A node that is down must not
// keep callers away from the others.
type shard struct {
	key     atomic.Pointer[string] // one of its keys, the last that failed
	calls   chan struct{}
	down    atomic.Bool // nobody waits for the server before it is back
	breaker *backoff.Breaker
	owed    owed
}

const (
	clusterShards = 64
	clusterSlots  = 16384
	// The library keeps 1024 calls of a connection and then holds callers without
	// a limit of time.
	mostCalls        = 512
	mostClusterCalls = 48 // a third of the shards is one node of a small cluster
)

// reopen is how soon a server that did not answer is asked again.
var reopen = backoff.Policy{First: 50 * time.Millisecond, Max: time.Second}

func (c *Cache) makeShards(cluster bool) {
	n, most := 1, mostCalls
	if cluster {
		n, most = clusterShards, mostClusterCalls
	}
	c.shards = make([]shard, n)
	for i := range c.shards {
		s := &c.shards[i]
		s.calls, s.breaker = make(chan struct{}, most), backoff.NewBreaker(reopen, c.timeout)
		s.owed.init(maxOwed / n)
	}
	for i, left := 0, n; left > 0; i++ {
		key := c.prefix + "probe:" + strconv.Itoa(i)
		if s := c.shard(key); s.key.CompareAndSwap(nil, &key) {
			left--
		}
	}
}

func (c *Cache) shard(name string) *shard {
	if len(c.shards) == 1 {
		return &c.shards[0]
	}
	cmd := c.client.B().Exists().Key(name).Build()
	return &c.shards[int(cmd.Slot())*clusterShards/clusterSlots]
}

// An answer is what came of a call.
type answer struct {
	value []byte
	ttl   time.Duration
	err   error
}

// do runs call within the time limit. While the server is known to be down, it
// fails at once and asks now and then in the background.
func (c *Cache) do(ctx context.Context, s *shard, name string, call func(context.Context) answer) answer {
	ticket, allowed := s.breaker.Allow()
	switch {
	case !allowed:
		return answer{err: cache.ErrDown}
	case s.down.Load():
		c.probe(ctx, s, ticket)
		return answer{err: cache.ErrDown}
	}
	a := c.within(ctx, s, call)
	switch {
	case answered(a.err):
		s.breaker.Answered()
	case ctx.Err() != nil: // the caller gave up, which says nothing of the server
	default:
		if s.breaker.Failed(ticket) {
			s.key.Store(&name) // a shard may lie on two nodes
			c.probeOthers(ctx, s)
		}
		c.lost(s, a.err)
		a.err = fmt.Errorf("%w: %w", cache.ErrDown, a.err)
	}
	return a
}

// answered reports whether err, or that there is none, came from the server.
func answered(err error) bool {
	_, refused := rueidis.IsRedisErr(err)
	return err == nil || refused || rueidis.IsRedisNil(err)
}

// probe finds out in the background whether the server of a shard is back.
func (c *Cache) probe(ctx context.Context, s *shard, ticket backoff.Ticket) {
	ctx = context.WithoutCancel(ctx)
	c.calls.Go(func() {
		if err := c.exists(ctx, s); !answered(err) {
			s.breaker.Failed(ticket)
			c.lost(s, err)
			return
		}
		// Whoever failed just before a good answer may be heard after it, so that
		// down and the breaker need not say the same.
		s.breaker.Answered()
		c.found(s)
		c.settle(ctx, s)
	})
}

// lost and found note that the server of a shard went away and came back, and
// log the first loss and the last return.
func (c *Cache) lost(s *shard, err error) {
	if !s.down.Swap(true) && c.lostShards.Add(1) == 1 {
		c.log.Warn("cache does not answer, going on without it", "err", err)
	}
}

func (c *Cache) found(s *shard) {
	if s.down.Swap(false) && c.lostShards.Add(-1) == 0 {
		c.log.Info("cache answers again")
	}
}

// probeOthers asks for the other shards, so that not each of those on the same
// node has to cost a caller the time limit.
func (c *Cache) probeOthers(ctx context.Context, failed *shard) {
	for i := range c.shards {
		s := &c.shards[i]
		if ticket, ok := s.breaker.Allow(); ok && s != failed && !s.down.Load() {
			c.probe(ctx, s, ticket)
		}
	}
}

func (c *Cache) exists(ctx context.Context, s *shard) error {
	return c.within(ctx, s, func(ctx context.Context) answer {
		return answer{err: c.client.Do(ctx, pin(c.client.B().Exists().Key(*s.key.Load()).Build())).Error()}
	}).err
}

// within runs call and returns in time even if the library does not: it makes
// some of its waits without a context.
func (c *Cache) within(ctx context.Context, s *shard, call func(context.Context) answer) answer {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	select {
	case s.calls <- struct{}{}:
	case <-ctx.Done():
		cancel()
		return answer{err: ctx.Err()}
	}
	done := make(chan answer, 1)
	c.calls.Go(func() {
		defer cancel()
		done <- call(ctx)
		<-s.calls
	})
	select {
	case a := <-done:
		return a
	case <-ctx.Done():
	}
	select {
	case a := <-done: // cancel comes behind the answer
		return a
	default:
		return answer{err: ctx.Err()}
	}
}
