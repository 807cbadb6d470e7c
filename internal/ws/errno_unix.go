//go:build unix

package ws

import (
	"errors"

	"golang.org/x/sys/unix"
)

// outOfDescriptors reports whether accepting failed for want of descriptors or
// memory, or because the client was gone: it may work again soon.
func outOfDescriptors(err error) bool {
	for _, e := range []error{unix.EMFILE, unix.ENFILE, unix.ENOBUFS, unix.ENOMEM, unix.ECONNABORTED} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}
