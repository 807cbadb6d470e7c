package protocol

import "testing"

func BenchmarkDecodeSubscribe(b *testing.B) {
	frame := []byte(`{"event":"pusher:subscribe","data":{"auth":"","channel":"my-channel"}}`)
	b.ReportAllocs()
	for b.Loop() {
		m, err := Decode(frame)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := DecodeSubscribe(m.Data); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkDecodePing(b *testing.B) {
	frame := []byte(`{"event":"pusher:ping","data":{}}`)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Decode(frame); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkAppendEvent(b *testing.B) {
	data := []byte(`{\"message\":\"hello world, this is an event of about a hundred and fifty bytes\",\"user\":42}`)
	buf := make([]byte, 0, 512)
	b.ReportAllocs()
	for b.Loop() {
		buf = AppendEvent(buf[:0], "my-event", "my-channel", data, "")
	}
}
