package ws

import (
	"crypto/sha1"
	"encoding/base64"
	"fmt"
	"net/http"
	"strconv"
	"strings"
)

const acceptGUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

// IsUpgrade reports whether a request asks for WebSocket, rightly or not.
func IsUpgrade(r *http.Request) bool {
	return hasToken(r.Header, "Upgrade", "websocket")
}

func hasToken(h http.Header, name, token string) bool {
	for _, line := range h.Values(name) {
		for part := range strings.SplitSeq(line, ",") {
			if strings.EqualFold(strings.TrimSpace(part), token) {
				return true
			}
		}
	}
	return false
}

// checkUpgrade returns what is wrong with an upgrade request (RFC 6455, 4.2.1).
func checkUpgrade(r *http.Request) *Refusal {
	bad := func(reason string) *Refusal {
		return &Refusal{Status: http.StatusBadRequest, Body: "Bad WebSocket request: " + reason + "\n"}
	}
	key, err := base64.StdEncoding.DecodeString(r.Header.Get("Sec-Websocket-Key"))
	switch {
	case r.Method != http.MethodGet:
		return bad("the method must be GET")
	case !r.ProtoAtLeast(1, 1):
		return bad("HTTP/1.1 is needed")
	case r.Host == "":
		return bad("Host is missing")
	case r.ContentLength > 0 || len(r.TransferEncoding) > 0:
		return bad("it must not have a body")
	case !hasToken(r.Header, "Connection", "upgrade"):
		return bad("Connection must name upgrade")
	case r.Header.Get("Sec-Websocket-Version") != "13":
		return &Refusal{
			Status: http.StatusUpgradeRequired,
			Header: http.Header{"Sec-Websocket-Version": {"13"}},
			Body:   "WebSocket version 13 is needed.\n",
		}
	case err != nil || len(key) != 16 || len(r.Header["Sec-Websocket-Key"]) > 1:
		return bad("Sec-WebSocket-Key must be 16 bytes in base64")
	}
	return nil
}

// acceptKey proves that a server understood a key (RFC 6455, 4.2.2).
func acceptKey(key string) string {
	sum := sha1.Sum([]byte(key + acceptGUID))
	return base64.StdEncoding.EncodeToString(sum[:])
}

// appendSwitch appends the answer that ends HTTP. No subprotocol and no
// extension is ever agreed on.
func appendSwitch(dst []byte, key string) []byte {
	dst = append(dst, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "...)
	dst = append(dst, acceptKey(key)...)
	return append(dst, "\r\n\r\n"...)
}

// appendRefusal appends an answer after which the connection is closed.
func appendRefusal(dst []byte, r *Refusal) []byte {
	dst = fmt.Appendf(dst, "HTTP/1.1 %d %s\r\n", r.Status, http.StatusText(r.Status))
	h := r.Header.Clone()
	if h == nil {
		h = http.Header{}
	}
	h.Set("Connection", "close")
	h.Set("Content-Length", strconv.Itoa(len(r.Body)))
	if h.Get("Content-Type") == "" {
		h.Set("Content-Type", "text/plain; charset=utf-8")
	}
	var b strings.Builder
	_ = h.Write(&b) // a strings.Builder takes everything
	dst = append(dst, b.String()...)
	dst = append(dst, "\r\n"...)
	return append(dst, r.Body...)
}

// writeRefusal answers through net/http.
func writeRefusal(w http.ResponseWriter, r *Refusal) {
	for name, values := range r.Header {
		w.Header()[name] = values
	}
	w.Header().Set("Connection", "close")
	if w.Header().Get("Content-Type") == "" {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	}
	w.WriteHeader(r.Status)
	_, _ = w.Write([]byte(r.Body)) // the client may be gone
}
