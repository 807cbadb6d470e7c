//go:build unix

package server

import (
	"golang.org/x/sys/unix"
)

// reserved descriptors are for the API, files and brokers.
const reserved = 64

// capacity returns how many connections this process can hold: the setting
// max_connections or the limit of open files, whichever is lower. It raises
// the soft limit to the hard one first. 0 stands for no known limit.
func (s *Server) capacity() int {
	var files unix.Rlimit
	most := 0
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &files); err == nil {
		if files.Cur < files.Max {
			raised := unix.Rlimit{Cur: files.Max, Max: files.Max}
			if unix.Setrlimit(unix.RLIMIT_NOFILE, &raised) == nil {
				files = raised
			}
		}
		most = int(min(files.Cur, 1<<31)) - reserved
		s.log.Debug("open files are limited", "soft", files.Cur, "hard", files.Max)
	}
	if own := int(s.cfg.MaxConnections); own > 0 && (most == 0 || own < most) {
		return own
	}
	return most
}
