package server

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
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
