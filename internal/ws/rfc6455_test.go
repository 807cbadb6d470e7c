package ws

import (
	"encoding/binary"
	"fmt"
	"testing"
)

func cat(frames ...[]byte) []byte {
	var b []byte
	for _, f := range frames {
		b = append(b, f...)
	}
	return b
}

func unmasked(first byte, payload string) []byte {
	return append(appendHeader(nil, first&0x0f, len(payload)), payload...)
}

func closeBody(code uint16, reason string) []byte {
	return append(binary.BigEndian.AppendUint16(nil, code), reason...)
}

// header returns a masked frame's header alone, with the length in the given form.
func lengthForm(form int, n uint64) []byte {
	b := []byte{finBit | opText, maskBit | byte(form)}
	switch form {
	case 126:
		b = binary.BigEndian.AppendUint16(b, uint16(n))
	case 127:
		b = binary.BigEndian.AppendUint64(b, n)
	}
	return append(b, 0, 0, 0, 0)
}

func TestFramesAreHandledAsRFC6455Says(t *testing.T) {
	const fin = finBit
	type answer struct {
		opcode  byte
		payload string
	}
	cases := []struct {
		name    string
		send    []byte
		answers []answer
		close   uint16 // 0: the connection stays open
	}{
		{name: "text", send: text("hello"), answers: []answer{{opText, "hello"}}},
		{name: "empty text", send: text(""), answers: []answer{{opText, ""}}},
		{name: "UTF-8 text", send: text("κόσμε \U0001F600"), answers: []answer{{opText, "κόσμε \U0001F600"}}},
		{name: "125 bytes", send: text(long(125)), answers: []answer{{opText, long(125)}}},
		{name: "126 bytes", send: text(long(126)), answers: []answer{{opText, long(126)}}},
		{name: "127 bytes", send: text(long(127)), answers: []answer{{opText, long(127)}}},
		{name: "65535 bytes", send: text(long(65535)), answers: []answer{{opText, long(65535)}}},
		{name: "65536 bytes", send: text(long(65536)), answers: []answer{{opText, long(65536)}}},
		{name: "one byte more than allowed", send: text(long(65537)), close: 1009},
		{name: "length announced but never sent", send: lengthForm(127, 1<<40), close: 1009},
		{name: "length with the top bit", send: lengthForm(127, 1<<63), close: 1002},
		{name: "16-bit length that is not minimal", send: lengthForm(126, 125), close: 1002},
		{name: "64-bit length that is not minimal", send: lengthForm(127, 65535), close: 1002},
		{name: "two messages at once", send: cat(text("a"), text("b")), answers: []answer{{opText, "a"}, {opText, "b"}}},
		{name: "fragments", send: cat(raw(opText, []byte("he")), raw(opContinuation, []byte("ll")), raw(fin|opContinuation, []byte("o"))), answers: []answer{{opText, "hello"}}},
		{name: "empty fragments", send: cat(raw(opText, nil), raw(opContinuation, nil), raw(fin|opContinuation, nil)), answers: []answer{{opText, ""}}},
		{name: "ping between fragments", send: cat(raw(opText, []byte("he")), raw(fin|opPing, []byte("p")), raw(fin|opContinuation, []byte("llo"))), answers: []answer{{opPong, "p"}, {opText, "hello"}}},
		{name: "UTF-8 split between fragments", send: cat(raw(opText, []byte("\xce")), raw(fin|opContinuation, []byte("\xba"))), answers: []answer{{opText, "κ"}}},
		{name: "fragments over the limit", send: cat(raw(opText, []byte(long(40000))), raw(fin|opContinuation, []byte(long(40000)))), close: 1009},
		{name: "continuation of nothing", send: raw(fin|opContinuation, []byte("x")), close: 1002},
		{name: "unfinished continuation of nothing", send: raw(opContinuation, []byte("x")), close: 1002},
		{name: "text inside a fragmented message", send: cat(raw(opText, []byte("a")), text("b")), close: 1002},
		{name: "binary that is UTF-8", send: raw(fin|opBinary, []byte("text")), answers: []answer{{opText, "text"}}},
		{name: "binary that is not", send: raw(fin|opBinary, []byte{0xff}), close: 1003},
		{name: "invalid UTF-8", send: raw(fin|opText, []byte{0xc3, 0x28}), close: 1007},
		{name: "surrogate in UTF-8", send: raw(fin|opText, []byte{0xed, 0xa0, 0x80}), close: 1007},
		{name: "overlong UTF-8", send: raw(fin|opText, []byte{0xc0, 0xaf}), close: 1007},
		{name: "truncated UTF-8", send: raw(fin|opText, []byte{0xe2, 0x82}), close: 1007},
		{name: "invalid UTF-8 in the first of more fragments", send: raw(opText, []byte("a\xff")), close: 1007},
		{name: "invalid UTF-8 in a frame that is not complete", send: text("abc\xff" + long(100))[:20], close: 1007},
		{name: "invalid continuation of a character in the next fragment", send: cat(raw(opText, []byte("\xe2\x82")), raw(opContinuation, []byte("x"))), close: 1007},
		{name: "surrogate split between fragments", send: cat(raw(opText, []byte("\xed")), raw(opContinuation, []byte("\xa0"))), close: 1007},
		{name: "character left unfinished", send: cat(raw(opText, []byte("\xf0\x9f")), raw(fin|opContinuation, []byte("\x98"))), close: 1007},
		{name: "character split by a ping", send: cat(raw(opText, []byte("\xf0\x9f")), raw(fin|opPing, nil), raw(opContinuation, []byte("\x98")), raw(fin|opContinuation, []byte("\x80"))), answers: []answer{{opPong, ""}, {opText, "\U0001F600"}}},
		{name: "binary fragments that are UTF-8", send: cat(raw(opBinary, []byte("\xce")), raw(fin|opContinuation, []byte("\xba"))), answers: []answer{{opText, "κ"}}},
		{name: "close between fragments", send: cat(raw(opText, []byte("a")), raw(fin|opClose, closeBody(1000, ""))), close: 1000},
		{name: "ping", send: raw(fin|opPing, []byte("abc")), answers: []answer{{opPong, "abc"}}},
		{name: "empty ping", send: raw(fin|opPing, nil), answers: []answer{{opPong, ""}}},
		{name: "ping of 125 bytes", send: raw(fin|opPing, []byte(long(125))), answers: []answer{{opPong, long(125)}}},
		{name: "ping of 126 bytes", send: raw(fin|opPing, []byte(long(126))), close: 1002},
		{name: "fragmented ping", send: raw(opPing, []byte("x")), close: 1002},
		{name: "unsolicited pong", send: cat(raw(fin|opPong, []byte("x")), text("a")), answers: []answer{{opText, "a"}}},
		{name: "RSV1", send: raw(fin|0x40|opText, []byte("x")), close: 1002},
		{name: "RSV2", send: raw(fin|0x20|opText, []byte("x")), close: 1002},
		{name: "RSV3", send: raw(fin|0x10|opText, []byte("x")), close: 1002},
		{name: "unmasked frame", send: unmasked(opText, "x"), close: 1002},
		{name: "message, then violation", send: cat(text("a"), raw(fin|0x40|opText, nil)), answers: []answer{{opText, "a"}}, close: 1002},
		{name: "close frame of one byte", send: raw(fin|opClose, []byte{3}), close: 1002},
		{name: "close code 999", send: raw(fin|opClose, closeBody(999, "")), close: 1002},
		{name: "close code 1005", send: raw(fin|opClose, closeBody(1005, "")), close: 1002},
		{name: "close code 1006", send: raw(fin|opClose, closeBody(1006, "")), close: 1002},
		{name: "close code 2999", send: raw(fin|opClose, closeBody(2999, "")), close: 1002},
		{name: "close code 5000", send: raw(fin|opClose, closeBody(5000, "")), close: 1002},
		{name: "close reason that is not UTF-8", send: raw(fin|opClose, closeBody(1000, "\xff")), close: 1007},
		{name: "close 1000", send: raw(fin|opClose, closeBody(1000, "bye")), close: 1000},
		{name: "close 3999", send: raw(fin|opClose, closeBody(3999, "")), close: 3999},
		{name: "close 4999", send: raw(fin|opClose, closeBody(4999, "")), close: 4999},
		{name: "close with the longest reason", send: raw(fin|opClose, closeBody(1000, long(123))), close: 1000},
		{name: "close frame of 126 bytes", send: raw(fin|opClose, closeBody(1000, long(124))), close: 1002},
		{name: "fragmented close", send: raw(opClose, closeBody(1000, "")), close: 1002},
		{name: "message after a close frame", send: cat(raw(fin|opClose, closeBody(1000, "")), text("late")), close: 1000},
	}
	for _, opcode := range []byte{3, 4, 5, 6, 7, 0xb, 0xc, 0xd, 0xe, 0xf} {
		c := cases[0]
		c.name, c.send, c.answers, c.close = fmt.Sprintf("reserved opcode %x", opcode), raw(fin|opcode, nil), nil, 1002
		cases = append(cases, c)
	}
	onAll(t, func(t *testing.T, opts Options) {
		_, addr := start(t, opts, handled(&echo{}))
		for _, c := range cases {
			for _, how := range []struct {
				name string
				step int
			}{{"at once", 0}, {"byte by byte", 1}} {
				if how.step == 1 && len(c.send) > 1000 {
					continue // the same code as below, only slower
				}
				t.Run(c.name+"/"+how.name, func(t *testing.T) {
					p := connect(t, addr)
					if how.step == 0 {
						p.send(c.send)
					} else {
						for i := range c.send {
							if _, err := p.Write(c.send[i : i+1]); err != nil {
								break // it has been closed already
							}
						}
					}
					for _, a := range c.answers {
						p.expect(a.opcode, a.payload)
					}
					if c.close != 0 {
						p.expectClose(c.close)
						p.gone()
						return
					}
					p.send(raw(finBit|opClose, nil))
					p.expectClose(0)
					p.gone()
				})
			}
		}
	})
}

// limited is an echo with a limit of its own.
type limited struct {
	echo
	most int
}

func (l *limited) MaxMessageBytes() int { return l.most }

func TestAHandlerMayHaveALimitOfItsOwn(t *testing.T) {
	onBoth(t, func(t *testing.T, opts Options) {
		opts.MaxMessageBytes = 100
		for _, test := range []struct{ own, fits, tooLong int }{{0, 100, 101}, {1000, 1000, 1001}, {10, 10, 11}, {-1, 200_000, 0}} {
			_, addr := start(t, opts, handled(&limited{most: test.own}))
			p := connect(t, addr)
			p.send(text(long(test.fits)))
			p.expect(opText, long(test.fits))
			if test.tooLong > 0 {
				p.send(text(long(test.tooLong)))
				p.expectClose(1009)
			}
		}
	})
}
