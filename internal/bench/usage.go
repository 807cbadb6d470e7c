package bench

import (
	"errors"
	"time"
)

// A usage is what processes have used since they began, and hold now.
type usage struct {
	cpu       time.Duration // to the nanosecond where the system tells
	user, sys time.Duration // its parts, in ticks of 10 ms where it does not
	rss       int64         // bytes
}

func (u usage) since(before usage) usage {
	return usage{cpu: u.cpu - before.cpu, user: u.user - before.user, sys: u.sys - before.sys, rss: u.rss}
}

// readAll returns the usage of processes together.
func readAll(pids []int) (sum usage, err error) {
	for _, pid := range pids {
		u, bad := readUsage(pid)
		err = errors.Join(err, bad)
		sum.cpu += u.cpu
		sum.user += u.user
		sum.sys += u.sys
		sum.rss += u.rss
	}
	return sum, err
}
