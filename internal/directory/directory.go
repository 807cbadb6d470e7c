// Package directory is who is where in the whole cluster: one partition per
// node, the sum of those of the peers, and the differences between two states of
// it. It is pure state: it sends nothing, waits for nothing and has no clock.
package directory
