package httpapi

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"sockudo/internal/protocol"
)

// A writer counts the bytes of an answer and leaves the body of a HEAD out.
type writer struct {
	http.ResponseWriter
	head  bool
	bytes int
}

func (w *writer) send(status int, contentType string, body []byte) {
	h := w.Header()
	h.Set("Content-Type", contentType)
	h.Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	if w.head {
		return
	}
	w.bytes = len(body)
	_, _ = w.Write(body) // the client may be gone
}

func (w *writer) text(status int, body string) {
	w.send(status, "text/plain; charset=utf-8", []byte(body))
}

func (c *call) json(body []byte) { c.w.send(http.StatusOK, "application/json", body) }

// emptyObject is the answer that has nothing to say. It must not be changed.
var emptyObject = []byte("{}")

// fail answers with an error body that every server library can read.
func (c *call) fail(status int, slug, message string) {
	body := append(make([]byte, 0, len(message)+64), `{"error":`...)
	body = protocol.AppendString(body, message)
	body = append(body, `,"code":"`...)
	body = append(body, slug...)
	body = append(body, `","status":`...)
	body = strconv.AppendInt(body, int64(status), 10)
	c.w.send(status, "application/json", append(body, '}'))
}

func (c *call) invalid(message string) { c.fail(http.StatusBadRequest, "invalid_input", message) }

// unavailable asks the client to try again.
func (c *call) unavailable(message string) {
	c.w.Header().Set("Retry-After", "1")
	c.fail(http.StatusServiceUnavailable, "service_unavailable", message)
}

// internal answers without telling what happened; that is in the log.
func (c *call) internal() {
	c.fail(http.StatusInternalServerError, "internal_error", "Internal error")
}

// clip makes text that a client sent fit for an answer or the log.
func clip(s string) string {
	const most = 200
	if len(s) > most {
		s = s[:most] + "…"
	}
	return strings.ToValidUTF8(s, "\ufffd")
}

func sizeText(bytes int64) string {
	if bytes%(1<<20) == 0 {
		return fmt.Sprintf("%d MiB", bytes>>20)
	}
	return fmt.Sprintf("%d bytes", bytes)
}
