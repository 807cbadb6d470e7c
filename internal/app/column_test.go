package app

import (
	"errors"
	"math"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

func ptr[T any](v T) *T { return &v }

// full is an app with every field set.
func full() *App {
	return &App{
		ID: "full", Key: "full-key", Secret: "full-secret", PreviousSecret: "older-secret", Enabled: true,
		PreviousUntil:  time.Date(2099, 12, 31, 23, 59, 58, 0, time.UTC),
		MaxConnections: 1, EnableClientMessages: true, MaxClientEventsPerSecond: math.MaxUint32,
		MaxBackendEventsPerSecond: ptr(uint32(2)), MaxReadRequestsPerSecond: ptr(uint32(3)),
		MaxPresenceMembersPerChannel: ptr(uint32(4)), MaxPresenceMemberSizeInKB: ptr(uint32(5)),
		MaxChannelNameLength: ptr(uint32(6)), MaxEventChannelsAtOnce: ptr(uint32(7)), MaxEventNameLength: ptr(uint32(8)),
		MaxEventPayloadInKB: ptr(uint32(9)), MaxEventBatchSize: ptr(uint32(0)),
		EnableUserAuthentication: ptr(true), EnableWatchlistEvents: ptr(false), EnableSubscriptionCount: ptr(true),
		EnableSignin: ptr(false), RequireTLS: ptr(true),
		Webhooks: []Webhook{
			{URL: "https://hooks.example/s", EventTypes: []string{"channel_occupied"}, Headers: map[string]string{"X-Env": "<p&q>"}},
			{
				Lambda: &Lambda{FunctionName: "fn", Region: "eu-west-1"}, EventTypes: []string{"member_added"},
				Filter: &WebhookFilter{ChannelPrefix: ptr("presence-")},
			},
		},
		AllowedOrigins: []string{"https://ä.example", "*.example.com"},
	}
}

// columnText is what a store would read back of a.
func columnText(t *testing.T, a *App) map[string]string {
	t.Helper()
	text := map[string]string{}
	for _, c := range Columns() {
		switch v := c.Value(a).(type) {
		case nil:
		case string:
			text[c.Name] = v
		case bool:
			text[c.Name] = map[bool]string{true: "1", false: "0"}[v]
		case uint32:
			text[c.Name] = uintText(v)
		default:
			t.Fatalf("column %s holds a %T", c.Name, v)
		}
	}
	return text
}

func uintText(n uint32) string {
	b := MarshalRecord(&App{MaxConnections: n})
	_, rest, _ := strings.Cut(string(b), `"max_connections":`)
	text, _, _ := strings.Cut(rest, ",")
	return text
}

func fromMap(text map[string]string) (*App, []*FieldError) {
	return FromColumns(func(c string) (string, bool) { s, ok := text[c]; return s, ok })
}

func TestEveryFieldSurvivesItsColumn(t *testing.T) {
	for _, a := range []*App{full(), {ID: "i", Key: "k", Secret: "s"}, {ID: "i", Key: "k", Secret: "s", Enabled: true}} {
		got, problems := fromMap(columnText(t, a))
		if len(problems) > 0 {
			t.Errorf("problems = %v", problems)
		}
		if diff := cmp.Diff(a, got); diff != "" {
			t.Errorf("app %s (-want +got):\n%s", a.ID, diff)
		}
	}
}

func TestEveryFieldSurvivesItsRecord(t *testing.T) {
	for _, a := range []*App{full(), {ID: "i", Key: "k", Secret: "s", Enabled: true}} {
		got, problems, err := UnmarshalRecord(MarshalRecord(a))
		if err != nil || len(problems) > 0 {
			t.Fatalf("err = %v, problems = %v", err, problems)
		}
		if diff := cmp.Diff(a, got); diff != "" {
			t.Errorf("app %s (-want +got):\n%s", a.ID, diff)
		}
	}
}

func TestARecordIsTheFlatObjectOfTheCache(t *testing.T) {
	got := string(MarshalRecord(&App{
		ID: "demo", Key: "demo-key", Secret: "s", Enabled: true, MaxConnections: 100, MaxEventBatchSize: ptr(uint32(10)),
		AllowedOrigins: []string{"*"},
	}))
	want := `{"id":"demo","key":"demo-key","secret":"s","max_connections":100,"enable_client_messages":false,"enabled":true,` +
		`"max_backend_events_per_second":null,"max_client_events_per_second":0,"max_read_requests_per_second":null,` +
		`"max_presence_members_per_channel":null,"max_presence_member_size_in_kb":null,"max_channel_name_length":null,` +
		`"max_event_channels_at_once":null,"max_event_name_length":null,"max_event_payload_in_kb":null,"max_event_batch_size":10,` +
		`"enable_user_authentication":null,"enable_watchlist_events":null,"webhooks":null,"allowed_origins":["*"]}`
	if got != want {
		t.Errorf("record (-want +got):\n%s", cmp.Diff(want, got))
	}
}

func TestWhatSockudoWroteIsRead(t *testing.T) {
	// It requires strings in seven fields that it writes as numbers, and both
	// are around.
	a, problems, err := UnmarshalRecord([]byte(`{"id":"x","key":"k","secret":"s","enabled":true,"max_connections":"7",
		"enable_client_messages":"true","max_client_events_per_second":5,"max_event_batch_size":"10","max_channel_name_length":200,
		"max_read_requests_per_second":null,"webhooks":"[{\"url\":\"https://h\",\"event_types\":[]}]","allowed_origins":null,"unknown":{}}`))
	if err != nil || len(problems) > 0 {
		t.Fatalf("err = %v, problems = %v", err, problems)
	}
	want := &App{
		ID: "x", Key: "k", Secret: "s", Enabled: true, MaxConnections: 7, EnableClientMessages: true, MaxClientEventsPerSecond: 5,
		MaxEventBatchSize: ptr(uint32(10)), MaxChannelNameLength: ptr(uint32(200)),
		Webhooks: []Webhook{{URL: "https://h/", EventTypes: []string{}}},
	}
	if diff := cmp.Diff(want, a); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestBadTextIsToldAndHarmsOnlyItsField(t *testing.T) {
	base := map[string]string{"id": "x", "key": "k", "secret": "geheim"}
	for _, test := range []struct {
		column, text string
		want         func(*App)
		bad          bool
	}{
		{"enabled", "maybe", func(a *App) { a.Enabled = false }, true},
		{"enabled", "", func(a *App) { a.Enabled = false }, true},
		{"enabled", "2", func(*App) {}, false},
		{"enabled", "\x00", func(a *App) { a.Enabled = false }, false},
		{"enable_client_messages", "T", func(a *App) { a.EnableClientMessages = true }, false},
		{"enable_client_messages", "?", func(*App) {}, true},
		{"max_connections", "-1", func(a *App) { a.MaxConnections = math.MaxUint32 }, false},
		{"max_connections", "-2147483648", func(a *App) { a.MaxConnections = 1 << 31 }, false},
		{"max_connections", "-2147483649", func(*App) {}, true},
		{"max_connections", "99999999999", func(a *App) { a.MaxConnections = math.MaxUint32 }, false},
		{"max_connections", " 12.00 ", func(a *App) { a.MaxConnections = 12 }, false},
		{"max_connections", "12.5", func(*App) {}, true},
		{"max_connections", "NaN", func(*App) {}, true},
		{"max_event_batch_size", "ten", func(*App) {}, true},
		{"max_event_batch_size", "0", func(a *App) { a.MaxEventBatchSize = ptr(uint32(0)) }, false},
		{"enable_signin", "nil", func(*App) {}, true},
		{"webhooks", "null", func(*App) {}, false},
		{"webhooks", "", func(*App) {}, false},
		{"webhooks", "[]", func(*App) {}, false},
		{"webhooks", "{", func(*App) {}, true},
		{"webhooks", `{"url":"https://h/"}`, func(*App) {}, true},
		{"webhooks", `[1,{"url":"geheim","event_types":[]},{"url":"https://h/p","event_types":["cache_missed"]},{"event_types":[]},{"url":"https://h"},null]`, func(a *App) {
			a.Webhooks = []Webhook{{URL: "https://h/p", EventTypes: []string{"cache_miss"}}}
		}, true},
		{"webhooks", `[{"url":"https://h/","event_types":"geheim"}]`, func(*App) {}, true},
		{"webhooks", `[{"url":"https://h/","event_types":[],"headers":{"A":1}}]`, func(*App) {}, true},
		{"allowed_origins", "null", func(*App) {}, false},
		{"allowed_origins", "[]", func(*App) {}, false},
		{"allowed_origins", `["a",5,null,"b"]`, func(a *App) { a.AllowedOrigins = []string{"a", "b"} }, true},
		{"allowed_origins", `[5]`, func(a *App) { a.AllowedOrigins = []string{nobody} }, true},
		{"allowed_origins", `"https://a"`, func(a *App) { a.AllowedOrigins = []string{nobody} }, true},
		{"allowed_origins", `not json`, func(a *App) { a.AllowedOrigins = []string{nobody} }, true},
		{"previous_secret", "", func(*App) {}, false},
		{"previous_secret_until", "2099-01-02T03:04:05+01:00", func(a *App) { a.PreviousUntil = time.Date(2099, 1, 2, 2, 4, 5, 0, time.UTC) }, false},
		{"previous_secret_until", "2099-01-02 03:04:05.5", func(a *App) { a.PreviousUntil = time.Date(2099, 1, 2, 3, 4, 5, 5e8, time.UTC) }, false},
		{"previous_secret_until", "2099-01-02 03:04:05+00", func(a *App) { a.PreviousUntil = time.Date(2099, 1, 2, 3, 4, 5, 0, time.UTC) }, false},
		{"previous_secret_until", "geheim", func(*App) {}, true},
	} {
		text := map[string]string{test.column: test.text}
		for k, v := range base {
			text[k] = v
		}
		got, problems := fromMap(text)
		want := &App{ID: "x", Key: "k", Secret: "geheim", Enabled: true}
		test.want(want)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s = %q (-want +got):\n%s", test.column, test.text, diff)
		}
		if (len(problems) > 0) != test.bad {
			t.Errorf("%s = %q: problems = %v, want some: %t", test.column, test.text, problems, test.bad)
		}
		for _, p := range problems {
			if p.AppID != "x" || p.Column != test.column || strings.Contains(p.Error(), "geheim") {
				t.Errorf("%s = %q: told %v, want app and column and no value", test.column, test.text, p)
			}
		}
	}
}

func TestBadOriginsAdmitNobody(t *testing.T) {
	for _, text := range []string{"x", "{}", "[5]", `[null]`, `"*"`, `[[]]`, `["a*b*c"]`} {
		a, _ := fromMap(map[string]string{"id": "x", "key": "k", "secret": "s", "allowed_origins": text})
		Prepare(a, StandardDefaults())
		if a.Origins == nil || a.Origins.Allows("https://example.com", true) || a.Origins.Allows("", false) {
			t.Errorf("allowed_origins = %s admits somebody", text)
		}
	}
}

func TestAnAppWithoutCredentialsIsNone(t *testing.T) {
	for _, missing := range []string{"id", "key", "secret"} {
		for _, set := range []bool{false, true} {
			text := map[string]string{"id": "x", "key": "k", "secret": "s"}
			delete(text, missing)
			if set {
				text[missing] = ""
			}
			a, problems := fromMap(text)
			if a != nil || len(problems) != 1 || problems[0].Column != missing || !errors.Is(problems[0], errEmpty) {
				t.Errorf("without %s: app %v, problems %v", missing, a != nil, problems)
			}
		}
	}
}

func TestOnlyNamesThatStoresCanHoldAreValid(t *testing.T) {
	for name, want := range map[string]bool{
		"a": true, "ä ö": true, strings.Repeat("x", 255): true,
		"": false, strings.Repeat("x", 256): false, "a\x00": false, "\xff": false,
	} {
		if ValidName(name) != want {
			t.Errorf("ValidName(%q) = %t", name, !want)
		}
		err := Validate(&App{ID: "i", Key: "k", Secret: Secret(name)})
		if (err == nil) != want || err != nil && (!errors.Is(err, ErrInvalid) || name != "" && strings.Contains(err.Error(), name)) {
			t.Errorf("Validate with secret %q: %v", name, err)
		}
	}
}

func FuzzRecord(f *testing.F) {
	f.Add(string(MarshalRecord(full())))
	f.Add(`{"id":"a","key":"b","secret":"c","webhooks":[{"url":"http://[::1]","event_types":[]}],"allowed_origins":[1]}`)
	f.Add(`{"id":"a","key":"b","secret":"c","previous_secret_until":"2099-10-01 00:00:00Z"}`)
	f.Add(`{"id":"a","key":"b","secret":"c","webhooks":[{"url":"http://x","event_types":["y"],"headers":{}}]}`)
	f.Fuzz(func(t *testing.T, raw string) {
		a, _, err := UnmarshalRecord([]byte(raw))
		if err != nil || a == nil {
			return
		}
		again, problems, err := UnmarshalRecord(MarshalRecord(a))
		if err != nil || len(problems) > 0 {
			t.Fatalf("what was written cannot be read: %v %v", problems, err)
		}
		if diff := cmp.Diff(normal(a), normal(again)); diff != "" {
			t.Errorf("(-first +second):\n%s", diff)
		}
	})
}

// normal makes nothing and an empty list the same, as stores do, and leaves out
// the end of a secret that is not there.
func normal(a *App) *App {
	b := *a
	if b.PreviousSecret == "" {
		b.PreviousUntil = time.Time{}
	}
	b.Webhooks = slices.Clone(b.Webhooks)
	for i := range b.Webhooks {
		if w := &b.Webhooks[i]; len(w.Headers) == 0 {
			w.Headers = nil
		}
	}
	if len(b.Webhooks) == 0 {
		b.Webhooks = nil
	}
	if len(b.AllowedOrigins) == 0 {
		b.AllowedOrigins = nil
	}
	return &b
}

func TestABadEndOfASecretEndsIt(t *testing.T) {
	for _, text := range []string{"", "soon", "4102444800", "2099-13-01T00:00:00Z"} {
		a, problems := fromMap(map[string]string{"id": "x", "key": "k", "secret": "new", "previous_secret": "geheim", "previous_secret_until": text})
		if got := a.Secrets(); len(got) != 1 || got[0] != "new" || len(problems) != 1 || strings.Contains(problems[0].Error(), "geheim") {
			t.Errorf("until %q: %d secrets, problems = %v; want the new one alone and why", text, len(got), problems)
		}
	}
}

func TestThePreviousSecretCountsUntilItsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &App{Secret: "new", PreviousSecret: "old"}
		want := func(want ...Secret) {
			t.Helper()
			if got := a.Secrets(); !slices.Equal(got, want) {
				t.Errorf("%d secrets verify, want %d", len(got), len(want))
			}
		}
		want("new", "old") // without an end
		a.PreviousUntil = time.Now().Add(time.Hour)
		want("new", "old")
		time.Sleep(time.Hour - 1)
		want("new", "old")
		time.Sleep(time.Nanosecond)
		want("new")
		a.PreviousSecret, a.PreviousUntil = "", time.Time{}
		want("new")
	})
}
