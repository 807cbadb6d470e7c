package rediscache

import (
	"context"
	"fmt"
	"time"

	"github.com/redis/rueidis"

	"sockudo/internal/backoff"
	"sockudo/internal/cache"
)

// A shard is a part of the keys that lives or dies together: all of them on
// one server, a range of the slots of a cluster. A node that is down must not
// keep callers away from the others.
type shard struct {
	breaker *backoff.Breaker
	calls   chan struct{} // one element for each call that goes on
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

func newShards(cluster bool, timeout time.Duration) []shard {
	n, most := 1, mostCalls
	if cluster {
		n, most = clusterShards, mostClusterCalls
	}
	all := make([]shard, n)
	for i := range all {
		all[i] = shard{backoff.NewBreaker(reopen, timeout), make(chan struct{}, most)}
	}
	return all
}

func (c *Cache) shard(cmd rueidis.Completed) *shard {
	if len(c.shards) == 1 {
		return &c.shards[0]
	}
	return &c.shards[int(cmd.Slot())*clusterShards/clusterSlots]
}

// An answer is what came of a call.
type answer struct {
	value []byte
	ttl   time.Duration
	err   error
}

// do runs call within the time limit, unless the server is known to be down.
func (c *Cache) do(ctx context.Context, cmd rueidis.Completed, call func(context.Context, rueidis.Completed) answer) answer {
	s := c.shard(cmd)
	ticket, ok := s.breaker.Allow()
	if !ok {
		return answer{err: cache.ErrDown}
	}
	a := c.within(ctx, s, cmd, call)
	switch _, refused := rueidis.IsRedisErr(a.err); {
	case a.err == nil, refused, rueidis.IsRedisNil(a.err):
		if s.breaker.Answered() {
			c.log.Info("cache answers again")
			c.settle(ctx)
		}
	case ctx.Err() != nil: // the caller gave up, which says nothing of the server
	default:
		if s.breaker.Failed(ticket) {
			c.log.Warn("cache does not answer, going on without it", "err", a.err)
		}
		a.err = fmt.Errorf("%w: %w", cache.ErrDown, a.err)
	}
	return a
}

// within runs call and returns in time even if the library does not: it makes
// some of its waits without a context.
func (c *Cache) within(ctx context.Context, s *shard, cmd rueidis.Completed, call func(context.Context, rueidis.Completed) answer) answer {
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
		done <- call(ctx, cmd)
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
