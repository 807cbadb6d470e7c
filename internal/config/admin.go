package config

import (
	"net"
	"strconv"
)

// adminOffset is by how much the port of the admin listener differs from the
// main one, if nothing else is said: so several nodes of a machine, whose main
// ports differ, are told apart.
const adminOffset = 10_000

// AdminAddr returns where the admin listener is, as net.Listen wants it. A port
// of 0 stands for any free one. If the settings leave it open, it follows from
// the main listener: its port and 10000, less 10000 where that would be too
// much; beside a Unix socket, another one with .admin behind its name.
func (c *Config) AdminAddr() (network, address string) {
	a := &c.Admin
	if a.UnixSocket != "" {
		return "unix", a.UnixSocket
	}
	if c.UnixSocket.Enabled && a.Port == 0 {
		return "unix", c.UnixSocket.Path + ".admin"
	}
	port := int(a.Port)
	if port == 0 && c.Port != 0 {
		if port = int(c.Port) + adminOffset; port > 65535 {
			port -= 2 * adminOffset
		}
	}
	return "tcp", net.JoinHostPort(a.Host, strconv.Itoa(port))
}

// AdminIsLoopback reports whether only processes of this machine can reach the
// admin listener, as far as the settings tell.
func (c *Config) AdminIsLoopback() bool {
	if network, _ := c.AdminAddr(); network == "unix" {
		return true
	}
	ip := net.ParseIP(c.Admin.Host)
	return c.Admin.Host == "localhost" || ip != nil && ip.IsLoopback()
}
