package directory

import (
	"bytes"
	"testing"
)

// FuzzDecode: what is not a run of entries is refused, and what is one comes
// back the same from the encoder.
func FuzzDecode(f *testing.F) {
	for _, seed := range [][]Entry{
		nil,
		{{Kind: Channel, App: "app", Channel: "x", Value: 1}},
		{
			{Kind: Channel, App: "app", Channel: "presence-x", Value: 2},
			{Kind: Member, App: "app", Channel: "presence-x", User: "u", Info: `{"a":"ü"}`, Value: 1},
			{Kind: Member, App: "app", Channel: "presence-x", User: "v"},
			{Kind: User, App: "app", User: "u", Value: 3},
			{Kind: Sockets, App: "app", Value: 1<<31 - 1},
			{Kind: Channel, App: "app", Channel: "presence-x"},
			{Kind: Channel, App: "other", Channel: "presence-x", Value: 1},
		},
	} {
		f.Add(AppendEntries(nil, seed))
	}
	for _, broken := range []string{"\x09", "\x11\x01a", "\x01\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", "\x01\x01a\x01b\xff\xff\xff\xff\xff\x01", "\x05", "\x21"} {
		f.Add([]byte(broken))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var entries []Entry
		if err := Decode(b, func(e *Entry) { entries = append(entries, *e) }); err != nil {
			return
		}
		again := AppendEntries(nil, entries)
		var twice []Entry
		if err := Decode(again, func(e *Entry) { twice = append(twice, *e) }); err != nil {
			t.Fatalf("what was encoded is refused: %v", err)
		}
		if !bytes.Equal(again, AppendEntries(nil, twice)) {
			t.Fatal("encoding twice differs")
		}
		d := New()
		d.Add("a")
		if _, err := d.Apply("a", Batch{First: 1, N: len(entries), Entries: b}); err != nil {
			t.Fatalf("decodes but is not applied: %v", err)
		}
		if p, _ := d.Peer("a"); p.Digest != d.RecountPeer("a") || p.Seq != uint64(len(entries)) {
			t.Fatalf("after %d entries: %+v", len(entries), p)
		}
		if _, err := d.Replace("a", 9, [][]byte{b}, nil); err != nil {
			t.Fatal(err)
		}
		for _, ch := range d.Drop("a") {
			if ch.Kind == 0 {
				t.Fatalf("change of no kind: %+v", ch)
			}
		}
	})
}
