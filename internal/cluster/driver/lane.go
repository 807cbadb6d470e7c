// Package driver has what the drivers of buses share.
package driver

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
)

// ErrStopped is returned for messages that the lane did not hand to the broker
// before its end.
var ErrStopped = errors.New("the bus has ended")

var errCut = errors.New("the connection to the broker was given up meanwhile")

// A Message is on its way to the broker. Err is for the one who sends: why the
// broker may not have it.
type Message struct {
	Topic string
	Data  []byte
	Err   error

	sent chan struct{}

	gone bool // guarded by Lane.mu: its publisher does not wait any more
}

// A Send hands a batch to the broker in order and returns when the broker has
// taken all of it, with the Err of every message for which that is not sure.
type Send func(ctx context.Context, batch []*Message)

const (
	// inFlight is how many batches travel at once: one would double the time of
	// a publish that arrives just after a batch has left.
	inFlight = 4
	maxBatch = 256
	// maxBatchBytes bounds the head-of-line blocking by large messages.
	maxBatchBytes = 1 << 20
)

// A Lane takes the messages that many goroutines publish to one broker and
// hands them over in batches, a few at a time: they share round trips, none of
// them holds a lock while another one's message travels, and each of them waits
// exactly as long as its own context lets it.
type Lane struct {
	// Fixed at creation.
	send    Send
	timeout time.Duration
	wake    chan struct{}

	mu      sync.Mutex // guards what follows
	waiting []*Message
	stopped bool
}

// NewLane returns a Lane that gives the broker timeout for each batch.
func NewLane(timeout time.Duration, send Send) *Lane {
	return &Lane{send: send, timeout: timeout, wake: make(chan struct{}, inFlight)}
}

// Publish returns when the broker has taken data, or why it may not have. What
// one goroutine publishes arrives in order; an error breaks no order either,
// unless the connection broke meanwhile. Before Run it waits.
func (l *Lane) Publish(ctx context.Context, topic string, data []byte) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	m := &Message{Topic: topic, Data: slices.Clone(data), sent: make(chan struct{})}
	l.mu.Lock()
	if l.stopped {
		l.mu.Unlock()
		return ErrStopped
	}
	l.waiting = append(l.waiting, m)
	l.mu.Unlock()
	select {
	case l.wake <- struct{}{}:
	default: // enough are awake or about to be
	}
	select {
	case <-m.sent:
		return m.Err
	case <-ctx.Done():
		l.forget(m)
		return ctx.Err()
	}
}

// forget frees what nobody waits for, so that it is not sent late.
func (l *Lane) forget(m *Message) {
	l.mu.Lock()
	defer l.mu.Unlock()
	m.gone = true
}

// Run hands over what is published until ctx is done. A Lane runs once.
func (l *Lane) Run(ctx context.Context) {
	var workers sync.WaitGroup
	for range inFlight {
		workers.Go(func() { l.work(ctx) })
	}
	workers.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stopped = true
	for _, m := range l.waiting {
		m.Err = ErrStopped
		close(m.sent)
	}
	l.waiting = nil
}

func (l *Lane) work(ctx context.Context) {
	var batch []*Message
	for ctx.Err() == nil {
		if batch = l.take(batch[:0]); len(batch) > 0 {
			l.carry(ctx, batch)
			continue
		}
		select {
		case <-l.wake:
		case <-ctx.Done():
		}
	}
}

func (l *Lane) carry(ctx context.Context, batch []*Message) {
	limited, cancel := context.WithTimeout(ctx, l.timeout)
	defer cancel()
	l.send(limited, batch)
	for i, m := range batch {
		// These are not about the context of the one who waits.
		switch {
		case m.Err == nil:
		case errors.Is(m.Err, context.Canceled):
			m.Err = errCut
		case errors.Is(m.Err, context.DeadlineExceeded):
			m.Err = fmt.Errorf("the broker did not answer within %v", l.timeout)
		}
		close(m.sent)
		batch[i] = nil
	}
}

// take moves the next messages to batch.
func (l *Lane) take(batch []*Message) []*Message {
	l.mu.Lock()
	defer l.mu.Unlock()
	bytes, n := 0, 0
	for ; n < len(l.waiting) && len(batch) < maxBatch && bytes < maxBatchBytes; n++ {
		m := l.waiting[n]
		l.waiting[n] = nil
		if m.gone {
			continue
		}
		bytes += len(m.Data)
		batch = append(batch, m)
	}
	if l.waiting = l.waiting[n:]; len(l.waiting) == 0 {
		l.waiting = nil // do not keep what a burst has grown
	}
	return batch
}
