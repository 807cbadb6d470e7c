//go:build !unix

package bench

// ownUsage returns nothing: this system does not tell.
func ownUsage() usage { return usage{} }
