package foreign

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"sockudo/internal/app"
)

// Soketi reads the apps of a Soketi configuration: the file with
// appManager.array.apps, nested or with dots in its keys, or that list alone.
// The members may also have the names of Soketi's SQL and DynamoDB tables.
func Soketi(data []byte) ([]Imported, error) {
	list, err := soketiList(data)
	if err != nil {
		return nil, err
	}
	var all []Imported
	for i, raw := range list {
		var members map[string]json.RawMessage
		if json.Unmarshal(raw, &members) != nil || members == nil {
			return nil, fmt.Errorf("app %d is no object", i+1)
		}
		im, err := soketiApp(members)
		if err != nil {
			return nil, fmt.Errorf("app %d: %w", i+1, err)
		}
		all = append(all, im)
	}
	return all, nil
}

func soketiList(data []byte) ([]json.RawMessage, error) {
	data = bytes.TrimPrefix(bytes.TrimSpace(data), []byte("\xef\xbb\xbf"))
	if !json.Valid(data) {
		return nil, errors.New("is no JSON")
	}
	var list []json.RawMessage
	if json.Unmarshal(data, &list) == nil && list != nil {
		return list, nil
	}
	for _, path := range [][]string{
		{"appManager.array.apps"}, {"appManager", "array", "apps"}, {"appManager.array", "apps"}, {"array", "apps"}, {"apps"},
	} {
		if raw := member(data, path); raw != nil && json.Unmarshal(raw, &list) == nil && list != nil {
			return list, nil
		}
	}
	return nil, errors.New("has no list of apps: expected one, or an object with appManager.array.apps")
}

func member(data []byte, path []string) []byte {
	for _, name := range path {
		var object map[string]json.RawMessage
		if json.Unmarshal(data, &object) != nil {
			return nil
		}
		data = object[name]
	}
	return data
}

// soketiLimits are the numbers of an app in Soketi.
var soketiLimits = []struct {
	names []string
	to    string
	set   func(a *app.App, n uint32)
}{
	{[]string{"maxConnections", "MaxConnections", "max_connections"}, "max_connections", func(a *app.App, n uint32) { a.MaxConnections = n }},
	{[]string{"maxClientEventsPerSecond", "MaxClientEventsPerSecond", "max_client_events_per_sec"}, "max_client_events_per_second", func(a *app.App, n uint32) { a.MaxClientEventsPerSecond = n }},
	{[]string{"maxBackendEventsPerSecond", "MaxBackendEventsPerSecond", "max_backend_events_per_sec"}, "max_backend_events_per_second", func(a *app.App, n uint32) { a.MaxBackendEventsPerSecond = &n }},
	{[]string{"maxReadRequestsPerSecond", "MaxReadRequestsPerSecond", "max_read_req_per_sec"}, "max_read_requests_per_second", func(a *app.App, n uint32) { a.MaxReadRequestsPerSecond = &n }},
	{[]string{"maxPresenceMembersPerChannel", "MaxPresenceMembersPerChannel", "max_presence_members_per_channel"}, "max_presence_members_per_channel", func(a *app.App, n uint32) { a.MaxPresenceMembersPerChannel = &n }},
	{[]string{"maxPresenceMemberSizeInKb", "MaxPresenceMemberSizeInKb", "max_presence_member_size_in_kb"}, "max_presence_member_size_in_kb", func(a *app.App, n uint32) { a.MaxPresenceMemberSizeInKB = &n }},
	{[]string{"maxChannelNameLength", "MaxChannelNameLength", "max_channel_name_length"}, "max_channel_name_length", func(a *app.App, n uint32) { a.MaxChannelNameLength = &n }},
	{[]string{"maxEventChannelsAtOnce", "MaxEventChannelsAtOnce", "max_event_channels_at_once"}, "max_event_channels_at_once", func(a *app.App, n uint32) { a.MaxEventChannelsAtOnce = &n }},
	{[]string{"maxEventNameLength", "MaxEventNameLength", "max_event_name_length"}, "max_event_name_length", func(a *app.App, n uint32) { a.MaxEventNameLength = &n }},
	{[]string{"maxEventPayloadInKb", "MaxEventPayloadInKb", "max_event_payload_in_kb"}, "max_event_payload_in_kb", func(a *app.App, n uint32) { a.MaxEventPayloadInKB = &n }},
	{[]string{"maxEventBatchSize", "MaxEventBatchSize", "max_event_batch_size"}, "max_event_batch_size", func(a *app.App, n uint32) { a.MaxEventBatchSize = &n }},
}

// soketiMembers are the members of one app that have not been read yet.
type soketiMembers map[string]json.RawMessage

// take returns the text of the first of names that is there, and which.
func (m soketiMembers) take(names ...string) (text, name string, ok bool) {
	for _, n := range names {
		raw, there := m[n]
		if !there {
			continue
		}
		delete(m, n)
		if ok || string(raw) == "null" {
			continue
		}
		text, name, ok = string(raw), n, true
		var s string
		if json.Unmarshal(raw, &s) == nil {
			text = s
		}
	}
	return text, name, ok
}

func soketiApp(members map[string]json.RawMessage) (Imported, error) {
	m := soketiMembers(maps.Clone(members))
	im := Imported{App: &app.App{Enabled: true}}
	a := im.App
	for _, c := range []struct {
		to    string
		names []string
		set   func(string)
	}{
		{"id", []string{"id", "AppId"}, func(s string) { a.ID = s }},
		{"key", []string{"key", "AppKey"}, func(s string) { a.Key = s }},
		{"secret", []string{"secret", "AppSecret"}, func(s string) { a.Secret = app.Secret(s) }},
	} {
		text, name, ok := m.take(c.names...)
		if !ok || text == "" {
			// Soketi would use its own app-id, app-key and app-secret, which everybody knows.
			return im, fmt.Errorf("%s is missing", c.to)
		}
		c.set(text)
		im.mapped(name, c.to, "")
	}
	if err := im.soketiFlags(m); err != nil {
		return im, fmt.Errorf("%q: %w", a.ID, err)
	}
	if err := im.soketiNumbers(m); err != nil {
		return im, fmt.Errorf("%q: %w", a.ID, err)
	}
	if text, name, ok := m.take("webhooks", "Webhooks"); ok {
		if err := im.soketiWebhooks(name, text); err != nil {
			return im, fmt.Errorf("%q: %s: %w", a.ID, name, err)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(m)) {
		im.left(name, "is no setting of an app here")
	}
	return im, nil
}

func (im *Imported) soketiFlags(m soketiMembers) error {
	for _, c := range []struct {
		to    string
		names []string
		set   func(bool)
	}{
		{"enabled", []string{"enabled", "Enabled"}, func(v bool) { im.App.Enabled = v }},
		{"enable_client_messages", []string{"enableClientMessages", "EnableClientMessages", "enable_client_messages"}, func(v bool) { im.App.EnableClientMessages = v }},
		{"enable_user_authentication", []string{"enableUserAuthentication", "EnableUserAuthentication", "enable_user_authentication"}, func(v bool) { im.App.EnableUserAuthentication = &v }},
	} {
		text, name, ok := m.take(c.names...)
		if !ok {
			continue
		}
		v, err := boolean(text)
		if err != nil {
			return fmt.Errorf("%s %w", name, err)
		}
		c.set(v)
		im.mapped(name, c.to, "")
	}
	return nil
}

func (im *Imported) soketiNumbers(m soketiMembers) error {
	for _, c := range soketiLimits {
		text, name, ok := m.take(c.names...)
		if !ok {
			continue
		}
		n, note, err := limit(text)
		if err != nil {
			return fmt.Errorf("%s %w", name, err)
		}
		c.set(im.App, n)
		im.mapped(name, c.to, note)
	}
	return nil
}

// soketiWebhook is a webhook of an app in Soketi.
type soketiWebhook struct {
	URL            string            `json:"url"`
	Headers        map[string]string `json:"headers"`
	LambdaFunction string            `json:"lambda_function"`
	EventTypes     []string          `json:"event_types"`
	Filter         *struct {
		StartsWith *string `json:"channel_name_starts_with"`
		EndsWith   *string `json:"channel_name_ends_with"`
	} `json:"filter"`
	Lambda *struct {
		Async         *bool                      `json:"async"`
		Region        string                     `json:"region"`
		ClientOptions map[string]json.RawMessage `json:"client_options"`
	} `json:"lambda"`
}

func (im *Imported) soketiWebhooks(name, text string) error {
	var hooks []soketiWebhook
	if text = strings.TrimSpace(text); text != "" {
		if err := json.Unmarshal([]byte(text), &hooks); err != nil {
			return errors.New("is no list of webhooks")
		}
	}
	for i, w := range hooks {
		at := fmt.Sprintf("%s[%d]", name, i)
		hook := app.Webhook{URL: w.URL, EventTypes: w.EventTypes, Headers: w.Headers}
		if w.URL == "" && w.LambdaFunction != "" {
			im.soketiLambda(at, &w, &hook)
		}
		if w.Filter != nil {
			hook.Filter = &app.WebhookFilter{ChannelPrefix: w.Filter.StartsWith, ChannelSuffix: w.Filter.EndsWith}
		}
		if err := hook.Normalise(); err != nil {
			im.left(at, err.Error())
			continue
		}
		im.App.Webhooks = append(im.App.Webhooks, hook)
		im.mapped(at, fmt.Sprintf("webhooks[%d]", len(im.App.Webhooks)-1), "")
	}
	return nil
}

func (im *Imported) soketiLambda(at string, w *soketiWebhook, hook *app.Webhook) {
	hook.Lambda = &app.Lambda{FunctionName: w.LambdaFunction}
	if w.Lambda == nil {
		return
	}
	hook.Lambda.Region = w.Lambda.Region
	if w.Lambda.Async != nil && !*w.Lambda.Async {
		hook.Lambda.InvocationType = "RequestResponse"
	}
	for _, option := range slices.Sorted(maps.Keys(w.Lambda.ClientOptions)) {
		var text string
		if option == "endpoint" && json.Unmarshal(w.Lambda.ClientOptions[option], &text) == nil {
			hook.Lambda.EndpointURL = text
			continue
		}
		im.left(at+".lambda.client_options."+option, "options of the AWS client come from its environment here")
	}
}

// soketiVariables are the variables of Soketi's environment for one app, and
// the names of the members that they set.
var soketiVariables = []struct{ variable, member string }{
	{"DEFAULT_APP_ID", "id"},
	{"DEFAULT_APP_KEY", "key"},
	{"DEFAULT_APP_SECRET", "secret"},
	{"DEFAULT_APP_ENABLED", "enabled"},
	{"DEFAULT_APP_ENABLE_CLIENT_MESSAGES", "enableClientMessages"},
	{"DEFAULT_APP_USER_AUTHENTICATION", "enableUserAuthentication"},
	{"DEFAULT_APP_MAX_CONNS", "maxConnections"},
	{"DEFAULT_APP_MAX_CLIENT_EVENTS_PER_SEC", "maxClientEventsPerSecond"},
	{"DEFAULT_APP_MAX_BACKEND_EVENTS_PER_SEC", "maxBackendEventsPerSecond"},
	{"DEFAULT_APP_MAX_READ_REQ_PER_SEC", "maxReadRequestsPerSecond"},
	{"DEFAULT_APP_WEBHOOKS", "webhooks"},
}

// SoketiVariables reads the app that Soketi makes of the variables
// SOKETI_DEFAULT_APP_… of its environment; none if there are no such variables.
// The names without SOKETI_ count too, and more.
func SoketiVariables(vars map[string]string) ([]Imported, error) {
	members, from := map[string]json.RawMessage{}, map[string]string{}
	known := map[string]bool{}
	for _, v := range soketiVariables {
		for _, name := range []string{v.variable, "SOKETI_" + v.variable} {
			known[name] = true
			if text, ok := vars[name]; ok && text != "" && from[v.member] == "" {
				members[v.member], from[v.member] = quoted(text), name
			}
		}
	}
	var others []string
	for _, name := range slices.Sorted(maps.Keys(vars)) {
		if !known[name] && strings.HasPrefix(strings.TrimPrefix(name, "SOKETI_"), "DEFAULT_APP_") {
			others = append(others, name)
		}
	}
	if len(members) == 0 {
		return nil, nil
	}
	for _, v := range soketiVariables[:3] {
		if from[v.member] == "" {
			return nil, fmt.Errorf("SOKETI_%s is not set", v.variable)
		}
	}
	im, err := soketiApp(members)
	if err != nil {
		return nil, fmt.Errorf("the app of SOKETI_DEFAULT_APP_…: %w", err)
	}
	for _, list := range [][]Mapping{im.Mapped, im.Left} {
		for i := range list {
			name, rest, _ := strings.Cut(list[i].From, "[")
			if variable := from[name]; variable != "" {
				list[i].From = variable + strings.TrimSuffix("["+rest, "[")
			}
		}
	}
	for _, name := range others {
		im.left(name, "is no setting of an app here")
	}
	return []Imported{im}, nil
}

func quoted(s string) json.RawMessage {
	raw, err := json.Marshal(s)
	if err != nil {
		panic(fmt.Sprintf("foreign: a string cannot be encoded: %v", err))
	}
	return raw
}
