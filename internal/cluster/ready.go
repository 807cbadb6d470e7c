package cluster

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

var (
	errNotStarted = errors.New("cluster: the topics of the cluster are not subscribed yet")
	errBusLost    = errors.New("cluster: the connection to the broker is lost")
	errCanary     = errors.New("cluster: the broker does not pass on what this node says")
)

// ready says what keeps this node from serving, or nil.
func (k *core) ready(now time.Time) error {
	switch {
	case k.started.IsZero():
		return errNotStarted
	case !k.connected:
		return errBusLost
	case !k.canary.echo.After(k.restored), !k.hears(now):
		return errCanary
	case !k.attended():
		return errDeaf // it would refuse what is published
	case k.joined:
		return nil
	}
	var missing []string
	for _, p := range k.peers {
		if !p.held {
			missing = append(missing, p.node)
		}
	}
	slices.Sort(missing)
	if len(missing) > 0 {
		return fmt.Errorf("cluster: joining, waits for what is at %s", strings.Join(missing, ", "))
	}
	return errors.New("cluster: joining, waits for other nodes to answer")
}
