//go:build !linux

package ws

import (
	"net"
	"testing"
)

func childMain() bool { return false }

// A tightListener makes connections with little room in the kernel.
type tightListener struct{ net.Listener }

func (l tightListener) Accept() (net.Conn, error) {
	nc, err := l.Listener.Accept()
	if err == nil {
		err = nc.(*net.TCPConn).SetWriteBuffer(tightBuffer)
	}
	return nc, err
}

func tighten(_ testing.TB, ln net.Listener) net.Listener { return tightListener{ln} }
