package node

import (
	"context"
	"errors"
	"fmt"
	"time"

	"sockudo/internal/hub"
)

// roomFor is how long an event waits for room at most before it is refused.
const roomFor = time.Second

// hasRoom waits, if it must, until the transport has room for another event.
func (n *Node) hasRoom(ctx context.Context, most time.Duration) error {
	if n.opts.Room == nil {
		return nil
	}
	if err := n.opts.Room(ctx, most); err != nil {
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return nil
}

// admit publishes and, while the channel or the transport is busy, waits and
// tries again. What it returns when that takes too long is ErrUnavailable and
// hub.ErrBusy.
func (n *Node) admit(ctx context.Context, publish func() error) error {
	err := publish()
	if err == nil {
		return nil
	}
	// Nobody tells when a channel that was behind has room.
	for end := time.Now().Add(roomFor); errors.Is(err, hub.ErrBusy); err = publish() {
		left := time.Until(end)
		if left <= 0 {
			return fmt.Errorf("%w: %w", ErrUnavailable, err)
		}
		if n.hasRoom(ctx, left) != nil {
			return fmt.Errorf("%w: %w", ErrUnavailable, err)
		}
		select {
		case <-time.After(time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", ErrUnavailable, ctx.Err())
		}
	}
	return err
}
