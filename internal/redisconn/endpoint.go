// Package redisconn makes Redis clients from endpoint settings: one server,
// the master that Sentinels name, or a Redis Cluster.
package redisconn

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"strconv"
	"strings"
)

const defaultPort = "6379"

// An Endpoint is where and how Redis is reached. It prints without credentials.
type Endpoint struct {
	Network  string   // tcp or unix; empty: tcp
	Addrs    []string // one server, the seeds of a cluster, or Sentinels: host:port, or the path of a socket
	Cluster  bool     // Addrs are seeds of a Redis Cluster
	Master   string   // not empty: Addrs are Sentinels, and this is the master they watch
	TLS      bool     // with Sentinels: both they and the servers they name
	Insecure bool     // certificates are not verified
	Username string
	Password string
	DB       int // not with Cluster

	SentinelPassword string
}

// String describes the endpoint without credentials.
func (e Endpoint) String() string {
	kind := "redis"
	switch {
	case e.Cluster:
		kind = "redis cluster"
	case e.Master != "":
		kind = fmt.Sprintf("redis master %q of sentinels", e.Master)
	}
	s := kind + " " + strings.Join(e.Addrs, ", ")
	if e.DB != 0 {
		s += " db " + strconv.Itoa(e.DB)
	}
	if e.TLS {
		s += " with TLS"
	}
	return s
}

// GoString hides credentials from %#v.
func (e Endpoint) GoString() string { return "redisconn.Endpoint{" + e.String() + "}" }

// LogValue hides credentials from slog.
func (e Endpoint) LogValue() slog.Value { return slog.StringValue(e.String()) }

var errURL = errors.New("redisconn: expected redis://[user[:password]@]host[:port][/db], rediss://… or unix:///path")

// Parse reads a URL of configuration section 5.6:
// redis://[user[:password]@]host[:port][/db], the same with rediss for TLS
// (#insecure: unverified), or unix:///path[?user=&pass=&db=]. The error never
// repeats the URL.
func Parse(raw string) (Endpoint, error) {
	u, err := url.Parse(strings.TrimSpace(raw))
	if err != nil {
		return Endpoint{}, errURL // the cause may repeat a password
	}
	password, _ := u.User.Password()
	e := Endpoint{Network: "tcp", Username: u.User.Username(), Password: password}
	switch u.Scheme {
	case "redis":
	case "rediss":
		e.TLS, e.Insecure = true, u.Fragment == "insecure"
	case "unix", "redis+unix":
		return parseSocket(e, u)
	default:
		return Endpoint{}, errURL
	}
	if u.Hostname() == "" {
		return Endpoint{}, errURL
	}
	port := cmp.Or(u.Port(), defaultPort)
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return Endpoint{}, errors.New("redisconn: the port is not from 1 to 65535")
	}
	e.Addrs = []string{net.JoinHostPort(u.Hostname(), port)}
	e.DB, err = parseDB(strings.Trim(u.Path, "/"))
	return e, err
}

func parseSocket(e Endpoint, u *url.URL) (Endpoint, error) {
	if u.Host != "" || !strings.HasPrefix(u.Path, "/") || u.Path == "/" {
		return Endpoint{}, errURL
	}
	q := u.Query()
	e.Network, e.Addrs = "unix", []string{u.Path}
	e.Username = cmp.Or(e.Username, q.Get("user"))
	e.Password = cmp.Or(e.Password, q.Get("pass"))
	var err error
	e.DB, err = parseDB(q.Get("db"))
	return e, err
}

func parseDB(s string) (int, error) {
	if s == "" {
		return 0, nil
	}
	n, err := strconv.ParseUint(s, 10, 31)
	if err != nil {
		return 0, errors.New("redisconn: the database is no number")
	}
	return int(n), nil
}
