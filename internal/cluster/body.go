package cluster

import (
	"encoding/binary"
	"math"
	"time"

	"sockudo/internal/directory"
)

// Bodies of envelopes. Every type has a method that appends it and a function
// that reads it, which reports whether b was one.

// A broadcast is an event on its way to the subscribers of a channel.
type broadcast struct {
	app, channel string
	except       string // socket id
	at           time.Time
	payload      []byte
}

func (m *broadcast) size() int {
	return 3*binary.MaxVarintLen32 + len(m.app) + len(m.channel) + len(m.except) + 8 + len(m.payload)
}

func (m *broadcast) append(b []byte) []byte {
	b = appendString(b, m.app)
	b = appendString(b, m.channel)
	b = appendString(b, m.except)
	at := int64(0)
	if !m.at.IsZero() {
		at = m.at.UnixMicro()
	}
	b = binary.BigEndian.AppendUint64(b, uint64(at))
	return append(b, m.payload...)
}

// readBroadcast leaves the names in the memory of b.
func readBroadcast(b []byte) (app, channel, except []byte, at time.Time, payload []byte, ok bool) {
	r := reader{b: b}
	app, channel, except = r.bytes(), r.bytes(), r.bytes()
	if us := int64(r.uint64()); us != 0 {
		at = time.UnixMicro(us)
	}
	return app, channel, except, at, r.b, !r.bad
}

// A terminate closes the connections of a user.
type terminate struct {
	app, user string
	code      int
	message   string
}

func (m *terminate) append(b []byte) []byte {
	b = appendString(b, m.app)
	b = appendString(b, m.user)
	b = binary.AppendUvarint(b, uint64(m.code))
	return appendString(b, m.message)
}

func readTerminate(b []byte) (m terminate, ok bool) {
	r := reader{b: b}
	m = terminate{app: r.string(), user: r.string(), code: r.count(math.MaxUint16), message: r.string()}
	return m, r.end()
}

func appendBatch(b []byte, m directory.Batch) []byte {
	b = binary.AppendUvarint(b, m.First)
	b = binary.AppendUvarint(b, uint64(m.N))
	return append(b, m.Entries...)
}

func readBatch(b []byte) (m directory.Batch, ok bool) {
	r := reader{b: b}
	m.First = r.uvarint()
	m.N = r.count(math.MaxInt32)
	m.Entries = r.b
	return m, !r.bad && m.First > 0 && m.N > 0 && m.N <= len(m.Entries)
}

// A heartbeat says that a node lives, and what its partition is.
type heartbeat struct {
	hello   bool // asks the others for theirs
	recount bool // the digest was made of all entries anew, and asks for the same
	seq     uint64
	digest  uint64
	claim   uint64 // changes when the node begins to be responsible; 0: it is not
	telling bool   // it is in charge
	told    uint64 // how many messages with records it has sent
	sent    bool   // no record waits to be sent
	sizes   directory.Sizes
}

const (
	beatHello   = 0x01
	beatRecount = 0x02
	beatTelling = 0x04
	beatSent    = 0x08
)

func (m *heartbeat) append(b []byte) []byte {
	flags := byte(0)
	if m.hello {
		flags |= beatHello
	}
	if m.recount {
		flags |= beatRecount
	}
	if m.telling {
		flags |= beatTelling
	}
	if m.sent {
		flags |= beatSent
	}
	b = append(b, flags)
	b = binary.AppendUvarint(b, m.seq)
	b = binary.BigEndian.AppendUint64(b, m.digest)
	b = binary.AppendUvarint(b, m.claim)
	b = binary.AppendUvarint(b, m.told)
	for _, n := range []int{m.sizes.Channels, m.sizes.Members, m.sizes.Users, m.sizes.Sockets} {
		b = binary.AppendUvarint(b, uint64(max(0, n)))
	}
	return b
}

func readHeartbeat(b []byte) (m heartbeat, ok bool) {
	r := reader{b: b}
	flags := r.byte()
	m.hello, m.recount, m.telling, m.sent = flags&beatHello != 0, flags&beatRecount != 0, flags&beatTelling != 0, flags&beatSent != 0
	m.seq, m.digest, m.claim, m.told = r.uvarint(), r.uint64(), r.uvarint(), r.uvarint()
	m.sizes = directory.Sizes{Channels: r.count(math.MaxInt), Members: r.count(math.MaxInt), Users: r.count(math.MaxInt), Sockets: r.count(math.MaxInt)}
	return m, r.end()
}

// A target is the process that a message on a node's topic is for.
type target struct {
	node  string
	epoch uint64
}

func (m *target) append(b []byte) []byte {
	return binary.BigEndian.AppendUint64(appendName(b, m.node), m.epoch)
}

func (r *reader) target() target { return target{r.name(), r.uint64()} }

// A request asks a node for its partition.
type request struct {
	to   target
	id   uint64 // of the transfer, repeated in its parts
	need uint64 // sequence number that the snapshot must have reached
	seq  uint64 // of the snapshot that is being fetched; 0: any
	from int    // first part that is wanted
}

func (m *request) append(b []byte) []byte {
	b = m.to.append(b)
	for _, n := range []uint64{m.id, m.need, m.seq, uint64(m.from)} {
		b = binary.AppendUvarint(b, n)
	}
	return b
}

func readRequest(b []byte) (m request, ok bool) {
	r := reader{b: b}
	m = request{to: r.target(), id: r.uvarint(), need: r.uvarint(), seq: r.uvarint(), from: r.count(maxParts)}
	return m, r.end()
}

// A part is one piece of a partition as of seq.
type part struct {
	to           target
	id           uint64
	seq, digest  uint64
	index, total int
	entries      []byte
}

func (m *part) append(b []byte) []byte {
	b = m.to.append(b)
	b = binary.AppendUvarint(b, m.id)
	b = binary.AppendUvarint(b, m.seq)
	b = binary.BigEndian.AppendUint64(b, m.digest)
	b = binary.AppendUvarint(b, uint64(m.index))
	b = binary.AppendUvarint(b, uint64(m.total))
	return append(b, m.entries...)
}

func readPart(b []byte) (m part, ok bool) {
	r := reader{b: b}
	m = part{to: r.target(), id: r.uvarint(), seq: r.uvarint(), digest: r.uint64(), index: r.count(maxParts), total: r.count(maxParts)}
	m.entries = r.b
	return m, !r.bad && (m.index < m.total || m.total == 0 && m.index == 0 && len(m.entries) == 0)
}

// A goodbye is the last word of a process.
type goodbye struct {
	told uint64 // how many messages with records it has sent
}

func (m *goodbye) append(b []byte) []byte { return binary.AppendUvarint(b, m.told) }

func readGoodbye(b []byte) (m goodbye, ok bool) {
	r := reader{b: b}
	m.told = r.uvarint()
	return m, r.end()
}
