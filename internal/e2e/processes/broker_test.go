package processes

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"sockudo/internal/redisconn"
	"sockudo/internal/servicetest"
)

// A broker is a real one that belongs to one test, with what can happen to it.
type broker struct {
	// adapter are the settings of node i.
	adapter func(i int) map[string]any
	crash   func(t *testing.T)
	recover func(t *testing.T)
	flush   func(t *testing.T) // nil: it keeps nothing
	// cutOff keeps the last node from the broker, rejoin lets it back.
	cutOff func(t *testing.T)
	rejoin func(t *testing.T)
	slow   func(d time.Duration) // makes the last node's way to it longer; nil: nothing can
}

const last = 2 // the node that brokers can cut off

// brokers are started anew for each test that asks for one.
var brokers = map[string]func(t *testing.T) *broker{
	"redis":         redisBroker,
	"redis-cluster": clusterBroker,
	"nats":          natsBroker,
	"sentinel":      sentinelBroker,
}

func redisBroker(t *testing.T) *broker {
	s := servicetest.Start(t, servicetest.Options{}, "redis")
	addr := s.Redis(t).Addrs[0]
	proxy := servicetest.NewProxy(t, addr)
	return &broker{
		adapter: func(i int) map[string]any {
			url := "redis://" + addr
			if i == last {
				url = "redis://" + proxy.Addr()
			}
			return map[string]any{"driver": "redis", "redis": map[string]any{
				"redis_pub_options": map[string]any{"url": url}, "requests_timeout": answerTimeout.Milliseconds(),
			}}
		},
		crash:   func(t *testing.T) { s.Kill(t, "redis") },
		recover: func(t *testing.T) { s.Restart(t, "redis") },
		flush:   func(t *testing.T) { command(t, redisconn.Endpoint{Addrs: []string{addr}}, "FLUSHALL") },
		cutOff:  func(*testing.T) { proxy.Refuse() },
		rejoin:  func(t *testing.T) { proxy.Accept(t) },
		slow:    proxy.Slow,
	}
}

// command does what an operator does.
func command(t *testing.T, e redisconn.Endpoint, command ...string) {
	t.Helper()
	c, err := redisconn.Dial(context.WithoutCancel(t.Context()), redisconn.Options(e))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.Do(t.Context(), c.B().Arbitrary(command...).Build()).Error(); err != nil {
		t.Fatalf("%s: %v", strings.Join(command, " "), err)
	}
}

// clusterBroker cuts a node off by its user: the servers of a cluster name
// each other, so a proxy in front of them would be passed by.
func clusterBroker(t *testing.T) *broker {
	const user, password = "lastnode", "geheim"
	s := servicetest.Start(t, servicetest.Options{}, "cluster")
	addrs := s.Cluster(t).Addrs
	every := func(t *testing.T, words ...string) {
		t.Helper()
		for _, addr := range addrs {
			command(t, redisconn.Endpoint{Addrs: []string{addr}}, words...)
		}
	}
	admit := func(t *testing.T) { every(t, "ACL", "SETUSER", user, "on", ">"+password, "~*", "&*", "+@all") }
	admit(t)
	return &broker{
		adapter: func(i int) map[string]any {
			var nodes []string
			for _, addr := range addrs {
				if i == last {
					addr = user + ":" + password + "@" + addr
				}
				nodes = append(nodes, "redis://"+addr)
			}
			return map[string]any{"driver": "redis-cluster", "cluster": map[string]any{
				"nodes": nodes, "request_timeout_ms": answerTimeout.Milliseconds(),
			}}
		},
		crash: func(t *testing.T) {
			for i := range addrs {
				s.Kill(t, fmt.Sprint("node", i+1))
			}
		},
		recover: func(t *testing.T) {
			var starting sync.WaitGroup // one is not well without the others
			for i := range addrs {
				starting.Go(func() { s.Restart(t, fmt.Sprint("node", i+1)) })
			}
			starting.Wait()
			admit(t) // they have forgotten their users
		},
		flush: func(t *testing.T) { every(t, "FLUSHALL") },
		cutOff: func(t *testing.T) {
			every(t, "ACL", "SETUSER", user, "off")
			every(t, "CLIENT", "KILL", "USER", user)
		},
		rejoin: admit,
	}
}

func natsBroker(t *testing.T) *broker {
	s := servicetest.Start(t, servicetest.Options{Hidden: true}, "nats")
	servers := strings.Split(s.Env(t, servicetest.NATS), ",")
	var proxies []*servicetest.Proxy
	var through []string
	for _, server := range servers {
		p := servicetest.NewProxy(t, strings.TrimPrefix(server, "nats://"))
		proxies, through = append(proxies, p), append(through, "nats://"+p.Addr())
	}
	every := func(f func(server string)) {
		for i := range servers {
			f(fmt.Sprint("nats", i+1))
		}
	}
	return &broker{
		adapter: func(i int) map[string]any {
			list := servers
			if i == last {
				list = through
			}
			return map[string]any{"driver": "nats", "nats": map[string]any{
				"servers": list, "request_timeout_ms": answerTimeout.Milliseconds(),
			}}
		},
		crash:   func(t *testing.T) { every(func(name string) { s.Kill(t, name) }) },
		recover: func(t *testing.T) { every(func(name string) { s.Restart(t, name) }) },
		cutOff: func(*testing.T) {
			for _, p := range proxies {
				p.Refuse()
			}
		},
		rejoin: func(t *testing.T) {
			for _, p := range proxies {
				p.Accept(t)
			}
		},
		slow: func(d time.Duration) {
			for _, p := range proxies {
				p.Slow(d)
			}
		},
	}
}

func sentinelBroker(t *testing.T) *broker {
	const password = "geheim"
	s := servicetest.Start(t, servicetest.Options{Password: password}, "sentinel")
	e := s.Sentinel(t, password)
	var hosts []map[string]any
	for _, addr := range e.Addrs {
		hosts = append(hosts, map[string]any{"host": addr})
	}
	return &broker{
		adapter: func(int) map[string]any {
			return map[string]any{"driver": "redis", "redis": map[string]any{
				"redis_pub_options": map[string]any{
					"password": password,
					"sentinel": map[string]any{"master_name": e.Master, "hosts": hosts, "password": password},
				},
				"requests_timeout": answerTimeout.Milliseconds(),
			}}
		},
		crash:   func(t *testing.T) { s.Kill(t, "master") },
		recover: func(*testing.T) {}, // the Sentinels do that
		flush:   func(t *testing.T) { command(t, e, "FLUSHALL") },
	}
}
