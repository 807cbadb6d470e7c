package ws

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/gobwas/ws/wsutil"
)

// decodeAll feeds a decoder piece by piece and returns what it makes of them.
func decodeAll(pieces [][]byte, r rules) (out []string, failed uint16) {
	var d decoder
	for _, p := range pieces {
		p = bytes.Clone(p)
		for {
			opcode, payload, rest, err := d.next(p, r)
			if err != nil {
				var v *protocolError
				if !errors.As(err, &v) {
					panic(err)
				}
				return out, v.code
			}
			if opcode == 0 {
				break
			}
			out = append(out, fmt.Sprintf("%x %q", opcode, payload))
			p = rest
		}
	}
	return out, 0
}

func FuzzDecoder(f *testing.F) {
	for _, seed := range [][]byte{
		text("hello"),
		cat(raw(opText, []byte("he")), raw(finBit|opPing, []byte("p")), raw(finBit|opContinuation, []byte("llo"))),
		cat(raw(opText, []byte("\xf0\x9f")), raw(opContinuation, []byte("\x98")), raw(finBit|opContinuation, []byte("\x80"))),
		raw(finBit|opBinary, []byte{0xff}),
		raw(finBit|opClose, closeBody(1000, "bye")),
		text(long(126)), text(long(70000))[:200],
		lengthForm(126, 125), lengthForm(127, 1<<63),
		unmasked(opText, "x"), raw(finBit|0x40|opText, nil), raw(opPing, nil),
	} {
		f.Add(seed, uint64(1), true, 64)
		f.Add(seed, uint64(2), false, -1)
	}
	f.Fuzz(func(t *testing.T, b []byte, cuts uint64, masked bool, limit int) {
		r := rules{limit: limit, masked: masked}
		whole, failed := decodeAll([][]byte{b}, r)
		var pieces [][]byte
		random := rand.New(rand.NewPCG(cuts, 0))
		for rest := b; len(rest) > 0; {
			n := 1 + random.IntN(min(len(rest), 20))
			pieces = append(pieces, rest[:n])
			rest = rest[n:]
		}
		cut, cutFailed := decodeAll(pieces, r)
		if fmt.Sprint(whole) != fmt.Sprint(cut) || failed != cutFailed {
			t.Fatalf("in one piece: %q, %d\nin %d pieces: %q, %d", whole, failed, len(pieces), cut, cutFailed)
		}
		for _, m := range whole {
			if !utf8.ValidString(m) {
				t.Fatalf("not UTF-8: %q", m)
			}
		}
		if masked || failed != 0 || limit >= 0 {
			return
		}
		// An independent implementation must find the same messages.
		in := bytes.NewBuffer(bytes.Clone(b))
		for _, want := range whole {
			if !strings.HasPrefix(want, "1 ") {
				continue
			}
			payload, _, err := wsutil.ReadServerData(struct {
				*bytes.Buffer
			}{in})
			if err != nil {
				var closed wsutil.ClosedError
				if errors.As(err, &closed) {
					return // it ends here; a decoder leaves that to its user
				}
				t.Fatalf("gobwas: %v, want %s", err, want)
			}
			if got := fmt.Sprintf("1 %q", payload); got != want {
				t.Fatalf("gobwas: %s, want %s", got, want)
			}
		}
	})
}

func FuzzUpgradeRequest(f *testing.F) {
	for _, seed := range []string{
		upgradeRequest,
		strings.Replace(upgradeRequest, "13", "8", 1),
		strings.Replace(upgradeRequest, "Host: x\r\n", "", 1),
		"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
		"POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc",
		"GET / HTTP/1.1\nUpgrade: websocket\n\n",
		"GET http://a/b?c HTTP/9.9\r\nupgrade:WEBSOCKET,\r\n folded\r\n\r\n",
		"GET  /  HTTP/1.1\r\n\x00: \r\n\r\n",
		"\r\n\r\nGET", "", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "\x16\x03\x01\x02\x00",
	} {
		f.Add([]byte(seed))
	}
	s := NewServer(nil, Options{MaxHeaderBytes: 2048})
	f.Fuzz(func(t *testing.T, b []byte) {
		client, server := net.Pipe()
		go func() {
			_, _ = client.Write(b)
			_ = client.Close()
		}()
		head, end, err := s.readHead(server, make([]byte, 0, 1024))
		_ = server.Close()
		if len(head) > 2048+3 {
			t.Fatalf("%d bytes were read", len(head))
		}
		if err != nil || end == 0 {
			return
		}
		if !bytes.HasPrefix(b, head) || !bytes.HasSuffix(head[:end], []byte("\r\n\r\n")) {
			t.Fatalf("header %q of %q", head[:end], b)
		}
		r, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(head[:end])))
		if err != nil || !IsUpgrade(r) {
			return
		}
		if !mentionsUpgrade(head[:end]) {
			t.Fatalf("overlooked: %q", head[:end])
		}
		refusal := checkUpgrade(r)
		if refusal == nil && (r.Method != "GET" || r.Host == "" || r.Header.Get("Sec-Websocket-Version") != "13" || r.ContentLength > 0) {
			t.Fatalf("accepted: %q", head[:end])
		}
		if refusal != nil && refusal.Status != 400 && refusal.Status != 426 {
			t.Fatalf("refused with %d", refusal.Status)
		}
	})
}
