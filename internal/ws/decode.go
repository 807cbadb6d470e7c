package ws

import (
	"encoding/binary"
	"unicode/utf8"
)

// A protocolError ends a connection with a close code.
type protocolError struct {
	code   uint16
	reason string
}

func (e *protocolError) Error() string { return "websocket: " + e.reason }

func violation(reason string) error { return &protocolError{1002, reason} }

var (
	errTooLarge = &protocolError{1009, "message is too large"}
	errNotUTF8  = &protocolError{1007, "text is not valid UTF-8"}
	errBinary   = &protocolError{1003, "binary messages must be UTF-8 text"}
)

// maxHeader is the size of the longest frame header.
const maxHeader = 14

// maxFrame bounds the payload of a frame when nothing else does.
const maxFrame = 1 << 30

// A header is the start of a frame.
type header struct {
	fin    bool
	opcode byte
	length int // of the payload
	key    [4]byte
}

// rules are what a decoder holds its peer to.
type rules struct {
	limit  int  // bytes of a message; <0: none
	masked bool // frames must be masked; false: they must not be
}

// parse reads the header at the start of b. size is its length, 0 when b does
// not hold all of it; what is wrong is found as early as possible.
func (r rules) parse(b []byte) (h header, size int, err error) {
	if len(b) == 0 {
		return h, 0, nil
	}
	h.fin, h.opcode = b[0]&finBit != 0, b[0]&0x0f
	control := h.opcode >= opClose
	switch {
	case b[0]&rsvBits != 0:
		return h, 0, violation("reserved bits are set")
	case h.opcode > opBinary && !control || h.opcode > opPong:
		return h, 0, violation("unknown opcode")
	case control && !h.fin:
		return h, 0, violation("control frame is fragmented")
	case len(b) == 1:
		return h, 0, nil
	case (b[1]&maskBit != 0) != r.masked:
		return h, 0, violation("frame is masked or unmasked wrongly")
	}
	length, size := uint64(b[1]&^maskBit), 2
	if control && length > maxControl {
		return h, 0, violation("control frame is too long")
	}
	switch {
	case length == 126 && len(b) >= 4:
		length, size = uint64(binary.BigEndian.Uint16(b[2:])), 4
		if length < 126 {
			return h, 0, violation("length is not minimal")
		}
	case length == 127 && len(b) >= 10:
		length, size = binary.BigEndian.Uint64(b[2:]), 10
		if length <= 0xffff || length>>63 != 0 {
			return h, 0, violation("length is not minimal")
		}
	case length >= 126:
		return h, 0, nil
	}
	if length > maxFrame || !control && r.limit >= 0 && length > uint64(r.limit) {
		return h, 0, errTooLarge
	}
	h.length = int(length)
	if !r.masked {
		return h, size, nil
	}
	if len(b) < size+4 {
		return h, 0, nil
	}
	copy(h.key[:], b[size:])
	return h, size + 4, nil
}

// A decoder turns a peer's bytes into messages and control frames. It keeps
// what is unfinished and, while nothing is, no memory.
type decoder struct {
	part *partial
}

// A partial is an unfinished frame, an unfinished message, or both.
type partial struct {
	head  [maxHeader]byte
	nhead int // bytes of an unfinished header

	frame  header // the unfinished frame, when inside is set
	inside bool
	got    int // bytes of its payload that have come

	control []byte // payload of an unfinished control frame

	opcode  byte   // of the unfinished message; 0: there is none
	message []byte // what has come of it, unmasked
	checked int    // bytes of message known to be UTF-8
}

// need returns how many bytes of the current frame are missing, 0 if unknown.
func (d *decoder) need() int {
	if d.part == nil || !d.part.inside {
		return 0
	}
	return d.part.frame.length - d.part.got
}

// next takes one complete message (opText) or control frame off the front of b
// and returns what is left of b. opcode 0 says that all of b is taken and more
// is needed. The payload lies in b, which is unmasked in place, or in memory
// that the decoder has let go of.
func (d *decoder) next(b []byte, r rules) (opcode byte, payload, rest []byte, err error) {
	if d.part == nil {
		h, size, err := r.parse(b)
		switch {
		case err != nil:
			return 0, nil, nil, err
		case len(b) == 0:
			return 0, nil, nil, nil
		case size > 0 && len(b)-size >= h.length && h.fin:
			if h.opcode == opContinuation {
				return 0, nil, nil, violation("continuation without a message")
			}
			payload, rest := b[size:size+h.length:size+h.length], b[size+h.length:]
			if r.masked {
				mask(payload, h.key)
			}
			opcode, err := complete(h.opcode, payload, 0)
			return opcode, payload, rest, err
		}
		d.part = &partial{}
	}
	return d.resume(b, r)
}

// resume is next in the middle of something.
func (d *decoder) resume(b []byte, r rules) (opcode byte, payload, rest []byte, err error) {
	p := d.part
	for {
		if !p.inside {
			n := copy(p.head[p.nhead:], b)
			h, size, err := r.parse(p.head[:p.nhead+n])
			if err != nil {
				return 0, nil, nil, err
			}
			if size == 0 {
				p.nhead += n
				return 0, nil, nil, nil
			}
			b = b[size-p.nhead:]
			if err := p.begin(h, r.limit); err != nil {
				return 0, nil, nil, err
			}
		}
		n := min(len(b), p.frame.length-p.got)
		if r.masked {
			maskFrom(b[:n], p.frame.key, p.got)
		}
		if err := p.add(b[:n]); err != nil {
			return 0, nil, nil, err
		}
		p.got += n
		b = b[n:]
		if p.got < p.frame.length {
			return 0, nil, nil, nil
		}
		p.inside = false
		switch {
		case p.frame.opcode >= opClose:
			payload, p.control = p.control, nil
			if p.opcode == 0 {
				d.part = nil
			}
			return p.frame.opcode, payload, b, nil
		case p.frame.fin:
			d.part = nil
			opcode, err := complete(p.opcode, p.message, p.checked)
			return opcode, p.message, b, err
		}
	}
}

// begin starts a frame whose header is complete.
func (p *partial) begin(h header, limit int) error {
	p.frame, p.inside, p.got, p.nhead = h, true, 0, 0
	switch {
	case h.opcode >= opClose:
		return nil
	case h.opcode == opContinuation && p.opcode == 0:
		return violation("continuation without a message")
	case h.opcode != opContinuation && p.opcode != 0:
		return violation("message inside a fragmented message")
	case limit >= 0 && len(p.message)+h.length > limit:
		return errTooLarge
	}
	if h.opcode != opContinuation {
		p.opcode = h.opcode
	}
	return nil
}

// add takes unmasked bytes of the payload. Memory grows with what has come, so
// that a header alone cannot claim any. Text that is wrong already ends here.
func (p *partial) add(b []byte) error {
	if p.frame.opcode >= opClose {
		p.control = append(p.control, b...)
		return nil
	}
	p.message = append(p.message, b...)
	n, ok := validPrefix(p.message[p.checked:])
	if !ok {
		return notText(p.opcode)
	}
	p.checked += n
	return nil
}

// complete checks the end of a frame that is not preceded by others of its
// message; the first checked bytes are known to be UTF-8.
func complete(opcode byte, payload []byte, checked int) (byte, error) {
	if opcode >= opClose {
		return opcode, nil
	}
	if !utf8.Valid(payload[checked:]) {
		return 0, notText(opcode)
	}
	return opText, nil
}

func notText(opcode byte) error {
	if opcode == opBinary {
		return errBinary
	}
	return errNotUTF8
}

// validPrefix returns how many bytes of b are complete characters, and whether
// b can be the beginning of valid UTF-8.
func validPrefix(b []byte) (n int, ok bool) {
	n = len(b)
	for i := n - 1; i >= 0 && i > n-utf8.UTFMax; i-- {
		if utf8.RuneStart(b[i]) {
			if !utf8.FullRune(b[i:]) {
				n = i
			}
			break
		}
	}
	return n, utf8.Valid(b[:n])
}

// parseClose reads the body of a close frame; code 0 says that it is empty.
func parseClose(body []byte) (code uint16, reason string, err error) {
	switch {
	case len(body) == 0:
		return 0, "", nil
	case len(body) == 1:
		return 0, "", violation("close frame with half a code")
	}
	code = binary.BigEndian.Uint16(body)
	if !validCloseCode(code) {
		return 0, "", violation("invalid close code")
	}
	if !utf8.Valid(body[2:]) {
		return 0, "", errNotUTF8
	}
	return code, string(body[2:]), nil
}
