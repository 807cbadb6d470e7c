package cluster

import (
	"context"
	"time"

	"sockudo/internal/directory"
)

// truthInterval is the pause between two comparisons of the own partition with
// the node's sockets.
const truthInterval = time.Minute

// Status returns what this node knows of the cluster.
func (c *Cluster) Status() Status {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.core.status(time.Now())
}

// Survey asks all nodes what they know of themselves and of each other. It
// waits for their answers for a short while.
func (c *Cluster) Survey(ctx context.Context) (Survey, error) {
	return ask(ctx, c, askStatus, surveyTimeout, (*core).survey)
}

// Audit makes all nodes compare what they know of each other with the truth.
// It waits for their answers for a few seconds.
func (c *Cluster) Audit(ctx context.Context) (Audit, error) {
	return ask(ctx, c, askCompare, auditTimeout, (*core).conclude)
}

// ask asks all nodes and makes something of the answers that come in time.
func ask[A any](ctx context.Context, c *Cluster, what byte, timeout time.Duration, conclude func(*core) A) (none A, err error) {
	c.auditMu.Lock()
	defer c.auditMu.Unlock()
	if !c.running.Load() {
		return none, errStopped
	}
	if err := ctx.Err(); err != nil {
		return none, err // while others asked
	}
	c.do(func(k *core) { k.question(time.Now(), what) })
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	poll := time.NewTicker(50 * time.Millisecond)
	defer poll.Stop()
	for {
		done := false
		select {
		case <-ctx.Done():
			done = true
		case <-poll.C:
		}
		c.mu.Lock()
		if done || c.core.answered() {
			a := conclude(c.core)
			c.core.audit.got = nil
			c.mu.Unlock()
			return a, nil
		}
		c.mu.Unlock()
	}
}

// compareIfAsked compares the own partition with the truth when an audit wants
// that.
func (c *Cluster) compareIfAsked() {
	c.mu.Lock()
	compare := c.core.audit.compare
	c.core.audit.compare = false
	c.mu.Unlock()
	if compare {
		c.compareTruth()
	}
}

// compareTruth counts the entries of the own partition that are not what the
// node's sockets say. What is only on its way is looked at twice.
func (c *Cluster) compareTruth() {
	if c.truth == nil {
		return
	}
	off := c.untrue()
	if len(off) > 0 {
		again := c.untrue()
		for e := range off {
			if _, ok := again[e]; !ok {
				delete(off, e)
			}
		}
	}
	if len(off) > 0 {
		c.log.Error("the directory is not what the sockets say", "entries", len(off))
	}
	c.mu.Lock()
	c.core.audit.ownOff = len(off)
	c.mu.Unlock()
}

// untrue returns the entries that only one side has.
func (c *Cluster) untrue() map[directory.Entry]bool {
	off := map[directory.Entry]bool{}
	c.dir.Own(func(e directory.Entry) { off[e] = true })
	c.truth.Truth(func(e directory.Entry) {
		if off[e] {
			delete(off, e)
		} else if e.Value > 0 {
			off[e] = true
		}
	})
	return off
}
