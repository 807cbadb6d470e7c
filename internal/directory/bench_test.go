package directory

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"testing"
)

func BenchmarkSetChannel(b *testing.B) {
	d := New()
	names := channelNames(1000)
	n := 0
	for b.Loop() {
		d.SetChannel("app", names[n%len(names)], n%7)
		if n++; n%100 == 0 {
			d.Drain(1 << 20)
		}
	}
}

func BenchmarkApplyBatchOf100(b *testing.B) {
	from, to := New(), New()
	to.Add("a")
	names := channelNames(50_000)
	n := 0
	for b.Loop() {
		b.StopTimer()
		for range 50 {
			n++
			from.SetChannel("app", names[n%len(names)], 1+n%7)
			from.SetMember("app", names[n%len(names)], "user-17", `{"name":"Somebody"}`, 1+n%7)
		}
		batch := from.Drain(1 << 20)
		b.StartTimer()
		if _, err := to.Apply("a", batch); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkReadMemberWhileChanging(b *testing.B) {
	from, to := New(), New()
	to.Add("a")
	names := channelNames(10_000)
	for _, name := range names {
		from.SetMember("app", name, "user-17", `{"name":"Somebody"}`, 1)
	}
	if _, err := to.Apply("a", from.Drain(1<<30)); err != nil {
		b.Fatal(err)
	}
	b.RunParallel(func(pb *testing.PB) {
		for n := rand.IntN(1000); pb.Next(); n++ {
			if conns, _ := to.Member("app", names[n%len(names)], "user-17"); conns == 0 {
				b.Fail()
			}
		}
	})
}

func BenchmarkSnapshotOf50000Channels(b *testing.B) {
	d := filled(50_000, 0, 1)
	for b.Loop() {
		d.Snapshot(64 << 10)
	}
}

func channelNames(n int) []string {
	names := make([]string, n)
	for i := range names {
		names[i] = fmt.Sprintf("private-orders-%08d", i)
	}
	return names
}

// filled has channels, and members in presence channels of room members each.
func filled(channels, members, room int) *Directory {
	d := New()
	for _, name := range channelNames(channels) {
		d.SetChannel("app", name, 1)
	}
	for i := range members {
		name := fmt.Sprintf("presence-room-%06d", i/room)
		d.SetChannel("app", name, room)
		d.SetMember("app", name, fmt.Sprintf("user-%08d", i), fmt.Sprintf(`{"name":"Member %08d"}`, i), 1)
	}
	d.Drain(1 << 30)
	return d
}

// What a node needs for what its peers have, names and user_info included.
func BenchmarkBytesPerEntry(b *testing.B) {
	for _, test := range []struct {
		name              string
		channels, members int
		room              int
	}{
		{"channel", 200_000, 0, 1},
		{"member", 0, 200_000, 100},
		{"channel and member of rooms of two", 0, 200_000, 2},
	} {
		b.Run(test.name, func(b *testing.B) {
			parts := filled(test.channels, test.members, test.room).Snapshot(64 << 10)
			sent := 0
			for _, p := range parts {
				sent += len(p)
			}
			n := float64(test.channels + test.members + test.members/test.room)
			var held float64
			for b.Loop() {
				before := heap()
				d := New()
				d.Add("a")
				if _, err := d.Replace("a", 1, parts, nil); err != nil {
					b.Fatal(err)
				}
				held = float64(heap()-before) / n
				runtime.KeepAlive(d)
			}
			b.ReportMetric(held, "bytes-held/entry")
			b.ReportMetric(float64(sent)/n, "bytes-sent/entry")
		})
	}
}

func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
