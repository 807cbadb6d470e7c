package directory

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"github.com/cespare/xxhash/v2"
)

// Kind says what an entry of a partition is about.
type Kind uint8

// The kinds of entries.
const (
	Channel Kind = iota + 1 // subscriptions to a channel
	Member                  // connections of a member of a presence channel
	Sockets                 // open sockets of an app
	User                    // connections of a signed-in user
)

// String returns the name of a kind.
func (k Kind) String() string {
	switch k {
	case Channel:
		return "channel"
	case Member:
		return "member"
	case Sockets:
		return "sockets"
	case User:
		return "user"
	default:
		return fmt.Sprintf("kind %d", uint8(k))
	}
}

// An Entry is one fact of a partition, or a change of one: the value is the
// new one, and 0 says that there is nothing any more.
type Entry struct {
	Kind    Kind
	App     string
	Channel string // of Channel and Member
	User    string // of Member and User
	Info    string // user_info as JSON, of Member with a value
	Value   int
}

func (e *Entry) change() Change { return Change{e.Kind, e.App, e.Channel, e.User} }

func writeString(h *xxhash.Digest, s string) {
	var size [4]byte
	binary.LittleEndian.PutUint32(size[:], uint32(len(s)))
	h.Write(size[:])
	h.WriteString(s)
}

// hash returns the share of an entry in the digest of its partition, which is
// the sum of all of them.
func (e *Entry) hash() uint64 {
	if e.Value == 0 {
		return 0
	}
	var h xxhash.Digest
	h.Reset()
	var head [5]byte
	head[0] = byte(e.Kind)
	binary.LittleEndian.PutUint32(head[1:], uint32(e.Value))
	h.Write(head[:])
	writeString(&h, e.App)
	writeString(&h, e.Channel)
	writeString(&h, e.User)
	writeString(&h, e.Info)
	return h.Sum64()
}

// The first byte of an entry is its kind and these flags.
const (
	kindMask    = 0x07
	sameApp     = 0x08 // as the entry before
	sameChannel = 0x10
)

// An encoder writes entries one after the other.
type encoder struct {
	buf            []byte
	app, channel   string // of the entry before
	some, channels bool
}

func (enc *encoder) append(e *Entry) {
	head := byte(e.Kind)
	if enc.some && e.App == enc.app {
		head |= sameApp
	}
	named := e.Kind == Channel || e.Kind == Member
	if named && head&sameApp != 0 && enc.channels && e.Channel == enc.channel {
		head |= sameChannel
	}
	b := append(enc.buf, head)
	if head&sameApp == 0 {
		b = appendString(b, e.App)
		enc.channels = false
	}
	if named && head&sameChannel == 0 {
		b = appendString(b, e.Channel)
	}
	if e.Kind == Member || e.Kind == User {
		b = appendString(b, e.User)
	}
	b = binary.AppendUvarint(b, uint64(e.Value))
	if e.Kind == Member && e.Value > 0 {
		b = appendString(b, e.Info)
	}
	enc.buf, enc.app, enc.some = b, e.App, true
	if named {
		enc.channel, enc.channels = e.Channel, true
	}
}

func appendString(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// AppendEntries appends entries to buf as Decode reads them.
func AppendEntries(buf []byte, entries []Entry) []byte {
	enc := encoder{buf: buf}
	for i := range entries {
		enc.append(&entries[i])
	}
	return enc.buf
}

var errTruncated = errors.New("directory: entry ends early")

// Decode calls visit with every entry in b, which is what Drain, Snapshot or
// AppendEntries returned, here or at a peer. It returns an error when b is
// something else; visit may have been called then.
func Decode(b []byte, visit func(*Entry)) error {
	rest := string(b)
	var e Entry
	some, channels := false, false
	for len(rest) > 0 {
		head := rest[0]
		rest = rest[1:]
		e.Kind = Kind(head & kindMask)
		if head&^(kindMask|sameApp|sameChannel) != 0 || e.Kind < Channel || e.Kind > User {
			return fmt.Errorf("directory: entry of unknown kind %#x", head)
		}
		named := e.Kind == Channel || e.Kind == Member
		var err error
		if head&sameApp == 0 {
			if e.App, err = cutString(&rest); err != nil {
				return err
			}
			channels = false
		} else if !some {
			return errors.New("directory: first entry without an app")
		}
		some = true
		channel := e.Channel
		switch {
		case head&sameChannel != 0:
			if !named || !channels {
				return errors.New("directory: entry without a channel")
			}
		case named:
			if channel, err = cutString(&rest); err != nil {
				return err
			}
			channels = true
		}
		e.User, e.Info = "", ""
		if e.Kind == Member || e.Kind == User {
			if e.User, err = cutString(&rest); err != nil {
				return err
			}
		}
		value, err := cutUvarint(&rest)
		if err != nil {
			return err
		}
		if value > math.MaxInt32 {
			return fmt.Errorf("directory: value %d is above %d", value, math.MaxInt32)
		}
		e.Value = int(value)
		if e.Kind == Member && e.Value > 0 {
			if e.Info, err = cutString(&rest); err != nil {
				return err
			}
		}
		e.Channel = ""
		if named {
			e.Channel = channel
		}
		visit(&e)
		e.Channel = channel // for those that say it is the same
	}
	return nil
}

func cutUvarint(s *string) (uint64, error) {
	var v uint64
	for i := 0; i < len(*s) && i < binary.MaxVarintLen64; i++ {
		c := (*s)[i]
		if i == binary.MaxVarintLen64-1 && c > 1 {
			return 0, errors.New("directory: number is too large")
		}
		v |= uint64(c&0x7f) << (7 * i)
		if c < 0x80 {
			*s = (*s)[i+1:]
			return v, nil
		}
	}
	return 0, errTruncated
}

func cutString(s *string) (string, error) {
	n, err := cutUvarint(s)
	if err != nil {
		return "", err
	}
	if n > uint64(len(*s)) {
		return "", errTruncated
	}
	cut := (*s)[:n]
	*s = (*s)[n:]
	return cut, nil
}

// Sizes are how many entries a partition has of each kind, and the sum of its
// sockets.
type Sizes struct {
	Channels int `json:"channels"`
	Members  int `json:"members"`
	Users    int `json:"users"`
	Sockets  int `json:"sockets"`
}

func (z *Sizes) add(kind Kind, value int32, sign int) {
	if value == 0 {
		return
	}
	switch kind {
	case Channel:
		z.Channels += sign
	case Member:
		z.Members += sign
	case User:
		z.Users += sign
	case Sockets:
		z.Sockets += sign * int(value)
	}
}
