package foreign

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	"sockudo/internal/app"
)

// ErrNoApp says that there is nothing of an app in what was read.
var ErrNoApp = errors.New("has no app")

// elsewhere are variables of Reverb that are settings of the server here, and which.
var elsewhere = map[string]string{
	"REVERB_APP_ACTIVITY_TIMEOUT": "activity_timeout of the server is for all apps",
	"REVERB_APP_PING_INTERVAL":    "activity_timeout of the server is for all apps",
	"REVERB_SERVER_HOST":          "host of the server",
	"REVERB_SERVER_PORT":          "port of the server",
	"REVERB_SERVER_PATH":          "path_prefix of the server",
	"REVERB_SCALING_ENABLED":      "adapter.driver of the server",
	"REVERB_SCALING_CHANNEL":      "adapter.redis.prefix of the server",
	"REVERB_HOST":                 "is for the clients: point them to this server",
	"REVERB_PORT":                 "is for the clients: point them to this server",
	"REVERB_SCHEME":               "is for the clients: point them to this server",
	"REVERB_MAX_REQUEST_SIZE":     "http_api.request_limit_in_mb of the server",
}

// Reverb reads the app that Laravel Reverb makes of the variables of an .env;
// ErrNoApp if it has none of them.
func Reverb(vars map[string]string) ([]Imported, error) {
	r := reverb{vars: map[string]string{}, Imported: Imported{App: &app.App{Enabled: true}}}
	for name, value := range vars {
		if strings.HasPrefix(name, "REVERB_") {
			r.vars[name] = value
		}
	}
	if len(r.vars) == 0 {
		return nil, fmt.Errorf("%w: no variable REVERB_APP_ID, REVERB_APP_KEY and REVERB_APP_SECRET", ErrNoApp)
	}
	for _, c := range []struct {
		name, to string
		set      func(string)
	}{
		{"REVERB_APP_ID", "id", func(s string) { r.App.ID = s }},
		{"REVERB_APP_KEY", "key", func(s string) { r.App.Key = s }},
		{"REVERB_APP_SECRET", "secret", func(s string) { r.App.Secret = app.Secret(s) }},
	} {
		text, ok := r.take(c.name)
		if !ok {
			return nil, fmt.Errorf("%s is not set", c.name)
		}
		c.set(text)
		r.mapped(c.name, c.to, "")
	}
	for _, read := range []func() error{r.connections, r.clientEvents, r.rate, r.sizes} {
		if err := read(); err != nil {
			return nil, err
		}
	}
	r.origins()
	for _, name := range slices.Sorted(maps.Keys(r.vars)) {
		why := elsewhere[name]
		if why == "" {
			why = "is no setting of an app here"
		}
		r.left(name, why)
	}
	return []Imported{r.Imported}, nil
}

type reverb struct {
	Imported
	vars map[string]string // not read yet
}

// take returns a variable that has a value. In Laravel null and (null) are none.
func (r *reverb) take(name string) (string, bool) {
	text, ok := r.vars[name]
	delete(r.vars, name)
	switch strings.ToLower(text) {
	case "", "null", "(null)", "empty", "(empty)":
		return "", false
	}
	return text, ok
}

// number is take for a limit.
func (r *reverb) number(name string) (n uint32, note string, ok bool, err error) {
	text, ok := r.take(name)
	if !ok {
		return 0, "", false, nil
	}
	if n, note, err = limit(strings.ReplaceAll(text, "_", "")); err != nil {
		return 0, "", false, fmt.Errorf("%s %w", name, err)
	}
	return n, note, true, nil
}

func (r *reverb) connections() error {
	const name = "REVERB_APP_MAX_CONNECTIONS"
	n, note, ok, err := r.number(name)
	if err == nil && ok {
		r.App.MaxConnections = n
		r.mapped(name, "max_connections", note)
	}
	return err
}

func (r *reverb) clientEvents() error {
	const name = "REVERB_APP_ACCEPT_CLIENT_EVENTS_FROM"
	text, ok := r.take(name)
	note := ""
	switch strings.ToLower(text) {
	case "none":
	case "all":
		r.App.EnableClientMessages, note = true, "of subscribers of the channel only"
	case "members":
		r.App.EnableClientMessages = true
	default:
		if ok {
			return fmt.Errorf("%s is %q, want all, members or none", name, clip(text))
		}
		r.App.EnableClientMessages, note = true, "not set, which means members"
	}
	r.mapped(name, "enable_client_messages", note)
	return nil
}

func (r *reverb) rate() error {
	enabled, _ := r.take("REVERB_APP_RATE_LIMITING_ENABLED")
	on, err := boolean(enabled)
	if err != nil {
		return fmt.Errorf("REVERB_APP_RATE_LIMITING_ENABLED %w", err)
	}
	attempts, _, hasAttempts, err := r.number("REVERB_APP_RATE_LIMIT_MAX_ATTEMPTS")
	if err != nil {
		return err
	}
	seconds, _, hasSeconds, err := r.number("REVERB_APP_RATE_LIMIT_DECAY_SECONDS")
	if err != nil {
		return err
	}
	if text, ok := r.take("REVERB_APP_RATE_LIMIT_TERMINATE"); ok {
		if end, err := boolean(text); err != nil {
			return fmt.Errorf("REVERB_APP_RATE_LIMIT_TERMINATE %w", err)
		} else if on && end {
			r.left("REVERB_APP_RATE_LIMIT_TERMINATE", "connections stay open here, the events above the limit are refused")
		}
	}
	if !on {
		return nil
	}
	if !hasAttempts {
		attempts = 60
	}
	if !hasSeconds || seconds == 0 {
		seconds = 60
	}
	r.App.MaxClientEventsPerSecond = uint32(max(1, math.Ceil(float64(attempts)/float64(seconds))))
	r.mapped("REVERB_APP_RATE_LIMIT_MAX_ATTEMPTS", "max_client_events_per_second",
		fmt.Sprintf("%d messages in %d seconds are %d client events per second", attempts, seconds, r.App.MaxClientEventsPerSecond))
	return nil
}

// sizes maps the size of a message, which bounds the events of the API too.
func (r *reverb) sizes() error {
	const name = "REVERB_APP_MAX_MESSAGE_SIZE"
	n, note, ok, err := r.number(name)
	if err != nil || !ok {
		return err
	}
	kib := uint32(0)
	if n > 0 {
		kib = (n-1)/1024 + 1
		note = fmt.Sprintf("%d bytes of a message are %d KiB of the data of an event, from the API too", n, kib)
	}
	r.App.MaxEventPayloadInKB = &kib
	r.mapped(name, "max_event_payload_in_kb", note)
	return nil
}

// origins maps a variable that config/reverb.php does not have by itself and
// many have added. Reverb compares the host of the page only.
func (r *reverb) origins() {
	var name, text string
	ok := false
	for _, n := range []string{"REVERB_ALLOWED_ORIGINS", "REVERB_APP_ALLOWED_ORIGINS"} {
		if t, there := r.take(n); there && !ok {
			name, text, ok = n, t, true
		}
	}
	if !ok {
		r.left("allowed_origins of config/reverb.php", "is no variable: set it with --allowed-origin if it is not *")
		return
	}
	var origins []string
	for pattern := range strings.SplitSeq(text, ",") {
		switch pattern = strings.TrimSpace(pattern); {
		case pattern == "":
		case pattern == "*":
			r.mapped(name, "allowed_origins", "all")
			return
		case strings.Contains(pattern, "://") || strings.Contains(pattern, "*") || strings.Contains(pattern, ":"):
			origins = append(origins, pattern)
		default:
			origins = append(origins, pattern, pattern+":*") // whatever the port
		}
	}
	r.App.AllowedOrigins = origins
	r.mapped(name, "allowed_origins", "")
}
