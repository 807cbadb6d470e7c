package app

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// MaxNameBytes is how long an id, a key or a secret may be; the columns of the
// SQL stores hold no more.
const MaxNameBytes = 255

// A Column is one field of an app as stores keep it (storage section 1): a
// column of a table, an attribute of an item, a member of a JSON object.
type Column struct {
	Name string
	Kind Kind
	// Need says what a table must have of it.
	Need Need
	// Feature says that an app without it only lacks a feature: a store that
	// cannot keep it may go on with a warning. Without the others an app would
	// admit more than it should, or lose data.
	Feature bool

	set func(a *App, text string) error
	get func(a *App) any
}

// A Kind is what a column holds.
type Kind int

// The kinds of columns. Value returns the type that stands behind each.
const (
	Text Kind = iota // string
	Uint             // uint32
	Bool             // bool
	JSON             // string, a JSON list
)

// A Need says whether a table must have a column.
type Need int

// The needs of a column.
const (
	Required Need = iota // a table without it cannot be used
	Optional             // nullable, added to a table when it is missing
	Extra                // ours: read if it is there, added when an app first uses it
)

// Columns are all fields of an app, in the order of storage section 1, those
// that Sockudo does not know at the end.
func Columns() []Column { return columns }

var columns = []Column{
	text("id", Required, func(a *App) *string { return &a.ID }),
	text("key", Required, func(a *App) *string { return &a.Key }),
	text("secret", Required, func(a *App) *string { return (*string)(&a.Secret) }),
	number("max_connections", func(a *App) *uint32 { return &a.MaxConnections }),
	flag("enable_client_messages", false, func(a *App) *bool { return &a.EnableClientMessages }),
	flag("enabled", false, func(a *App) *bool { return &a.Enabled }),
	optionalNumber("max_backend_events_per_second", func(a *App) **uint32 { return &a.MaxBackendEventsPerSecond }),
	number("max_client_events_per_second", func(a *App) *uint32 { return &a.MaxClientEventsPerSecond }),
	optionalNumber("max_read_requests_per_second", func(a *App) **uint32 { return &a.MaxReadRequestsPerSecond }),
	optionalNumber("max_presence_members_per_channel", func(a *App) **uint32 { return &a.MaxPresenceMembersPerChannel }),
	optionalNumber("max_presence_member_size_in_kb", func(a *App) **uint32 { return &a.MaxPresenceMemberSizeInKB }),
	optionalNumber("max_channel_name_length", func(a *App) **uint32 { return &a.MaxChannelNameLength }),
	optionalNumber("max_event_channels_at_once", func(a *App) **uint32 { return &a.MaxEventChannelsAtOnce }),
	optionalNumber("max_event_name_length", func(a *App) **uint32 { return &a.MaxEventNameLength }),
	optionalNumber("max_event_payload_in_kb", func(a *App) **uint32 { return &a.MaxEventPayloadInKB }),
	optionalNumber("max_event_batch_size", func(a *App) **uint32 { return &a.MaxEventBatchSize }),
	optionalFlag("enable_user_authentication", Optional, func(a *App) **bool { return &a.EnableUserAuthentication }),
	feature("enable_watchlist_events", Optional, func(a *App) **bool { return &a.EnableWatchlistEvents }),
	{
		Name: "webhooks", Kind: JSON, Need: Optional,
		set: func(a *App, text string) (err error) { a.Webhooks, err = ParseWebhooks([]byte(text)); return err },
		get: func(a *App) any { return jsonList(a.Webhooks) },
	},
	{
		Name: "allowed_origins", Kind: JSON, Need: Optional,
		set: func(a *App, text string) (err error) {
			a.AllowedOrigins, err = ParseOrigins([]byte(text))
			return err
		},
		get: func(a *App) any { return jsonList(a.AllowedOrigins) },
	},
	{
		Name: "previous_secret", Kind: Text, Need: Extra,
		set: func(a *App, text string) error { a.PreviousSecret = Secret(text); return nil },
		get: func(a *App) any {
			if a.PreviousSecret == "" {
				return nil
			}
			return a.PreviousSecret.Reveal()
		},
	},
	{
		Name: "previous_secret_until", Kind: Text, Need: Extra, // behind previous_secret, which it ends
		set: func(a *App, text string) (err error) {
			if a.PreviousUntil, err = ParseTime(text); err != nil {
				a.PreviousSecret = "" // it would be accepted for ever
			}
			return err
		},
		get: func(a *App) any {
			if a.PreviousSecret == "" || a.PreviousUntil.IsZero() {
				return nil
			}
			return FormatTime(a.PreviousUntil)
		},
	},
	feature("enable_subscription_count", Extra, func(a *App) **bool { return &a.EnableSubscriptionCount }),
	optionalFlag("enable_signin", Extra, func(a *App) **bool { return &a.EnableSignin }),
	optionalFlag("require_tls", Extra, func(a *App) **bool { return &a.RequireTLS }),
}

// Value returns the field of a: a string, uint32 or bool, or nil for NULL. A
// secret is in the clear.
func (c *Column) Value(a *App) any { return c.get(a) }

// Secret reports whether the column is one that SetSecrets replaces.
func (c *Column) Secret() bool {
	return c.Name == "secret" || c.Name == "previous_secret" || c.Name == "previous_secret_until"
}

func text(name string, need Need, field func(*App) *string) Column {
	return Column{
		Name: name, Kind: Text, Need: need,
		set: func(a *App, text string) error { *field(a) = text; return nil },
		get: func(a *App) any { return *field(a) },
	}
}

func number(name string, field func(*App) *uint32) Column {
	return Column{
		Name: name, Kind: Uint, Need: Required,
		set: func(a *App, text string) (err error) { *field(a), err = parseUint(text); return err },
		get: func(a *App) any { return *field(a) },
	}
}

func optionalNumber(name string, field func(*App) **uint32) Column {
	return Column{
		Name: name, Kind: Uint, Need: Optional,
		set: func(a *App, text string) error {
			n, err := parseUint(text)
			if err == nil {
				*field(a) = &n
			}
			return err
		},
		get: func(a *App) any {
			if p := *field(a); p != nil {
				return *p
			}
			return nil
		},
	}
}

// flag is a required boolean; bad is what text that is none stands for.
func flag(name string, bad bool, field func(*App) *bool) Column {
	return Column{
		Name: name, Kind: Bool, Need: Required,
		set: func(a *App, text string) error {
			v, err := parseBool(text)
			if err != nil {
				v = bad
			}
			*field(a) = v
			return err
		},
		get: func(a *App) any { return *field(a) },
	}
}

func optionalFlag(name string, need Need, field func(*App) **bool) Column {
	return Column{
		Name: name, Kind: Bool, Need: need,
		set: func(a *App, text string) error {
			v, err := parseBool(text)
			if err == nil {
				*field(a) = &v
			}
			return err
		},
		get: func(a *App) any {
			if p := *field(a); p != nil {
				return *p
			}
			return nil
		},
	}
}

func feature(name string, need Need, field func(*App) **bool) Column {
	c := optionalFlag(name, need, field)
	c.Feature = true
	return c
}

// A FieldError says that a field of a stored app could not be used. It names
// the app and the column and never repeats a value.
type FieldError struct {
	AppID  string
	Column string
	Err    error
}

// Error names app, column and reason.
func (e *FieldError) Error() string {
	return fmt.Sprintf("app %q: column %s: %v", e.AppID, e.Column, e.Err)
}

// Unwrap returns the reason.
func (e *FieldError) Unwrap() error { return e.Err }

// FromColumns builds an app of what a store keeps. value returns the text of a
// column and false if it is NULL or not there. Numbers are decimal, booleans
// also 0, 1, t and f, lists are JSON.
//
// What cannot be read is left at its default, except that it never widens
// access: a bad enabled disables the app and bad origins admit nobody. Each
// such field is one of problems. An app without id, key or secret cannot be
// used at all: then a is nil.
func FromColumns(value func(column string) (text string, ok bool)) (a *App, problems []*FieldError) {
	a = &App{Enabled: true}
	id, _ := value("id")
	for i := range columns {
		c := &columns[i]
		text, ok := value(c.Name)
		if !ok {
			continue
		}
		if err := c.set(a, text); err != nil {
			for _, one := range split(err) {
				problems = append(problems, &FieldError{id, c.Name, one})
			}
		}
	}
	usable := true
	for _, must := range []struct{ column, text string }{{"id", a.ID}, {"key", a.Key}, {"secret", a.Secret.Reveal()}} {
		if must.text == "" {
			problems = append(problems, &FieldError{id, must.column, errEmpty})
			usable = false
		}
	}
	if !usable {
		return nil, problems
	}
	return a, problems
}

func split(err error) []error {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		return joined.Unwrap()
	}
	return []error{err}
}

var (
	errEmpty  = errors.New("is empty, the app cannot be used")
	errNumber = errors.New("is no number from 0 to 4294967295")
	errBool   = errors.New("is neither true nor false")
	errTime   = errors.New("is no time such as 2026-01-31T18:30:00Z")
)

// parseUint reads an unsigned number. Sockudo stores large ones wrapped in
// PostgreSQL's signed integers, so that a negative one stands for itself plus 2³².
func parseUint(text string) (uint32, error) {
	text = strings.TrimSpace(text)
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		// A person's table may have DECIMAL or DOUBLE columns.
		f, ferr := strconv.ParseFloat(text, 64)
		if ferr != nil || f != math.Trunc(f) || math.Abs(f) > math.MaxUint32 {
			return 0, errNumber
		}
		n = int64(f)
	}
	switch {
	case n < math.MinInt32:
		return 0, errNumber
	case n < 0:
		return uint32(int32(n)), nil
	case n > math.MaxUint32:
		return math.MaxUint32, nil
	}
	return uint32(n), nil
}

// ParseTime reads a time as FormatTime, or a column of a database, writes it.
// One without a zone is in UTC.
func ParseTime(text string) (time.Time, error) {
	text = strings.TrimSpace(text)
	for _, layout := range []string{time.RFC3339, "2006-01-02 15:04:05Z07:00", "2006-01-02 15:04:05Z07", "2006-01-02 15:04:05"} {
		if t, err := time.Parse(layout, text); err == nil {
			return t.UTC(), nil
		}
	}
	return time.Time{}, errTime
}

// FormatTime writes a time in whole seconds, such as 2026-01-31T18:30:00Z.
func FormatTime(t time.Time) string { return t.UTC().Truncate(time.Second).Format(time.RFC3339) }

func parseBool(text string) (bool, error) {
	switch strings.ToLower(strings.TrimSpace(text)) {
	case "1", "true", "t", "yes", "y", "on", "\x01":
		return true, nil
	case "0", "false", "f", "no", "n", "off", "\x00":
		return false, nil
	}
	if n, err := strconv.ParseInt(text, 10, 64); err == nil {
		return n != 0, nil // TINYINT holds more than two values
	}
	return false, errBool
}

// ValidName reports whether s could be the id or the key of an app: 1 to 255
// bytes of UTF-8 without NUL. No store needs to be asked for another one.
func ValidName(s string) bool {
	return s != "" && len(s) <= MaxNameBytes && utf8.ValidString(s) && strings.IndexByte(s, 0) < 0
}

// Validate returns why a cannot be stored, or nil. The error never repeats a
// secret. Every store calls it before it writes.
func Validate(a *App) error {
	switch {
	case !ValidName(a.ID):
		return fmt.Errorf("%w: its id is not 1 to %d bytes of UTF-8", ErrInvalid, MaxNameBytes)
	case !ValidName(a.Key):
		return fmt.Errorf("%w: app %q: its key is not 1 to %d bytes of UTF-8", ErrInvalid, a.ID, MaxNameBytes)
	}
	if err := ValidateSecrets(a.Secret, a.PreviousSecret); err != nil {
		return fmt.Errorf("app %q: %w", a.ID, err)
	}
	return nil
}

// ValidateSecrets returns why a pair of secrets cannot be stored, or nil.
func ValidateSecrets(secret, previous Secret) error {
	if !ValidName(secret.Reveal()) || previous != "" && !ValidName(previous.Reveal()) {
		return fmt.Errorf("%w: a secret is not 1 to %d bytes of UTF-8", ErrInvalid, MaxNameBytes)
	}
	return nil
}
