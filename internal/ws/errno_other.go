//go:build !unix

package ws

// outOfDescriptors reports whether accepting may work again soon.
func outOfDescriptors(error) bool { return false }

// lostMeanwhile reports whether accepting failed because of one connection.
func lostMeanwhile(error) bool { return false }
