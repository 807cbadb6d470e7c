package ws

import (
	"bufio"
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"sync"
	"time"
)

// DialOptions are the parts of a client that have a default.
type DialOptions struct {
	Header  http.Header   // sent with the request
	TLS     *tls.Config   // for wss; nil: the system's roots
	Network string        // of Dial; "": tcp
	Address string        // dialled instead of the URL's host; "": the URL's
	Timeout time.Duration // of dialling and the handshake; 0: 10 s
}

// A Client is the client end of a connection: plain and blocking, for tools.
type Client struct {
	nc net.Conn
	br *bufio.Reader

	mu sync.Mutex // held while writing
}

// Dial connects to a ws or wss URL.
func Dial(ctx context.Context, rawURL string, opts DialOptions) (*Client, error) {
	u, err := url.Parse(rawURL)
	if err != nil {
		return nil, err
	}
	if u.Scheme != "ws" && u.Scheme != "wss" {
		return nil, fmt.Errorf("websocket: %q is neither ws nor wss", u.Scheme)
	}
	def(&opts.Timeout, 10*time.Second)
	ctx, cancel := context.WithTimeout(ctx, opts.Timeout)
	defer cancel()
	nc, err := dial(ctx, u, opts)
	if err != nil {
		return nil, err
	}
	c := &Client{nc: nc, br: bufio.NewReader(nc)}
	stop := context.AfterFunc(ctx, func() { _ = nc.SetDeadline(time.Now()) })
	defer stop()
	if err := c.handshake(u, opts.Header); err != nil {
		return nil, errors.Join(err, nc.Close())
	}
	return c, nil
}

func dial(ctx context.Context, u *url.URL, opts DialOptions) (net.Conn, error) {
	network, address := opts.Network, opts.Address
	def(&network, "tcp")
	if address == "" {
		port := u.Port()
		if port == "" {
			port = map[string]string{"ws": "80", "wss": "443"}[u.Scheme]
		}
		address = net.JoinHostPort(u.Hostname(), port)
	}
	if u.Scheme == "wss" {
		conf := opts.TLS.Clone()
		if conf == nil {
			conf = &tls.Config{}
		}
		if conf.ServerName == "" {
			conf.ServerName = u.Hostname()
		}
		d := tls.Dialer{Config: conf}
		return d.DialContext(ctx, network, address)
	}
	var d net.Dialer
	return d.DialContext(ctx, network, address)
}

func (c *Client) handshake(u *url.URL, header http.Header) error {
	var nonce [16]byte
	_, _ = rand.Read(nonce[:]) // never fails
	key := base64.StdEncoding.EncodeToString(nonce[:])
	r := &http.Request{Method: http.MethodGet, URL: u, Host: u.Host, Header: header.Clone(), ProtoMajor: 1, ProtoMinor: 1}
	if r.Header == nil {
		r.Header = http.Header{}
	}
	r.Header.Set("Upgrade", "websocket")
	r.Header.Set("Connection", "Upgrade")
	r.Header.Set("Sec-WebSocket-Key", key)
	r.Header.Set("Sec-WebSocket-Version", "13")
	if err := r.Write(c.nc); err != nil {
		return err
	}
	resp, err := http.ReadResponse(c.br, r)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusSwitchingProtocols {
		body, _ := io.ReadAll(io.LimitReader(resp.Body, 512))
		return fmt.Errorf("websocket: the server answers %s: %s", resp.Status, body)
	}
	if got := resp.Header.Get("Sec-WebSocket-Accept"); got != acceptKey(key) {
		return fmt.Errorf("websocket: the server answers our key with %q", got)
	}
	return nil
}

// Read returns the next message, in memory of its own. It answers pings by itself and returns a
// *CloseError when the server closed the connection.
func (c *Client) Read() ([]byte, error) {
	var message []byte
	for {
		fin, opcode, payload, err := c.frame()
		if err != nil {
			return nil, err
		}
		switch opcode {
		case opPing:
			if err := c.write(opPong, payload); err != nil {
				return nil, err
			}
		case opClose:
			code, reason, _ := parseClose(payload)
			_ = c.write(opClose, payload[:min(len(payload), 2)]) // the server may be gone
			return nil, &CloseError{code, reason}
		case opText, opBinary, opContinuation:
			message = append(message, payload...)
			if fin {
				return message, nil
			}
		}
	}
}

func (c *Client) frame() (fin bool, opcode byte, payload []byte, err error) {
	var head [8]byte
	if _, err := io.ReadFull(c.br, head[:2]); err != nil {
		return false, 0, nil, err
	}
	fin, opcode = head[0]&finBit != 0, head[0]&0x0f
	size := uint64(head[1] &^ maskBit)
	switch size {
	case 126:
		if _, err := io.ReadFull(c.br, head[:2]); err != nil {
			return false, 0, nil, err
		}
		size = uint64(binary.BigEndian.Uint16(head[:]))
	case 127:
		if _, err := io.ReadFull(c.br, head[:]); err != nil {
			return false, 0, nil, err
		}
		size = binary.BigEndian.Uint64(head[:])
	}
	if size > 64<<20 {
		return false, 0, nil, errTooLarge
	}
	payload = make([]byte, size)
	_, err = io.ReadFull(c.br, payload)
	return fin, opcode, payload, err
}

// Write sends a text message.
func (c *Client) Write(message []byte) error { return c.write(opText, message) }

func (c *Client) write(opcode byte, payload []byte) error {
	b := appendHeader(make([]byte, 0, len(payload)+14), opcode, len(payload))
	b[1] |= maskBit
	var key [4]byte
	_, _ = rand.Read(key[:]) // never fails
	b = append(b, key[:]...)
	start := len(b)
	b = append(b, payload...)
	mask(b[start:], key)
	c.mu.Lock()
	defer c.mu.Unlock()
	_, err := c.nc.Write(b)
	return err
}

// Close says goodbye with 1000 and hangs up.
func (c *Client) Close() error {
	_ = c.write(opClose, []byte{0x03, 0xe8}) // the server may be gone
	return c.nc.Close()
}
