// Package admin is the listener for operators: what nodes know of each other,
// and word of changed apps. It answers in JSON, shows no secrets, and is bounded
// in all that callers can ask for. Call speaks to it.
//
// Without a token only the machine itself may ask, and that must not become a
// web page that a browser there shows: a request that names another host than
// a loopback one, or that comes from a page, is refused.
package admin

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"time"

	"sockudo/internal/app"
	"sockudo/internal/cluster"
)

// Options are the parts of a listener that have a default.
type Options struct {
	Token app.Secret   // that requests must carry; "": none, and only loopback names are answered
	Log   *slog.Logger // nil: nothing is logged
}

// A Node is what the listener speaks for.
type Node struct {
	Identity
	Peers *cluster.Cluster // nil: the node is alone
	// Connections counts the open sockets of the node.
	Connections func() int
	// ChangeApp makes the node and its peers look up an app anew.
	ChangeApp func(ctx context.Context, id string) error
}

// Identity says which cluster a node belongs to.
type Identity struct {
	Driver  string `json:"driver"`     // adapter.driver; local if the node is alone, whatever was wanted
	Cluster string `json:"cluster_id"` // adapter.cluster_id
	Prefix  string `json:"prefix"`     // of topics
}

// Status answers GET /cluster/status.
type Status struct {
	Identity
	Connections int `json:"connections"` // of the node that was asked
	cluster.Survey
}

// Audit answers GET /cluster/audit.
type Audit struct {
	Identity
	cluster.Audit
}

// Changed is asked by POST /apps/changed.
type Changed struct {
	Apps []string `json:"apps"` // ids, at most MaxApps
}

// Told answers it: the node itself and so many peers look the apps up anew.
type Told struct {
	Identity
	Peers int `json:"peers"`
}

const (
	// MaxApps bounds what one request may change.
	MaxApps = 1000
	maxBody = 1 << 20
	// maxAtOnce bounds the requests that are worked at, and maxConns the
	// connections.
	maxAtOnce = 16
	maxConns  = 64

	tellTimeout = 5 * time.Second
	// answerTimeout is longer than an audit that waits for another.
	answerTimeout = 15 * time.Second
)

// NewServer returns the server of a node's listener. Its Serve wants a listener
// from Bound.
func NewServer(n Node, opts Options) *http.Server {
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	log := opts.Log.With("component", "admin")
	h := &handler{node: n, opts: opts, log: log, busy: make(chan struct{}, maxAtOnce)}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /cluster/status", h.status)
	mux.HandleFunc("GET /cluster/audit", h.audit)
	mux.HandleFunc("POST /apps/changed", h.changed)
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		refuse(w, http.StatusNotFound, "there are GET /cluster/status, GET /cluster/audit and POST /apps/changed")
	})
	return &http.Server{
		Handler:           h.guard(mux),
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      answerTimeout + 10*time.Second,
		IdleTimeout:       30 * time.Second,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
}

type handler struct {
	node Node
	opts Options
	log  *slog.Logger
	busy chan struct{} // holds one for each request that is worked at
}

// guard lets those pass who may ask, as many as can be borne.
func (h *handler) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if why, status := h.refusal(r); why != "" {
			h.log.Warn("request refused", "reason", why, "remote", r.RemoteAddr)
			if status == http.StatusUnauthorized {
				w.Header().Set("WWW-Authenticate", "Bearer")
			}
			refuse(w, status, why)
			return
		}
		select {
		case h.busy <- struct{}{}:
			defer func() { <-h.busy }()
		default:
			w.Header().Set("Retry-After", "1")
			refuse(w, http.StatusServiceUnavailable, "too many requests at once")
			return
		}
		ctx, cancel := context.WithTimeout(r.Context(), answerTimeout)
		defer cancel()
		next.ServeHTTP(w, r.WithContext(ctx))
	})
}

// refusal says why a request is not answered, "" if it is.
func (h *handler) refusal(r *http.Request) (why string, status int) {
	site := r.Header.Get("Sec-Fetch-Site")
	switch {
	case r.Header.Get("Origin") != "" || site != "" && site != "none":
		return "this is not for web pages", http.StatusForbidden
	case h.opts.Token == "" && !loopbackName(r.Host):
		return "the Host of the request is no loopback name; set admin.token to be asked by other names", http.StatusMisdirectedRequest
	case h.opts.Token != "" && !h.opts.carried(r):
		return "the token is missing or wrong (setting admin.token)", http.StatusUnauthorized
	}
	return "", 0
}

// carried compares the token of a request in a time that tells nothing of it.
func (o *Options) carried(r *http.Request) bool {
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	got, want := sha256.Sum256([]byte(token)), sha256.Sum256([]byte(o.Token.Reveal()))
	return subtle.ConstantTimeCompare(got[:], want[:]) == 1 && strings.EqualFold(scheme, "Bearer")
}

// loopbackName reports whether a host, with or without port, can only be the
// machine itself. Names of others may lead here too, by DNS.
func loopbackName(host string) bool {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	ip := net.ParseIP(host)
	return strings.EqualFold(host, "localhost") || ip != nil && ip.IsLoopback()
}

func (h *handler) status(w http.ResponseWriter, r *http.Request) {
	s := Status{Identity: h.node.Identity, Connections: h.node.Connections(), Survey: cluster.Survey{Nodes: []cluster.Status{}, Silent: []string{}}}
	if h.node.Peers != nil {
		var err error
		if s.Survey, err = h.node.Peers.Survey(r.Context()); err != nil {
			refuse(w, http.StatusServiceUnavailable, err.Error())
			return
		}
	}
	answer(w, http.StatusOK, s)
}

func (h *handler) audit(w http.ResponseWriter, r *http.Request) {
	a := Audit{Identity: h.node.Identity, Audit: cluster.Audit{
		Disagreements: []string{}, Moving: []string{}, Survey: cluster.Survey{Nodes: []cluster.Status{}, Silent: []string{}},
	}}
	if h.node.Peers != nil {
		var err error
		if a.Audit, err = h.node.Peers.Audit(r.Context()); err != nil {
			refuse(w, http.StatusServiceUnavailable, err.Error())
			return
		}
	}
	answer(w, http.StatusOK, a)
}

func (h *handler) changed(w http.ResponseWriter, r *http.Request) {
	var c Changed
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody)).Decode(&c); err != nil {
		var large *http.MaxBytesError
		if errors.As(err, &large) {
			refuse(w, http.StatusRequestEntityTooLarge, fmt.Sprintf("the body is larger than %d bytes", maxBody))
			return
		}
		refuse(w, http.StatusBadRequest, `expected {"apps": ["id"]}: `+err.Error())
		return
	}
	if len(c.Apps) > MaxApps {
		refuse(w, http.StatusBadRequest, fmt.Sprintf("%d apps at once, at most %d are allowed", len(c.Apps), MaxApps))
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), tellTimeout)
	defer cancel()
	for _, id := range c.Apps {
		if err := h.node.ChangeApp(ctx, id); err != nil {
			// This node knows, others find out by themselves.
			refuse(w, http.StatusBadGateway, err.Error())
			return
		}
	}
	t := Told{Identity: h.node.Identity}
	if h.node.Peers != nil {
		t.Peers = len(h.node.Peers.Status().Peers)
	}
	answer(w, http.StatusOK, t)
}

// problem is the body of every answer that is not 200.
type problem struct {
	Error string `json:"error"`
}

func refuse(w http.ResponseWriter, status int, why string) { answer(w, status, problem{why}) }

func answer(w http.ResponseWriter, status int, body any) {
	text, err := json.Marshal(body)
	if err != nil {
		status, text = http.StatusInternalServerError, []byte(`{"error":"the answer cannot be written"}`)
	}
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	_, _ = w.Write(append(text, '\n')) // whoever asked may have gone
}
