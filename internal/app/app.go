// Package app holds the App record, the limits that are in force for it, and
// the contract of the stores that keep apps. It is told in
// docs/configuration.md what each field means.
package app

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"time"

	"sockudo/internal/origin"
)

var (
	// ErrNotFound says that the store answered and there is no such app.
	ErrNotFound = errors.New("app not found")
	// ErrExists says that an app with this id or key is there already.
	ErrExists = errors.New("app exists already")
	// ErrChanged says that somebody else changed an app after it was read. Nothing
	// was written; reading it again and trying again helps.
	ErrChanged = errors.New("app was changed by somebody else meanwhile")
	// ErrInvalid says that an app cannot be stored as it is.
	ErrInvalid = errors.New("app is not valid")
	// ErrUnavailable says that the store could not be asked; trying again may help.
	// It never means that the app is unknown.
	ErrUnavailable = errors.New("app store unavailable")
)

// Secret is a signing secret. It prints as *** everywhere but through Reveal.
type Secret string

// String hides the secret.
func (s Secret) String() string { return "***" }

// GoString hides the secret from %#v.
func (s Secret) GoString() string { return `"***"` }

// LogValue hides the secret from slog.
func (s Secret) LogValue() slog.Value { return slog.StringValue("***") }

// MarshalText hides the secret from encoders of JSON and the like.
func (s Secret) MarshalText() ([]byte, error) { return []byte("***"), nil }

// Reveal returns the secret itself, for signing and for storing.
func (s Secret) Reveal() string { return string(s) }

// App is one application: a tenant with its credentials, features and limits.
// An App that a Store returned is shared and must not be changed.
//
// A nil limit inherits the server's default; zero switches the limit off.
type App struct {
	ID     string
	Key    string
	Secret Secret
	// PreviousSecret is the secret before the last rotation while it is still
	// accepted, else empty. Both verify; Secret signs. Secrets tells which count.
	PreviousSecret Secret
	PreviousUntil  time.Time // when PreviousSecret ends; zero: when it is removed

	Enabled bool

	MaxConnections           uint32 // open sockets in the whole cluster; 0: no limit
	EnableClientMessages     bool
	MaxClientEventsPerSecond uint32 // per socket; 0: no limit

	MaxBackendEventsPerSecond    *uint32
	MaxReadRequestsPerSecond     *uint32
	MaxPresenceMembersPerChannel *uint32
	MaxPresenceMemberSizeInKB    *uint32
	MaxChannelNameLength         *uint32
	MaxEventChannelsAtOnce       *uint32
	MaxEventNameLength           *uint32
	MaxEventPayloadInKB          *uint32
	MaxEventBatchSize            *uint32

	// EnableUserAuthentication demands that a connection signs in or joins an
	// authenticated channel in time (protocol 1.7). It does not switch sign-in off.
	EnableUserAuthentication *bool
	EnableWatchlistEvents    *bool
	// EnableSubscriptionCount sends pusher_internal:subscription_count (protocol 2.10).
	EnableSubscriptionCount *bool
	// EnableSignin allows pusher:signin (protocol 2.11); nil means yes.
	EnableSignin *bool
	// RequireTLS refuses plain connections with 4000 (protocol 1.4).
	RequireTLS *bool

	Webhooks       []Webhook
	AllowedOrigins []string

	// Limits and Origins are derived from the fields above by Prepare and are
	// what the rest of the server reads.
	Limits  Limits
	Origins *origin.List // nil: every origin
}

// Webhook is one webhook target of an app (configuration section 4.4).
type Webhook struct {
	URL            string            `json:"url,omitempty"`
	LambdaFunction string            `json:"lambda_function,omitempty"`
	Lambda         *Lambda           `json:"lambda,omitempty"`
	EventTypes     []string          `json:"event_types"`
	Filter         *WebhookFilter    `json:"filter,omitempty"`
	Headers        map[string]string `json:"headers,omitempty"`
}

// Lambda is an AWS Lambda target.
type Lambda struct {
	FunctionName   string `json:"function_name"`
	Region         string `json:"region,omitempty"`
	InvocationType string `json:"invocation_type,omitempty"`
	Qualifier      string `json:"qualifier,omitempty"`
	EndpointURL    string `json:"endpoint_url,omitempty"`
}

// WebhookFilter selects channels; all conditions that are given must hold.
type WebhookFilter struct {
	ChannelPrefix  *string `json:"channel_prefix"`
	ChannelSuffix  *string `json:"channel_suffix"`
	ChannelPattern *string `json:"channel_pattern"`
	ChannelType    *string `json:"channel_type,omitempty"`
}

// Limits are the limits in force for an app. Zero means: no limit.
type Limits struct {
	ChannelNameLength      int // characters
	EventNameLength        int // characters
	EventPayloadBytes      int // of the final data string
	EventChannels          int // per publish
	BatchSize              int // events
	PresenceMembers        int // distinct users per channel
	PresenceMemberBytes    int // of the compact user_info
	ClientEventsPerSecond  int // per socket
	BackendEventsPerSecond int // per node
	ReadRequestsPerSecond  int // per node
	MaxConnections         int
}

// Secrets returns the secrets that verify signatures now, the signing one first.
func (a *App) Secrets() []Secret {
	if a.PreviousSecret == "" || !a.PreviousUntil.IsZero() && !time.Now().Before(a.PreviousUntil) {
		return []Secret{a.Secret}
	}
	return []Secret{a.Secret, a.PreviousSecret}
}

// A Store finds apps. Both methods return ErrNotFound for an app that is not
// there and an error wrapping ErrUnavailable when it could not be asked. The
// match of id and key is byte-exact.
type Store interface {
	ByID(ctx context.Context, id string) (*App, error)
	ByKey(ctx context.Context, key string) (*App, error)
}

// An Editor is a Store whose apps can be listed and changed.
type Editor interface {
	// List calls yield for every app, in the order of the store, until it returns
	// false. Apps that cannot be used are left out.
	List(ctx context.Context, yield func(*App) bool) error
	Create(ctx context.Context, a *App) error // ErrExists
	// Update replaces the app that was read as was by next, which has the same id:
	// ErrChanged if it is not that any more, so that nobody's change is lost. A
	// nil was stands for whatever the app is. ErrNotFound, ErrExists.
	Update(ctx context.Context, was, next *App) error
	Upsert(ctx context.Context, a *App) error    // atomic, safe when many nodes start together
	Delete(ctx context.Context, id string) error // ErrNotFound
	// SetSecrets replaces the two secrets of an app, and when the previous one
	// ends, by those of next and nothing else; an empty previous one ends a
	// rotation. Of was, as for Update, only the secrets count. ErrNotFound.
	SetSecrets(ctx context.Context, was, next *App) error
}

// Same reports whether stores keep the same of two apps.
func Same(a, b *App) bool { return bytes.Equal(MarshalRecord(a), MarshalRecord(b)) }

// Still returns what has to hold of an app as it is for a change of it as it
// was; nil, nothing, if was is nil.
func Still(was *App, same func(a, b *App) bool) func(now *App) bool {
	if was == nil {
		return nil
	}
	return func(now *App) bool { return same(was, now) }
}

// SameSecrets reports whether stores keep the same secrets of two apps.
func SameSecrets(a, b *App) bool {
	return a.Secret == b.Secret && a.PreviousSecret == b.PreviousSecret &&
		(a.PreviousSecret == "" || a.PreviousUntil.Equal(b.PreviousUntil))
}

// A Forgetter is a Store that remembers apps. Forget makes the next look-up of
// one ask again; it may wait for a cache.
type Forgetter interface {
	Forget(ctx context.Context, id string)
}

// A Pinger is a Store that can say whether it is well. Any returns whether at
// least one app exists, in constant time.
type Pinger interface {
	Ping(ctx context.Context) error
	Any(ctx context.Context) (bool, error)
}
