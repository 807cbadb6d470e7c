package config

import (
	"crypto/rand"
	"fmt"
	"path"
	"slices"
	"strings"
)

// normalise brings settings into the form in which the server reads them:
// old places are merged into new ones, switches that mean a driver become that
// driver, and what has a sensible nearest value gets it, with a warning.
func (l *loader) normalise() {
	l.clusterHealth()
	l.pathPrefix()
	l.drivers()
	l.queueDriver()
	l.clusterNodes()
	l.pools()
	l.ranges()
	l.cors()
	l.unixSocket()
	if l.cfg.Instance.ProcessID == "" {
		l.cfg.Instance.ProcessID = uuid()
	}
}

// clusterHealth merges the old section into the new one, key by key, and then
// replaces intervals that cannot work together.
func (l *loader) clusterHealth() {
	h, old := &l.cfg.Adapter.ClusterHealth, &l.cfg.ClusterHealth
	merge(l, "enabled", &h.Enabled, old.Enabled)
	merge(l, "heartbeat_interval_ms", &h.HeartbeatInterval, old.HeartbeatInterval)
	merge(l, "node_timeout_ms", &h.NodeTimeout, old.NodeTimeout)
	merge(l, "cleanup_interval_ms", &h.CleanupInterval, old.CleanupInterval)
	const section = "adapter.cluster_health"
	reason := ""
	switch {
	case h.HeartbeatInterval == 0 || h.NodeTimeout == 0 || h.CleanupInterval == 0:
		reason = "an interval is 0"
	case h.HeartbeatInterval > h.NodeTimeout/3:
		reason = "heartbeat_interval_ms is more than a third of node_timeout_ms"
	case h.CleanupInterval > h.NodeTimeout:
		reason = "cleanup_interval_ms is more than node_timeout_ms"
	}
	if reason != "" {
		d := Default().Adapter.ClusterHealth
		h.HeartbeatInterval, h.NodeTimeout, h.CleanupInterval = d.HeartbeatInterval, d.NodeTimeout, d.CleanupInterval
		for _, key := range []string{"heartbeat_interval_ms", "node_timeout_ms", "cleanup_interval_ms"} {
			if at := l.report.Source(join(section, key)); at.Kind != FromDefault {
				l.report.warn(at, join(section, key), "replaced by its default, because %s", reason)
				delete(l.report.sources, join(section, key))
			}
		}
	}
	if h.HeartbeatInterval < 1000 {
		l.warn(section+".heartbeat_interval_ms", "less than a second makes busy nodes look dead")
	}
}

func merge[T any](l *loader, key string, to *T, from *T) {
	place := "adapter.cluster_health." + key
	if from == nil || l.report.Explicit(place) {
		return
	}
	*to = *from
	l.report.sources[place] = l.report.Source("cluster_health." + key)
}

func (l *loader) pathPrefix() {
	p := &l.cfg.PathPrefix
	if strings.ContainsAny(*p, "?#%\\ ") || strings.ContainsFunc(*p, func(r rune) bool { return r < ' ' || r > '~' }) {
		l.fail("path_prefix", "%q is no plain path", *p)
		return
	}
	*p = path.Clean("/" + *p)
}

// drivers replaces what only means another driver.
func (l *loader) drivers() {
	c := l.cfg
	for _, d := range []struct {
		driver  *string
		cluster bool
		key     string
	}{
		{&c.Adapter.Driver, c.Adapter.Redis.ClusterMode, "adapter.driver"},
		{&c.Cache.Driver, c.Cache.Redis.ClusterMode, "cache.driver"},
		{&c.Queue.Driver, c.Queue.Redis.ClusterMode && l.report.Explicit("queue.driver"), "queue.driver"},
		{&c.RateLimiter.Driver, c.RateLimiter.Redis.ClusterMode, "rate_limiter.driver"},
	} {
		if *d.driver == "redis" && d.cluster {
			*d.driver = "redis-cluster"
			l.report.inform(l.report.Source(d.key), d.key, "is redis-cluster, because cluster_mode is set")
		}
	}
	if c.RateLimiter.Driver == "none" {
		c.RateLimiter.Driver = "memory"
		l.warn("rate_limiter.driver", "none limits in memory; set rate_limiter.enabled to false to switch limits off")
	}
	if n := c.Adapter.NATS.NodesNumber; n != nil && *n == 0 {
		c.Adapter.NATS.NodesNumber = nil
	}
}

// queueDriver chooses a driver if nobody did: one that outlives the process
// where a Redis was named, so that no webhook is lost, else memory.
func (l *loader) queueDriver() {
	if l.report.Explicit("queue.driver") {
		return
	}
	q, why := &l.cfg.Queue, ""
	q.Implied = true
	named := func(keys ...string) bool {
		i := slices.IndexFunc(keys, l.report.Explicit)
		if i >= 0 {
			why = keys[i]
		}
		return i >= 0
	}
	switch {
	case named("queue.redis.url_override", "adapter.redis.redis_pub_options.url", "cache.redis.url_override",
		"rate_limiter.redis.url_override", "database.redis.host", "database.redis.port", "database.redis.sentinels",
		"adapter.redis.redis_pub_options.sentinel.hosts"):
		q.Driver = "redis"
		if q.Redis.ClusterMode {
			q.Driver = "redis-cluster"
		}
	case named("queue.redis_cluster.nodes", "database.redis.cluster_nodes", "adapter.cluster.nodes"):
		q.Driver = "redis-cluster"
	default:
		q.Driver = "memory"
		return
	}
	l.report.inform(Source{}, "queue.driver", "is %s, because %s is set", q.Driver, why)
}

// clusterNodes completes the seeds of Redis Clusters from the common ones.
func (l *loader) clusterNodes() {
	c := l.cfg
	common := make([]URL, 0, len(c.Database.Redis.ClusterNodes))
	for i, n := range c.Database.Redis.ClusterNodes {
		u, err := n.URL()
		if err != nil {
			l.fail("database.redis.cluster_nodes", "[%d]: %v", i, err)
			return
		}
		common = append(common, u)
	}
	if len(c.Adapter.Cluster.Nodes) == 0 {
		c.Adapter.Cluster.Nodes = slices.Clone(common)
	}
	nodes := &c.Queue.RedisCluster.Nodes
	if len(common) > 0 && (len(*nodes) == 0 || !l.report.Explicit("queue.redis_cluster.nodes")) {
		*nodes = slices.Clone(common)
	}
	if len(*nodes) == 0 {
		*nodes = []URL{"redis://127.0.0.1:7000", "redis://127.0.0.1:7001", "redis://127.0.0.1:7002"}
	}
	l.nodeURLs("adapter.cluster.nodes", c.Adapter.Cluster.Nodes)
	l.nodeURLs("queue.redis_cluster.nodes", *nodes)
}

func (l *loader) nodeURLs(key string, nodes []URL) {
	for i, n := range nodes {
		u, err := NodeURL(string(n), defaultRedisPort)
		if err != nil {
			l.fail(key, "[%d]: %v", i, err)
			continue
		}
		nodes[i] = u
	}
}

func (l *loader) pools() {
	p := &l.cfg.DatabasePooling
	if p.Min > p.Max {
		l.warn("database_pooling.min", "is more than database_pooling.max, %d counts", p.Max)
		p.Min = p.Max
	}
	for _, s := range []struct {
		key string
		sql *SQL
	}{{"database.mysql", &l.cfg.Database.MySQL}, {"database.postgres", &l.cfg.Database.Postgres}} {
		least, most := l.cfg.poolBounds(s.sql)
		if least > most {
			l.warn(s.key+".pool_min", "is more than the largest size of the pool, %d counts", most)
			if s.sql.PoolMin != nil {
				*s.sql.PoolMin = most
			}
		}
	}
}

// ranges clamps what has a nearest valid value.
func (l *loader) ranges() {
	clamp(l, "queue.sqs.max_messages", &l.cfg.Queue.SQS.MaxMessages, 1, 10)
	clamp(l, "queue.sqs.wait_time_seconds", &l.cfg.Queue.SQS.WaitTimeSeconds, 0, 20)
	if l.cfg.Queue.SQS.MessageGroupID == "" {
		l.cfg.Queue.SQS.MessageGroupID = "default"
	}
	if l.cfg.Webhooks.Batching.Duration == 0 {
		l.cfg.Webhooks.Batching.Enabled = false
	}
}

func clamp(l *loader, key string, n *int32, least, most int32) {
	if c := min(max(*n, least), most); c != *n {
		l.warn(key, "%d is not from %d to %d, %d counts", *n, least, most, c)
		*n = c
	}
}

func (l *loader) cors() {
	c := &l.cfg.CORS
	if len(c.Origin) == 0 {
		c.Credentials = false
		return
	}
	if !slices.ContainsFunc(c.Origin, func(o string) bool { return o == "*" || o == "Any" || o == "any" }) {
		return
	}
	if len(c.Origin) > 1 {
		l.warn("cors.origin", "allows everything, the other entries have no effect")
	}
	if c.Credentials && l.report.Explicit("cors.credentials") {
		l.warn("cors.credentials", "switched off, because cors.origin allows everything")
	}
	c.Origin, c.Credentials = []string{"*"}, false
}

func (l *loader) unixSocket() {
	u := &l.cfg.UnixSocket
	if !u.Enabled {
		return
	}
	if l.cfg.SSL.Enabled {
		l.warn("ssl.enabled", "ignored, because the server listens on a Unix socket")
		l.cfg.SSL.Enabled = false
	}
	if u.PermissionMode&0o002 != 0 {
		l.warn("unix_socket.permission_mode", "lets everybody on this machine write to the socket")
	}
	if l.cfg.Mode == "production" && (u.Path == "/tmp" || strings.HasPrefix(u.Path, "/tmp/")) {
		l.warn("unix_socket.path", "is below /tmp, where everybody on this machine may interfere")
	}
}

// uuid returns a random UUID, version 4.
func uuid() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}
