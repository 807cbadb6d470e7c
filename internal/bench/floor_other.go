//go:build !linux

package bench

import (
	"context"
	"errors"
)

// ServeFloor is there on Linux only.
func ServeFloor(context.Context, string) error {
	return errors.New("the floor program exists on Linux only")
}
