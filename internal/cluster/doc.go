// Package cluster makes many nodes one. Over a Bus, which only carries bytes,
// it tells the peers what this node's sockets do, keeps what theirs do ready
// for reading, finds out who lives, and carries events to the nodes that want
// them. docs/decisions holds why; the drivers are sub-packages.
//
// Locks: own facts are told under the locks of their channel or user, so every
// lock in here is a leaf: nothing is called while one is held.
package cluster
