package bench

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// A crowd is all that loads a server in one run: its connections, and what they
// are told and tell.
type crowd struct {
	// Fixed before the first connection.
	opts    *Options
	clock   clock
	app     identity
	targets []*target
	froms   []netip.Addr
	raw     bool // the target is the floor program
	plain   bool // every message with a stamp is one of a stream
	strict  bool // a connection that fails ends the run
	lanes   []*lane
	net     network
	streams []*stream
	apis    []*api
	onEvent func(c *client, name string, s stamp, now int64) // nil: every event is a message
	onJoin  func(c *client, now int64)                       // of connections that are not new

	clients []*client     // those that are part of the tally
	slots   chan struct{} // one for each handshake under way
	dialled int           // by the one goroutine that dials

	arrivals atomic.Int64 // connections that are ready
	failures atomic.Int64 // connections that never were
	leavers  atomic.Int64 // connections that ended later
	inFlight atomic.Int64 // messages that some receiver has not got
	answered atomic.Int64 // HTTP requests
	room     chan struct{}
	closing  atomic.Bool

	mu         sync.Mutex // guards what follows
	err        error      // the first that ends the run
	complaints map[string]int
	statuses   map[int]int // of answers that are not 200; 0: there was none
}

// newCrowd makes the lanes and the network for so many connections.
func newCrowd(ctx context.Context, o *Options, s *server, connections int) (*crowd, error) {
	cr := &crowd{
		opts: o, clock: newClock(), app: s.app, raw: o.Floor, plain: true, strict: true,
		slots: make(chan struct{}, o.Handshakes), room: make(chan struct{}, 1),
		complaints: map[string]int{}, statuses: map[int]int{},
	}
	if err := needFiles(connections); err != nil {
		return nil, err
	}
	for _, u := range s.urls {
		t, err := newTarget(ctx, u, s.app, o.Insecure || o.Serve)
		if err != nil {
			return nil, err
		}
		cr.targets = append(cr.targets, t)
	}
	cr.froms = sources(o.Sources, connections, cr.targets)
	for range max(o.Lanes, 1) {
		cr.lanes = append(cr.lanes, &lane{clock: cr.clock})
	}
	secure := cr.targets[0].tls
	for _, t := range cr.targets {
		if (t.tls != nil) != (secure != nil) {
			return nil, errors.New("either all URLs use TLS or none")
		}
	}
	if secure != nil || o.Stream {
		cr.net = newStreamNetwork(secure)
		return cr, nil
	}
	var err error
	cr.net, err = newNetwork(cr.lanes)
	return cr, err
}

// newClient adds a client of the tally, or with extra one that is not.
func (cr *crowd) newClient(channel string, extra bool) *client {
	c := &client{crowd: cr, id: cr.dialled, channel: channel, hint: -1, extra: extra}
	c.lane = cr.lanes[c.id%len(cr.lanes)]
	c.node = c.id % len(cr.targets)
	cr.dialled++
	if !extra {
		cr.clients = append(cr.clients, c)
	}
	return c
}

func (cr *crowd) from(i int) netip.Addr { return cr.froms[i/len(cr.targets)%len(cr.froms)] }

// openAPI connects n HTTP connections to the targets in turn.
func (cr *crowd) openAPI(n int) []*api {
	all := make([]*api, n)
	for i := range all {
		t := cr.targets[i%len(cr.targets)]
		all[i] = &api{lane: cr.lanes[i%len(cr.lanes)], net: cr.net, addr: t.addr, from: cr.from(i), host: t.host, raw: cr.raw, done: cr.answer, dead: cr.unreachable}
		all[i].connect()
	}
	cr.apis = append(cr.apis, all...)
	return all
}

// fail ends the run with an error.
func (cr *crowd) fail(err error) {
	cr.mu.Lock()
	defer cr.mu.Unlock()
	if cr.err == nil {
		cr.err = err
	}
}

// failed returns the error that ends the run.
func (cr *crowd) failed() error {
	cr.mu.Lock()
	defer cr.mu.Unlock()
	return cr.err
}

// gather connects clients and waits until all of them are ready or have failed.
// It dials at rate, or with 0 as fast as handshakes end.
func (cr *crowd) gather(ctx context.Context, all []*client, rate float64, p *progress) error {
	pace, err := newPacer(cr.clock)
	if err != nil {
		return err
	}
	defer pace.close()
	arrived, failed := cr.arrivals.Load(), cr.failures.Load()
	reached := func() int {
		return int(cr.arrivals.Load() - arrived + cr.failures.Load() - failed)
	}
	start := cr.clock.now()
	for i, c := range all {
		c.born = cr.clock.now()
		if rate > 0 {
			c.born = start + int64(float64(i)/rate*float64(time.Second))
			pace.until(c.born)
		} else if err := cr.slot(ctx); err != nil {
			return fmt.Errorf("connection %d of %d: %w", reached()+1, len(all), err)
		}
		if cr.failed() != nil || ctx.Err() != nil {
			break
		}
		cr.net.dial(c.lane, c, cr.targets[c.node].addr, cr.from(c.id))
		if i%256 == 0 {
			p.say("connecting %d of %d", reached(), len(all))
		}
	}
	return cr.await(ctx, len(all), reached, p)
}

// stalled is how long connecting may make no progress.
const stalled = 20 * time.Second

var errStalled = fmt.Errorf("nothing happens for %v", stalled)

// slot waits until another handshake may begin.
func (cr *crowd) slot(ctx context.Context) error {
	select {
	case cr.slots <- struct{}{}:
		return nil
	default:
	}
	select {
	case cr.slots <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(stalled):
		return errStalled
	}
}

// await waits until n connections are ready or have failed.
func (cr *crowd) await(ctx context.Context, n int, reached func() int, p *progress) error {
	last, since := reached(), time.Now()
	for {
		if err := cr.failed(); err != nil {
			return err
		}
		now := reached()
		switch {
		case now >= n:
			return nil
		case now != last:
			last, since = now, time.Now()
		case time.Since(since) > stalled:
			return fmt.Errorf("%d of %d connections are ready: %w", now, n, errStalled)
		}
		p.say("connecting %d of %d", now, n)
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// greeted notes connection_established; the lane is held.
func (cr *crowd) greeted(c *client, now int64) {
	c.lane.opened.add(now - c.born)
	if c.channel == "" {
		cr.arrived(c, now)
	}
}

// arrived notes that a client is where it wants to be; the lane is held.
func (cr *crowd) arrived(c *client, now int64) {
	if c.born == 0 {
		if cr.onJoin != nil {
			cr.onJoin(c, now)
		}
		return
	}
	c.lane.joined.add(now - c.born)
	c.born, c.asked = 0, 0
	cr.arrivals.Add(1)
	cr.freeSlot()
}

func (cr *crowd) freeSlot() {
	select {
	case <-cr.slots:
	default: // dialled at a rate
	}
}

// left notes the end of a connection; the lane is held.
func (cr *crowd) left(c *client, was stage, err error) {
	if cr.closing.Load() {
		return
	}
	err = c.why(was, err)
	if c.born == 0 {
		cr.leavers.Add(1)
		cr.note("a connection ended: " + err.Error())
		return
	}
	c.born = 0
	cr.failures.Add(1)
	cr.freeSlot()
	cr.note(err.Error())
	if cr.strict {
		cr.fail(fmt.Errorf("%s: connection %d: %w", cr.targets[c.node].base, c.id+1, err))
	}
}

// complaint handles an error that the server told a client.
func (cr *crowd) complaint(c *client, text string) error {
	if c.asked != 0 || c.stage == greeting {
		return refusedf("channel %s: the server answers %s", c.channel, text)
	}
	cr.note("the server says " + text)
	return nil
}

// mostNotes bounds how many different complaints are kept.
const mostNotes = 20

func (cr *crowd) note(text string) {
	cr.mu.Lock()
	defer cr.mu.Unlock()
	if _, known := cr.complaints[text]; known || len(cr.complaints) < mostNotes {
		cr.complaints[text]++
	}
}

// event handles a message with a stamp whose event has been read.
func (cr *crowd) event(c *client, name string, s stamp, now int64) {
	if cr.onEvent != nil {
		cr.onEvent(c, name, s, now)
		return
	}
	cr.message(c, s, now)
}

// message counts a delivery; the lane is held.
func (cr *crowd) message(c *client, s stamp, now int64) {
	l := c.lane
	if c.extra && c.tracks == nil {
		l.delivered++
		return
	}
	i := s.stream - c.streams
	if uint(i) >= uint(len(c.tracks)) {
		l.foreign++
		return
	}
	st := cr.streams[s.stream]
	if uint32(s.seq) >= st.sent.Load() {
		l.foreign++
		return
	}
	if c.extra && c.tracks[i].next == unseen {
		c.tracks[i].next = uint32(s.seq) // it has joined in the middle
	}
	switch c.tracks[i].see(uint32(s.seq)) {
	case duplicate:
		l.tally.Duplicated++
		return
	case late:
		l.tally.Reordered++
	}
	l.delivered++
	w := l.at(s.at)
	if w != nil {
		w.latency.add(now - s.at)
		if st.node != c.node {
			w.remote.add(now - s.at)
		}
	}
	if c.extra {
		return
	}
	l.counted++
	if st.got(uint32(s.seq)) {
		if w != nil {
			w.last.add(now - s.at)
		}
		cr.completed()
	}
}

// completed notes that a message has reached everybody, or nobody is to get it.
func (cr *crowd) completed() {
	cr.inFlight.Add(-1)
	select {
	case cr.room <- struct{}{}:
	default:
	}
}

// answer notes an HTTP answer; the api's lane is held.
func (cr *crowd) answer(a *api, r request, status int, body []byte, now int64) {
	cr.answered.Add(1)
	if w := a.lane.at(r.at); w != nil && status != 0 {
		if r.stream != nil {
			w.answer.add(now - r.at)
		} else {
			w.query.add(now - r.at)
		}
	}
	if status == 200 {
		if r.stream != nil && r.stream.receive == 0 {
			cr.completed()
		}
		return
	}
	if cr.closing.Load() {
		return
	}
	cr.refused(a, r, status, body)
}

// unreachable ends the run: the API gives no answers.
func (cr *crowd) unreachable(a *api, err error) {
	if !cr.closing.Load() {
		cr.fail(fmt.Errorf("%s: the API does not answer: %w", a.host, err))
	}
}

// refused notes that a request was not answered with 200.
func (cr *crowd) refused(a *api, r request, status int, body []byte) {
	cr.mu.Lock()
	cr.statuses[status]++
	cr.mu.Unlock()
	if r.stream != nil {
		r.stream.refuse(r.seq)
		cr.completed()
	}
	text := fmt.Sprintf("the API answers %d %s", status, clip(body))
	if status == 0 {
		text = fmt.Sprintf("the API does not answer: %v", a.ended)
	}
	switch status {
	case 401, 403, 404, 400, 413: // this will not become better
		cr.fail(fmt.Errorf("%s: %s", a.host, text))
	default:
		cr.note(text)
	}
}

// shut ends all connections.
func (cr *crowd) shut() {
	cr.closing.Store(true)
	for _, a := range cr.apis {
		a.end()
	}
	cr.net.stop()
}

// sum adds up what the lanes have counted.
func (cr *crowd) sum() (delivered, counted uint64) {
	for _, l := range cr.lanes {
		l.mu.Lock()
		delivered += l.delivered
		counted += l.counted
		l.mu.Unlock()
	}
	return delivered, counted
}

// busy returns how long the busiest lane has been at work.
func (cr *crowd) busy() (most int64) {
	for _, l := range cr.lanes {
		l.mu.Lock()
		most = max(most, l.busy)
		l.mu.Unlock()
	}
	return most
}

// tallies returns what became of the messages of all streams.
func (cr *crowd) tallies() (t tally, foreign int) {
	refusals := make([][]uint32, len(cr.streams))
	for i, s := range cr.streams {
		refusals[i] = s.refusals()
	}
	for _, l := range cr.lanes {
		l.mu.Lock()
		t.add(l.tally)
		foreign += int(l.foreign)
		l.mu.Unlock()
	}
	for _, c := range cr.clients {
		c.lane.mu.Lock()
		for j := range c.tracks {
			id := c.streams + j
			s := cr.streams[id]
			if s.own == c {
				continue // nobody gets its own client events
			}
			sent := s.sent.Load()
			lost, unexpected := c.tracks[j].missing(0, sent, refusals[id])
			expected := int(sent) - len(refusals[id])
			t.add(tally{Expected: expected, Delivered: expected - lost, Lost: lost, Unexpected: unexpected})
		}
		c.lane.mu.Unlock()
	}
	return t, foreign
}
