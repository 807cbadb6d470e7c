package ws

import (
	"encoding/binary"
	"errors"
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
	errTooLarge = &protocolError{1009, "Message is too large"}
	errNotUTF8  = &protocolError{1007, "Text is not valid UTF-8"}
	errBinary   = &protocolError{1003, "Binary messages must be UTF-8 text"}
)

// A header is the start of a client frame.
type header struct {
	fin    bool
	opcode byte
	size   int // of the header itself
	length int // of the payload
	key    [4]byte
}

// parseHeader reads the header at the start of b. ok is false when b does not
// hold all of it. limit bounds the payload of data frames; <0: none.
func parseHeader(b []byte, limit int) (h header, ok bool, err error) {
	if len(b) < 2 {
		return h, false, nil
	}
	h.fin, h.opcode = b[0]&finBit != 0, b[0]&0x0f
	switch {
	case b[0]&rsvBits != 0:
		return h, false, violation("reserved bits are set")
	case h.opcode > opBinary && h.opcode < opClose || h.opcode > opPong:
		return h, false, violation("unknown opcode")
	case b[1]&maskBit == 0:
		return h, false, violation("client frame is not masked")
	}
	length := uint64(b[1] &^ maskBit)
	control := h.opcode >= opClose
	if control && (length > maxControl || !h.fin) {
		return h, false, violation("control frame is fragmented or too long")
	}
	h.size = 2
	switch length {
	case 126:
		if len(b) < 4 {
			return h, false, nil
		}
		length = uint64(binary.BigEndian.Uint16(b[2:]))
		h.size = 4
		if length < 126 {
			return h, false, violation("length is not minimal")
		}
	case 127:
		if len(b) < 10 {
			return h, false, nil
		}
		length = binary.BigEndian.Uint64(b[2:])
		h.size = 10
		if length <= 0xffff || length>>63 != 0 {
			return h, false, violation("length is not minimal")
		}
	}
	if length > 1<<31 || !control && limit >= 0 && length > uint64(limit) {
		return h, false, errTooLarge
	}
	if len(b) < h.size+4 {
		return h, false, nil
	}
	copy(h.key[:], b[h.size:])
	h.size += 4
	h.length = int(length)
	return h, true, nil
}

// A reader turns the bytes of a client into messages. It keeps only what is
// unfinished.
type reader struct {
	partial []byte // unfinished frame
	message []byte // fragments of an unfinished message
	opcode  byte   // of that message; 0: there is none
}

// errPaused says that feed stopped in between because a handler waits.
var errPaused = errors.New("paused")

// feed takes bytes of the client and gives complete messages and control
// frames to on, until it returns an error. What is left over is kept. The
// bytes are unmasked in place.
func (r *reader) feed(b []byte, limit int, on func(opcode byte, payload []byte) error) error {
	owned := len(r.partial) > 0
	if owned {
		b = append(r.partial, b...)
		r.partial = nil
	}
	for {
		h, ok, err := parseHeader(b, limit)
		if err != nil {
			return err
		}
		if !ok || len(b) < h.size+h.length {
			r.keep(b, owned, ok, h)
			return nil
		}
		payload := b[h.size : h.size+h.length]
		b = b[h.size+h.length:]
		mask(payload, h.key)
		if err := r.frame(h, payload, limit, on); err != nil {
			if errors.Is(err, errPaused) {
				r.keep(b, owned, false, header{})
			}
			return err
		}
	}
}

// keep stores the rest of the input, with room for the frame it begins.
func (r *reader) keep(b []byte, owned, known bool, h header) {
	if len(b) == 0 {
		return
	}
	need := len(b)
	if known {
		// Room grows with what has come, so that a header alone cannot claim it.
		need = min(h.size+h.length, 2*len(b)+512)
	}
	if owned && cap(b) >= need && cap(b) <= 2*need+1024 {
		r.partial = b
		return
	}
	r.partial = append(make([]byte, 0, need), b...)
}

func (r *reader) frame(h header, payload []byte, limit int, on func(byte, []byte) error) error {
	if h.opcode >= opClose {
		return on(h.opcode, payload)
	}
	switch {
	case h.opcode == opContinuation && r.opcode == 0:
		return violation("continuation without a message")
	case h.opcode != opContinuation && r.opcode != 0:
		return violation("message inside a fragmented message")
	case h.fin && r.opcode == 0:
		return deliver(h.opcode, payload, on)
	}
	if h.opcode != opContinuation {
		r.opcode = h.opcode
	}
	if limit >= 0 && len(r.message)+len(payload) > limit {
		return errTooLarge
	}
	r.message = append(r.message, payload...)
	if !h.fin {
		return nil
	}
	opcode, message := r.opcode, r.message
	r.opcode, r.message = 0, nil
	return deliver(opcode, message, on)
}

func deliver(opcode byte, payload []byte, on func(byte, []byte) error) error {
	if !utf8.Valid(payload) {
		if opcode == opBinary {
			return errBinary
		}
		return errNotUTF8
	}
	return on(opText, payload)
}

// parseClose reads the body of a close frame.
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
