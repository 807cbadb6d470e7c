package ws

import (
	"encoding/binary"
	"unicode/utf8"
)

// Opcodes of RFC 6455, section 5.2.
const (
	opContinuation = 0x0
	opText         = 0x1
	opBinary       = 0x2
	opClose        = 0x8
	opPing         = 0x9
	opPong         = 0xA
)

const (
	finBit  = 0x80
	rsvBits = 0x70
	maskBit = 0x80

	maxControl = 125 // bytes of a control frame's payload
	maxReason  = 123 // bytes of a close reason
)

// A Frame is a complete server-to-client message: header and payload, encoded
// once and shared by all receivers. It must not be changed.
type Frame struct {
	wire   []byte
	header int
}

// TextFrame returns a text message. The payload is copied.
func TextFrame(payload []byte) *Frame { return newFrame(opText, payload) }

func newFrame(opcode byte, payload []byte) *Frame {
	size := 2
	switch {
	case len(payload) > 0xffff:
		size = 10
	case len(payload) > 125:
		size = 4
	}
	wire := appendHeader(make([]byte, 0, size+len(payload)), opcode, len(payload))
	return &Frame{wire: append(wire, payload...), header: size}
}

func appendHeader(dst []byte, opcode byte, size int) []byte {
	dst = append(dst, finBit|opcode)
	switch {
	case size <= 125:
		return append(dst, byte(size))
	case size <= 0xffff:
		return binary.BigEndian.AppendUint16(append(dst, 126), uint16(size))
	default:
		return binary.BigEndian.AppendUint64(append(dst, 127), uint64(size))
	}
}

// Payload returns the message; it must not be changed.
func (f *Frame) Payload() []byte { return f.wire[f.header:] }

// Size returns the length of the payload in bytes.
func (f *Frame) Size() int { return len(f.wire) - f.header }

// closeFrame returns a close frame; code 0 stands for one without a body.
func closeFrame(code uint16, reason string) *Frame {
	if code == 0 {
		return newFrame(opClose, nil)
	}
	body := binary.BigEndian.AppendUint16(make([]byte, 0, maxControl), code)
	return newFrame(opClose, append(body, cutReason(reason)...))
}

// cutReason shortens a close reason to what a frame can hold, at a character.
func cutReason(reason string) string {
	if len(reason) <= maxReason {
		return reason
	}
	n := maxReason
	for n > 0 && !utf8.RuneStart(reason[n]) {
		n--
	}
	return reason[:n]
}

// validCloseCode reports whether a peer may send a close code (RFC 6455, 7.4).
func validCloseCode(code uint16) bool {
	switch {
	case code >= 1000 && code <= 1003, code >= 1007 && code <= 1014:
		return true
	}
	return code >= 3000 && code <= 4999
}

// mask applies the masking key to b, eight bytes at a time.
func mask(b []byte, key [4]byte) {
	k := uint64(binary.LittleEndian.Uint32(key[:]))
	k |= k << 32
	for len(b) >= 8 {
		binary.LittleEndian.PutUint64(b, binary.LittleEndian.Uint64(b)^k)
		b = b[8:]
	}
	for i := range b {
		b[i] ^= key[i&3]
	}
}

// maskFrom is mask for bytes that begin at an offset of the payload.
func maskFrom(b []byte, key [4]byte, offset int) {
	var k [4]byte
	for i := range k {
		k[i] = key[(offset+i)&3]
	}
	mask(b, k)
}
