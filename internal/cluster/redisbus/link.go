package redisbus

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/redis/rueidis"

	"sockudo/internal/backoff"
	"sockudo/internal/cluster"
)

const (
	// maxTopics bounds what one round trip subscribes, maxChannels what one command does.
	maxTopics   = 1000
	maxChannels = 100
	// tick is how soon what was refused is tried again, and a new master is noticed.
	tick = time.Second
)

// A link is one connection that subscribes, with those that follow it.
type link struct {
	bus  *Bus
	on   cluster.Events
	name string // of the server, for the log
	// dial borrows a connection; current says whether it still leads to where it should.
	dial func(context.Context) (conn rueidis.DedicatedClient, current func() bool, err error)
	wake chan struct{}

	// Guarded by Bus.mu.
	up      bool
	missing bool     // is not complete, so that continuity is not restored
	changes []*topic // to be subscribed or unsubscribed
	refused []*topic // to be tried again later
}

func (l *link) call() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

func (l *link) run(ctx context.Context) {
	for attempt := 1; ; attempt++ {
		up, err := l.session(ctx)
		told := l.bus.disconnected(l)
		if ctx.Err() != nil {
			return
		}
		if up {
			attempt = 1
		}
		if told != nil {
			_ = l.bus.wait(ctx, told) // before anything arrives by the next connection
		}
		delay := l.bus.opts.Retry.Delay(attempt)
		if up || attempt == 1 {
			l.bus.log.Warn("bus connection lost, retrying", "server", l.name, "after", delay, "err", err)
		}
		l.bus.look()
		if backoff.Sleep(ctx, delay) != nil {
			return
		}
	}
}

// session is the life of one connection. up says that the server answered.
func (l *link) session(ctx context.Context) (up bool, err error) {
	conn, current, err := l.dial(ctx)
	if err != nil {
		return false, err
	}
	defer conn.Close()
	var g gate
	// Nothing arrives by this connection once its successor may have begun.
	defer g.shut()
	closed := conn.SetPubSubHooks(rueidis.PubSubHooks{
		OnMessage:      func(m rueidis.PubSubMessage) { g.pass(func() { l.on.Message(m.Channel, []byte(m.Message)) }) },
		OnSubscription: func(s rueidis.PubSubSubscription) { l.hear(ctx, s) },
	})
	if err := l.greet(ctx, conn); err != nil {
		return false, err
	}
	l.bus.connected(l)
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	for {
		if enter, leave := l.bus.take(l, maxTopics); len(enter)+len(leave) > 0 {
			if err := l.apply(ctx, conn, enter, leave); err != nil {
				return true, err
			}
			continue
		}
		l.bus.complete(l)
		select {
		case <-l.wake:
		case <-ticker.C:
			l.bus.retry(l)
			if !current() {
				return true, errors.New("there is another master now")
			}
		case err := <-closed:
			return true, err
		case <-ctx.Done():
			return true, ctx.Err()
		}
	}
}

// A gate lets messages pass, one at a time as the connection reads them, until
// it is shut.
type gate struct {
	passing sync.WaitGroup

	mu     sync.Mutex // guards what follows
	closed bool
}

func (g *gate) pass(hand func()) {
	if g.enter() {
		defer g.passing.Done()
		hand()
	}
}

func (g *gate) enter() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.closed {
		g.passing.Add(1)
	}
	return !g.closed
}

// shut returns when nothing passes any more.
func (g *gate) shut() {
	g.mu.Lock()
	g.closed = true
	g.mu.Unlock()
	g.passing.Wait()
}

func (l *link) greet(ctx context.Context, conn rueidis.DedicatedClient) error {
	ctx, cancel := context.WithTimeout(ctx, l.bus.opts.Timeout)
	defer cancel()
	// Any answer will do: a server that cannot write to its disk, or that loads
	// what it had, refuses to be pinged and passes messages on.
	return conn.Do(ctx, conn.B().Ping().Build()).NonRedisError()
}

func (l *link) hear(ctx context.Context, s rueidis.PubSubSubscription) {
	if s.Kind == "sunsubscribe" {
		if told := l.bus.takenAway(l, s.Channel); told != nil {
			_ = l.bus.wait(ctx, told)
		}
	}
}

// apply subscribes and unsubscribes in one round trip each. An error is one of
// the connection.
func (l *link) apply(ctx context.Context, conn rueidis.DedicatedClient, enter, leave []*topic) error {
	ctx, cancel := context.WithTimeout(ctx, l.bus.opts.Timeout)
	defer cancel()
	if len(leave) > 0 {
		groups, commands := l.commands(leave, unsubscribe(conn.B()), sunsubscribe(conn.B()))
		for i, result := range conn.DoMulti(ctx, commands...) {
			if err := result.NonRedisError(); err != nil {
				return err
			}
			if err := result.Error(); err != nil && !elsewhere(err) { // a slot that has moved has left its topics
				l.bus.log.Warn("the server does not unsubscribe", "server", l.name, "topics", len(groups[i]), "err", err)
			}
			l.bus.left(l, groups[i])
		}
	}
	if len(enter) > 0 {
		groups, commands := l.commands(enter, subscribe(conn.B()), ssubscribe(conn.B()))
		for i, result := range conn.DoMulti(ctx, commands...) {
			if err := result.NonRedisError(); err != nil {
				return err
			}
			err := result.Error()
			if err != nil && !elsewhere(err) {
				l.bus.log.Warn("the server does not subscribe", "server", l.name, "topics", len(groups[i]), "err", err)
			}
			l.bus.entered(l, groups[i], err)
		}
	}
	return nil
}

type command func(channels []string) rueidis.Completed

func subscribe(b rueidis.Builder) command {
	return func(c []string) rueidis.Completed { return b.Subscribe().Channel(c...).Build() }
}

func ssubscribe(b rueidis.Builder) command {
	return func(c []string) rueidis.Completed { return b.Ssubscribe().Channel(c...).Build() }
}

func unsubscribe(b rueidis.Builder) command {
	return func(c []string) rueidis.Completed { return b.Unsubscribe().Channel(c...).Build() }
}

func sunsubscribe(b rueidis.Builder) command {
	return func(c []string) rueidis.Completed { return b.Sunsubscribe().Channel(c...).Build() }
}

// commands are for topics in groups: a command of sharded channels takes those
// of one slot only.
func (l *link) commands(topics []*topic, classic, sharded command) (groups [][]*topic, commands []rueidis.Completed) {
	const noSlot = -1
	bySlot := map[int][]*topic{}
	add := func(group []*topic, c command) {
		names := make([]string, len(group))
		for i, t := range group {
			names[i] = t.name
		}
		groups, commands = append(groups, group), append(commands, c(names))
	}
	for _, t := range topics {
		slot := noSlot
		if t.sharded {
			slot = slotOf(t.name)
		}
		if bySlot[slot] = append(bySlot[slot], t); slot == noSlot && len(bySlot[slot]) == maxChannels {
			add(bySlot[slot], classic)
			delete(bySlot, slot)
		}
	}
	for slot, group := range bySlot {
		if slot == noSlot {
			add(group, classic)
		} else {
			add(group, sharded)
		}
	}
	return groups, commands
}
