package server

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"sockudo/internal/cache"
)

// counted is a store that is asked whether it has apps.
type counted struct {
	any   bool
	err   error
	asked int
}

func (c *counted) Ping(context.Context) error { return nil }

func (c *counted) Any(context.Context) (bool, error) { c.asked++; return c.any, c.err }

func TestProbesAskTheStoreOnceInFiveSeconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &counted{any: true}
		check := anyApp(s)
		probe := func(ok bool, asked int) {
			t.Helper()
			if err := check(t.Context()); (err == nil) != ok || s.asked != asked {
				t.Errorf("err = %v after %d questions, want well %t after %d", err, s.asked, ok, asked)
			}
		}
		probe(true, 1)
		probe(true, 1)
		time.Sleep(anyFor)
		s.err = errors.New("down")
		probe(false, 2)
		probe(false, 3) // bad news is not kept
		s.err, s.any = nil, false
		probe(false, 4)
		s.any = true
		probe(true, 5)
		probe(true, 5)
	})
}

func TestAppsAreNotSharedBeforeTheCacheIsReached(t *testing.T) {
	server := cache.NewMemory(cache.MemoryOptions{})
	up := make(chan struct{})
	late := cache.NewLate(cache.NewMemory(cache.MemoryOptions{}), func(ctx context.Context) (cache.Cache, error) {
		select {
		case <-up:
			return server, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}, slog.New(slog.DiscardHandler))
	c := reached{late}
	want := func(value string, err error) {
		t.Helper()
		if got, _, gotErr := c.Get(t.Context(), "app:id:a"); string(got) != value || !errors.Is(gotErr, err) {
			t.Errorf("got %q, %v; want %q, %v", got, gotErr, value, err)
		}
	}
	if err := server.Set(t.Context(), "app:id:a", []byte("older"), 0); err != nil {
		t.Fatal(err)
	}
	if err := c.Set(t.Context(), "app:id:a", []byte("newer"), 0); err != nil {
		t.Fatal(err)
	}
	want("", cache.ErrMiss) // other nodes could not change it
	close(up)
	if err := late.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	want("", cache.ErrMiss) // and what the server had is outdated
	if err := c.Set(t.Context(), "app:id:a", []byte("newest"), 0); err != nil {
		t.Fatal(err)
	}
	want("newest", nil)
}
