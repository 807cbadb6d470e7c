package processes

import (
	"net"
	"strings"
	"testing"

	"sockudo/internal/servicetest"
)

// officialClients has unmodified clients and the Node server library at all
// nodes; see test/clients/cluster.test.js.
func officialClients(t *testing.T, s *site) {
	var ports []string
	for _, n := range s.nodes {
		_, port, err := net.SplitHostPort(n.addr)
		if err != nil {
			t.Fatal(err)
		}
		ports = append(ports, port)
	}
	results := servicetest.NewClients(t).Run(t, "cluster.test.js",
		"SOCKUDO_HOST=127.0.0.1", "SOCKUDO_PORT="+ports[0], "SOCKUDO_NODES="+strings.Join(ports, ","),
		"SOCKUDO_APP_ID="+app.ID, "SOCKUDO_APP_KEY="+app.Key, "SOCKUDO_APP_SECRET="+app.Secret)
	for _, r := range results {
		t.Run(strings.Join(r.Name, "/"), r.Report)
	}
}
