//go:build !unix

package ws

// outOfDescriptors reports whether accepting may work again soon.
func outOfDescriptors(error) bool { return false }
