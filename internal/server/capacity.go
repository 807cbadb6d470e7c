package server

import "fmt"

// reserved descriptors are for the API, files and brokers.
const reserved = 64

// capacity returns how many connections a process with so many open files can
// hold, and what limits it: the setting max_connections or the files, whichever
// is lower. 0 stands for no known limit.
func capacity(files uint64, setting uint64) (most int, limit string) {
	const unlimited = 1 << 31
	if files > 0 && files < unlimited {
		most = int(max(files, reserved+1)) - reserved
		limit = fmt.Sprintf("open files (%d)", files)
	}
	if setting > 0 && setting < unlimited && (most == 0 || int(setting) < most) {
		return int(setting), "max_connections"
	}
	if most == 0 {
		return 0, "nothing known"
	}
	return most, limit
}

// logCapacity tells the operator how many connections there is room for.
func (s *Server) logCapacity() {
	files, setting := openFiles(), s.cfg.MaxConnections
	most, limit := capacity(files, setting)
	s.log.Info("room for connections", "connections", most, "limited_by", limit)
	if most > 0 && setting > uint64(most) {
		s.log.Warn("max_connections is above what open files allow: raise the hard limit of open files", "max_connections", setting, "connections", most)
	}
}
