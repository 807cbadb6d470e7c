package server

import (
	"context"
	"errors"
	"fmt"
	"net"

	"sockudo/internal/admin"
	"sockudo/internal/cluster"
	"sockudo/internal/config"
)

// listenAdmin binds the listener for operators. That it cannot be bound ends
// nothing; that others could reach it without a token does.
func (s *Server) listenAdmin(ctx context.Context, opts Options) error {
	if !s.cfg.Admin.Enabled {
		return nil
	}
	ln, err := s.bindAdmin(ctx)
	if err != nil {
		_, address := s.cfg.AdminAddr()
		s.log.Error("the admin listener is not served (settings admin.host, admin.port and admin.unix_socket)", "addr", address, "err", err)
		return nil
	}
	if tcp, ok := ln.Addr().(*net.TCPAddr); ok && !tcp.IP.IsLoopback() && s.cfg.Admin.Token == "" {
		return errors.Join(fmt.Errorf("admin.host %q is the address %s, which others can reach without a token: set admin.token, or admin.host to 127.0.0.1", s.cfg.Admin.Host, tcp.IP), ln.Close())
	}
	s.asked = admin.Bound(ln)
	s.tools = admin.NewServer(admin.Node{
		Identity:    AdminIdentity(s.cfg, s.peers != nil),
		Peers:       s.peers,
		Connections: s.hub.Connections,
		ChangeApp:   s.node.ChangeApp,
	}, admin.Options{Token: s.cfg.Admin.Token, Log: opts.Log})
	return nil
}

func (s *Server) bindAdmin(ctx context.Context) (net.Listener, error) {
	network, address := s.cfg.AdminAddr()
	if network == "unix" {
		return listenSocket(address, 0o600)
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	n, err := net.LookupPort("tcp", port)
	if err != nil {
		return nil, err
	}
	return listenTCP(ctx, host, uint16(n), "")
}

// AdminAddr is where the admin listener is, or nil.
func (s *Server) AdminAddr() net.Addr {
	if s.asked == nil {
		return nil
	}
	return s.asked.Addr()
}

// AdminIdentity says which cluster a node with these settings belongs to.
func AdminIdentity(cfg *config.Config, among bool) admin.Identity {
	id := admin.Identity{Driver: "local"}
	if among {
		prefix, _, _ := adapter(cfg)
		id = admin.Identity{Driver: cfg.Adapter.Driver, Cluster: cfg.Adapter.ClusterID, Prefix: prefix}
	}
	return id
}

// TellApps tells the nodes of a cluster through their broker which apps have
// changed, from a process that is none of them.
func TellApps(ctx context.Context, cfg *config.Config, apps []string) error {
	open, err := busOpener(cfg, nil)
	if err != nil {
		return err
	}
	if open == nil {
		return errors.New("adapter.driver is local: there is no broker")
	}
	bus, err := open(ctx)
	if err != nil {
		return err
	}
	defer bus.Close()
	return cluster.Announce(ctx, bus, clusterOptions(cfg), apps)
}
