package httpapi

import (
	"net/http"
	"slices"
	"strings"
)

// CORS says which pages may call the API. The zero value: every one, without
// credentials.
type CORS struct {
	Origins     []string // exact origins, or "*"; nil: "*"; empty but not nil: none
	Methods     []string
	Headers     []string
	Credentials bool // only with exact origins
}

type cors struct {
	origins     []string
	any         bool
	methods     string
	headerNames string
	credentials bool
}

func newCORS(o CORS) cors {
	if o.Methods == nil {
		o.Methods = []string{"GET", "POST", "OPTIONS"}
	}
	if o.Headers == nil {
		o.Headers = []string{"Authorization", "Content-Type", "X-Requested-With", "Accept"}
	}
	c := cors{
		origins:     o.Origins,
		any:         o.Origins == nil || slices.Contains(o.Origins, "*"),
		methods:     strings.Join(o.Methods, ", "),
		headerNames: strings.Join(o.Headers, ", "),
	}
	c.credentials = o.Credentials && !c.any && len(o.Origins) > 0
	return c
}

// headers sets what every answer carries.
func (c *cors) headers(h http.Header, r *http.Request) {
	switch {
	case c.any:
		h.Set("Access-Control-Allow-Origin", "*")
		return
	case len(c.origins) == 0:
		return
	}
	h.Add("Vary", "Origin")
	if origin := r.Header.Get("Origin"); slices.Contains(c.origins, origin) {
		h.Set("Access-Control-Allow-Origin", origin)
		if c.credentials {
			h.Set("Access-Control-Allow-Credentials", "true")
		}
	}
}

// preflight answers OPTIONS, whatever the path.
func (c *cors) preflight(w http.ResponseWriter) {
	if c.any || len(c.origins) > 0 {
		w.Header().Set("Access-Control-Allow-Methods", c.methods)
		w.Header().Set("Access-Control-Allow-Headers", c.headerNames)
		w.Header().Set("Access-Control-Max-Age", "600")
	}
	w.Header().Set("Content-Length", "0")
	w.WriteHeader(http.StatusOK)
}
