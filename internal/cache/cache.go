// Package cache keeps small values for a limited time: the last events of
// cache channels and looked-up apps. Drivers are sub-packages; Memory is here.
package cache

import (
	"context"
	"errors"
	"time"
)

// ErrMiss says that there is no value, or not any more.
var ErrMiss = errors.New("cache: no value")

// ErrDown says that the server of the cache did not answer or is known not to;
// the driver has logged it once. Other errors are answers of the server.
var ErrDown = errors.New("cache: down")

// A Cache keeps values by key. Values must not be changed after Set and after
// Get. Every method may wait for a server, within the driver's own bound, and
// returns an error when it could not be asked.
type Cache interface {
	// Get returns a value and how long it will be kept; 0 stands for ever. It
	// returns ErrMiss when there is none.
	Get(ctx context.Context, key string) (value []byte, ttl time.Duration, err error)
	// Set keeps a value for ttl; 0 is the driver's own default.
	Set(ctx context.Context, key string, value []byte, ttl time.Duration) error
	// Delete forgets a value. That it was not there is no error.
	Delete(ctx context.Context, key string) error
}

// A Pinger is a Cache that can say whether its server answers.
type Pinger interface {
	Ping(ctx context.Context) error
}

// None is the cache that keeps nothing.
type None struct{}

// Get returns ErrMiss.
func (None) Get(context.Context, string) ([]byte, time.Duration, error) { return nil, 0, ErrMiss }

// Set does nothing.
func (None) Set(context.Context, string, []byte, time.Duration) error { return nil }

// Delete does nothing.
func (None) Delete(context.Context, string) error { return nil }
