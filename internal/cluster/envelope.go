package cluster

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"hash"
	"sync"
	"time"
)

// kind says what the body of an envelope is.
type kind uint8

const (
	kindBroadcast kind = iota + 1 // on the topic of a channel

	kindTerminate // on the control topic
	kindApp
	kindAsk

	kindBatch // on the directory topic
	kindHeartbeat
	kindTold
	kindGoodbye

	kindRequest // on the topic of a node
	kindPart
	kindRemind
	kindSure
	kindReport
	kindListen
	kindListens
	kindAgain
	kindThatIsAll
	kindHave
	kindCanary

	kindBeacon // on the topic that all clusters of a prefix share

	kinds
)

// deed reports whether an envelope tells nodes what to deliver or to do. It means
// the same later on and after its node has gone; all others tell of a state.
func (k kind) deed() bool { return k == kindBroadcast || k == kindTerminate || k == kindApp }

const (
	magic   = 0xC5
	version = 1
	signed  = 0x01 // flag: a signature follows the body
	// maxName bounds the names of clusters and nodes.
	maxName       = 64
	signatureSize = sha256.Size
)

// An envelope is what nodes send each other: who says it, and a body whose
// meaning depends on the kind.
//
//	magic, version, kind, flags
//	cluster, node      a byte of length each, then the name
//	epoch              8 bytes, of the sender's process
//	number             varint, of the sender's envelopes; never used twice
//	sent               8 bytes, milliseconds since 1970
//	body
//	signature          HMAC-SHA256 over all of the above, if the flag says so
type envelope struct {
	kind    kind
	cluster string
	node    string
	epoch   uint64
	number  uint64
	sent    time.Time
	body    []byte

	from *source // of one that was received and judged; nil: own
}

// A sealer signs envelopes and checks signatures. The zero value does neither.
type sealer struct {
	secret []byte
	macs   sync.Pool // of hash.Hash
}

func (s *sealer) sum(dst, b []byte) []byte {
	mac, _ := s.macs.Get().(hash.Hash)
	if mac == nil {
		mac = hmac.New(sha256.New, s.secret)
	}
	mac.Reset()
	mac.Write(b)
	dst = mac.Sum(dst)
	s.macs.Put(mac)
	return dst
}

// header appends all of an envelope that comes before the body, with room for
// a body of size bytes and the signature.
func (s *sealer) header(e *envelope, size int) []byte {
	b := make([]byte, 0, 4+2+len(e.cluster)+len(e.node)+8+binary.MaxVarintLen64+8+size+signatureSize)
	flags := byte(0)
	if len(s.secret) > 0 {
		flags = signed
	}
	b = append(b, magic, version, byte(e.kind), flags)
	b = append(append(b, byte(len(e.cluster))), e.cluster...)
	b = append(append(b, byte(len(e.node))), e.node...)
	b = binary.BigEndian.AppendUint64(b, e.epoch)
	b = binary.AppendUvarint(b, e.number)
	return binary.BigEndian.AppendUint64(b, uint64(e.sent.UnixMilli()))
}

// finish signs what header began.
func (s *sealer) finish(b []byte) []byte {
	if len(s.secret) == 0 {
		return b
	}
	return s.sum(b, b)
}

func (s *sealer) seal(e *envelope) []byte {
	return s.finish(append(s.header(e, len(e.body)), e.body...))
}

// open reads an envelope without judging who sent it; the strings and the body
// share the memory of msg or are copies. reason says why it is refused.
func (s *sealer) open(msg []byte) (e envelope, reason refusal) {
	if len(msg) < 4 || msg[0] != magic {
		return e, refusedMalformed
	}
	if msg[1] != version {
		return e, refusedVersion
	}
	e.kind = kind(msg[2])
	if e.kind == 0 || e.kind >= kinds || msg[3]&^signed != 0 {
		return e, refusedVersion
	}
	isSigned := msg[3]&signed != 0
	r := reader{b: msg[4:]}
	e.cluster = r.name()
	e.node = r.name()
	e.epoch = r.uint64()
	e.number = r.uvarint()
	e.sent = time.UnixMilli(int64(r.uint64()))
	e.body = r.b
	if r.bad || e.node == "" {
		return e, refusedMalformed
	}
	if isSigned {
		if len(e.body) < signatureSize {
			return e, refusedMalformed
		}
		e.body = e.body[:len(e.body)-signatureSize]
	}
	switch {
	case isSigned && len(s.secret) == 0:
		return e, refusedSigned
	case !isSigned && len(s.secret) > 0:
		return e, refusedUnsigned
	case isSigned:
		var want [signatureSize]byte
		end := len(msg) - signatureSize
		if !hmac.Equal(s.sum(want[:0], msg[:end]), msg[end:]) {
			return e, refusedSignature
		}
	}
	return e, ""
}

// A reader takes a body apart. After the first thing that is not there all
// others are zero and bad is set.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) fail() {
	r.b, r.bad = nil, true
}

func (r *reader) uint64() uint64 {
	if len(r.b) < 8 {
		r.fail()
		return 0
	}
	v := binary.BigEndian.Uint64(r.b)
	r.b = r.b[8:]
	return v
}

func (r *reader) uvarint() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.fail()
		return 0
	}
	r.b = r.b[n:]
	return v
}

// count reads a number that is at most limit.
func (r *reader) count(limit int) int {
	v := r.uvarint()
	if v > uint64(limit) {
		r.fail()
		return 0
	}
	return int(v)
}

func (r *reader) byte() byte {
	if len(r.b) == 0 {
		r.fail()
		return 0
	}
	v := r.b[0]
	r.b = r.b[1:]
	return v
}

func (r *reader) bytes() []byte {
	n := r.uvarint()
	if n > uint64(len(r.b)) {
		r.fail()
		return nil
	}
	v := r.b[:n]
	r.b = r.b[n:]
	return v
}

func (r *reader) string() string { return string(r.bytes()) }

// name reads a short string with its length in a byte.
func (r *reader) name() string {
	n := int(r.byte())
	if n > maxName || n > len(r.b) {
		r.fail()
		return ""
	}
	v := string(r.b[:n])
	r.b = r.b[n:]
	return v
}

// end reports whether all of it was read and was well.
func (r *reader) end() bool { return !r.bad && len(r.b) == 0 }

func appendString(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

func appendName(b []byte, s string) []byte {
	return append(append(b, byte(len(s))), s...)
}
