//go:build !linux

package ws

import "net"

// quietly matters only on Linux.
func quietly(nc net.Conn) net.Conn { return nc }

// whenFull cannot know.
func whenFull(net.Conn, func()) bool { return false }
