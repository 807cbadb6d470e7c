//go:build !linux

package ws

// A polled connection does not exist on this system.
type polled struct{}
