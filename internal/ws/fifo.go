package ws

import "sync"

// chunkFrames makes a chunk 512 bytes.
const chunkFrames = 63

// A chunk holds frames of a queue that is longer than one.
type chunk struct {
	frames [chunkFrames]*Frame
	next   *chunk
}

var chunks = sync.Pool{New: func() any { return new(chunk) }}

// A fifo is a queue of frames. One frame, which is the rule, needs no memory
// besides; more are kept in chunks from a pool, so that pushing allocates
// nothing and an idle connection holds nothing.
type fifo struct {
	one        *Frame // the first frame, unless chunks hold it
	head, tail *chunk
	read       uint8 // place of the first frame in head
	write      uint8 // place behind the last frame in tail
	n          int32 // frames
}

func (q *fifo) push(f *Frame) {
	q.n++
	switch {
	case q.n == 1:
		q.one = f
		return
	case q.tail == nil:
		c := chunks.Get().(*chunk)
		q.head, q.tail, q.read, q.write = c, c, 0, 0
	case q.write == chunkFrames:
		c := chunks.Get().(*chunk)
		q.tail.next, q.tail, q.write = c, c, 0
	}
	q.tail.frames[q.write] = f
	q.write++
}

// front returns the first frame of a queue that is not empty.
func (q *fifo) front() *Frame {
	if q.one != nil {
		return q.one
	}
	return q.head.frames[q.read]
}

// pop removes the first frame of a queue that is not empty.
func (q *fifo) pop() {
	q.n--
	if q.one != nil {
		q.one = nil
		return
	}
	c := q.head
	c.frames[q.read] = nil
	q.read++
	switch {
	case q.n == 0:
		q.head, q.tail = nil, nil
	case q.read == chunkFrames:
		q.head, q.read = c.next, 0
		c.next = nil
	default:
		return
	}
	chunks.Put(c)
}

// appendTo appends the bytes of the queue behind the first off to dst, whole
// frames while they fit into its capacity.
func (q *fifo) appendTo(dst []byte, off int) []byte {
	left := q.n
	if q.one != nil {
		if len(q.one.wire)-off > cap(dst)-len(dst) {
			return dst
		}
		dst = append(dst, q.one.wire[off:]...)
		off, left = 0, left-1
	}
	c, i := q.head, q.read
	for ; left > 0; left-- {
		wire := c.frames[i].wire[off:]
		if len(wire) > cap(dst)-len(dst) {
			return dst
		}
		dst, off = append(dst, wire...), 0
		if i++; i == chunkFrames {
			c, i = c.next, 0
		}
	}
	return dst
}
