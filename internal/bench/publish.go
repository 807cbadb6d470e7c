package bench

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"sockudo/internal/protocol"
)

// A publisher sends the messages of all streams, in turn, on schedule.
type publisher struct {
	crowd *crowd
	pace  *pacer
	rate  float64 // messages per second; 0: as many as limit allows
	limit int     // on their way; 0: no bound

	lag     *lane // holds the windows that lag is noted in
	signers []*signer
	texts   []text // of each stream
	out     []batch

	sent int // messages
}

// A text is what a stream sends, with a place for the stamp.
type text struct {
	body  []byte
	place int
	api   int // index of crowd.apis; -1: the stream's own client sends
}

// A batch is what is about to be sent on an HTTP connection.
type batch struct {
	b  []byte
	rs []request
}

// newPublisher prepares the streams of a crowd; stream i over HTTP uses
// connection i modulo their number.
func newPublisher(cr *crowd) (*publisher, error) {
	pace, err := newPacer(cr.clock)
	if err != nil {
		return nil, err
	}
	p := &publisher{crowd: cr, pace: pace, rate: cr.opts.Rate, limit: cr.opts.InFlight, lag: &lane{clock: cr.clock}, out: make([]batch, len(cr.apis))}
	for _, a := range cr.apis {
		p.signers = append(p.signers, newSigner(cr.app, a.host))
	}
	for _, s := range cr.streams {
		t := newText(s, cr.opts.Payload, cr.raw)
		if s.own == nil {
			t.api = s.id % len(cr.apis)
		}
		p.texts = append(p.texts, t)
	}
	return p, nil
}

// newText returns a message of a stream: for the API, for a client, or with
// bare the frame that receivers get.
func newText(s *stream, payload int, bare bool) text {
	data := stampLead + strings.Repeat("x", payload-len(stampLead))
	var body []byte
	switch {
	case bare:
		message := protocol.AppendEvent(nil, "bench", s.channel, []byte(data), "")
		body = append(body, finBit|opText)
		if len(message) <= 125 {
			body = append(body, byte(len(message)))
		} else {
			body = binary.BigEndian.AppendUint16(append(body, 126), uint16(len(message)))
		}
		body = append(body, message...)
	case s.own != nil:
		body = protocol.AppendEvent(nil, "client-bench", s.channel, []byte(data), "")
	default:
		body = fmt.Appendf(nil, `{"name":"bench","channel":%s,"data":"%s"}`, protocol.AppendString(nil, s.channel), data)
	}
	return text{body: body, place: strings.Index(string(body), stampLead), api: -1}
}

// run publishes from a moment until another one, or until ctx is done.
func (p *publisher) run(ctx context.Context, from, to int64) {
	stop := context.AfterFunc(ctx, p.pace.close)
	defer stop()
	defer p.pace.close()
	if p.rate == 0 {
		p.pace.until(from)
	}
	for i := 0; ; i++ {
		due := p.crowd.clock.now()
		if p.rate > 0 {
			due = from + int64(float64(i)/p.rate*float64(time.Second))
		}
		if due >= to || !p.wait(ctx, due) {
			break
		}
		p.publish(p.crowd.streams[i%len(p.crowd.streams)], due)
	}
	p.flush()
}

// wait waits until a message may be sent that is due.
func (p *publisher) wait(ctx context.Context, due int64) bool {
	if due > p.crowd.clock.now() {
		p.flush()
		if !p.pace.until(due) {
			return false
		}
	}
	for p.limit > 0 && int(p.crowd.inFlight.Load()) >= p.limit {
		p.flush()
		if int(p.crowd.inFlight.Load()) < p.limit {
			break
		}
		select {
		case <-p.crowd.room:
		case <-ctx.Done():
			return false
		case <-time.After(stuck):
			// Some receiver will never get them: that is told in the tally.
			p.crowd.inFlight.Store(0)
			p.crowd.note(fmt.Sprintf("no message was complete for %v", stuck))
		}
	}
	return ctx.Err() == nil && p.crowd.failed() == nil
}

// stuck is how long the bound on messages in flight may hold up everything.
const stuck = 2 * time.Second

// flushBytes is how much is gathered for one HTTP connection.
const flushBytes = 16 << 10

// publish sends the next message of a stream.
func (p *publisher) publish(s *stream, due int64) {
	seq := s.begin(due)
	p.crowd.inFlight.Add(1)
	p.sent++
	t := &p.texts[s.id]
	stamp{s.id, int(seq), due}.put(t.body[t.place:])
	now := p.crowd.clock.now()
	if w := p.lag.at(due); w != nil {
		w.lag.add(now - due)
	}
	if s.own != nil {
		if k := s.own.current(); k != nil {
			k.send(maskedFrame(opText, t.body))
		}
		return
	}
	b := &p.out[t.api]
	if p.crowd.raw {
		b.b = append(b.b, t.body...)
	} else {
		node := p.crowd.targets[t.api%len(p.crowd.targets)]
		b.b = p.signers[t.api].appendRequest(b.b, "POST", node.apiPath+"/events", "", t.body, time.Now())
		b.rs = append(b.rs, request{due, s, seq})
	}
	if len(b.b) > flushBytes {
		p.flush()
	}
}

// flush sends what was gathered.
func (p *publisher) flush() {
	for i := range p.out {
		if b := &p.out[i]; len(b.b) > 0 {
			p.crowd.apis[i].send(b.b, b.rs...)
			b.b, b.rs = b.b[:0], b.rs[:0]
		}
	}
}

// probe asks the API about a channel and pings through a client, rate times a
// second, until ctx is done.
func (cr *crowd) probe(ctx context.Context, a *api, c *client, rate float64, channel string) error {
	pace, err := newPacer(cr.clock)
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, pace.close)
	defer stop()
	defer pace.close()
	sig := newSigner(cr.app, a.host)
	start := cr.clock.now() + int64(rand.Float64()/rate*float64(time.Second)) // not in step with what is published
	for i := 0; ; i++ {
		due := start + int64(float64(i)/rate*float64(time.Second))
		if !pace.until(due) || ctx.Err() != nil {
			return nil
		}
		path := cr.targets[0].apiPath + "/channels/" + channel
		a.send(sig.appendRequest(nil, "GET", path, "", nil, time.Now()), request{at: due})
		c.lane.mu.Lock()
		if c.link != nil {
			c.pings = append(c.pings, due)
			c.link.send(pingFrame)
		}
		c.lane.mu.Unlock()
	}
}
