//go:build !linux

package ws

import "net"

// A poller is the poll transport, which this system does not have.
type poller struct{}

func newPoller(*Server) (*poller, error) { return nil, nil }

func (*poller) take(*Conn, net.Conn, *Frame, []byte) bool { return false }

func (*poller) each(func(*Conn) bool) {}

func (*poller) shards() []*shard { return nil }

func (*poller) stop() {}

func newEntrance(_ *Server, ln net.Listener) entrance { return &netEntrance{ln: ln} }
