package redisbus

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/redis/rueidis"

	"sockudo/internal/backoff"
	"sockudo/internal/cluster"
	"sockudo/internal/cluster/driver"
	"sockudo/internal/redisconn"
)

const (
	// lookInterval is how late a change that nobody told of is noticed;
	// lookPause keeps a cluster that is moving from being asked all the time.
	lookInterval = 5 * time.Second
	lookPause    = 100 * time.Millisecond
	// askers bounds how many servers are asked what the cluster is. One is
	// asked first, the others when it is not sure or takes longer than askPause.
	askers   = 3
	askPause = 100 * time.Millisecond
)

// A topology says which server has which topic. It does not change.
type topology struct {
	sharded bool
	owners  []*server          // by slot, nil where nobody owns it; empty: there is one server
	servers map[string]*server // by address
}

func (t *topology) server(topic string) *server {
	if len(t.owners) == 0 {
		return t.servers[""]
	}
	return t.owners[slotOf(topic)]
}

func (t *topology) link(topic string) *link {
	s := t.server(topic)
	if s == nil {
		return nil
	}
	return s.links[slotOf(topic)%len(s.links)]
}

// found is what a server says of its cluster: the address of each slot's owner,
// empty where there is none.
type found struct {
	owners [slots]string
	well   bool // the server says that all is well
}

// watch keeps the servers of a cluster and its topology as they are now.
func (b *Bus) watch(ctx context.Context, on cluster.Events) {
	servers := map[string]*server{}
	defer func() {
		for _, s := range servers {
			s.stop()
		}
	}()
	now := b.found
	b.found = nil
	var asked []chan struct{}
	for {
		if now != nil {
			b.follow(ctx, now, servers, on)
		}
		b.house()
		for _, done := range asked {
			close(done)
		}
		asked = asked[:0]
		timer := time.NewTimer(pause(lookInterval))
		select {
		case <-ctx.Done():
		case <-timer.C:
		case <-b.looks:
		case done := <-b.requests:
			asked = append(asked, done)
		}
		timer.Stop()
		if backoff.Sleep(ctx, pause(lookPause)) != nil {
			return
		}
		for more := true; more; {
			select {
			case done := <-b.requests:
				asked = append(asked, done)
			default:
				more = false
			}
		}
		var err error
		if now, err = b.ask(ctx, servers); err != nil && ctx.Err() == nil {
			b.log.Warn("no server says what the cluster is", "err", err)
		}
	}
}

// follow makes servers and the topology what was found.
func (b *Bus) follow(ctx context.Context, now *found, servers map[string]*server, on cluster.Events) {
	masters := map[string]bool{}
	for _, addr := range now.owners {
		if addr != "" {
			masters[addr] = true
		}
	}
	// What is no master any more ends before its topics are subscribed
	// elsewhere, so that nothing is delivered twice.
	for addr, s := range servers {
		if !masters[addr] {
			b.log.Info("a server has left the cluster", "server", addr)
			s.stop()
			delete(servers, addr)
		}
	}
	for addr := range masters {
		if servers[addr] == nil {
			servers[addr] = b.newServer(addr, driver.NewConns(), on)
			servers[addr].start(ctx)
		}
	}
	next := &topology{owners: make([]*server, slots), servers: maps.Clone(servers), sharded: b.decide(ctx, servers)}
	for slot, addr := range now.owners {
		next.owners[slot] = servers[addr]
	}
	last := b.topology.Load()
	if last != nil && last.sharded == next.sharded && slices.Equal(last.owners, next.owners) {
		return
	}
	if last == nil || last.sharded != next.sharded {
		b.log.Info("bus of a Redis Cluster", "masters", len(servers), "sharded", next.sharded)
	}
	b.adopt(next)
}

// decide says whether topics are sharded: when all masters that answer know
// how. While some do not answer, it stays as it was.
func (b *Bus) decide(ctx context.Context, servers map[string]*server) bool {
	var asking sync.WaitGroup
	for _, s := range servers {
		if s.able.Load() == unknown {
			asking.Go(func() { s.askAbility(ctx) })
		}
	}
	asking.Wait()
	sharded, answered := true, false
	for _, s := range servers {
		switch s.able.Load() {
		case yes:
			answered = true
		case no:
			return false
		}
	}
	if last := b.topology.Load(); !answered {
		sharded = last != nil && last.sharded
	}
	return sharded
}

// ask asks some servers and, if none of them answers, the seeds.
func (b *Bus) ask(ctx context.Context, servers map[string]*server) (*found, error) {
	some := slices.Collect(maps.Values(servers))
	rand.Shuffle(len(some), func(i, j int) { some[i], some[j] = some[j], some[i] })
	some = some[:min(askers, len(some))]
	answers := make(chan *found, len(some))
	ctx, cancel := context.WithTimeout(ctx, b.opts.Timeout)
	defer cancel()
	others := make(chan struct{})
	var asking sync.WaitGroup
	defer asking.Wait()
	for i, s := range some {
		asking.Go(func() {
			if i > 0 {
				select {
				case <-others:
				case <-time.After(askPause):
				case <-ctx.Done():
					answers <- nil
					return
				}
			}
			var f *found
			if client := s.ready(); client != nil {
				f, _ = askOne(ctx, client, s.addr)
			}
			answers <- f
		})
	}
	var doubtful *found
	for i := range some {
		f := <-answers
		if f != nil && f.well {
			cancel()
			return f, nil
		}
		if i == 0 {
			close(others)
		}
		if f != nil {
			doubtful = f
		}
	}
	if doubtful != nil {
		return doubtful, nil
	}
	return b.askSeeds(ctx)
}

// askSeeds asks the addresses of the settings.
func (b *Bus) askSeeds(ctx context.Context) (*found, error) {
	var errs []error
	addrs := slices.Clone(b.seeds.Addrs)
	rand.Shuffle(len(addrs), func(i, j int) { addrs[i], addrs[j] = addrs[j], addrs[i] })
	var doubtful *found
	for _, addr := range addrs {
		f, err := b.askSeed(ctx, addr)
		switch {
		case err != nil:
			errs = append(errs, fmt.Errorf("%s: %w", addr, err))
		case f.well:
			return f, nil
		default:
			doubtful = f
		}
		if ctx.Err() != nil {
			break
		}
	}
	if doubtful != nil {
		return doubtful, nil
	}
	return nil, errors.Join(errs...)
}

func (b *Bus) askSeed(ctx context.Context, addr string) (*found, error) {
	ctx, cancel := context.WithTimeout(ctx, b.opts.Timeout)
	defer cancel()
	conns := driver.NewConns()
	stop := context.AfterFunc(ctx, conns.Close)
	defer stop()
	client, err := redisconn.Dial(ctx, b.options(b.node(addr), conns))
	if err != nil {
		return nil, err
	}
	defer client.Close()
	return askOne(ctx, client, addr)
}

// node is the endpoint of one server of the cluster.
func (b *Bus) node(addr string) redisconn.Endpoint {
	e := b.seeds
	e.Addrs, e.Cluster, e.DB = []string{addr}, false, 0
	return e
}

// askOne asks the server at addr what the cluster is.
func askOne(ctx context.Context, client rueidis.Client, addr string) (*found, error) {
	results := client.DoMulti(ctx,
		client.B().ClusterInfo().Build(),
		client.B().ClusterSlots().Build())
	info, _ := results[0].ToString()
	ranges, err := results[1].ToArray()
	if err != nil {
		return nil, err
	}
	f := &found{well: strings.Contains(info, "cluster_state:ok")}
	known := false
	for _, r := range ranges {
		first, last, owner, err := readRange(r, addr)
		if err != nil {
			return nil, fmt.Errorf("CLUSTER SLOTS: %w", err)
		}
		for slot := first; slot <= last && owner != ""; slot++ {
			f.owners[slot] = owner
			known = true
		}
	}
	if !known {
		return nil, errors.New("no slot has an owner")
	}
	return f, nil
}

var errRange = errors.New("is not as expected")

// readRange reads [first, last, [host, port, …], …]. asked is the address of
// the server that said it: it may not know its own.
func readRange(r rueidis.RedisMessage, asked string) (first, last int, owner string, err error) {
	parts, err := r.ToArray()
	if err != nil || len(parts) < 3 {
		return 0, 0, "", errRange
	}
	from, err1 := parts[0].AsInt64()
	to, err2 := parts[1].AsInt64()
	master, err3 := parts[2].ToArray()
	if err := errors.Join(err1, err2, err3); err != nil || from < 0 || to >= slots || len(master) < 2 {
		return 0, 0, "", errRange
	}
	port, err := master[1].AsInt64()
	if err != nil {
		return 0, 0, "", errRange
	}
	host := ""
	if !master[0].IsNil() {
		if host, err = master[0].ToString(); err != nil {
			return 0, 0, "", errRange
		}
	}
	switch host {
	case "":
		if host, _, err = net.SplitHostPort(asked); err != nil {
			return 0, 0, "", err
		}
	case "?": // a name that the server was not told yet
		return int(from), int(to), "", nil
	}
	return int(from), int(to), net.JoinHostPort(host, strconv.FormatInt(port, 10)), nil
}
