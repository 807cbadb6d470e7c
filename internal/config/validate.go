package config

import (
	"cmp"
	"fmt"
	"net/url"
	"path"
	"reflect"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"sockudo/internal/origin"
)

// Validate reports what in c cannot be used, as an *Error. Load has done this
// already.
func (c *Config) Validate() error {
	l := &loader{cfg: c, report: &Report{sources: map[string]Source{}}, faults: &faults{}}
	l.validate()
	return l.faults.err()
}

func (l *loader) validate() {
	l.bounds()
	c := l.cfg
	if strings.TrimSpace(c.Host) == "" {
		l.fail("host", "must not be empty")
	}
	if c.Metrics.Enabled && strings.TrimSpace(c.Metrics.Host) == "" {
		l.fail("metrics.host", "must not be empty")
	}
	if !metricName.MatchString(c.Metrics.Prometheus.Prefix) {
		l.fail("metrics.prometheus.prefix", "%q does not begin a legal metric name", c.Metrics.Prometheus.Prefix)
	}
	l.validateApps()
	l.validateAdapter()
	l.validateRedis()
	l.validateDatabases()
	l.validateListeners()
	l.validateAdmin()
	l.validateCORS()
	if !c.Cleanup.AsyncEnabled && !c.Cleanup.FallbackToSync {
		l.fail("cleanup.async_enabled", "is false and cleanup.fallback_to_sync too: nobody would clean up")
	}
	if c.Cleanup.QueueBufferSize < c.Cleanup.BatchSize {
		l.fail("cleanup.queue_buffer_size", "is less than cleanup.batch_size")
	}
	if c.Webhooks.Retry.MaxBackoff < c.Webhooks.Retry.InitialBackoff {
		l.fail("webhooks.retry.max_backoff_ms", "is less than webhooks.retry.initial_backoff_ms")
	}
}

// An empty prefix is legal: the names of the metrics follow.
var metricName = regexp.MustCompile(`^([a-zA-Z_:][a-zA-Z0-9_:]*)?$`)

// bounds checks the tags min, max and oneof of every setting.
func (l *loader) bounds() {
	walk("", reflect.ValueOf(l.cfg).Elem(), func(s leaf) {
		f, v := s.field, s.value
		if len(f.oneof) > 0 && !slices.Contains(f.oneof, v.String()) {
			l.fail(s.key, "expected %s, got %q", describe(f, v.Type()), v.String())
		}
		if f.least == "" && f.most == "" {
			return
		}
		if outside(v, f.least, func(a, b float64) bool { return a < b }) ||
			outside(v, f.most, func(a, b float64) bool { return a > b }) {
			l.fail(s.key, "must be %s, got %v", f.interval(), v.Interface())
		}
	})
}

// interval says which numbers f allows.
func (f field) interval() string {
	if f.most == "" {
		return "at least " + f.least
	}
	return "from " + cmp.Or(f.least, "0") + " to " + f.most
}

func outside(v reflect.Value, bound string, beyond func(a, b float64) bool) bool {
	if bound == "" {
		return false
	}
	limit, err := strconv.ParseFloat(bound, 64)
	if err != nil {
		panic(fmt.Sprintf("config: bound %q in a tag", bound))
	}
	var n float64
	switch {
	case v.CanUint():
		n = float64(v.Uint())
	case v.CanInt():
		n = float64(v.Int())
	default:
		n = v.Float()
	}
	return beyond(n, limit)
}

func (l *loader) validateApps() {
	byKey := map[string]string{}
	hooks := false
	for _, a := range l.cfg.AppManager.Array.Apps {
		at := l.report.Source(appKey(a.ID))
		switch other, taken := byKey[a.Key]; {
		case a.ID == "" || a.Key == "" || a.Secret == "":
			l.faults.add(at, appKey(a.ID), "id, key and secret must not be empty")
		case taken:
			l.faults.add(at, appKey(a.ID), fmt.Sprintf("app %q has the same key as app %q", a.ID, other))
		}
		if _, err := origin.Parse(a.AllowedOrigins); err != nil {
			l.faults.add(at, appKey(a.ID), strings.ReplaceAll(err.Error(), "\n", "; "))
		}
		byKey[a.Key] = a.ID
		hooks = hooks || len(a.Webhooks) > 0
	}
	if hooks && l.cfg.Queue.Driver == "none" {
		l.warn("queue.driver", "none switches webhooks off, but there are apps that define some")
	}
}

// maxClusterID is how many bytes nodes have room for in what they send each other.
const maxClusterID = 64

func (l *loader) validateAdapter() {
	a := &l.cfg.Adapter
	if n := len(a.ClusterID); n > maxClusterID {
		l.fail("adapter.cluster_id", "has %d bytes, at most %d are allowed", n, maxClusterID)
	}
	if a.Driver == "redis-cluster" && len(a.Cluster.Nodes) == 0 {
		l.fail("adapter.cluster.nodes", "is empty and database.redis.cluster_nodes too")
	}
	if a.Driver != "nats" {
		return
	}
	if len(a.NATS.Servers) == 0 {
		l.fail("adapter.nats.servers", "must not be empty")
	}
	for i, s := range a.NATS.Servers {
		if !natsURL(strings.TrimSpace(string(s))) {
			l.fail("adapter.nats.servers", "[%d]: expected nats://[user:password@]host[:port], tls://… or host:port", i)
		}
	}
}

func natsURL(s string) bool {
	if !strings.Contains(s, "://") {
		s = "nats://" + s
	}
	u, err := url.Parse(s)
	return err == nil && u.Hostname() != "" && (u.Scheme == "nats" || u.Scheme == "tls")
}

// validateRedis checks every Redis address, used or not, so that a typing error
// does not wait for the day when the driver changes.
func (l *loader) validateRedis() {
	c := l.cfg
	for _, u := range []struct {
		key string
		url URL
	}{
		{"adapter.redis.redis_pub_options.url", c.Adapter.Redis.Pub.URL},
		{"adapter.redis.redis_sub_options.url", c.Adapter.Redis.Sub.URL},
		{"cache.redis.url_override", c.Cache.Redis.URLOverride},
		{"queue.redis.url_override", c.Queue.Redis.URLOverride},
		{"rate_limiter.redis.url_override", c.RateLimiter.Redis.URLOverride},
	} {
		if u.url == "" {
			continue
		}
		if _, err := parseRedisURL(u.url); err != nil {
			l.fail(u.key, "%v", err)
		}
	}
	r := &c.Database.Redis
	if _, err := NodeURL(r.Host.Reveal(), r.Port); err != nil {
		l.fail("database.redis.host", "%v", err)
	}
	l.validateSentinels("database.redis.sentinels", r.Sentinels)
	l.validateSentinels("adapter.redis.redis_pub_options.sentinel.hosts", c.Adapter.Redis.Pub.Sentinel.Hosts)
	if len(r.Sentinels) > 0 && r.Name == "" {
		l.fail("database.redis.name", "must not be empty, it names the master that the Sentinels watch")
	}
	common := "database.redis.cluster_nodes"
	if c.Cache.Driver == "redis-cluster" && len(r.ClusterNodes) == 0 {
		l.fail(common, "is empty, but cache.driver is redis-cluster")
	}
	if c.RateLimiter.Enabled && c.RateLimiter.Driver == "redis-cluster" && len(r.ClusterNodes) == 0 {
		l.fail(common, "is empty, but rate_limiter.driver is redis-cluster")
	}
}

func (l *loader) validateSentinels(key string, nodes []SentinelNode) {
	for i, n := range nodes {
		if _, err := NodeURL(n.Host.Reveal(), n.Port); err != nil {
			l.fail(key, "[%d]: %v", i, err)
		}
	}
}

var (
	tableName    = regexp.MustCompile(`^([A-Za-z_][A-Za-z0-9_]*\.)?[A-Za-z_][A-Za-z0-9_]*$`)
	dynamoDBName = regexp.MustCompile(`^[A-Za-z0-9_.-]{3,255}$`)
)

func (l *loader) validateDatabases() {
	d := &l.cfg.Database
	for _, s := range []struct {
		key string
		sql *SQL
	}{{"database.mysql", &d.MySQL}, {"database.postgres", &d.Postgres}} {
		if !tableName.MatchString(s.sql.TableName) {
			l.fail(s.key+".table_name", "expected letters, digits and _, perhaps after schema., got %q", s.sql.TableName)
		}
		if s.sql.PoolMax != nil && *s.sql.PoolMax == 0 {
			l.fail(s.key+".pool_max", "must be at least 1, got 0")
		}
	}
	if !dynamoDBName.MatchString(d.DynamoDB.TableName) {
		l.fail("database.dynamodb.table_name", "%q is no name of a DynamoDB table", d.DynamoDB.TableName)
	}
}

func (l *loader) validateListeners() {
	c := l.cfg
	if c.SSL.Enabled && c.SSL.CertPath == "" {
		l.fail("ssl.cert_path", "must not be empty while ssl.enabled is true")
	}
	if c.SSL.Enabled && c.SSL.KeyPath == "" {
		l.fail("ssl.key_path", "must not be empty while ssl.enabled is true")
	}
	u := &c.UnixSocket
	switch p := u.Path; {
	case !u.Enabled:
	case runtime.GOOS == "windows":
		l.fail("unix_socket.enabled", "Windows has no Unix sockets")
	case p == "":
		l.fail("unix_socket.path", "must not be empty")
	case !path.IsAbs(p):
		l.fail("unix_socket.path", "must be absolute, got %q", p)
	case strings.Contains(p, "../"), strings.Contains(p, `..\`), strings.HasSuffix(p, "/.."):
		l.fail("unix_socket.path", "must not contain .., got %q", p)
	}
}

// minAdminToken is how long the token must be that keeps others out.
const minAdminToken = 16

func (l *loader) validateAdmin() {
	a := &l.cfg.Admin
	network, address := l.cfg.AdminAddr()
	switch {
	case !a.Enabled:
	case a.UnixSocket != "" && runtime.GOOS == "windows":
		l.fail("admin.unix_socket", "Windows has no Unix sockets")
	case a.UnixSocket != "" && !path.IsAbs(address):
		l.fail("admin.unix_socket", "must be absolute, got %q", address)
	case network == "unix" && l.cfg.UnixSocket.Enabled && address == l.cfg.UnixSocket.Path:
		l.fail("admin.unix_socket", "is unix_socket.path too")
	case network == "unix":
	case strings.TrimSpace(a.Host) == "":
		l.fail("admin.host", "must not be empty")
	case l.cfg.AdminIsLoopback():
	case a.Token == "":
		l.fail("admin.host", "%q can be reached by others, who need no token: set admin.token, or admin.host to 127.0.0.1", a.Host)
	case len(a.Token) < minAdminToken:
		l.fail("admin.token", "has %d bytes, at least %d are needed because admin.host %q can be reached by others", len(a.Token), minAdminToken, a.Host)
	}
	if n := strings.IndexFunc(string(a.Token), func(r rune) bool { return r <= ' ' || r > '~' }); n >= 0 {
		l.fail("admin.token", "must be printable ASCII without spaces, byte %d is not", n+1)
	}
}

// headerToken is what RFC 9110 allows as a method or as the name of a header.
var headerToken = regexp.MustCompile("^[!#$%&'*+.^_`|~0-9A-Za-z-]+$")

func (l *loader) validateCORS() {
	for key, names := range map[string][]string{
		"cors.methods":         l.cfg.CORS.Methods,
		"cors.allowed_headers": l.cfg.CORS.AllowedHeaders,
	} {
		for i, name := range names {
			if !headerToken.MatchString(name) {
				l.fail(key, "[%d]: %q is no legal name", i, name)
			}
		}
	}
}
