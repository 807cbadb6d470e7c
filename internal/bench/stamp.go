package bench

// A stamp identifies a message wherever it turns up: which stream it belongs
// to, its number there, and when it should have been sent. It is text that no
// JSON encoder changes, so that it survives every server, as data or as a user
// id.
type stamp struct {
	stream int   // up to maxStreams
	seq    int   // up to maxSeq
	at     int64 // nanoseconds on the generator's clock
}

const (
	stampLead  = "#~"
	stampBytes = len(stampLead) + 3 + 5 + 8

	maxStreams = 1 << 18
	maxSeq     = 1 << 30
)

const stampDigits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz-_"

// stampValue is the inverse of stampDigits; 0xff marks what is no digit.
var stampValue = func() (t [256]byte) {
	for i := range t {
		t[i] = 0xff
	}
	for i, c := range []byte(stampDigits) {
		t[c] = byte(i)
	}
	return t
}()

// put writes s to the front of dst, which has stampBytes of room.
func (s stamp) put(dst []byte) {
	copy(dst, stampLead)
	putDigits(dst[2:5], uint64(s.stream))
	putDigits(dst[5:10], uint64(s.seq))
	putDigits(dst[10:18], uint64(s.at))
}

func putDigits(dst []byte, v uint64) {
	for i := len(dst) - 1; i >= 0; i-- {
		dst[i] = stampDigits[v&63]
		v >>= 6
	}
}

// readStamp reads a stamp from the front of b.
func readStamp(b []byte) (s stamp, ok bool) {
	if len(b) < stampBytes || b[0] != stampLead[0] || b[1] != stampLead[1] {
		return s, false
	}
	stream, bad1 := digits(b[2:5])
	seq, bad2 := digits(b[5:10])
	at, bad3 := digits(b[10:18])
	return stamp{int(stream), int(seq), int64(at)}, bad1|bad2|bad3 < 64
}

// digits reads a number; bad is 64 or more if something in b is no digit.
func digits(b []byte) (v uint64, bad byte) {
	for _, c := range b {
		d := stampValue[c]
		bad |= d
		v = v<<6 | uint64(d)
	}
	return v, bad
}
