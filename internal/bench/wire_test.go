package bench

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// A tape is a link that remembers what was sent.
type tape struct{ sent []byte }

func (l *tape) send(b []byte) { l.sent = append(l.sent, b...) }
func (l *tape) close(error)   {}

// serverFrame returns an unmasked frame.
func serverFrame(first byte, payload string) []byte {
	switch n := len(payload); {
	case n <= 125:
		return append([]byte{first, byte(n)}, payload...)
	case n <= 0xffff:
		return append(binary.BigEndian.AppendUint16([]byte{first, 126}, uint16(n)), payload...)
	}
	return append(binary.BigEndian.AppendUint64([]byte{first, 127}, uint64(len(payload))), payload...)
}

// solo returns a client of one stream that is about to get the answer to its
// handshake.
func solo(messages int) (*client, *tape) {
	cr := &crowd{opts: &Options{}, clock: newClock(), plain: true, complaints: map[string]int{},
		slots: make(chan struct{}, 1), room: make(chan struct{}, 1), targets: []*target{{base: "http://x"}}}
	cr.lanes = []*lane{{clock: cr.clock}}
	s := newStream(0, "c", 0, 1, 64)
	for range messages {
		s.begin(0)
	}
	cr.streams = []*stream{s}
	c := cr.newClient("c", false)
	c.tracks = make([]track, 1)
	link := &tape{}
	c.up(link, 0)
	link.sent = nil
	return c, link
}

// TestMessagesAreFoundHoweverTheyAreCut feeds a session in pieces of any size.
func TestMessagesAreFoundHoweverTheyAreCut(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const n = 20
		session := []byte("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n")
		session = append(session, serverFrame(finBit|opText, `{"event":"pusher:connection_established","data":"{\"socket_id\":\"1.2\"}"}`)...)
		session = append(session, serverFrame(finBit|opText, `{"event":"pusher_internal:subscription_succeeded","channel":"c","data":"{}"}`)...)
		for seq := range n {
			var b [stampBytes]byte
			stamp{0, seq, 1}.put(b[:])
			pad := strings.Repeat("x", rapid.SampledFrom([]int{0, 5, 200, 70_000}).Draw(t, "pad"))
			session = append(session, serverFrame(finBit|opText, fmt.Sprintf(`{"event":"bench","channel":"c","data":"%s%s"}`, b, pad))...)
			switch rapid.IntRange(0, 3).Draw(t, "between") {
			case 0:
				session = append(session, serverFrame(finBit|opPing, "hi")...)
			case 1:
				session = append(session, serverFrame(finBit|opText, `{"event":"pusher:ping","data":"{}"}`)...)
			}
		}
		pings := bytes.Count(session, []byte("pusher:ping")) + bytes.Count(session, append([]byte{finBit | opPing, 2}, "hi"...))
		c, link := solo(n)
		most := rapid.SampledFrom([]int{1, 7, 1000, 100_000}).Draw(t, "most")
		for rest := session; len(rest) > 0; {
			size := min(len(rest), rapid.IntRange(1, most).Draw(t, "piece"))
			if most == 1 && len(session) > 20_000 {
				size = min(len(rest), 997)
			}
			piece := bytes.Clone(rest[:size])
			if err := c.input(piece, 5); err != nil {
				t.Fatal(err)
			}
			clear(piece) // the buffer is used again
			rest = rest[size:]
		}
		if c.lane.delivered != n || c.tracks[0].next != n || c.rest != nil || c.socketID != "1.2" || c.stage != ready {
			t.Fatalf("%d of %d messages, stage %d, %d bytes left", c.lane.delivered, n, c.stage, len(c.rest))
		}
		// One subscription, and a pong for each ping.
		if frames := countMasked(t, link.sent); frames != 1+pings {
			t.Fatalf("%d frames were sent, want %d", frames, 1+pings)
		}
	})
}

func countMasked(t *rapid.T, b []byte) (n int) {
	for len(b) > 0 {
		size := int(b[1] &^ maskBit)
		if b[1]&maskBit == 0 || size > 125 {
			t.Fatalf("a frame that begins with % x", b[:2])
		}
		b = b[6+size:]
		n++
	}
	return n
}

func TestServerThatBreaksTheProtocolIsTold(t *testing.T) {
	const answer = "HTTP/1.1 101 Switching Protocols\r\n\r\n"
	for _, c := range []struct{ name, bytes, want string }{
		{"another status", "HTTP/1.1 403 Forbidden\r\n\r\nno", `"HTTP/1.1 403 Forbidden": no`},
		{"endless header", "HTTP/1.1 101 " + strings.Repeat("x", 70_000), "has no end"},
		{"masked frame", answer + "\x81\x85", "masked"},
		{"huge frame", answer + "\x81\x7f\x7f\xff\xff\xff\xff\xff\xff\xff", "bytes"},
		{"fragment", answer + "\x01\x01x", "fragments"},
		{"no JSON", answer + "\x81\x01x", "not a JSON object"},
		{"no socket id", answer + string(serverFrame(0x81, `{"event":"pusher:connection_established","data":"{}"}`)), "without a socket_id"},
		{"close", answer + "\x88\x06\x0f\xa1gone", "4001 gone"},
		{"close without a reason", answer + "\x88\x00", "without a reason"},
		{"error", answer + string(serverFrame(0x81, `{"event":"pusher:error","data":{"code":4001,"message":"who?"}}`)), "who?"},
	} {
		client, _ := solo(0)
		if err := client.input([]byte(c.bytes), 0); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
}

func TestAnswersAreReadWholeOrNotAtAll(t *testing.T) {
	for _, c := range []struct {
		text, body string
		status     int
		err        error
	}{
		{"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", "{}", 200, nil},
		{"HTTP/1.1 200 OK\r\ncontent-length:0\r\nX: y\r\n\r\n", "", 200, nil},
		{"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 4\r\n\r\nbusy", "busy", 503, nil},
		{"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;x=y\r\n{}\r\nA\r\n0123456789\r\n0\r\n\r\n", "{}0123456789", 200, nil},
		{"HTTP/1.1 204 No Content\r\n\r\n", "", 204, nil},
		{"HTTP/1.1 200 OK\r\n\r\n", "", 0, errLength},
		{"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", "", 0, errLength},
		{"HTTP/2 200\r\n\r\n", "", 0, errAnswer},
		{"HTTP/1.1 abc\r\n\r\n", "", 0, errAnswer},
		{"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n", "", 0, errAnswer},
	} {
		status, body, size, err := parseAnswer([]byte(c.text + "HTTP/1.1 200"))
		if err != c.err || status != c.status && c.err == nil || string(body) != c.body || c.err == nil && size != len(c.text) {
			t.Errorf("%q: %d %q %d %v", c.text, status, body, size, err)
		}
		for cut := range len(c.text) {
			if _, _, size, _ := parseAnswer([]byte(c.text[:cut])); size != 0 {
				t.Errorf("%q is an answer", c.text[:cut])
			}
		}
	}
}

func FuzzAnswer(f *testing.F) {
	f.Add([]byte("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"))
	f.Add([]byte("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"))
	f.Fuzz(func(t *testing.T, b []byte) {
		_, body, size, err := parseAnswer(b)
		if size < 0 || size > len(b) || err != nil && size != 0 || len(body) > size {
			t.Errorf("%q: %d of %d bytes, %v", b, size, len(b), err)
		}
	})
}

func FuzzClientInput(f *testing.F) {
	f.Add([]byte("\x81\x7e\x00\x80{}"))
	f.Add(serverFrame(0x81, `{"event":"bench","data":"#~0000000000000000"}`))
	f.Fuzz(func(_ *testing.T, b []byte) {
		c, _ := solo(1)
		c.stage = greeting
		for _, part := range bytes.SplitAfter(b, []byte{0}) {
			if c.input(part, 1) != nil {
				return
			}
		}
	})
}

func TestWordsAreThoseOfAShell(t *testing.T) {
	for line, want := range map[string][]string{
		"":                         nil,
		"  a  b ":                  {"a", "b"},
		`--exec 'soketi start' -n`: {"--exec", "soketi start", "-n"},
		`a"b c"'d' ""`:             {"ab cd", ""},
	} {
		got, err := splitWords(line)
		if err != nil || cmp.Diff(want, got) != "" {
			t.Errorf("%q: %q, %v", line, got, err)
		}
	}
}

func BenchmarkDelivery(b *testing.B) {
	c, _ := solo(1 << 20)
	c.stage, c.link = ready, &tape{}
	var text [stampBytes]byte
	var frames []byte
	const n = 100
	for seq := range n {
		stamp{0, seq, 1}.put(text[:])
		frames = append(frames, serverFrame(finBit|opText, fmt.Sprintf(`{"event":"bench","channel":"c","data":"%s%s"}`, text, strings.Repeat("x", 132)))...)
	}
	c.lane.windows = []*window{{from: 0, to: 1 << 60}}
	for b.Loop() {
		c.tracks[0] = track{}
		if err := c.input(frames, 5); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/message")
}

func BenchmarkSignedRequest(b *testing.B) {
	s := newSigner(identity{"1", "key", "secret"}, "127.0.0.1:6001")
	body := newText(newStream(0, "bench-0", 0, 0, 1), 150, false).body
	var out []byte
	now := newClock().base
	for b.Loop() {
		out = s.appendRequest(out[:0], "POST", "/apps/1/events", "", body, now)
	}
}
