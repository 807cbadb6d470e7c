package ws

import "crypto/tls"

type tlsConn interface {
	ConnectionState() tls.ConnectionState
}
