package foreign

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sockudo/internal/app"
)

func ptr[T any](v T) *T { return &v }

func one(t *testing.T, got []Imported, err error) Imported {
	t.Helper()
	if err != nil || len(got) != 1 {
		t.Fatalf("%d apps, %v; want one", len(got), err)
	}
	return got[0]
}

// notes returns From → To and Note of mappings.
func notes(list []Mapping) map[string]string {
	m := map[string]string{}
	for _, x := range list {
		m[x.From] = strings.TrimSpace(x.To + " " + x.Note)
	}
	return m
}

func checkApp(t *testing.T, got, want *app.App) {
	t.Helper()
	secrets := cmp.Comparer(func(a, b app.Secret) bool { return a == b })
	if d := cmp.Diff(want, got, secrets); d != "" {
		t.Errorf("app (-want +got):\n%s", d)
	}
}

const soketiFull = `{
	"id": 1, "key": "app-key", "secret": "geheim", "enabled": true, "enableClientMessages": true, "enableUserAuthentication": false,
	"maxConnections": "-1", "maxClientEventsPerSecond": 10, "maxBackendEventsPerSecond": -1, "maxReadRequestsPerSecond": 0,
	"maxPresenceMembersPerChannel": 250, "maxPresenceMemberSizeInKb": 2.5, "maxChannelNameLength": 100, "maxEventChannelsAtOnce": 20,
	"maxEventNameLength": 50, "maxEventPayloadInKb": "64", "maxEventBatchSize": null, "hasPlan": true,
	"webhooks": [
		{"url": "https://hooks.example", "event_types": ["channel_occupied", "cache_missed"], "headers": {"X-Token": "geheim"},
			"filter": {"channel_name_starts_with": "private-", "channel_name_ends_with": "-x"}},
		{"lambda_function": "fn", "event_types": ["member_added"],
			"lambda": {"async": false, "region": "eu-west-1", "client_options": {"endpoint": "http://localhost:4566", "secretAccessKey": "geheim"}}},
		{"event_types": ["member_added"]}
	]
}`

func TestEverySettingOfSoketiIsAccountedFor(t *testing.T) {
	for name, text := range map[string]string{
		"a list":               `[` + soketiFull + `]`,
		"a file":               `{"port": 6001, "appManager": {"driver": "array", "array": {"apps": [` + soketiFull + `]}}}`,
		"a file with dots":     `{"appManager.array.apps": [` + soketiFull + `], "debug": true}`,
		"a file with some":     `{"appManager.array": {"apps": [` + soketiFull + `]}}`,
		"the object with apps": "\xef\xbb\xbf" + `{"apps": [` + soketiFull + `]}`,
	} {
		t.Run(name, func(t *testing.T) {
			all, err := Soketi([]byte(text))
			im := one(t, all, err)
			checkApp(t, im.App, &app.App{
				ID: "1", Key: "app-key", Secret: "geheim", Enabled: true, EnableClientMessages: true, EnableUserAuthentication: ptr(false),
				MaxClientEventsPerSecond: 10, MaxBackendEventsPerSecond: ptr(uint32(0)), MaxReadRequestsPerSecond: ptr(uint32(1)),
				MaxPresenceMembersPerChannel: ptr(uint32(250)), MaxPresenceMemberSizeInKB: ptr(uint32(3)), MaxChannelNameLength: ptr(uint32(100)),
				MaxEventChannelsAtOnce: ptr(uint32(20)), MaxEventNameLength: ptr(uint32(50)), MaxEventPayloadInKB: ptr(uint32(64)),
				Webhooks: []app.Webhook{
					{
						URL: "https://hooks.example/", EventTypes: []string{"channel_occupied", "cache_miss"}, Headers: map[string]string{"X-Token": "geheim"},
						Filter: &app.WebhookFilter{ChannelPrefix: ptr("private-"), ChannelSuffix: ptr("-x")},
					},
					{
						EventTypes: []string{"member_added"},
						Lambda:     &app.Lambda{FunctionName: "fn", Region: "eu-west-1", InvocationType: "RequestResponse", EndpointURL: "http://localhost:4566"},
					},
				},
			})
			mapped, left := notes(im.Mapped), notes(im.Left)
			for from, want := range map[string]string{
				"id": "id", "maxConnections": "max_connections no limit", "maxReadRequestsPerSecond": "max_read_requests_per_second 0 lets",
				"maxPresenceMemberSizeInKb": "max_presence_member_size_in_kb rounded up", "webhooks[1]": "webhooks[1]",
			} {
				if !strings.HasPrefix(mapped[from], want) {
					t.Errorf("%s became %q, want %q", from, mapped[from], want)
				}
			}
			for _, from := range []string{"hasPlan", "webhooks[1].lambda.client_options.secretAccessKey", "webhooks[2]"} {
				if left[from] == "" {
					t.Errorf("that %s is not kept is not told: %v", from, left)
				}
			}
			if len(left) != 3 {
				t.Errorf("left = %v", left)
			}
			told, err := json.Marshal([]any{im.Mapped, im.Left})
			if err != nil || strings.Contains(string(told), "geheim") {
				t.Errorf("the report has a secret: %s", told)
			}
		})
	}
}

func TestRowsOfSoketisTables(t *testing.T) {
	want := &app.App{ID: "a", Key: "k", Secret: "s", Enabled: true, MaxConnections: 5, MaxClientEventsPerSecond: 7}
	for _, text := range []string{
		`[{"id":"a","key":"k","secret":"s","max_connections":5,"enabled":1,"enable_client_messages":0,"max_client_events_per_sec":"7","webhooks":"[]"}]`,
		`[{"AppId":"a","AppKey":"k","AppSecret":"s","MaxConnections":5,"Enabled":true,"EnableClientMessages":false,"MaxClientEventsPerSecond":7,"Webhooks":""}]`,
	} {
		all, err := Soketi([]byte(text))
		checkApp(t, one(t, all, err).App, want)
	}
}

func TestWhatSoketiWouldNotTakeIsRefused(t *testing.T) {
	for text, want := range map[string]string{
		`{`:                                  "no JSON",
		`{"appManager":{"array":{}}}`:        "no list of apps",
		`"x"`:                                "no list of apps",
		`[5]`:                                "app 1 is no object",
		`[{"id":"a","key":"k"}]`:             "app 1: secret is missing",
		`[{"id":"","key":"k","secret":"s"}]`: "app 1: id is missing",
		`[{"id":"a","key":"k","secret":"geheim"},{"id":"b","key":"k","secret":"geheim","enabled":"perhaps"}]`: `app 2: "b": enabled is "perhaps"`,
		`[{"id":"a","key":"k","secret":"geheim","maxConnections":"many"}]`:                                    `maxConnections is "many"`,
		`[{"id":"a","key":"k","secret":"geheim","maxConnections":{}}]`:                                        "maxConnections",
		`[{"id":"a","key":"k","secret":"geheim","webhooks":{"url":1}}]`:                                       "webhooks: is no list",
	} {
		all, err := Soketi([]byte(text))
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "geheim") {
			t.Errorf("%s: %d apps, %v; want %q", text, len(all), err, want)
		}
	}
}

func TestVariablesOfSoketi(t *testing.T) {
	all, err := SoketiVariables(map[string]string{
		"SOKETI_DEFAULT_APP_ID": "a", "SOKETI_DEFAULT_APP_KEY": "k", "DEFAULT_APP_SECRET": "geheim", "SOKETI_DEFAULT_APP_MAX_CONNS": "100",
		"SOKETI_DEFAULT_APP_ENABLE_CLIENT_MESSAGES": "true", "SOKETI_DEFAULT_APP_USER_AUTHENTICATION": "1", "SOKETI_DEFAULT_APP_MAX_READ_REQ_PER_SEC": "-1",
		"SOKETI_DEFAULT_APP_WEBHOOKS": `[{"url":"https://h/","event_types":["member_added"]}]`, "SOKETI_DEFAULT_APP_COLOUR": "red",
		"SOKETI_PORT": "6001", "HOME": "/",
	})
	im := one(t, all, err)
	checkApp(t, im.App, &app.App{
		ID: "a", Key: "k", Secret: "geheim", Enabled: true, EnableClientMessages: true, EnableUserAuthentication: ptr(true), MaxConnections: 100,
		MaxReadRequestsPerSecond: ptr(uint32(0)), Webhooks: []app.Webhook{{URL: "https://h/", EventTypes: []string{"member_added"}}},
	})
	mapped := notes(im.Mapped)
	for from, to := range map[string]string{
		"DEFAULT_APP_SECRET": "secret", "SOKETI_DEFAULT_APP_MAX_CONNS": "max_connections", "SOKETI_DEFAULT_APP_WEBHOOKS[0]": "webhooks[0]",
	} {
		if mapped[from] != to {
			t.Errorf("%s became %q, want %q: %v", from, mapped[from], to, mapped)
		}
	}
	if d := cmp.Diff([]Mapping{{From: "SOKETI_DEFAULT_APP_COLOUR", Note: "is no setting of an app here"}}, im.Left); d != "" {
		t.Errorf("left: %s", d)
	}
	if all, err := SoketiVariables(map[string]string{"HOME": "/", "SOKETI_PORT": "1"}); err != nil || len(all) != 0 {
		t.Errorf("%d apps, %v; want none", len(all), err)
	}
	_, err = SoketiVariables(map[string]string{"SOKETI_DEFAULT_APP_ID": "a", "SOKETI_DEFAULT_APP_KEY": "k"})
	if err == nil || !strings.Contains(err.Error(), "SOKETI_DEFAULT_APP_SECRET is not set") {
		t.Errorf("err = %v, want the variable that is missing", err)
	}
}

const reverbFull = `
# Laravel
APP_NAME="My app"
BROADCAST_CONNECTION=reverb
REVERB_APP_ID=123456
REVERB_APP_KEY='laravel-key'
REVERB_APP_SECRET="ge\"heim"   # behind a quote
export REVERB_HOST="ws.example.com"
REVERB_PORT=443
REVERB_SERVER_PORT=8080
REVERB_APP_MAX_CONNECTIONS=500
REVERB_APP_MAX_MESSAGE_SIZE=10_000 # bytes
REVERB_APP_ACCEPT_CLIENT_EVENTS_FROM=all
REVERB_APP_RATE_LIMITING_ENABLED=true
REVERB_APP_RATE_LIMIT_MAX_ATTEMPTS=90
REVERB_APP_RATE_LIMIT_DECAY_SECONDS=60
REVERB_APP_RATE_LIMIT_TERMINATE=true
REVERB_APP_ACTIVITY_TIMEOUT=30
REVERB_ALLOWED_ORIGINS="example.com, https://${REVERB_HOST},*.example.org"
VITE_REVERB_APP_KEY="${REVERB_APP_KEY}"
`

func TestEverySettingOfReverbIsAccountedFor(t *testing.T) {
	vars, err := Dotenv([]byte(reverbFull))
	if err != nil {
		t.Fatal(err)
	}
	all, err := Reverb(vars)
	im := one(t, all, err)
	checkApp(t, im.App, &app.App{
		ID: "123456", Key: "laravel-key", Secret: `ge"heim`, Enabled: true, EnableClientMessages: true, MaxConnections: 500,
		MaxClientEventsPerSecond: 2, MaxEventPayloadInKB: ptr(uint32(10)),
		AllowedOrigins: []string{"example.com", "example.com:*", "https://ws.example.com", "*.example.org"},
	})
	if problems := app.Prepare(im.App, app.StandardDefaults()); len(problems) > 0 {
		t.Errorf("origins: %v", problems)
	}
	for origin, want := range map[string]bool{
		"http://example.com": true, "https://example.com:8443": true, "https://ws.example.com": true, "https://a.example.org": true,
		"https://evil.com": false, "https://sub.example.com": false,
	} {
		if got := im.App.Origins.Allows(origin, true); got != want {
			t.Errorf("%s is allowed: %t", origin, got)
		}
	}
	seen := map[string]bool{}
	for _, m := range append(im.Mapped, im.Left...) {
		seen[m.From] = true
		if strings.Contains(m.Note+m.To, "heim") {
			t.Errorf("the report has a secret: %v", m)
		}
	}
	for name := range vars {
		// The seconds are told with the attempts, and an unlimited rate has no note.
		if strings.HasPrefix(name, "REVERB_") && !seen[name] && name != "REVERB_APP_RATE_LIMIT_DECAY_SECONDS" && name != "REVERB_APP_RATE_LIMITING_ENABLED" {
			t.Errorf("%s is not accounted for", name)
		}
	}
}

func TestTheLeastOfReverb(t *testing.T) {
	all, err := Reverb(map[string]string{
		"REVERB_APP_ID": "1", "REVERB_APP_KEY": "k", "REVERB_APP_SECRET": "s", "REVERB_APP_MAX_CONNECTIONS": "null", "REVERB_APP_RATE_LIMITING_ENABLED": "false",
		"REVERB_APP_RATE_LIMIT_MAX_ATTEMPTS": "60",
	})
	im := one(t, all, err)
	checkApp(t, im.App, &app.App{ID: "1", Key: "k", Secret: "s", Enabled: true, EnableClientMessages: true})
	if left := notes(im.Left); left["allowed_origins of config/reverb.php"] == "" {
		t.Errorf("that origins may be missing is not told: %v", left)
	}
	all, err = Reverb(map[string]string{
		"REVERB_APP_ID": "1", "REVERB_APP_KEY": "k", "REVERB_APP_SECRET": "s", "REVERB_APP_ACCEPT_CLIENT_EVENTS_FROM": "none", "REVERB_ALLOWED_ORIGINS": "*",
		"REVERB_APP_MAX_CONNECTIONS": "0",
	})
	checkApp(t, one(t, all, err).App, &app.App{ID: "1", Key: "k", Secret: "s", Enabled: true, MaxConnections: 1})

	if _, err := Reverb(map[string]string{"APP_NAME": "x"}); !errors.Is(err, ErrNoApp) {
		t.Errorf("err = %v, want %v", err, ErrNoApp)
	}
	base := map[string]string{"REVERB_APP_ID": "1", "REVERB_APP_KEY": "k", "REVERB_APP_SECRET": "geheim"}
	for name, bad := range map[string]string{
		"REVERB_APP_SECRET": "", "REVERB_APP_MAX_CONNECTIONS": "many", "REVERB_APP_ACCEPT_CLIENT_EVENTS_FROM": "friends",
		"REVERB_APP_RATE_LIMITING_ENABLED": "perhaps", "REVERB_APP_RATE_LIMIT_MAX_ATTEMPTS": "x", "REVERB_APP_MAX_MESSAGE_SIZE": "10KB",
	} {
		vars := map[string]string{name: bad}
		for k, v := range base {
			if k != name {
				vars[k] = v
			}
		}
		if _, err := Reverb(vars); err == nil || !strings.Contains(err.Error(), name) || strings.Contains(err.Error(), "geheim") {
			t.Errorf("%s=%s: err = %v, want one that names it", name, bad, err)
		}
	}
}

func TestDotenv(t *testing.T) {
	t.Setenv("FROM_OUTSIDE", "out")
	got, err := Dotenv([]byte("\xef\xbb\xbfA=1\r\n  B = two words # comment\nC='as ${A} is'\nD=\"x${A}y\\n\\\\\\\"\"\nE=\nF=a#b\nexport G=${FROM_OUTSIDE}-${NEVER}\n# H=1\nI.J=1\nA=2\n"))
	want := map[string]string{"A": "2", "B": "two words", "C": "as ${A} is", "D": "x1y\n\\\"", "E": "", "F": "a#b", "G": "out-", "I.J": "1"}
	if d := cmp.Diff(want, got); d != "" || err != nil {
		t.Errorf("%v\n%s", err, d)
	}
	for text, want := range map[string]string{"A=1\nno assignment geheim\n": "line 2", "A=\"geheim": "line 1: the value of A", "\nA='geheim": "line 2"} {
		if _, err := Dotenv([]byte(text)); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "geheim") {
			t.Errorf("%q: err = %v, want %q", text, err, want)
		}
	}
}

func TestTheFormatIsDetected(t *testing.T) {
	for _, c := range []struct {
		name, text string
		want       Format
	}{
		{"a.toml", "port = 1", FormatSockudo},
		{"a.json", `{"app_manager":{}}`, FormatSockudo},
		{"a.json", `{ broken`, FormatSockudo},
		{"", `{}`, FormatSockudo},
		{"", `[{"id":"a","key":"k","secret":"s","max_client_events_per_second":0}]`, FormatSockudo},
		{"", string("[" + string(app.MarshalRecord(&app.App{ID: "a"})) + "]"), FormatSockudo},
		{"", `[{"id":"a","key":"k","secret":"s"}]`, FormatSoketi},
		{"apps.json", `[` + soketiFull + `]`, FormatSoketi},
		{"soketi.json", `{"appManager.array.apps":[]}`, FormatSoketi},
		{"soketi.json", `{"appManager":{"array":{"apps":[]}}}`, FormatSoketi},
		{".env", "", FormatEnv},
		{".env.production", "A=1", FormatEnv},
		{"prod.env", "A=1", FormatEnv},
		{"", reverbFull, FormatEnv},
		{"", "SOKETI_DEFAULT_APP_ID=1", FormatEnv},
	} {
		if got, err := Detect(c.name, []byte(c.text)); got != c.want || err != nil {
			t.Errorf("%s %.40q: %q, %v; want %q", c.name, c.text, got, err, c.want)
		}
	}
	for _, text := range []string{"", "hello", "A=1", "[app]\nid = 1"} {
		if got, err := Detect("", []byte(text)); err == nil {
			t.Errorf("%q is taken for %s", text, got)
		}
	}
}

func FuzzSoketi(f *testing.F) {
	f.Add([]byte(`[` + soketiFull + `]`))
	f.Fuzz(func(t *testing.T, data []byte) {
		all, err := Soketi(data)
		if err != nil {
			return
		}
		for _, im := range all {
			if im.App.ID == "" || im.App.Key == "" || im.App.Secret == "" {
				t.Errorf("an app without credentials from %s", data)
			}
		}
	})
}

func FuzzDotenv(f *testing.F) {
	f.Add([]byte(reverbFull))
	f.Fuzz(func(t *testing.T, data []byte) {
		if vars, err := Dotenv(data); err == nil {
			_, _ = Reverb(vars)
			_, _ = SoketiVariables(vars)
		}
	})
}
