package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"

	"sockudo/internal/app"
)

// maxAnswer bounds what a caller reads.
const maxAnswer = 64 << 20

// A Client asks the listener of one node.
type Client struct {
	URL   string     // http://host:port; "": Network and Address say where
	Token app.Secret // "": none is sent

	Network, Address string // as net.Dial wants them
}

// String says where the listener is.
func (c *Client) String() string {
	if c.URL != "" {
		return c.URL
	}
	return c.Address
}

// ErrRefused is an answer that is not 200.
var ErrRefused = errors.New("refused")

// Status asks GET /cluster/status.
func (c *Client) Status(ctx context.Context) (s Status, err error) {
	return s, c.call(ctx, http.MethodGet, "/cluster/status", nil, &s)
}

// Audit asks GET /cluster/audit.
func (c *Client) Audit(ctx context.Context) (a Audit, err error) {
	return a, c.call(ctx, http.MethodGet, "/cluster/audit", nil, &a)
}

// Changed tells a node and its peers which apps have changed, in as many
// requests as that takes.
func (c *Client) Changed(ctx context.Context, apps []string) (t Told, err error) {
	for len(apps) > 0 && err == nil {
		n := min(len(apps), MaxApps)
		err = c.call(ctx, http.MethodPost, "/apps/changed", Changed{apps[:n]}, &t)
		apps = apps[n:]
	}
	return t, err
}

func (c *Client) call(ctx context.Context, method, path string, in, out any) error {
	body, err := json.Marshal(in)
	if err != nil {
		return err
	}
	base := c.URL
	// The token goes to the one address that it was meant for: past proxies, and
	// without redirections.
	transport := &http.Transport{DisableKeepAlives: true}
	if base == "" {
		base = "http://localhost"
		if c.Network != "unix" {
			base = "http://" + c.Address
		}
		transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, c.Network, c.Address)
		}
	}
	client := &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	req, err := http.NewRequestWithContext(ctx, method, base+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	if in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if c.Token != "" {
		req.Header.Set("Authorization", "Bearer "+c.Token.Reveal())
	}
	resp, err := client.Do(req)
	if err != nil {
		if u, ok := errors.AsType[*url.Error](err); ok {
			err = u.Err
		}
		return fmt.Errorf("admin listener at %s: %w", c, err)
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return fmt.Errorf("admin listener at %s: %w", c, err)
	}
	if resp.StatusCode != http.StatusOK {
		var p problem
		if json.Unmarshal(text, &p) != nil || p.Error == "" {
			p.Error = "this does not look like an admin listener"
		}
		return fmt.Errorf("admin listener at %s: %w: %s: %s", c, ErrRefused, resp.Status, p.Error)
	}
	var who Identity
	if json.Unmarshal(text, &who) != nil || who.Driver == "" || json.Unmarshal(text, out) != nil {
		return fmt.Errorf("admin listener at %s: this does not look like one", c)
	}
	return nil
}
