package bench

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"time"
)

// dripEvery is the pause between two bytes of a client that sends one at a time.
const dripEvery = 200 * time.Microsecond

// startPests connects clients that flood and clients that drip, to see what
// they cost the others. The returned function ends them and may be called twice.
func (m *measurement) startPests(ctx context.Context) (stop func(), err error) {
	o := m.opts
	if o.Floods+o.Drips == 0 || m.crowd.raw {
		return func() {}, nil
	}
	ctx, cancel := context.WithCancel(ctx)
	var work sync.WaitGroup
	stop = func() { cancel(); work.Wait() }
	for i := range o.Floods + o.Drips {
		nc, answers, err := dialPest(ctx, m.crowd.targets[i%len(m.crowd.targets)])
		if err != nil {
			stop()
			return nil, fmt.Errorf("a client that is to flood or drip: %w", err)
		}
		context.AfterFunc(ctx, func() { _ = nc.Close() }) // ends both
		work.Go(func() { _, _ = io.Copy(io.Discard, answers) })
		pest := flood
		if i >= o.Floods {
			pest = drip
		}
		work.Go(func() {
			if err := pest(nc); ctx.Err() == nil {
				m.crowd.note("a client that floods or drips was thrown out: " + err.Error())
			}
		})
	}
	return stop, nil
}

// dialPest makes a WebSocket of net's, whose writes wait.
func dialPest(ctx context.Context, t *target) (nc net.Conn, answers io.Reader, err error) {
	if nc, err = new(net.Dialer).DialContext(ctx, "tcp", t.addr.String()); err != nil {
		return nil, nil, err
	}
	if t.tls != nil {
		nc = tls.Client(nc, t.tls)
	}
	br := bufio.NewReader(nc)
	var resp *http.Response
	if _, err = nc.Write(upgradeRequest(t)); err == nil {
		resp, err = http.ReadResponse(br, nil)
	}
	if err == nil && resp.StatusCode != http.StatusSwitchingProtocols {
		err = fmt.Errorf("the WebSocket handshake was answered with %s", resp.Status)
	}
	if err != nil {
		_ = nc.Close()
		return nil, nil, err
	}
	return nc, br, nil
}

// flood sends pings as fast as they are taken.
func flood(nc net.Conn) error {
	for b := bytes.Repeat(pingFrame, 1000); ; {
		if _, err := nc.Write(b); err != nil {
			return err
		}
	}
}

// drip sends pings a byte at a time.
func drip(nc net.Conn) error {
	for i := 0; ; i = (i + 1) % len(pingFrame) {
		if _, err := nc.Write(pingFrame[i : i+1]); err != nil {
			return err
		}
		time.Sleep(dripEvery)
	}
}
