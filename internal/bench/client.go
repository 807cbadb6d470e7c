package bench

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"

	"sockudo/internal/protocol"
	"sockudo/internal/sign"
)

// Opcodes and bits of WebSocket frames (RFC 6455, section 5.2).
const (
	opText  = 0x1
	opClose = 0x8
	opPing  = 0x9
	opPong  = 0xA

	finBit  = 0x80
	maskBit = 0x80
)

// maxFrame is more than any server of the protocol sends.
const maxFrame = 64 << 20

// How far a client has come.
type stage uint8

const (
	dialling stage = iota
	upgrading
	greeting    // waits for pusher:connection_established
	subscribing // waits for the answer to its subscription
	ready
	gone
)

var stageNames = [...]string{"connecting", "the WebSocket handshake", "waiting for connection_established", "subscribing", "connected", "gone"}

// A client is one WebSocket connection of the generator.
type client struct {
	crowd *crowd
	lane  *lane
	id    int
	node  int // index of the URL it connects to

	// Under lane.mu.
	link     link
	stage    stage
	rest     []byte // an unfinished frame or answer
	socketID string
	channel  string
	member   string  // channel_data, of presence channels
	streams  int     // the first stream that it receives
	tracks   []track // of the streams it receives
	born     int64   // when it should have been dialled
	asked    int64   // when it should have subscribed; 0: that is answered
	inside   bool    // of those that join and leave: it has joined last
	pings    []int64 // when those that are not answered were due
	extra    bool    // joins and leaves; what it gets is not part of the tally
	hint     int     // where the last stamp lay in its frame
	length   int     // of the frame with the last stamp
}

// errRefused is the server's word against a connection; what was said is in it.
type errRefused struct{ text string }

func (e *errRefused) Error() string { return e.text }

func refusedf(format string, args ...any) error { return &errRefused{fmt.Sprintf(format, args...)} }

func (c *client) up(k link, _ int64) {
	c.link = k
	if c.crowd.raw { // the floor program speaks no HTTP
		k.send([]byte{floorReceiver})
		c.stage = ready
		c.crowd.arrived(c, c.lane.clock.now())
		return
	}
	c.stage = upgrading
	k.send(upgradeRequest(c.crowd.targets[c.node]))
}

// upgradeRequest asks for a WebSocket.
func upgradeRequest(t *target) []byte {
	var nonce [16]byte
	binary.LittleEndian.PutUint64(nonce[:], rand.Uint64())
	binary.LittleEndian.PutUint64(nonce[8:], rand.Uint64())
	b := make([]byte, 0, 256)
	b = append(b, "GET "...)
	b = append(b, t.socketPath...)
	b = append(b, " HTTP/1.1\r\nHost: "...)
	b = append(b, t.host...)
	b = append(b, "\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: "...)
	b = base64.StdEncoding.AppendEncode(b, nonce[:])
	return append(b, "\r\n\r\n"...)
}

func (c *client) timed() bool { return c.extra }

// current returns the link, nil when there is none.
func (c *client) current() link {
	c.lane.mu.Lock()
	defer c.lane.mu.Unlock()
	return c.link
}

func (c *client) down(err error) {
	was := c.stage
	c.stage, c.link, c.rest = gone, nil, nil
	c.crowd.left(c, was, err)
}

// input takes what arrived. Whole frames are handled where they lie.
func (c *client) input(b []byte, now int64) error {
	if len(c.rest) > 0 {
		c.rest = append(c.rest, b...)
		b = c.rest
	}
	if c.stage == upgrading {
		end := bytes.Index(b, []byte("\r\n\r\n"))
		if end < 0 {
			if len(b) > 64<<10 {
				return refusedf("the answer to the WebSocket handshake has no end")
			}
			return c.keep(b)
		}
		if err := checkSwitch(b, end); err != nil {
			return err
		}
		b = b[end+4:]
		c.stage = greeting
	}
	for len(b) >= 2 {
		size, head := int(b[1]), 2
		switch {
		case size == 126:
			if len(b) < 4 {
				return c.keep(b)
			}
			size, head = int(binary.BigEndian.Uint16(b[2:])), 4
		case size == 127:
			if len(b) < 10 {
				return c.keep(b)
			}
			long := binary.BigEndian.Uint64(b[2:])
			if long > maxFrame {
				return refusedf("a frame of %d bytes", long)
			}
			size, head = int(long), 10
		case size >= maskBit:
			return refusedf("a masked frame")
		}
		if len(b) < head+size {
			return c.keep(b)
		}
		if err := c.frame(b[0], b[head:head+size], now); err != nil {
			return err
		}
		b = b[head+size:]
	}
	return c.keep(b)
}

// keep remembers what is unfinished.
func (c *client) keep(b []byte) error {
	c.rest = keep(c.rest, b)
	return nil
}

// keep returns b in memory of its own; b is a tail of rest if that is not
// empty.
func keep(rest, b []byte) []byte {
	switch {
	case len(b) == 0:
		return nil
	case len(b) == len(rest):
		return rest // nothing was taken off it
	}
	return append(rest[:0], b...)
}

// checkSwitch looks at the answer to the handshake.
func checkSwitch(b []byte, end int) error {
	if bytes.HasPrefix(b, []byte("HTTP/1.1 101 ")) {
		return nil
	}
	status, _, _ := bytes.Cut(b[:end], []byte("\r\n"))
	return refusedf("the WebSocket handshake was answered with %q: %s", status, clip(b[end+4:]))
}

// clip shortens what a server sent for an error text.
func clip(b []byte) string {
	const most = 300
	if len(b) > most {
		return string(b[:most]) + "…"
	}
	return string(bytes.TrimSpace(b))
}

func (c *client) frame(first byte, payload []byte, now int64) error {
	switch first {
	case finBit | opText:
		if h := c.hint; len(payload) == c.length && h >= 0 {
			// As long as the message before, with a stamp at the same place: another one.
			if s, ok := readStamp(payload[h:]); ok && c.crowd.plain {
				c.crowd.message(c, s, now)
				return nil
			}
		}
		return c.text(payload, now)
	case finBit | opPing:
		c.link.send(maskedFrame(opPong, payload))
		return nil
	case finBit | opPong:
		return nil
	case finBit | opClose:
		if len(payload) < 2 {
			return refusedf("the server closed the connection without a reason")
		}
		return refusedf("the server closed the connection with %d %s", binary.BigEndian.Uint16(payload), clip(payload[2:]))
	}
	return refusedf("a frame that begins with %#x: fragments and extensions are not understood", first)
}

// text handles a message whose kind is not known yet.
func (c *client) text(payload []byte, now int64) error {
	var event, data protocol.Value
	err := protocol.ScanObject(payload, func(key, v protocol.Value) {
		switch {
		case key.Is("event"):
			event = v
		case key.Is("data"):
			data = v
		}
	})
	if err != nil {
		return refusedf("a message that is not a JSON object: %s", clip(payload))
	}
	switch string(event.Raw) {
	case protocol.EventConnectionEstablished:
		return c.established(data, now)
	case protocol.EventSubscriptionSucceeded:
		c.stage = ready
		c.crowd.arrived(c, now)
	case protocol.EventPing:
		c.link.send(pongFrame)
	case protocol.EventPong:
		if len(c.pings) > 0 {
			if w := c.lane.at(c.pings[0]); w != nil {
				w.ping.add(now - c.pings[0])
			}
			c.pings = c.pings[1:]
		}
	case protocol.EventError, protocol.EventSubscriptionError:
		return c.crowd.complaint(c, data.Text())
	default:
		at := bytes.Index(payload, []byte(stampLead))
		if at < 0 {
			return nil // subscription counts and the like
		}
		if s, ok := readStamp(payload[at:]); ok {
			c.hint, c.length = at, len(payload)
			c.crowd.event(c, string(event.Raw), s, now)
		}
	}
	return nil
}

var (
	pongFrame = maskedFrame(opText, []byte(protocol.Pong))
	pingFrame = maskedFrame(opText, []byte(protocol.Ping))
)

// established reads the socket id and subscribes.
func (c *client) established(data protocol.Value, now int64) error {
	text := data.Raw
	if data.Kind == protocol.String {
		text = []byte(data.Text())
	}
	err := protocol.ScanObject(text, func(key, v protocol.Value) {
		if key.Is("socket_id") {
			c.socketID = v.Text()
		}
	})
	if err != nil || c.socketID == "" {
		return refusedf("connection_established without a socket_id: %s", clip(text))
	}
	c.stage = subscribing
	if c.channel == "" {
		c.stage = ready
	}
	c.crowd.greeted(c, now)
	if c.channel != "" {
		c.subscribe(now)
	}
	return nil
}

// subscribe asks for the client's channel; asked is when it should have.
func (c *client) subscribe(asked int64) {
	c.asked, c.stage = asked, subscribing
	b := append(make([]byte, 0, 256), `{"event":"pusher:subscribe","data":{"channel":`...)
	b = protocol.AppendString(b, c.channel)
	if kind := protocol.KindOf(c.channel); kind.Is(protocol.Private) {
		var data *string
		if kind.Is(protocol.Presence) {
			data = &c.member
			b = append(b, `,"channel_data":`...)
			b = protocol.AppendString(b, c.member)
		}
		b = append(b, `,"auth":`...)
		b = protocol.AppendString(b, sign.Channel(c.crowd.app.key, c.crowd.app.secret, c.socketID, c.channel, data))
	}
	c.link.send(maskedFrame(opText, append(b, "}}"...)))
}

func (c *client) unsubscribe() {
	b := append(make([]byte, 0, 128), `{"event":"pusher:unsubscribe","data":{"channel":`...)
	b = protocol.AppendString(b, c.channel)
	c.link.send(maskedFrame(opText, append(b, "}}"...)))
}

// maskedFrame returns a frame as clients send it.
func maskedFrame(opcode byte, payload []byte) []byte {
	b := append(make([]byte, 0, len(payload)+14), finBit|opcode)
	switch n := len(payload); {
	case n <= 125:
		b = append(b, maskBit|byte(n))
	case n <= 0xffff:
		b = binary.BigEndian.AppendUint16(append(b, maskBit|126), uint16(n))
	default:
		b = binary.BigEndian.AppendUint64(append(b, maskBit|127), uint64(n))
	}
	var key [4]byte
	binary.LittleEndian.PutUint32(key[:], rand.Uint32())
	b = append(b, key[:]...)
	for i, p := range payload {
		b = append(b, p^key[i&3])
	}
	return b
}

// why names the stage at which a connection failed.
func (c *client) why(was stage, err error) error {
	if errors.As(err, new(*errRefused)) {
		return err
	}
	return fmt.Errorf("while %s: %w", stageNames[was], err)
}

// memberData returns the channel_data of member i of presence channels.
func memberData(i int) string { return `{"user_id":"m` + strconv.Itoa(i) + `"}` }

// channelName returns the name of channel i.
func channelName(kind string, i int) string {
	prefix := ""
	if kind != "public" {
		prefix = kind + "-"
	}
	return prefix + "bench-" + strconv.Itoa(i)
}
