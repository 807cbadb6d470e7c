package natsbus

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
)

const (
	// maxWitnesses bounds the connections that only watch.
	maxWitnesses = 16
	// echoTimeout is how long an echo may take, and how often it is asked for
	// again: the first one goes astray while its own subject is not known yet.
	echoTimeout = time.Second
	echoRepeat  = 50 * time.Millisecond
	// surveyInterval is how late a server that joins the cluster is noticed.
	surveyInterval = 5 * time.Second
)

// witnesses make a subscription certain in the whole cluster. A server answers
// a ping before its neighbours know of the subscription before that ping, so
// that what another node publishes there at once would be lost. But neighbours
// hear of subscriptions and messages in order: when a message that was
// published behind the subscription has come to a connection at a neighbour,
// the neighbour knows the subscription.
type witnesses struct {
	bus  *Bus
	id   string
	last atomic.Uint64 // number of the newest echo

	surveyed chan struct{} // closed when every server was tried once

	mu    sync.Mutex // guards what follows and the marked fields of all witnesses
	all   map[string]*witness
	heard chan struct{} // closed and replaced whenever an echo has come
}

// A witness is the connection to one server.
type witness struct {
	subject string
	conn    *connection

	// Guarded by witnesses.mu.
	up   bool
	mute bool // did not echo in time, so nobody waits for it
	seen uint64
}

func newWitnesses(b *Bus) *witnesses {
	return &witnesses{bus: b, id: rand.Text(), surveyed: make(chan struct{}), all: map[string]*witness{}, heard: make(chan struct{})}
}

// run keeps a witness at every server that is known.
func (w *witnesses) run(ctx context.Context) {
	ticker := time.NewTicker(surveyInterval)
	defer ticker.Stop()
	w.survey()
	close(w.surveyed)
	for {
		select {
		case <-ctx.Done():
			w.close()
			return
		case <-ticker.C:
			w.survey()
		}
	}
}

func (w *witnesses) survey() {
	known := map[string]bool{}
	for _, url := range w.bus.sub.Servers() {
		if len(known) < maxWitnesses {
			known[url] = true
		}
	}
	w.mu.Lock()
	var gone []*witness
	for url, one := range w.all {
		if !known[url] {
			gone = append(gone, one)
			delete(w.all, url)
		}
		delete(known, url)
	}
	w.mu.Unlock()
	for _, one := range gone {
		one.conn.close()
	}
	var connecting sync.WaitGroup
	for url := range known {
		connecting.Go(func() { w.add(url) })
	}
	connecting.Wait()
}

func (w *witnesses) add(url string) {
	one := &witness{subject: subject(w.bus.opts.Prefix + ":echo:" + w.id + ":" + rand.Text())}
	side := &onlooker{w: w, one: one}
	o := w.bus.options()
	o.Servers = []string{url}
	o.IgnoreDiscoveredServers = true
	o.RetryOnFailedConnect = true
	o.ConnectedCB = func(*nats.Conn) { side.reconnected("") }
	o.Timeout = min(o.Timeout, echoTimeout)
	conn, err := w.bus.open(side, o)
	if err != nil {
		w.bus.log.Debug("a server of the cluster is not watched", "err", err)
		return
	}
	if _, err := conn.Subscribe(one.subject, func(m *nats.Msg) { w.echoed(one, m.Data) }); err != nil {
		conn.close()
		return
	}
	one.conn = conn
	w.mu.Lock()
	w.all[url] = one
	w.mu.Unlock()
}

func (w *witnesses) close() {
	w.mu.Lock()
	all := w.all
	w.all = map[string]*witness{}
	w.mu.Unlock()
	for _, one := range all {
		one.conn.close()
	}
}

func (w *witnesses) echoed(one *witness, data []byte) {
	if len(data) != 8 {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	one.seen = max(one.seen, binary.BigEndian.Uint64(data))
	one.mute = false
	close(w.heard)
	w.heard = make(chan struct{})
}

// confirm returns when all servers that are watched know what the connection
// for subscribing has told its own, or when those that do not have had their time.
func (w *witnesses) confirm(ctx context.Context, alive func() bool) {
	number := w.last.Add(1)
	data := binary.BigEndian.AppendUint64(nil, number)
	timeout := time.NewTimer(echoTimeout)
	defer timeout.Stop()
	repeat := time.NewTicker(echoRepeat)
	defer repeat.Stop()
	for ask := true; ; {
		missing, waits, heard := w.missing(number)
		if ask {
			for _, one := range missing {
				_ = w.bus.sub.Publish(one.subject, data)
			}
		}
		if !waits {
			return
		}
		ask = false
		select {
		case <-heard:
		case <-repeat.C:
			ask = true
		case <-timeout.C:
			if alive() {
				w.silence(number)
			}
			return
		case <-ctx.Done():
			return
		}
	}
}

// missing returns who has not seen an echo, whether one of them is to be waited
// for, and what is closed when another one has seen it.
func (w *witnesses) missing(number uint64) (missing []*witness, waits bool, heard <-chan struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, one := range w.all {
		if one.up && one.seen < number {
			missing = append(missing, one)
			waits = waits || !one.mute
		}
	}
	return missing, waits, w.heard
}

// silence waits no more for those that did not echo, until they do.
func (w *witnesses) silence(number uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for url, one := range w.all {
		if one.up && !one.mute && one.seen < number {
			one.mute = true
			w.bus.log.Warn("a server of the cluster does not echo; what is published there right after a subscription may be missed",
				"server", Options{Servers: []string{url}}.String())
		}
	}
}

// onlooker is the side of a witness.
type onlooker struct {
	w   *witnesses
	one *witness
}

func (o *onlooker) Dial(network, addr string) (net.Conn, error) { return o.w.bus.dial(network, addr) }

func (o *onlooker) disconnected(error) { o.set(false) }

func (o *onlooker) reconnected(string) { o.set(true) }

func (o *onlooker) set(up bool) {
	o.w.mu.Lock()
	defer o.w.mu.Unlock()
	o.one.up = up
}
