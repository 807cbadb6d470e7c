package bench

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	brokerTimeout = 5 * time.Second // of a connect, and of each answer
	brokerRate    = 50              // round trips per second that are measured
)

// The schemes of --broker.
const (
	schemeRedis   = "redis"
	schemeCluster = "redis-cluster"
	schemeNATS    = "nats"
)

// parseBroker reads the value of --broker. Its errors do not repeat it, as it
// may hold a password.
func parseBroker(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	if err != nil {
		return nil, errors.New("--broker is no URL")
	}
	if !slices.Contains([]string{schemeRedis, schemeCluster, schemeNATS}, u.Scheme) {
		return nil, fmt.Errorf("--broker has the scheme %q: it must be %s, %s or %s", u.Scheme, schemeRedis, schemeCluster, schemeNATS)
	}
	if u.Hostname() == "" || u.Port() == "" {
		return nil, fmt.Errorf("--broker must be like %s://HOST:PORT", u.Scheme)
	}
	return u, nil
}

// A courier sends messages to itself through a broker, with nothing around
// them: it takes what the broker takes.
type courier struct {
	topic   string
	out, in net.Conn      // the same with NATS, which returns messages to their sender
	from    *bufio.Reader // of out
	r       *bufio.Reader // of in
	nats    bool
	verb    string // PUBLISH or SPUBLISH
}

// openCourier connects to a broker and subscribes.
func openCourier(ctx context.Context, u *url.URL) (*courier, error) {
	c := &courier{topic: "sockudo-bench-" + randomHex(), nats: u.Scheme == schemeNATS, verb: "PUBLISH"}
	subscribe := "SUBSCRIBE"
	if u.Scheme == schemeCluster {
		c.verb, subscribe = "SPUBLISH", "SSUBSCRIBE"
	}
	err := c.connect(ctx, u, u.Host)
	if err == nil && c.nats {
		err = c.subscribeNATS()
	} else if err == nil {
		err = c.command(c.in, subscribe, c.topic)
		var line string
		if err == nil {
			line, err = c.reply(c.r)
		}
		// The topic belongs to another server of the cluster.
		if moved, ok := strings.CutPrefix(line, "-MOVED "); ok {
			_, host, _ := strings.Cut(moved, " ")
			c.close()
			if err = c.connect(ctx, u, host); err == nil {
				err = c.command(c.in, subscribe, c.topic)
			}
			if err == nil {
				line, err = c.reply(c.r)
			}
		}
		if err == nil && !strings.HasPrefix(line, "*") {
			err = fmt.Errorf("%s: %s", subscribe, line)
		}
		if err == nil { // the kind, the topic and how many there are
			err = c.skip(c.r, 3)
		}
	}
	if err != nil {
		c.close()
		return nil, fmt.Errorf("--broker: %s: %w", u.Redacted(), err)
	}
	return c, nil
}

func (c *courier) close() {
	for _, conn := range []net.Conn{c.out, c.in} {
		if conn != nil {
			_ = conn.Close()
		}
	}
}

// connect opens the connections.
func (c *courier) connect(ctx context.Context, u *url.URL, host string) error {
	d := net.Dialer{Timeout: brokerTimeout}
	open := func() (net.Conn, *bufio.Reader, error) {
		conn, err := d.DialContext(ctx, "tcp", host)
		if err != nil {
			return nil, nil, err
		}
		_ = conn.SetDeadline(time.Now().Add(brokerTimeout))
		r := bufio.NewReaderSize(conn, 64<<10)
		if err := c.greet(conn, r, u); err != nil {
			_ = conn.Close()
			return nil, nil, err
		}
		return conn, r, nil
	}
	var err error
	if c.out, c.from, err = open(); err != nil {
		return err
	}
	if c.in, c.r = c.out, c.from; !c.nats {
		c.in, c.r, err = open()
	}
	return err
}

// greet says who we are.
func (c *courier) greet(conn net.Conn, r *bufio.Reader, u *url.URL) error {
	password, secret := u.User.Password()
	if !c.nats {
		if !secret {
			return nil
		}
		words := []string{"AUTH", password}
		if name := u.User.Username(); name != "" {
			words = []string{"AUTH", name, password}
		}
		if err := c.command(conn, words...); err != nil {
			return err
		}
		line, err := c.reply(r)
		if err == nil && line != "+OK" {
			err = errors.New(line)
		}
		return err
	}
	if _, err := r.ReadString('\n'); err != nil { // INFO
		return err
	}
	hello := `{"verbose":false,"lang":"go","version":"0","protocol":1}`
	if secret {
		hello = fmt.Sprintf(`{"verbose":false,"lang":"go","version":"0","protocol":1,"user":%q,"pass":%q}`, u.User.Username(), password)
	}
	if _, err := fmt.Fprintf(conn, "CONNECT %s\r\nPING\r\n", hello); err != nil {
		return err
	}
	return c.await(r, conn, "PONG")
}

// subscribeNATS subscribes; the answer to a ping comes behind it.
func (c *courier) subscribeNATS() error {
	if _, err := fmt.Fprintf(c.in, "SUB %s 1\r\nPING\r\n", c.topic); err != nil {
		return err
	}
	return c.await(c.r, c.in, "PONG")
}

// await reads lines of NATS up to one.
func (c *courier) await(r *bufio.Reader, conn net.Conn, want string) error {
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return err
		}
		switch line = strings.TrimSpace(line); {
		case line == want:
			return nil
		case line == "PING":
			if _, err := io.WriteString(conn, "PONG\r\n"); err != nil {
				return err
			}
		case strings.HasPrefix(line, "-ERR"):
			return errors.New(line)
		}
	}
}

// command sends a command of Redis.
func (c *courier) command(conn net.Conn, words ...string) error {
	b := fmt.Appendf(nil, "*%d\r\n", len(words))
	for _, w := range words {
		b = fmt.Appendf(b, "$%d\r\n%s\r\n", len(w), w)
	}
	_, err := conn.Write(b)
	return err
}

// reply reads a line of Redis.
func (c *courier) reply(r *bufio.Reader) (string, error) {
	line, err := r.ReadString('\n')
	return strings.TrimSpace(line), err
}

// skip reads values of Redis that are texts or numbers.
func (c *courier) skip(r *bufio.Reader, n int) error {
	for range n {
		line, err := c.reply(r)
		if err != nil {
			return err
		}
		if size, ok := strings.CutPrefix(line, "$"); ok {
			n, err := strconv.Atoi(size)
			if err != nil {
				return err
			}
			if _, err := r.Discard(n + len("\r\n")); err != nil {
				return err
			}
		}
	}
	return nil
}

// trip sends a message and returns when it has arrived.
func (c *courier) trip(payload []byte) error {
	end := time.Now().Add(brokerTimeout)
	_ = c.out.SetDeadline(end)
	_ = c.in.SetDeadline(end)
	var b []byte
	if c.nats {
		b = fmt.Appendf(nil, "PUB %s %d\r\n", c.topic, len(payload))
	} else {
		b = fmt.Appendf(nil, "*3\r\n$%d\r\n%s\r\n$%d\r\n%s\r\n$%d\r\n", len(c.verb), c.verb, len(c.topic), c.topic, len(payload))
	}
	b = append(append(b, payload...), "\r\n"...)
	if _, err := c.out.Write(b); err != nil {
		return err
	}
	if c.nats {
		return c.arrived(len(payload))
	}
	line, err := c.reply(c.r)
	if err == nil && line != "*3" {
		err = fmt.Errorf("the answer is %q", line)
	}
	if err == nil {
		err = c.skip(c.r, 3)
	}
	if err == nil {
		err = c.skip(c.from, 1) // to how many it went
	}
	return err
}

// arrived reads a message of NATS of a size.
func (c *courier) arrived(size int) error {
	for {
		line, err := c.r.ReadSlice('\n')
		if err != nil {
			return err
		}
		switch {
		case bytes.HasPrefix(line, []byte("MSG ")):
			_, err := c.r.Discard(size + len("\r\n"))
			return err
		case bytes.HasPrefix(line, []byte("PING")):
			if _, err := io.WriteString(c.in, "PONG\r\n"); err != nil {
				return err
			}
		case bytes.HasPrefix(line, []byte("-ERR")):
			return errors.New(strings.TrimSpace(string(line)))
		}
	}
}

// A brokerProbe measures the round trips of a broker during a run.
type brokerProbe struct {
	cancel context.CancelFunc
	work   sync.WaitGroup
	trips  hist
}

// probeBroker begins to measure what is due in a window.
func (m *measurement) probeBroker(ctx context.Context, w *window) (*brokerProbe, error) {
	p := &brokerProbe{cancel: func() {}}
	if m.opts.Broker == "" {
		return p, nil
	}
	u, err := parseBroker(m.opts.Broker)
	if err != nil {
		return nil, err
	}
	c, err := openCourier(ctx, u)
	if err != nil {
		return nil, err
	}
	cr := m.crowd
	pace, err := newPacer(cr.clock)
	if err != nil {
		c.close()
		return nil, err
	}
	ctx, p.cancel = context.WithCancel(ctx)
	stop := context.AfterFunc(ctx, pace.close)
	payload := bytes.Repeat([]byte("x"), m.opts.Payload)
	p.work.Go(func() {
		defer c.close()
		defer pace.close()
		defer stop()
		at := w.from
		if m.opts.Rate > 0 { // between two publishes, so that it does not wait for their work
			at += int64(float64(time.Second) / m.opts.Rate / 2)
		}
		for ; at < w.to && pace.until(at); at += int64(time.Second) / brokerRate {
			begin := cr.clock.now()
			err := c.trip(payload)
			p.trips.add(cr.clock.now() - begin)
			if err != nil {
				if ctx.Err() == nil {
					cr.fail(fmt.Errorf("--broker: %w", err))
				}
				return
			}
		}
	})
	return p, nil
}

// stop ends the measuring; it may be called twice.
func (p *brokerProbe) stop() {
	p.cancel()
	p.work.Wait()
}

// addBroker adds what the broker takes, and what messages take beyond that.
func (m *measurement) addBroker(p *brokerProbe, w *window) {
	m.addHist(&p.trips, "broker", "broker round trip", 0.5, 0.99, 1)
	if p.trips.n > 0 && w.last.n > 0 {
		m.add("beyond_broker_p50_ms", "last receiver p50 less broker p50", Millis, millis(w.last.quantile(0.5)-p.trips.quantile(0.5)))
	}
}
