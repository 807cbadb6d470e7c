package redisbus

import (
	"cmp"
	"context"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"

	"sockudo/internal/backoff"
	"sockudo/internal/cluster"
	"sockudo/internal/cluster/driver"
)

// abilityTimeout bounds how long a server that does not answer holds up the rest.
const abilityTimeout = time.Second

// What a server of a cluster is able to, as far as it is known.
const (
	unknown int32 = iota
	yes
	no
)

// A server is one server, or the master of Sentinels, with the connections to it.
type server struct {
	bus   *Bus
	addr  string // empty unless of a cluster
	conns *driver.Conns
	lane  *driver.Lane
	links []*link
	able  atomic.Int32 // to shard channels
	// demoted is for a server, not of a cluster, that was the master and is a replica now.
	demoted atomic.Bool

	client    rueidis.Client
	connected chan struct{} // closed when client is there

	// Owned by Bus.watch.
	cancel context.CancelFunc
	done   chan struct{}
}

func (b *Bus) newServer(addr string, conns *driver.Conns, on cluster.Events) *server {
	s := &server{bus: b, addr: addr, conns: conns, connected: make(chan struct{})}
	s.lane = driver.NewLane(b.opts.Timeout, s.send)
	b.mu.Lock()
	defer b.mu.Unlock()
	for range b.opts.Connections {
		l := &link{bus: b, on: on, name: cmp.Or(addr, b.where), dial: s.dial, wake: make(chan struct{}, 1)}
		s.links = append(s.links, l)
		// The bus begins when the first links are complete. Those of servers that
		// join later have nothing yet that could be missing.
		if b.topology.Load() == nil {
			l.missing = true
			b.missing++
		}
	}
	return s
}

// start runs a server of a cluster until stop.
func (s *server) start(ctx context.Context) {
	ctx, s.cancel = context.WithCancel(ctx)
	s.done = make(chan struct{})
	go func() {
		defer close(s.done)
		stop := context.AfterFunc(ctx, s.conns.Close)
		defer stop()
		// Not redisconn.Dial: a client that could not connect yet is as good.
		opt := s.bus.options(s.bus.node(s.addr), s.conns)
		client, err := rueidis.NewClient(opt)
		if client == nil {
			s.bus.log.Error("bus connection is impossible", "server", s.addr, "err", err)
			<-ctx.Done()
			return
		}
		defer client.Close()
		s.serve(ctx, client)
	}()
}

func (s *server) stop() {
	s.cancel()
	<-s.done
	for _, l := range s.links {
		s.bus.gone(l)
	}
}

// serve carries messages until ctx is done.
func (s *server) serve(ctx context.Context, client rueidis.Client) {
	s.client = client
	close(s.connected)
	var running sync.WaitGroup
	running.Go(func() { s.lane.Run(ctx) })
	if s.addr == "" {
		running.Go(func() { s.watchRole(ctx) })
	}
	for _, l := range s.links {
		running.Go(func() { l.run(ctx) })
	}
	running.Wait()
}

// ready returns the client, or nil while there is none.
func (s *server) ready() rueidis.Client {
	select {
	case <-s.connected:
		return s.client
	default:
		return nil
	}
}

// dial borrows a connection of its own for a link.
func (s *server) dial(context.Context) (rueidis.DedicatedClient, func() bool, error) {
	s.able.Store(unknown) // it may have been replaced by another version
	if s.addr != "" {
		conn, _ := s.client.Dedicate()
		return conn, func() bool { return true }, nil
	}
	if s.demoted.Load() {
		return nil, nil, errDemoted
	}
	sub := s.bus.sub
	for addr, node := range sub.Nodes() { // there is one
		conn, _ := node.Dedicate()
		return conn, func() bool { _, same := sub.Nodes()[addr]; return same }, nil
	}
	return nil, nil, errNoSlot
}

// watchRole leaves a master that has become a replica. The address may lead to
// another server since then, while connections stay, and what is published at a
// replica reaches only those who listen there. Until the address leads to a master
// the broker counts as lost. In a cluster the topology says who is the master.
func (s *server) watchRole(ctx context.Context) {
	was := ""
	for {
		role, err := s.role(ctx)
		if re, ok := rueidis.IsRedisErr(err); ok && was == "" && strings.HasPrefix(re.Error(), "NOPERM") {
			s.bus.log.Warn("the server does not say its role; if its address is given to another one, this is not noticed", "server", s.bus.where, "err", err)
			return
		}
		switch {
		case role == "":
		case role != "slave":
			s.demoted.Store(false)
			was = role
		case was == "":
			was = role
			s.bus.log.Warn("the server is a replica: only nodes that subscribe there hear what is published", "server", s.bus.where)
		case was != role:
			if !s.demoted.Swap(true) {
				s.bus.log.Error("the server has become a replica, connecting anew until the address leads to a master", "server", s.bus.where)
			}
			s.conns.Cut()
		}
		wait := lookInterval
		if s.demoted.Load() {
			wait = tick
		}
		if backoff.Sleep(ctx, pause(wait)) != nil {
			return
		}
	}
}

// role returns what the server says that it is, or nothing: it may be a proxy.
func (s *server) role(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, s.bus.opts.Timeout)
	defer cancel()
	answer, err := s.client.Do(ctx, s.client.B().Role().Build()).ToArray()
	if err != nil || len(answer) == 0 {
		return "", err
	}
	return answer[0].ToString()
}

// send publishes a batch.
func (s *server) send(ctx context.Context, batch []*driver.Message) {
	if s.demoted.Load() {
		for _, m := range batch {
			m.Err = errDemoted
		}
		return
	}
	commands := make([]rueidis.Completed, len(batch))
	sharded := s.bus.topology.Load().sharded
	for i, m := range batch {
		// The lane's own copy of the data, which nobody changes.
		data := rueidis.BinaryString(m.Data)
		if sharded {
			commands[i] = s.client.B().Spublish().Channel(m.Topic).Message(data).Build()
		} else {
			commands[i] = s.client.B().Publish().Channel(m.Topic).Message(data).Build()
		}
	}
	for i, result := range s.client.DoMulti(ctx, commands...) {
		batch[i].Err = result.Error()
	}
}

func (s *server) ping(ctx context.Context) error {
	if err := s.bus.wait(ctx, s.connected); err != nil {
		return err
	}
	return s.client.Do(ctx, s.client.B().Ping().Build()).Error()
}

// askAbility finds out whether the server can shard channels. COMMAND INFO has
// nothing for a command that it does not know.
func (s *server) askAbility(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, min(abilityTimeout, s.bus.opts.Timeout))
	defer cancel()
	if s.bus.wait(ctx, s.connected) != nil {
		return
	}
	info, err := s.client.Do(ctx, s.client.B().CommandInfo().CommandName("SPUBLISH", "SSUBSCRIBE", "SUNSUBSCRIBE").Build()).ToArray()
	if re, ok := rueidis.IsRedisErr(err); ok && strings.HasPrefix(re.Error(), "NOPERM") {
		// All nodes of ours have the same permissions and decide alike. Any other
		// refusal, such as a password that is not known yet, passes.
		s.bus.log.Warn("the server does not say whether it shards channels; they are not sharded", "server", s.addr, "err", err)
		s.able.Store(no)
		return
	}
	if err != nil {
		return
	}
	able := yes
	for _, command := range info {
		if command.IsNil() {
			able = no
		}
	}
	s.able.Store(able)
}
