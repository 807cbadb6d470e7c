//go:build !linux

package server

import (
	"errors"
	"syscall"
)

// congestion refuses what only Linux has.
func congestion(name string) func(network, address string, c syscall.RawConn) error {
	if name == "" {
		return nil
	}
	return func(string, string, syscall.RawConn) error {
		return errors.New("websocket.congestion_control: only Linux can select one")
	}
}
