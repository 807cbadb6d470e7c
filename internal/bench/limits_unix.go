//go:build unix

package bench

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// reservedFiles are for everything that is not a connection.
const reservedFiles = 40

// needFiles makes room for so many connections, or says what is in the way. It
// raises the soft limit.
func needFiles(connections int) error {
	soft, hard := fileLimit()
	need := uint64(connections + reservedFiles)
	if need > soft && soft < hard {
		var raised unix.Rlimit
		_ = unix.Getrlimit(unix.RLIMIT_NOFILE, &raised)
		raised.Cur = raised.Max
		if unix.Setrlimit(unix.RLIMIT_NOFILE, &raised) == nil {
			soft = hard
		}
	}
	if need <= soft {
		return nil
	}
	return fmt.Errorf("%d connections need %d open files and RLIMIT_NOFILE allows %d (hard limit %d): raise it, ulimit -n, or use at most %d connections in one process",
		connections, need, soft, hard, max(int64(soft)-reservedFiles, 0))
}

func fileLimit() (soft, hard uint64) {
	var files unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &files); err != nil {
		return 1 << 30, 1 << 30
	}
	return uint64(files.Cur), uint64(files.Max)
}

// outOfFiles says which limit it was.
func outOfFiles(err error) error {
	if errors.Is(err, unix.EMFILE) {
		soft, hard := fileLimit()
		return fmt.Errorf("%w: RLIMIT_NOFILE allows this process %d (hard limit %d)", err, soft, hard)
	}
	if errors.Is(err, unix.ENFILE) {
		return fmt.Errorf("%w: the whole system has no more open files (fs.file-max)", err)
	}
	return err
}

// outOfPorts says what a connection without a local port needs.
func outOfPorts(err error) error {
	if errors.Is(err, unix.EADDRNOTAVAIL) || errors.Is(err, unix.EAGAIN) {
		return fmt.Errorf("%w: no local port is left to connect from; --sources N connects from N loopback addresses with 28,000 ports each", err)
	}
	return err
}
