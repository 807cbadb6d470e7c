// Package servicetest gives tests the real servers that test/services starts:
// the ones that all tests share, by Env, and private ones that a test may kill
// and freeze, by Start. Proxy stands between a test and a server and cuts
// connections. Clients are the official clients of test/clients.
package servicetest

import (
	"bufio"
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"sockudo/internal/redisconn"
)

// The variables of the environment that test/services sets. Each is absent
// when its group was not started.
const (
	// Folder is set whenever services run. Then no test skips.
	Folder = "SOCKUDO_TEST_SERVICES"
	// CA is the file of the authority that signed the servers' certificates.
	CA             = "SOCKUDO_TEST_CA"
	Redis          = "SOCKUDO_TEST_REDIS_URL"       // redis://host:port
	RedisTLS       = "SOCKUDO_TEST_REDIS_TLS_URL"   // the same server: rediss://host:port#insecure
	RedisCluster   = "SOCKUDO_TEST_REDIS_CLUSTER"   // host:port of three masters, with commas
	Sentinels      = "SOCKUDO_TEST_SENTINELS"       // host:port of three, with commas
	SentinelMaster = "SOCKUDO_TEST_SENTINEL_MASTER" // the name they know
	NATS           = "SOCKUDO_TEST_NATS"            // nats://host:port of three, with commas
	MariaDB        = "SOCKUDO_TEST_MARIADB_DSN"     // of go-sql-driver, user admin
	MySQL          = "SOCKUDO_TEST_MYSQL_DSN"       // the same, where there is a MySQL server
	Postgres       = "SOCKUDO_TEST_POSTGRES_URL"    // user admin
	DynamoDB       = "SOCKUDO_TEST_DYNAMODB"        // endpoint URL
	User           = "sockudo"                      // of Redis, MariaDB, MySQL and PostgreSQL, besides admin
	Password       = "p@ss:w/rd #1%"                // of User and of admin
	waitTime       = 9 * time.Minute
)

// Env returns a variable that test/services sets. Without services it skips
// the test; if services run but not the one that is asked for, it fails it.
func Env(t testing.TB, name string) string {
	t.Helper()
	v := os.Getenv(name)
	if v == "" {
		absent(t, name)
	}
	return v
}

func absent(t testing.TB, name string) {
	t.Helper()
	if os.Getenv(Folder) != "" {
		t.Fatalf("%s is not set, although services run", name)
	}
	t.Skipf("SKIPPED: %s is not set; run the tests with make test, or with test/services run go test ./...", name)
}

// RedisEndpoint returns the one Redis that all tests share.
func RedisEndpoint(t testing.TB) redisconn.Endpoint {
	t.Helper()
	return endpoint(t, Env(t, Redis))
}

// RedisClusterEndpoint returns the Redis Cluster that all tests share.
func RedisClusterEndpoint(t testing.TB) redisconn.Endpoint {
	t.Helper()
	return redisconn.Endpoint{Network: "tcp", Addrs: strings.Split(Env(t, RedisCluster), ","), Cluster: true}
}

// SentinelEndpoint returns the Sentinels that all tests share. Do not cause a
// failover there; Start a group for that.
func SentinelEndpoint(t testing.TB) redisconn.Endpoint {
	t.Helper()
	return redisconn.Endpoint{Network: "tcp", Addrs: strings.Split(Env(t, Sentinels), ","), Master: Env(t, SentinelMaster)}
}

func endpoint(t testing.TB, url string) redisconn.Endpoint {
	t.Helper()
	e, err := redisconn.Parse(url)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// Services are servers that belong to one test.
type Services struct {
	script string
	folder string
	env    map[string]string
}

// Options change the servers of Start.
type Options struct {
	Password string // of the sentinel group: both the servers and the Sentinels
	Lines    string // added to the configuration of every server of the groups redis, cluster and nats; @DIR@ is their folder
	Replicas bool   // of the cluster group: node4 to node6 follow node1 to node3
	Apps     int    // that the table sockudo-applications of the dynamodb group has from the start; their names are app-0, app-1, …
	Hidden   bool   // of the nats group: clients do not hear of servers that they were not told of
}

// Start starts groups of servers, as test/services names them, for this test
// alone. They stop with it.
func Start(t testing.TB, opts Options, groups ...string) *Services {
	t.Helper()
	if os.Getenv(Folder) == "" {
		absent(t, Folder)
	}
	s := &Services{script: script(t), folder: filepath.Join(t.TempDir(), "services"), env: map[string]string{}}
	// PostgreSQL runs as another user, who must be able to get there.
	for dir := s.folder; dir != os.TempDir() && len(dir) > 1; dir = filepath.Dir(dir) {
		_ = os.Chmod(dir, 0o755)
	}
	env := []string{"SERVICES_PASSWORD=" + opts.Password, "SERVICES_LINES=" + opts.Lines}
	if opts.Replicas {
		env = append(env, "SERVICES_REPLICAS=yes")
	}
	if opts.Apps > 0 {
		env = append(env, "SERVICES_APPS="+strconv.Itoa(opts.Apps))
	}
	if opts.Hidden {
		env = append(env, "SERVICES_HIDDEN=yes")
	}
	s.call(t, env, append([]string{"up", s.folder}, groups...)...)
	t.Cleanup(func() { s.call(t, nil, "down", s.folder) })
	s.read(t)
	return s
}

// Env returns a variable of these servers.
func (s *Services) Env(t testing.TB, name string) string {
	t.Helper()
	v, ok := s.env[name]
	if !ok {
		t.Fatalf("%s is not set by the groups that were started", name)
	}
	return v
}

// Redis returns the endpoint of the group redis.
func (s *Services) Redis(t testing.TB) redisconn.Endpoint {
	t.Helper()
	return endpoint(t, s.Env(t, Redis))
}

// Sentinel returns the endpoint of the group sentinel.
func (s *Services) Sentinel(t testing.TB, password string) redisconn.Endpoint {
	t.Helper()
	return redisconn.Endpoint{
		Network: "tcp", Addrs: strings.Split(s.Env(t, Sentinels), ","), Master: s.Env(t, SentinelMaster),
		Password: password, SentinelPassword: password,
	}
}

// Cluster returns the endpoint of the group cluster.
func (s *Services) Cluster(t testing.TB) redisconn.Endpoint {
	t.Helper()
	return redisconn.Endpoint{Network: "tcp", Addrs: strings.Split(s.Env(t, RedisCluster), ","), Cluster: true}
}

// Kill ends a server as a crash would.
func (s *Services) Kill(t testing.TB, server string) {
	t.Helper()
	s.call(t, nil, "kill", s.folder, server)
}

// Stop ends a server in good order.
func (s *Services) Stop(t testing.TB, server string) {
	t.Helper()
	s.call(t, nil, "stop", s.folder, server)
}

// Restart starts a server that was killed or stopped, and waits until it is ready.
func (s *Services) Restart(t testing.TB, server string) {
	t.Helper()
	s.call(t, nil, "start", s.folder, server)
}

// Pause freezes a server: its connections stay open and nothing answers.
func (s *Services) Pause(t testing.TB, server string) {
	t.Helper()
	s.call(t, nil, "pause", s.folder, server)
}

// Resume lets a frozen server go on.
func (s *Services) Resume(t testing.TB, server string) {
	t.Helper()
	s.call(t, nil, "resume", s.folder, server)
}

func (s *Services) call(t testing.TB, env []string, args ...string) {
	t.Helper()
	// The clean-up calls this too, when the context of the test is done.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), waitTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, s.script, args...)
	cmd.Env = append(os.Environ(), env...)
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	cmd.WaitDelay = time.Second // servers that were started hold no pipe, but who knows
	if err := cmd.Run(); err != nil {
		t.Fatalf("test/services %s: %v\n%s", strings.Join(args, " "), err, said.Bytes())
	}
}

// read takes the lines export NAME='VALUE' of the folder's env.
func (s *Services) read(t testing.TB) {
	t.Helper()
	f, err := os.Open(filepath.Join(s.folder, "env"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		name, value, ok := strings.Cut(strings.TrimPrefix(lines.Text(), "export "), "=")
		if ok {
			s.env[name] = strings.Trim(value, "'")
		}
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
}

// script finds test/services.
func script(t testing.TB) string { return filepath.Join(Root(t), "test", "services") }

// Root returns the folder of the repository, above that of the test.
func Root(t testing.TB) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
		if up := filepath.Dir(dir); up != dir {
			dir = up
			continue
		}
		t.Fatal("no go.mod above the test")
	}
}

// Tool returns the path of a program that make test installs. Without it the
// test is skipped, or fails if services run.
func Tool(t testing.TB, name string) string {
	t.Helper()
	for _, name := range []string{name, "/usr/sbin/" + name} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	if os.Getenv(Folder) != "" {
		t.Fatalf("%s is not there, although services run", name)
	}
	t.Skipf("SKIPPED: %s is not there; make test installs it", name)
	return ""
}

// VerifyNoLeaks runs the tests of a package and fails if a goroutine is left.
func VerifyNoLeaks(m *testing.M) {
	goleak.VerifyTestMain(m,
		// The Redis library closes replaced connections of a cluster 5 s late,
		// whether the client was closed meanwhile or not.
		goleak.IgnoreAnyFunction("github.com/redis/rueidis.(*clusterClient)._refresh.func2"),
	)
}
