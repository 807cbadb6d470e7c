package cluster

import (
	"encoding/binary"
	"time"

	"sockudo/internal/metrics"
)

// A canary is a message to oneself through the broker, every second. Its
// return is the proof that the broker passes on what this node says; an open
// connection is none.
type canary struct {
	number uint64
	next   time.Time
	sent   map[uint64]time.Time
	echo   time.Time // when one returned last
	lag    time.Duration
	lost   int64
}

// due reports whether to send one, and gives up those that are late.
func (c *canary) due(now time.Time, series *metrics.App) bool {
	for n, at := range c.sent {
		if late := now.Sub(at); late > canaryTimeout {
			delete(c.sent, n)
			c.lost++
			series.Resolved(late, false)
		}
	}
	return !now.Before(c.next)
}

// next64 returns the body of the next one.
func (c *canary) next64() []byte {
	c.number++
	return binary.AppendUvarint(nil, c.number)
}

func (c *canary) remember(now time.Time) {
	c.sent[c.number] = now
	c.next = now.Add(canaryInterval)
}

// returned takes one that came back and reports whether it was waited for.
func (c *canary) returned(now time.Time, body []byte, series *metrics.App) bool {
	r := reader{b: body}
	n := r.uvarint()
	at, ok := c.sent[n]
	if !ok || !r.end() {
		return false
	}
	delete(c.sent, n)
	c.echo, c.lag = now, now.Sub(at)
	series.Resolved(c.lag, true)
	return true
}

// hold keeps those on their way from being late because this process stood
// still.
func (c *canary) hold(gap time.Duration) {
	for n, at := range c.sent {
		c.sent[n] = at.Add(gap)
	}
}
