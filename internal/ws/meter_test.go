package ws

import (
	"testing"
	"time"
)

func TestMeter(t *testing.T) {
	at := func(d time.Duration) int64 { return int64(d) }
	t.Run("a burst", func(t *testing.T) {
		var m meter
		for i := range 25 { // 500 subscriptions
			if m.spend(18, at(time.Millisecond)) {
				t.Fatalf("too much after %d reads", i)
			}
		}
		if !m.spend(18, at(time.Millisecond)) {
			t.Error("no end")
		}
	})
	t.Run("pings", func(t *testing.T) {
		var m meter
		for i := range 20_000 { // 2,000 a second
			if m.spend(1, at(time.Duration(i)*500*time.Microsecond)) {
				t.Fatalf("too much after %d", i)
			}
		}
	})
	t.Run("one byte at a time", func(t *testing.T) {
		var m meter
		over := 0
		for i := range 20_000 { // 20,000 a second
			if m.spend(0, at(time.Duration(i)*50*time.Microsecond)) {
				over++
			}
		}
		if over < 15_000 {
			t.Errorf("too much in %d of 20,000 cases", over)
		}
	})
	t.Run("calm afterwards", func(t *testing.T) {
		var m meter
		for range 10_000 {
			m.spend(50, at(time.Second))
		}
		if m.spend(1, at(1200*time.Millisecond)) {
			t.Error("it is held against the client for more than 0.2 s")
		}
	})
	t.Run("a year", func(t *testing.T) {
		var m meter
		m.spend(100, at(365*24*time.Hour))
		if m.spend(1, at(365*24*time.Hour+time.Second)) || m.spent != 3 {
			t.Errorf("spent %d", m.spent)
		}
	})
}
