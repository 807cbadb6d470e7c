//go:build !linux

package ws

func childMain() bool { return false }
