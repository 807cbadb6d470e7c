//go:build !unix

package server

// capacity returns how many connections the setting max_connections allows; 0
// stands for no limit.
func (s *Server) capacity() int { return int(s.cfg.MaxConnections) }
