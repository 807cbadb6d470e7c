//go:build !linux

package ws

import "net"

// quietly matters only on Linux.
func quietly(nc net.Conn) net.Conn { return nc }

// Quiet matters only on Linux.
func Quiet(ln net.Listener) net.Listener { return ln }

// A secure connection is TLS on a loop, of which there are none.
type secure struct{}

// whenFull cannot know.
func whenFull(net.Conn, func()) bool { return false }
