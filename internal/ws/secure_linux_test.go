package ws

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/tls"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"net"
	"strings"
	"testing"
	"time"
)

// A keyUpdater is a TLS 1.3 client that makes its own records, which crypto/tls
// has no call for.
type keyUpdater struct {
	t      *testing.T
	secret []byte
	aead   cipher.AEAD
	iv     []byte
	seq    uint64
	out    []byte // records to be sent
}

// newKeyUpdater shakes hands on a connection and takes over from crypto/tls.
func newKeyUpdater(t *testing.T, nc net.Conn) *keyUpdater {
	t.Helper()
	var log bytes.Buffer
	c := tls.Client(nc, &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS13, KeyLogWriter: &log})
	if err := c.Handshake(); err != nil {
		t.Fatal(err)
	}
	if suite := c.ConnectionState().CipherSuite; suite != tls.TLS_AES_128_GCM_SHA256 {
		t.Fatalf("cipher suite %s is not expected here", tls.CipherSuiteName(suite))
	}
	for line := range strings.Lines(log.String()) {
		if f := strings.Fields(line); f[0] == "CLIENT_TRAFFIC_SECRET_0" {
			secret, err := hex.DecodeString(f[2])
			if err != nil {
				t.Fatal(err)
			}
			u := &keyUpdater{t: t}
			u.use(secret)
			return u
		}
	}
	t.Fatal("no secret of the client")
	return nil
}

// use goes on with another secret.
func (u *keyUpdater) use(secret []byte) {
	u.secret, u.seq, u.iv = secret, 0, u.expand(secret, "iv", 12)
	block, err := aes.NewCipher(u.expand(secret, "key", 16))
	if err != nil {
		u.t.Fatal(err)
	}
	if u.aead, err = cipher.NewGCM(block); err != nil {
		u.t.Fatal(err)
	}
}

// expand is HKDF-Expand-Label of RFC 8446, 7.1.
func (u *keyUpdater) expand(secret []byte, label string, size int) []byte {
	label = "tls13 " + label
	info := append([]byte{byte(size >> 8), byte(size), byte(len(label))}, label...)
	out, err := hkdf.Expand(sha256.New, secret, string(append(info, 0)), size)
	if err != nil {
		u.t.Fatal(err)
	}
	return out
}

func (u *keyUpdater) record(kind byte, content []byte) {
	nonce := bytes.Clone(u.iv)
	for i, b := range binary.BigEndian.AppendUint64(nil, u.seq) {
		nonce[4+i] ^= b
	}
	u.seq++
	size := len(content) + 1 + u.aead.Overhead()
	head := []byte{23, 3, 3, byte(size >> 8), byte(size)}
	u.out = append(u.out, head...)
	u.out = u.aead.Seal(u.out, nonce, append(bytes.Clone(content), kind), head)
}

func (u *keyUpdater) data(b []byte) { u.record(23, b) }

// update has both sides change their keys, which the other one has to say.
func (u *keyUpdater) update() {
	u.record(22, []byte{24, 0, 0, 1, 1})
	u.use(u.expand(u.secret, "traffic upd", 32))
}

// A client makes TLS itself answer, and reads none of it: nothing of that is in
// the queue of the connection, and is bounded all the same.
func TestAnswersOfTLSToAClientThatDoesNotReadAreBounded(t *testing.T) {
	t.Run("tls-poll", func(t *testing.T) {
		conns := make(chan *Conn, 1)
		h := &echo{open: func(c *Conn) { conns <- c }, closed: make(chan error, 1)}
		_, addr := startTight(t, Options{}, handled(h))
		nc, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		_ = nc.SetDeadline(time.Now().Add(deadline))
		u := newKeyUpdater(t, nc)
		u.data([]byte(upgradeRequest))
		message := raw(finBit|opText, make([]byte, 60_000))
		u.data(message[:8])
		for i := 0; i < 20_000 && len(h.closed) == 0; i++ {
			u.data(message[8+i : 9+i]) // or crypto/tls finds that nothing comes of the rest
			for range 15 {
				u.update()
			}
			if _, err := nc.Write(u.out); err != nil {
				break
			}
			u.out = u.out[:0]
		}
		c := <-conns
		if err := waitClosed(t, h.closed); !errors.Is(err, ErrSlow) {
			t.Errorf("err = %v", err)
		}
		c.secure.pipe.mu.Lock()
		defer c.secure.pipe.mu.Unlock()
		if n := len(c.secure.pipe.rest); n > maxRest {
			t.Errorf("%d bytes were kept, want at most %d", n, maxRest)
		}
	})
}

// The last record of a queue that the socket did not take is not in the queue
// any more: what follows it has its time all the same.
func TestAgeOfAQueueBehindTheRestOfARecordIsBounded(t *testing.T) {
	t.Run("tls-poll", func(t *testing.T) {
		conns := make(chan *Conn, 1)
		h := &echo{open: func(c *Conn) { conns <- c }, closed: make(chan error, 1)}
		_, addr := startTight(t, Options{MaxQueueAge: 300 * time.Millisecond, CloseTimeout: 200 * time.Millisecond}, handled(h))
		p := connect(t, addr)
		_ = tcp(p.Conn).SetReadBuffer(4 << 10)
		c := <-conns
		stuck := func() bool {
			for range 100 {
				c.mu.Lock()
				blocked := c.blocked
				c.mu.Unlock()
				if !blocked {
					return false
				}
				time.Sleep(time.Millisecond)
			}
			return true
		}
		for f := TextFrame(make([]byte, 15<<10)); !stuck(); {
			if !c.Send(f) {
				break
			}
			eventually(t, func() bool { return c.QueuedBytes() == 0 })
		}
		c.Send(TextFrame([]byte("more")))
		if err := waitClosed(t, h.closed); !errors.Is(err, ErrSlow) {
			t.Errorf("err = %v", err)
		}
	})
}

// A corked connection keeps what is written until it is let go.
type corked struct {
	net.Conn
	on   bool
	kept bytes.Buffer
}

func (c *corked) Write(b []byte) (int, error) {
	if c.on {
		return c.kept.Write(b)
	}
	return c.Conn.Write(b)
}

func TestWhatCameTogetherWithTheEndOfTLSIsHandled(t *testing.T) {
	for _, tr := range transports {
		t.Run("tls-"+tr.name, func(t *testing.T) {
			release, seen := make(chan struct{}), make(chan struct{})
			h := &echo{closed: make(chan error, 1), on: func(c *Conn, payload []byte) {
				switch string(payload) {
				case "wait":
					c.Await(func() { <-release })
				case "last":
					close(seen)
				}
			}}
			_, addr := start(t, Options{ForceStream: tr.stream}, handled(h))
			nc, err := net.Dial("tcp", addr)
			if err != nil {
				t.Fatal(err)
			}
			defer nc.Close()
			cork := &corked{Conn: nc}
			// With this version crypto/tls sees the end behind the last record.
			c := tls.Client(cork, &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12})
			if _, err := c.Write([]byte(upgradeRequest)); err != nil {
				t.Fatal(err)
			}
			if err := skipResponse(c); err != nil {
				t.Fatal(err)
			}
			cork.on = true
			if _, err := c.Write(cat(text("wait"), text("last"))); err != nil {
				t.Fatal(err)
			}
			if err := c.CloseWrite(); err != nil {
				t.Fatal(err)
			}
			_ = nc.SetWriteDeadline(time.Time{}) // which CloseWrite has set
			if _, err := nc.Write(cork.kept.Bytes()); err != nil {
				t.Fatal(err)
			}
			close(release)
			waitClosed(t, h.closed)
			select {
			case <-seen:
			default:
				t.Error("the last message was not handled")
			}
		})
	}
}

func TestOldestTLSHandshakeGivesWay(t *testing.T) {
	for _, tr := range transports {
		t.Run("tls-"+tr.name, func(t *testing.T) {
			s, addr := start(t, Options{ForceStream: tr.stream, MaxHandshakes: 2}, handled(&echo{}))
			var silent []net.Conn
			for i := range 2 {
				nc, err := net.Dial("tcp", addr)
				if err != nil {
					t.Fatal(err)
				}
				defer nc.Close()
				silent = append(silent, nc)
				eventually(t, func() bool { return s.Stats().Handshakes == i+1 })
			}
			p := connect(t, addr)
			p.send(text("served"))
			p.expect(opText, "served")
			_ = silent[0].SetReadDeadline(time.Now().Add(deadline))
			if _, err := silent[0].Read(make([]byte, 1)); err == nil || isTimeout(err) {
				t.Errorf("the oldest handshake: %v", err)
			}
			if st := s.Stats(); st.Crowded != 1 || st.Handshakes != 1 {
				t.Errorf("stats %+v", st)
			}
		})
	}
}

func isTimeout(err error) bool {
	ne, ok := errors.AsType[net.Error](err)
	return ok && ne.Timeout()
}

func TestTLSHandshakeHasItsTime(t *testing.T) {
	t.Run("tls-poll", func(t *testing.T) {
		s, addr := start(t, Options{HandshakeTimeout: 100 * time.Millisecond}, handled(&echo{}))
		nc, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		_ = nc.SetReadDeadline(time.Now().Add(deadline))
		if _, err := nc.Read(make([]byte, 1)); err == nil || isTimeout(err) {
			t.Errorf("err = %v", err)
		}
		eventually(t, func() bool { return s.Stats().Handshakes == 0 })
	})
}
