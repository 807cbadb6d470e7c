//go:build unix

package bench

import (
	"time"

	"golang.org/x/sys/unix"
)

// ownUsage returns the CPU time of this process.
func ownUsage() usage {
	var r unix.Rusage
	if unix.Getrusage(unix.RUSAGE_SELF, &r) != nil {
		return usage{}
	}
	u := usage{user: time.Duration(r.Utime.Nano()), sys: time.Duration(r.Stime.Nano())}
	u.cpu = u.user + u.sys
	return u
}
