//go:build unix

package ws

import (
	"errors"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"
)

// outOfDescriptors reports whether accepting failed for want of descriptors or
// memory: it may work again soon.
func outOfDescriptors(err error) bool {
	return isOneOf(err, unix.EMFILE, unix.ENFILE, unix.ENOBUFS, unix.ENOMEM)
}

// lostMeanwhile reports whether accepting failed because of what happened to
// that one connection before.
func lostMeanwhile(err error) bool {
	return isOneOf(err, unix.ECONNABORTED, unix.ECONNRESET, unix.EPROTO, unix.ENOPROTOOPT,
		unix.ENETDOWN, unix.ENETUNREACH, unix.EHOSTDOWN, unix.EHOSTUNREACH)
}

func isOneOf(err error, all ...syscall.Errno) bool {
	errno, ok := errors.AsType[syscall.Errno](err)
	return ok && slices.Contains(all, errno)
}
