package server_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/redis/rueidis"

	"sockudo/internal/app"
	"sockudo/internal/app/apptest"
	"sockudo/internal/config"
	"sockudo/internal/pushertest"
	"sockudo/internal/redisconn"
	"sockudo/internal/server"
	"sockudo/internal/servertest"
	"sockudo/internal/servicetest"
)

var tables atomic.Int64

// A store is one of the databases that apps may be in, with a table of its own.
type store struct {
	driver string
	table  string
	addr   string // of the server, host:port
}

// everyStore returns the databases that there are.
func everyStore(t testing.TB) (all []store) {
	t.Helper()
	for _, driver := range []string{"mysql", "pgsql", "dynamodb"} {
		s := store{driver: driver, table: fmt.Sprintf("t%d_%d", os.Getpid(), tables.Add(1))}
		switch driver {
		case "mysql":
			s.addr = mysqlDSN(t).Addr
		case "pgsql":
			s.addr = parseURL(t, servicetest.Env(t, servicetest.Postgres)).Host
		case "dynamodb":
			s.addr = parseURL(t, servicetest.Env(t, servicetest.DynamoDB)).Host
		}
		all = append(all, s)
	}
	return all
}

// stores runs a test for every database, all at the same time.
func stores(t *testing.T, test func(t *testing.T, s store)) {
	t.Helper()
	for _, s := range everyStore(t) {
		t.Run(s.driver, func(t *testing.T) {
			t.Parallel()
			test(t, s)
		})
	}
}

func mysqlDSN(t testing.TB) *mysql.Config {
	t.Helper()
	dsn, err := mysql.ParseDSN(servicetest.Env(t, servicetest.MariaDB))
	if err != nil {
		t.Fatal(err)
	}
	return dsn
}

func parseURL(t testing.TB, raw string) *url.URL {
	t.Helper()
	u, err := url.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// set has settings name the store, as it is reached at addr.
func (s store) set(t testing.TB, cfg *config.Config, addr string) {
	t.Helper()
	cfg.AppManager.Driver = s.driver
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		t.Fatal(err)
	}
	for _, db := range []*config.SQL{&cfg.Database.MySQL, &cfg.Database.Postgres} {
		db.Host, db.Port, db.TableName = host, uint16(n), s.table
		db.Username, db.Password, db.Database = "admin", servicetest.Password, "sockudo"
	}
	d := &cfg.Database.DynamoDB
	d.EndpointURL, d.TableName = config.URL("http://"+addr), s.table
	d.AccessKeyID, d.SecretAccessKey = "test", servicetest.Password
}

// settings are the default ones with the store.
func (s store) settings(t *testing.T) *config.Config {
	t.Helper()
	cfg := config.Default()
	s.set(t, cfg, s.addr)
	return cfg
}

// open returns the store as commands see it.
func (s store) open(t *testing.T, cfg *config.Config) *server.Store {
	t.Helper()
	apps, err := server.OpenApps(t.Context(), cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(apps.Close)
	return apps
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// until polls for what another process, or the clock, does in its own time.
func until(t *testing.T, what string, done func() bool) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(time.Minute); !done(); <-tick.C {
		if time.Now().After(end) {
			t.Fatalf("a minute has passed and still not: %s", what)
		}
	}
}

func identity(a *app.App) pushertest.App {
	return pushertest.App{ID: a.ID, Key: a.Key, Secret: a.Secret.Reveal()}
}

var patient = pushertest.Options{Timeout: 30 * time.Second}

// admits reports whether a client with the key of a is let in, and how it is
// refused if it is not.
func admits(t *testing.T, addr string, a pushertest.App) (bool, int) {
	t.Helper()
	c, refused := pushertest.DialRaw(t, addr, a, patient)
	if refused != nil {
		t.Fatalf("upgrade answered with %d: %s", refused.Status, refused.Body)
	}
	defer c.Cut()
	f := c.Next()
	if f.Event == "pusher:connection_established" {
		return true, 0
	}
	var e struct{ Code int }
	var text string
	if json.Unmarshal(f.Data, &text) == nil {
		f.Data = []byte(text)
	}
	if err := json.Unmarshal(f.Data, &e); err != nil || f.Event != "pusher:error" {
		t.Fatalf("got %s %s", f.Event, f.Data)
	}
	return false, e.Code
}

func TestEveryStoreServes(t *testing.T) {
	stores(t, func(t *testing.T, s store) {
		cfg := s.settings(t)
		byHand := apptest.Plain("by-hand")
		byHand.EnableClientMessages = true
		must(t, s.open(t, cfg).Create(t.Context(), byHand)) // makes the table too
		var nodes []*servertest.Server
		for range 2 {
			nodes = append(nodes, servertest.Start(t, func(cfg *config.Config) {
				s.set(t, cfg, s.addr)
				cfg.AppManager.Array.Apps = servertest.Profile()
			}))
		}
		for _, n := range nodes {
			for _, a := range []*app.App{byHand, servertest.Profile()[0]} {
				c := pushertest.Dial(t, n.Addr, identity(a), patient)
				c.Subscribe("private-x")
				pushertest.NewAPI(t, n.Addr, identity(a)).Trigger("private-x", "hello", "there")
				c.Await("hello", "private-x")
			}
			for key, code := range map[string]int{"nobody": 4001, "disabled-key": 4003} {
				if ok, got := admits(t, n.Addr, pushertest.App{Key: key}); ok || got != code {
					t.Errorf("key %s: admitted %t, code %d; want %d", key, ok, got, code)
				}
			}
			pushertest.NewAPI(t, n.Addr, pushertest.App{ID: "nobody", Key: "k", Secret: "s"}).Get("/channels").Expect(404)
			up(t, n.Addr, 200)
		}
		listed := 0
		must(t, s.open(t, cfg).List(t.Context(), func(*app.App) bool { listed++; return true }))
		if want := len(servertest.Profile()) + 1; listed != want {
			t.Errorf("%d apps, want %d", listed, want)
		}
	})
}

func up(t *testing.T, addr string, status int) {
	t.Helper()
	api := pushertest.NewAPI(t, addr, pushertest.App{})
	until(t, fmt.Sprintf("/up answers %d", status), func() bool {
		return api.Do(pushertest.Call{Method: "GET", Path: "/up", Unsigned: true}).Status == status
	})
}

func TestManyNodesPutTheAppsOfTheirFileAtOnce(t *testing.T) {
	stores(t, func(t *testing.T, s store) {
		log, lines := logged()
		var wg sync.WaitGroup
		for range 6 {
			wg.Go(func() {
				cfg := s.settings(t)
				cfg.Host, cfg.Port, cfg.Metrics.Enabled, cfg.Queue.Driver = "127.0.0.1", 0, false, "memory"
				cfg.AppManager.Array.Apps = servertest.Profile()
				ctx, cancel := context.WithCancel(t.Context())
				n, err := server.New(ctx, cfg, server.Options{Log: log})
				if err != nil {
					t.Error(err)
				} else {
					cancel() // at once
					if err := n.Run(ctx); err != nil {
						t.Error(err)
					}
				}
				cancel()
			})
		}
		wg.Wait()
		apps := s.open(t, s.settings(t))
		for _, want := range servertest.Profile() {
			apptest.Check(t, apps, want)
		}
		listed := 0
		must(t, apps.List(t.Context(), func(*app.App) bool { listed++; return true }))
		if listed != len(servertest.Profile()) {
			t.Errorf("%d apps, want %d", listed, len(servertest.Profile()))
		}
		if strings.Contains(lines.String(), "level=ERROR") {
			t.Errorf("something went wrong:\n%s", lines)
		}
	})
}

// TestADatabaseThatIsDown is what clients see of it: nobody who is known is
// turned away, and nobody is told that an app does not exist.
func TestADatabaseThatIsDown(t *testing.T) {
	stores(t, func(t *testing.T, s store) {
		proxy := servicetest.NewProxy(t, s.addr)
		apps := s.open(t, s.settings(t))
		known, unseen := apptest.Plain("known"), apptest.Plain("unseen")
		must(t, apps.Create(t.Context(), known))
		must(t, apps.Create(t.Context(), unseen))
		n := servertest.Start(t, func(cfg *config.Config) {
			s.set(t, cfg, proxy.Addr())
			cfg.AppManager.Cache.Enabled = false // apps are asked for again after a second
		})
		client := pushertest.Dial(t, n.Addr, identity(known), patient)
		client.Subscribe("x")
		up(t, n.Addr, 200)

		proxy.Refuse()
		until(t, "the database is known to be down", func() bool {
			ok, code := admits(t, n.Addr, identity(unseen))
			return !ok && code == 4100
		})
		for end := time.Now().Add(2 * time.Second); time.Now().Before(end); { // longer than an app is fresh
			if ok, code := admits(t, n.Addr, identity(known)); !ok {
				t.Fatalf("a known app is refused with %d", code)
			}
			for _, a := range []*app.App{unseen, apptest.Plain("nobody")} {
				if ok, code := admits(t, n.Addr, identity(a)); ok || code != 4100 {
					t.Fatalf("%s: admitted %t, code %d; want 4100", a.ID, ok, code)
				}
			}
			pushertest.NewAPI(t, n.Addr, identity(known)).Trigger("x", "still", "here")
			client.Expect("still", "x")
			r := pushertest.NewAPI(t, n.Addr, identity(unseen)).Get("/channels").Expect(503)
			if r.Header.Get("Retry-After") == "" {
				t.Error("an answer that asks to try again does not say when")
			}
		}
		up(t, n.Addr, 503)

		proxy.Accept(t)
		until(t, "an app that was not seen is found", func() bool { ok, _ := admits(t, n.Addr, identity(unseen)); return ok })
		up(t, n.Addr, 200)
		if ok, code := admits(t, n.Addr, pushertest.App{Key: "nobody"}); ok || code != 4001 {
			t.Errorf("an unknown app: admitted %t, code %d; want 4001", ok, code)
		}
		pushertest.NewAPI(t, n.Addr, identity(known)).Trigger("x", "well", "again")
		client.Expect("well", "x")
	})
}

var prefixes atomic.Int64

// sharing has settings use the cache that all tests share, under a prefix.
func sharing(t *testing.T) (set func(*config.Config), redis rueidis.Client, keys string) {
	t.Helper()
	prefix := fmt.Sprintf("t%d_%d:", os.Getpid(), prefixes.Add(1))
	client, err := redisconn.Dial(t.Context(), redisconn.Options(servicetest.RedisEndpoint(t)))
	must(t, err)
	t.Cleanup(client.Close)
	return func(cfg *config.Config) {
		cfg.Cache.Driver, cfg.Cache.Redis.Prefix = "redis", &prefix
		cfg.Cache.Redis.URLOverride = config.URL(servicetest.Env(t, servicetest.Redis))
	}, client, prefix + ":"
}

func TestChangesAreSeenOnEveryNode(t *testing.T) {
	for _, cached := range []string{"memory", "redis"} {
		t.Run(cached, func(t *testing.T) {
			stores(t, func(t *testing.T, s store) {
				share := func(*config.Config) {}
				if cached == "redis" {
					share, _, _ = sharing(t)
				}
				cfg := s.settings(t)
				share(cfg)
				apps := s.open(t, cfg)
				a, off := apptest.Plain("a"), apptest.Plain("off")
				must(t, apps.Create(t.Context(), a))
				must(t, apps.Create(t.Context(), off))
				var nodes []*servertest.Server
				for range 2 {
					nodes = append(nodes, servertest.Start(t, func(cfg *config.Config) { s.set(t, cfg, s.addr); share(cfg) }))
				}
				var clients []*pushertest.Client
				for _, n := range nodes {
					clients = append(clients, pushertest.Dial(t, n.Addr, identity(off), patient))
					if ok, code := admits(t, n.Addr, identity(a)); !ok {
						t.Fatalf("refused with %d", code)
					}
				}
				rotated := *a
				rotated.Key, rotated.Secret = "rotated", "rotated-secret"
				must(t, apps.Update(t.Context(), nil, &rotated))
				disabled := *off
				disabled.Enabled = false
				must(t, apps.Update(t.Context(), nil, &disabled))
				changed := time.Now()
				for i, n := range nodes {
					until(t, "the old key is gone", func() bool { ok, code := admits(t, n.Addr, identity(a)); return !ok && code == 4001 })
					until(t, "the new key works", func() bool { ok, _ := admits(t, n.Addr, identity(&rotated)); return ok })
					until(t, "the new secret works", func() bool {
						return pushertest.NewAPI(t, n.Addr, identity(&rotated)).Get("/channels").Status == 200
					})
					clients[i].ExpectFail(4003)
				}
				t.Logf("seen everywhere after %v", time.Since(changed))
			})
		})
	}
}

func get(t *testing.T, redis rueidis.Client, key string) (value string, ttl int64) {
	t.Helper()
	value, err := redis.Do(t.Context(), redis.B().Get().Key(key).Build()).ToString()
	if rueidis.IsRedisNil(err) {
		return "", 0
	}
	must(t, err)
	ttl, err = redis.Do(t.Context(), redis.B().Ttl().Key(key).Build()).AsInt64()
	must(t, err)
	return value, ttl
}

func set(t *testing.T, redis rueidis.Client, key, value string) {
	t.Helper()
	must(t, redis.Do(t.Context(), redis.B().Set().Key(key).Value(value).ExSeconds(300).Build()).Error())
}

func TestTheSharedCacheIsReadAndWrittenAsSockudoDoes(t *testing.T) {
	stores(t, func(t *testing.T, s store) {
		share, redis, prefix := sharing(t)
		cfg := s.settings(t)
		share(cfg)
		apps := s.open(t, s.settings(t)) // does not know of the cache
		a := apptest.Full("a")
		a.AllowedOrigins, a.RequireTLS = nil, nil
		must(t, apps.Create(t.Context(), a))
		must(t, apps.Create(t.Context(), apptest.Plain("spoiled")))
		n := servertest.Start(t, func(cfg *config.Config) { s.set(t, cfg, s.addr); share(cfg) })

		// What a node has found.
		if ok, code := admits(t, n.Addr, identity(a)); !ok {
			t.Fatalf("refused with %d", code)
		}
		for _, key := range []string{"app:id:a", "app:key:a-key"} {
			value, ttl := get(t, redis, prefix+key)
			var record map[string]any
			if err := json.Unmarshal([]byte(value), &record); err != nil {
				t.Fatalf("%s holds no JSON: %v", key, err)
			}
			if record["id"] != "a" || record["max_channel_name_length"] != 6.0 || record["allowed_origins"] != nil || ttl < 1 || ttl > 300 {
				t.Errorf("%s holds %v for %d s", key, record, ttl)
			}
		}
		// What Sockudo 2.9 has left: an app that is only there.
		set(t, redis, prefix+"app:key:old-key", `{"id":"old","key":"old-key","secret":"old-secret","max_connections":"10","enable_client_messages":false,`+
			`"enabled":true,"max_backend_events_per_second":100,"max_client_events_per_second":100,"max_read_requests_per_second":null,`+
			`"max_presence_members_per_channel":"100","webhooks":null,"allowed_origins":null,"unknown":{}}`)
		if ok, code := admits(t, n.Addr, pushertest.App{Key: "old-key"}); !ok {
			t.Errorf("an app that Sockudo cached is refused with %d", code)
		}
		// What nobody can use is read again and replaced.
		for _, bad := range []string{"geheim", "null", "[]", `{"id":"spoiled"}`, `{"id":"other","key":"other-key","secret":"s"}`} {
			set(t, redis, prefix+"app:key:spoiled-key", bad)
		}
		if ok, code := admits(t, n.Addr, identity(apptest.Plain("spoiled"))); !ok {
			t.Errorf("an app whose record is spoiled is refused with %d", code)
		}
		if value, _ := get(t, redis, prefix+"app:key:spoiled-key"); !strings.Contains(value, `"id":"spoiled"`) || !strings.Contains(value, "spoiled-secret") {
			t.Errorf("the spoiled record has become %s", value)
		}
		// What a command changes is forgotten and known again under its new key.
		b := *a
		b.Key = "b-key"
		must(t, s.open(t, cfg).Update(t.Context(), nil, &b))
		if value, _ := get(t, redis, prefix+"app:key:a-key"); value != "" {
			t.Errorf("the old key is still cached: %s", value)
		}
		if value, _ := get(t, redis, prefix+"app:key:b-key"); !strings.Contains(value, `"id":"a"`) {
			t.Errorf("under the new key there is %q", value)
		}
		must(t, s.open(t, cfg).Delete(t.Context(), "a"))
		for _, key := range []string{"app:id:a", "app:key:b-key"} {
			if value, _ := get(t, redis, prefix+key); value != "" {
				t.Errorf("%s is still cached: %s", key, value)
			}
		}
		if err := n.Stop(); err != nil {
			t.Error(err)
		}
		if value, _ := get(t, redis, prefix+"app:key:old-key"); value == "" {
			t.Error("stopping a node has emptied the cache of the others")
		}
	})
}

func TestAStoreThatIsLateIsWaitedFor(t *testing.T) {
	stores(t, func(t *testing.T, s store) {
		proxy := servicetest.NewProxy(t, s.addr)
		proxy.Refuse()
		log, lines := logged()
		var accepting sync.WaitGroup
		accepting.Go(func() {
			until(t, "the start has tried once", func() bool { return strings.Contains(lines.String(), "app store not reached") })
			proxy.Accept(t)
		})
		defer accepting.Wait()
		n := servertest.StartLogged(t, log, func(cfg *config.Config) { s.set(t, cfg, proxy.Addr()) })
		up(t, n.Addr, 503) // it has no app
	})
}

func TestAStoreThatCannotBeUsedEndsTheStart(t *testing.T) {
	stores(t, func(t *testing.T, s store) {
		for name, test := range map[string]struct {
			edit func(*config.Config)
			want string
		}{
			"nobody listens": {func(cfg *config.Config) { s.set(t, cfg, "127.0.0.1:1") }, "refused"},
			"wrong password": {func(cfg *config.Config) {
				cfg.Database.MySQL.Password, cfg.Database.Postgres.Password = "geheim", "geheim"
			}, map[string]string{"mysql": "denied", "pgsql": "authentication failed"}[s.driver]},
		} {
			if test.want == "" {
				continue // the server does not check who asks
			}
			cfg := s.settings(t)
			cfg.Queue.Driver = "memory"
			test.edit(cfg)
			ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second) // a start is more patient than this
			_, err := server.New(ctx, cfg, server.Options{})
			cancel()
			if err == nil || !strings.Contains(err.Error(), "app manager: ") || !strings.Contains(err.Error(), test.want) ||
				strings.Contains(err.Error(), "geheim") || strings.Contains(err.Error(), servicetest.Password) {
				t.Errorf("%s: err = %v, want %q and no credential", name, err, test.want)
			}
		}
	})
	cfg := config.Default()
	cfg.AppManager.Driver, cfg.Queue.Driver = "scylladb", "memory"
	if _, err := server.New(t.Context(), cfg, server.Options{}); err == nil || !strings.Contains(err.Error(), `app_manager.driver: "scylladb" is not built into`) {
		t.Errorf("scylladb: err = %v", err)
	}
}

// TestSecretsAreToldNowhere runs a node through good and bad times with a log
// of everything, and looks for secrets of apps and for credentials in it.
func TestSecretsAreToldNowhere(t *testing.T) {
	stores(t, func(t *testing.T, s store) {
		share, redis, prefix := sharing(t)
		proxy := servicetest.NewProxy(t, s.addr)
		log, lines := logged()
		a := apptest.Full("a")
		a.Secret, a.PreviousSecret, a.AllowedOrigins, a.RequireTLS, a.MaxChannelNameLength = "geheim-1", "geheim-2", nil, nil, nil
		a.Webhooks[0].URL = "https://user:geheim@hooks.example/geheim"
		a.Webhooks[0].Headers = map[string]string{"Authorization": "geheim"}
		n := servertest.StartLogged(t, log, func(cfg *config.Config) {
			s.set(t, cfg, proxy.Addr())
			share(cfg)
			u := parseURL(t, servicetest.Env(t, servicetest.Redis))
			u.User = url.UserPassword(servicetest.User, servicetest.Password)
			cfg.Cache.Redis.URLOverride = config.URL(u.String())
			cfg.AppManager.Array.Apps = []*app.App{a, {ID: "b", Key: "a-key", Secret: "geheim-3", Enabled: true}} // the key is taken
		})
		if ok, code := admits(t, n.Addr, identity(a)); !ok {
			t.Fatalf("refused with %d", code)
		}
		c := pushertest.Dial(t, n.Addr, identity(a), patient)
		c.Subscribe("private-x")
		wrong := pushertest.App{ID: "a", Key: "a-key", Secret: "geheim-4"}
		pushertest.NewAPI(t, n.Addr, wrong).Get("/channels").Expect(401)
		old := pushertest.App{ID: "a", Key: "a-key", Secret: "geheim-2"}
		pushertest.NewAPI(t, n.Addr, old).Get("/channels").Expect(200)
		set(t, redis, prefix+"app:key:spoiled", `{"id":"x","key":"spoiled","secret":"geheim-5","max_connections":"geheim","webhooks":["geheim"]}`)
		set(t, redis, prefix+"app:id:spoiled", "geheim")
		admits(t, n.Addr, pushertest.App{Key: "spoiled"})
		pushertest.NewAPI(t, n.Addr, pushertest.App{ID: "spoiled", Key: "k", Secret: "s"}).Get("/channels").Expect(404)
		proxy.Cut()
		admits(t, n.Addr, pushertest.App{Key: "unknown-1"})
		proxy.Refuse()
		until(t, "the database is known to be down", func() bool {
			_, code := admits(t, n.Addr, pushertest.App{Key: fmt.Sprint("unknown-", time.Now().UnixNano())})
			return code == 4100
		})
		proxy.Accept(t)
		if err := n.Stop(); err != nil {
			t.Error(err)
		}
		said := lines.String()
		for _, want := range []string{"app not stored", "cached app is malformed", "app not looked up", "stopped"} {
			if !strings.Contains(said, want) {
				t.Errorf("the log does not tell of %q", want)
			}
		}
		for _, secret := range []string{"geheim", servicetest.Password, url.QueryEscape(servicetest.Password), url.PathEscape(servicetest.Password)} {
			if strings.Contains(said, secret) {
				t.Errorf("the log tells %q:\n%s", secret, said)
			}
		}
	})
}

func logged() (*slog.Logger, *lines) {
	l := &lines{}
	return slog.New(slog.NewTextHandler(l, &slog.HandlerOptions{Level: slog.LevelDebug})), l
}

// lines is a log that can be read while it is written.
type lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
