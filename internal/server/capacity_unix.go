//go:build unix

package server

import (
	"golang.org/x/sys/unix"
)

// openFiles raises the soft limit of open files to the hard one and returns it;
// 0 when it is not known.
func openFiles() uint64 {
	var files unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &files) != nil {
		return 0
	}
	raised := unix.Rlimit{Cur: files.Max, Max: files.Max}
	if files.Cur < files.Max && unix.Setrlimit(unix.RLIMIT_NOFILE, &raised) == nil {
		files = raised
	}
	return uint64(files.Cur) // signed on some systems
}
