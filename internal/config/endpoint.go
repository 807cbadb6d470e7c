package config

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"
)

const (
	defaultRedisPort    = 6379
	defaultSentinelPort = 26379
)

// A RedisEndpoint is where and how one component reaches Redis.
type RedisEndpoint struct {
	Network  string   // tcp or unix
	Addrs    []string // one server, the seeds of a cluster, or Sentinels: host:port, or the path of a socket
	Cluster  bool     // Addrs are seeds of a Redis Cluster
	Master   string   // not empty: Addrs are Sentinels and this is the master they watch
	TLS      bool     // with Sentinels: both they and the servers they name
	Insecure bool     // the certificate is not verified
	Username string
	Password Secret
	DB       int

	SentinelPassword Secret
	From             string // the setting that decided
}

// AdapterRedisEndpoints returns what the adapter publishes to and what it
// subscribes at, for the drivers redis and redis-cluster.
func (c *Config) AdapterRedisEndpoints() (pub, sub RedisEndpoint, err error) {
	const key = "adapter.redis.redis_pub_options"
	if c.Adapter.Driver == "redis-cluster" {
		pub, err = c.cluster("adapter.cluster.nodes", c.Adapter.Cluster.Nodes)
		return pub, pub, err
	}
	o := &c.Adapter.Redis.Pub
	switch {
	case o.URL == "" && len(o.Sentinel.Hosts) > 0:
		pub, err = sentinels(key+".sentinel.hosts", o.Sentinel.Hosts,
			cmp.Or(o.Sentinel.MasterName, c.Database.Redis.Name), o.Sentinel.Password)
	default:
		pub, err = c.single(key+".url", o.URL)
	}
	if err != nil {
		return pub, sub, err
	}
	o.apply(&pub)
	if c.Adapter.Redis.Sub.URL == "" {
		return pub, pub, nil
	}
	sub, err = parseRedisURL(c.Adapter.Redis.Sub.URL)
	sub.From = "adapter.redis.redis_sub_options.url"
	c.Adapter.Redis.Sub.apply(&sub)
	return pub, sub, err
}

// apply adds what the options say and the endpoint does not.
func (o *RedisOptions) apply(e *RedisEndpoint) {
	if o.Password != "" || o.Username != "" {
		if o.URL == "" || e.Username == "" && e.Password == "" {
			e.Username, e.Password = o.Username, o.Password
		}
	}
	if o.DB != nil {
		e.DB = int(*o.DB)
	}
}

// CacheRedisEndpoint returns the Redis of the cache.
func (c *Config) CacheRedisEndpoint() (RedisEndpoint, error) {
	if c.Cache.Driver == "redis-cluster" {
		return c.commonCluster()
	}
	return c.single("cache.redis.url_override", c.Cache.Redis.URLOverride)
}

// QueueRedisEndpoint returns the Redis of the queue.
func (c *Config) QueueRedisEndpoint() (RedisEndpoint, error) {
	if c.Queue.Driver == "redis-cluster" {
		return c.cluster("queue.redis_cluster.nodes", c.Queue.RedisCluster.Nodes)
	}
	return c.single("queue.redis.url_override", c.Queue.Redis.URLOverride)
}

// RateLimiterRedisEndpoint returns the Redis of the rate limiter.
func (c *Config) RateLimiterRedisEndpoint() (RedisEndpoint, error) {
	if c.RateLimiter.Driver == "redis-cluster" {
		return c.commonCluster()
	}
	return c.single("rate_limiter.redis.url_override", c.RateLimiter.Redis.URLOverride)
}

// single chooses between the component's own URL, Sentinels, and the server
// that all share.
func (c *Config) single(key string, own URL) (RedisEndpoint, error) {
	r := &c.Database.Redis
	var e RedisEndpoint
	var err error
	switch {
	case own != "":
		e, err = parseRedisURL(own)
		e.From = key
		return e, err
	case len(r.Sentinels) > 0:
		e, err = sentinels("database.redis.sentinels", r.Sentinels, r.Name, r.SentinelPassword)
	default:
		var u URL
		if u, err = NodeURL(r.Host.Reveal(), r.Port); err == nil {
			e, err = parseRedisURL(u)
		}
		e.From = "database.redis"
	}
	c.credentials(&e)
	if e.DB == 0 {
		e.DB = int(r.DB)
	}
	return e, err
}

func (c *Config) commonCluster() (RedisEndpoint, error) {
	const key = "database.redis.cluster_nodes"
	var nodes []URL
	for _, n := range c.Database.Redis.ClusterNodes {
		u, err := n.URL()
		if err != nil {
			return RedisEndpoint{}, fmt.Errorf("%s: %w", key, err)
		}
		nodes = append(nodes, u)
	}
	return c.cluster(key, nodes)
}

// cluster makes one endpoint of seeds. They belong to one cluster, so that TLS
// and credentials of the first one that has them hold for all.
func (c *Config) cluster(key string, nodes []URL) (RedisEndpoint, error) {
	all := RedisEndpoint{Network: "tcp", Cluster: true, From: key}
	if len(nodes) == 0 {
		return all, fmt.Errorf("%s: is empty", key)
	}
	for _, n := range nodes {
		e, err := parseRedisURL(n)
		switch {
		case err != nil:
			return all, fmt.Errorf("%s: %w", key, err)
		case e.Network != "tcp":
			return all, fmt.Errorf("%s: a cluster has no socket in the file system", key)
		}
		all.Addrs = append(all.Addrs, e.Addrs...)
		all.TLS, all.Insecure = all.TLS || e.TLS, all.Insecure || e.Insecure
		if all.Username == "" && all.Password == "" {
			all.Username, all.Password = e.Username, e.Password
		}
	}
	c.credentials(&all)
	return all, nil
}

// credentials adds the common ones if the endpoint has none.
func (c *Config) credentials(e *RedisEndpoint) {
	if e.Username == "" && e.Password == "" {
		e.Username, e.Password = c.Database.Redis.Username, c.Database.Redis.Password
	}
}

func sentinels(key string, nodes []SentinelNode, master string, password Secret) (RedisEndpoint, error) {
	e := RedisEndpoint{Network: "tcp", Master: master, SentinelPassword: password, From: key}
	if master == "" {
		return e, fmt.Errorf("%s: the name of the master is missing", key)
	}
	for _, n := range nodes {
		u, err := NodeURL(n.Host.Reveal(), n.Port)
		if err != nil {
			return e, fmt.Errorf("%s: %w", key, err)
		}
		one, err := parseRedisURL(u)
		if err != nil {
			return e, fmt.Errorf("%s: %w", key, err)
		}
		e.Addrs = append(e.Addrs, one.Addrs...)
		e.TLS, e.Insecure = e.TLS || one.TLS, e.Insecure || one.Insecure
	}
	return e, nil
}

// URL returns the address of n; see NodeURL.
func (n ClusterNode) URL() (URL, error) { return NodeURL(n.Host.Reveal(), n.Port) }

// NodeURL builds the URL of a Redis server: host may be a name, an address, an
// IPv6 address with or without brackets, any of them with a port, or a URL. A
// port within host wins over port.
func NodeURL(host string, port uint16) (URL, error) {
	host = strings.TrimSpace(host)
	if host == "" {
		return "", errors.New("the host is empty")
	}
	if strings.HasPrefix(host, "unix:") {
		_, err := parseRedisURL(URL(host))
		return URL(host), err
	}
	raw := host
	if !strings.Contains(host, "://") {
		if strings.Count(host, ":") > 1 && !strings.HasPrefix(host, "[") {
			host = "[" + host + "]"
		}
		raw = "redis://" + host
	}
	u, err := url.Parse(raw)
	if err != nil {
		return "", errRedisURL // the cause may repeat a password
	}
	if u.Hostname() == "" {
		return "", errRedisURL
	}
	if u.Port() == "" {
		u.Host = net.JoinHostPort(u.Hostname(), strconv.Itoa(int(port)))
	}
	if _, err := parseRedisURL(URL(u.String())); err != nil {
		return "", err
	}
	return URL(u.String()), nil
}

var errRedisURL = errors.New("expected redis://[user[:password]@]host[:port][/db], rediss://… or unix:///path")

// parseRedisURL reads redis://[user[:pass]@]host[:port][/db], the same with
// rediss for TLS (#insecure: unverified), and unix:///path. The error never
// repeats the URL.
func parseRedisURL(raw URL) (RedisEndpoint, error) {
	e := RedisEndpoint{Network: "tcp"}
	u, err := url.Parse(strings.TrimSpace(string(raw)))
	if err != nil {
		return e, errRedisURL
	}
	e.Username = u.User.Username()
	password, _ := u.User.Password()
	e.Password = Secret(password)
	switch u.Scheme {
	case "redis", "rediss":
		e.TLS = u.Scheme == "rediss"
		e.Insecure = e.TLS && u.Fragment == "insecure"
	case "unix", "redis+unix":
		return e.socket(u)
	default:
		return e, errRedisURL
	}
	if u.Hostname() == "" {
		return e, errRedisURL
	}
	port := cmp.Or(u.Port(), strconv.Itoa(defaultRedisPort))
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return e, errors.New("the port is not from 1 to 65535")
	}
	e.Addrs = []string{net.JoinHostPort(u.Hostname(), port)}
	e.DB, err = database(strings.Trim(u.Path, "/"))
	return e, err
}

func (e RedisEndpoint) socket(u *url.URL) (RedisEndpoint, error) {
	if u.Host != "" || !strings.HasPrefix(u.Path, "/") || u.Path == "/" {
		return e, errRedisURL
	}
	q := u.Query()
	e.Network, e.Addrs = "unix", []string{u.Path}
	e.Username = cmp.Or(e.Username, q.Get("user"))
	e.Password = cmp.Or(e.Password, Secret(q.Get("pass")))
	var err error
	e.DB, err = database(q.Get("db"))
	return e, err
}

func database(s string) (int, error) {
	if s == "" {
		return 0, nil
	}
	n, err := strconv.ParseUint(s, 10, 31)
	if err != nil {
		return 0, errors.New("the database is no number")
	}
	return int(n), nil
}

// CachePrefix returns the prefix of the cache's keys.
func (c *Config) CachePrefix() string {
	return orElse(c.Cache.Redis.Prefix, c.Database.Redis.KeyPrefix+"cache:")
}

// QueuePrefix returns the prefix of the queue's keys for its driver.
func (c *Config) QueuePrefix() string {
	if c.Queue.Driver == "redis-cluster" {
		return orElse(c.Queue.RedisCluster.Prefix, "sockudo_queue:")
	}
	return orElse(c.Queue.Redis.Prefix, "sockudo_queue:")
}

// RateLimiterPrefix returns the prefix of the rate limiter's keys.
func (c *Config) RateLimiterPrefix() string {
	return orElse(c.RateLimiter.Redis.Prefix, c.Database.Redis.KeyPrefix+"rl_http:")
}

func orElse(s *string, other string) string {
	if s == nil {
		return other
	}
	return *s
}

// Pool returns the least and the largest number of connections to s, which is
// one of the databases of c.
func (c *Config) Pool(s *SQL) (least, most uint32) {
	least, most = c.poolBounds(s)
	return min(least, most), most
}

func (c *Config) poolBounds(s *SQL) (least, most uint32) {
	if !c.DatabasePooling.Enabled {
		return 0, s.ConnectionPoolSize
	}
	least, most = c.DatabasePooling.Min, c.DatabasePooling.Max
	if s.PoolMin != nil {
		least = *s.PoolMin
	}
	if s.PoolMax != nil {
		most = *s.PoolMax
		if s.PoolMin == nil {
			least = min(least, most)
		}
	}
	return least, most
}
