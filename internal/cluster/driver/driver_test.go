package driver

import (
	"context"
	"errors"
	"net"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
)

type turns struct{ got []string }

func (t *turns) Message(string, []byte) {}
func (t *turns) Lost()                  { t.got = append(t.got, "lost") }
func (t *turns) Restored()              { t.got = append(t.got, "restored") }

func TestContinuityIsToldInTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := NewContinuity()
		if c.Set(true) != nil {
			t.Error("that it is lost is no news at the beginning")
		}
		var got turns
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { c.Run(ctx, &got) })
		for _, lost := range []bool{false, false, true, true, false, true, false} {
			if told := c.Set(lost); told != nil && lost {
				<-told
				if last := got.got[len(got.got)-1]; last != "lost" {
					t.Errorf("the last that was told is %s", last)
				}
			}
		}
		synctest.Wait()
		cancel()
		running.Wait()
		if want := []string{"restored", "lost", "restored", "lost", "restored"}; !slices.Equal(got.got, want) {
			t.Errorf("told %v, want %v", got.got, want)
		}
	})
}

func TestNothingOutlivesClosedConns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := NewConns()
		ours, theirs := net.Pipe()
		conn, err := c.Dial(t.Context(), func(context.Context) (net.Conn, error) { return ours, nil })
		if err != nil {
			t.Fatal(err)
		}
		dialled := make(chan error, 1)
		go func() {
			_, err := c.Dial(t.Context(), func(ctx context.Context) (net.Conn, error) {
				<-ctx.Done() // nobody answers
				return nil, ctx.Err()
			})
			dialled <- err
		}()
		synctest.Wait()
		c.Close()
		if err := <-dialled; !errors.Is(err, context.Canceled) {
			t.Errorf("err = %v, want that dialling was ended", err)
		}
		if _, err := theirs.Read(make([]byte, 1)); err == nil {
			t.Error("the connection is open")
		}
		if _, err := c.Dial(t.Context(), func(context.Context) (net.Conn, error) { panic("dialled") }); !errors.Is(err, net.ErrClosed) {
			t.Errorf("err = %v, want %v", err, net.ErrClosed)
		}
		_ = conn.Close()
	})
}
