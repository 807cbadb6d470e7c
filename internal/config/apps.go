package config

import (
	"errors"
	"fmt"
	"maps"
	"net/url"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"sockudo/internal/app"
	"sockudo/internal/origin"
)

// The shape of an app in a file: flat, or with everything but the identity
// below policy.
type (
	appFields struct {
		ID             string     `key:"id"`
		Key            string     `key:"key"`
		Secret         app.Secret `key:"secret"`
		PreviousSecret app.Secret `key:"previous_secret"`
		PreviousUntil  Time       `key:"previous_secret_until"`
		Enabled        bool       `key:"enabled"`
		appLimits
		appFeatures
		AllowedOrigins []string        `key:"allowed_origins"`
		Webhooks       []webhookFields `key:"webhooks"`
		Policy         *appPolicy      `key:"policy"`
	}
	appLimits struct {
		MaxConnections               uint32  `key:"max_connections"`
		MaxClientEventsPerSecond     uint32  `key:"max_client_events_per_second"`
		MaxBackendEventsPerSecond    *uint32 `key:"max_backend_events_per_second"`
		MaxReadRequestsPerSecond     *uint32 `key:"max_read_requests_per_second"`
		MaxPresenceMembersPerChannel *uint32 `key:"max_presence_members_per_channel"`
		MaxPresenceMemberSizeInKB    *uint32 `key:"max_presence_member_size_in_kb"`
		MaxChannelNameLength         *uint32 `key:"max_channel_name_length"`
		MaxEventChannelsAtOnce       *uint32 `key:"max_event_channels_at_once"`
		MaxEventNameLength           *uint32 `key:"max_event_name_length"`
		MaxEventPayloadInKB          *uint32 `key:"max_event_payload_in_kb"`
		MaxEventBatchSize            *uint32 `key:"max_event_batch_size"`
	}
	appFeatures struct {
		EnableClientMessages     bool  `key:"enable_client_messages"`
		EnableUserAuthentication *bool `key:"enable_user_authentication"`
		EnableWatchlistEvents    *bool `key:"enable_watchlist_events"`
		EnableSubscriptionCount  *bool `key:"enable_subscription_count"`
		EnableSignin             *bool `key:"enable_signin"`
		RequireTLS               *bool `key:"require_tls"`
	}
	appPolicy struct {
		Limits   appLimits   `key:"limits"`
		Features appFeatures `key:"features"`
		Channels struct {
			AllowedOrigins []string `key:"allowed_origins"`
		} `key:"channels"`
		Webhooks []webhookFields `key:"webhooks"`
	}
	webhookFields struct {
		URL            string            `key:"url"`
		LambdaFunction string            `key:"lambda_function"`
		Lambda         *lambdaFields     `key:"lambda"`
		EventTypes     []string          `key:"event_types"`
		Filter         *filterFields     `key:"filter"`
		Headers        map[string]string `key:"headers"`
	}
	lambdaFields struct {
		FunctionName   string `key:"function_name"`
		Region         string `key:"region"`
		InvocationType string `key:"invocation_type"`
		Qualifier      string `key:"qualifier"`
		EndpointURL    string `key:"endpoint_url"`
	}
	filterFields struct {
		ChannelPrefix  *string `key:"channel_prefix"`
		ChannelSuffix  *string `key:"channel_suffix"`
		ChannelPattern *string `key:"channel_pattern"`
		ChannelType    *string `key:"channel_type"`
	}
)

func (a *appFields) preset() { a.Enabled = true }

// apps reads the list of apps. An app with a problem is not in the result.
func (d *decoder) apps(path string, v *value) []*app.App {
	if v.kind != kindList {
		d.fail(path, v.line, "expected a list, got %s", v)
		return nil
	}
	d.inApp = true
	defer func() { d.inApp = false }()
	var apps []*app.App
	seenAt := map[string]int{} // line by id
	for i, item := range v.items {
		itemPath := fmt.Sprintf("%s[%d]", path, i)
		var f appFields
		d.object(itemPath, item, reflect.ValueOf(&f).Elem())
		a := d.app(itemPath, item, &f)
		if a == nil {
			continue
		}
		if first, ok := seenAt[a.ID]; ok {
			d.report.warn(d.at(item.line), itemPath, "app %q is in line %d too; this one counts", a.ID, first)
			apps = slices.DeleteFunc(apps, func(b *app.App) bool { return b.ID == a.ID })
		}
		seenAt[a.ID] = item.line
		d.report.sources[appKey(a.ID)] = d.at(item.line)
		apps = append(apps, a)
	}
	return apps
}

// appKey is the name under which a report keeps where an app was set.
func appKey(id string) string { return fmt.Sprintf("app_manager.array.apps[id=%s]", id) }

// app builds the record of what was read, nil if it cannot be used.
func (d *decoder) app(path string, v *value, f *appFields) *app.App {
	if v.kind != kindObject {
		return nil // has been reported
	}
	ok := true
	for _, s := range []struct{ key, text string }{{"id", f.ID}, {"key", f.Key}, {"secret", f.Secret.Reveal()}} {
		if s.text == "" {
			d.fail(join(path, s.key), v.line, "must not be empty or missing")
			ok = false
		}
	}
	if f.Policy != nil {
		d.policy(path, v, f)
	}
	valid := d.origins(path, v, f)
	hooks := d.webhooks(path, v, f)
	if !ok || !valid {
		return nil
	}
	return f.app(hooks)
}

func (f *appFields) app(hooks []app.Webhook) *app.App {
	return &app.App{
		ID: f.ID, Key: f.Key, Secret: f.Secret, PreviousSecret: f.PreviousSecret, PreviousUntil: f.PreviousUntil.Time(),
		Enabled:                      f.Enabled,
		MaxConnections:               f.MaxConnections,
		EnableClientMessages:         f.EnableClientMessages,
		MaxClientEventsPerSecond:     f.MaxClientEventsPerSecond,
		MaxBackendEventsPerSecond:    f.MaxBackendEventsPerSecond,
		MaxReadRequestsPerSecond:     f.MaxReadRequestsPerSecond,
		MaxPresenceMembersPerChannel: f.MaxPresenceMembersPerChannel,
		MaxPresenceMemberSizeInKB:    f.MaxPresenceMemberSizeInKB,
		MaxChannelNameLength:         f.MaxChannelNameLength,
		MaxEventChannelsAtOnce:       f.MaxEventChannelsAtOnce,
		MaxEventNameLength:           f.MaxEventNameLength,
		MaxEventPayloadInKB:          f.MaxEventPayloadInKB,
		MaxEventBatchSize:            f.MaxEventBatchSize,
		EnableUserAuthentication:     f.EnableUserAuthentication,
		EnableWatchlistEvents:        f.EnableWatchlistEvents,
		EnableSubscriptionCount:      f.EnableSubscriptionCount,
		EnableSignin:                 f.EnableSignin,
		RequireTLS:                   f.RequireTLS,
		Webhooks:                     hooks,
		AllowedOrigins:               f.AllowedOrigins,
	}
}

// policy makes the nested form the one that counts.
func (d *decoder) policy(path string, v *value, f *appFields) {
	flat := []string{"allowed_origins", "webhooks"}
	for _, t := range []reflect.Type{reflect.TypeFor[appLimits](), reflect.TypeFor[appFeatures]()} {
		for _, field := range d.fields(t) {
			flat = append(flat, field.key)
		}
	}
	for _, key := range flat {
		if i, ok := v.index[key]; ok {
			d.report.warn(d.at(v.members[i].line), join(path, key), "ignored, because policy is present")
		}
	}
	p := f.Policy
	f.appLimits, f.appFeatures = p.Limits, p.Features
	f.AllowedOrigins, f.Webhooks = p.Channels.AllowedOrigins, p.Webhooks
}

// lineOf returns the line of an item of a list that is a member of an app, or
// the line of the app.
func lineOf(v *value, i int, names ...string) int {
	line := v.line
	for _, name := range names {
		if v = v.present(name); v == nil {
			return line
		}
		line = v.line
	}
	if i < len(v.items) {
		return v.items[i].line
	}
	return line
}

// place returns where in an app a member is written.
func (f *appFields) place(nested ...string) []string {
	if f.Policy != nil {
		return append([]string{"policy"}, nested...)
	}
	return nested[len(nested)-1:]
}

func (d *decoder) origins(path string, v *value, f *appFields) bool {
	at := f.place("channels", "allowed_origins")
	_, errs := origin.ParseLenient(f.AllowedOrigins)
	for _, err := range errs {
		if e, ok := errors.AsType[*origin.Error](err); ok {
			key := fmt.Sprintf("%s.%s[%d]", path, strings.Join(at, "."), e.Index)
			d.fail(key, lineOf(v, e.Index, at...), "%v", e)
		}
	}
	return len(errs) == 0
}

var eventTypes = []string{
	"channel_occupied", "channel_vacated", "member_added", "member_removed", "client_event", "cache_miss",
	"subscription_count",
}

// webhooks builds the webhooks of an app. One without a usable target is left
// out, so that it does not keep the others from working.
func (d *decoder) webhooks(path string, v *value, f *appFields) []app.Webhook {
	at := f.place("webhooks")
	var hooks []app.Webhook
	for i, w := range f.Webhooks {
		line := lineOf(v, i, at...)
		itemPath := fmt.Sprintf("%s.%s[%d]", path, strings.Join(at, "."), i)
		if w.EventTypes == nil {
			d.fail(join(itemPath, "event_types"), line, "must not be missing")
			continue
		}
		hook := w.webhook()
		if reason := targetFault(&hook); reason != "" {
			d.report.warn(d.at(line), itemPath, "webhook %d of app %q is left out: %s", i, f.ID, reason)
			continue
		}
		for _, text := range adjust(&hook) {
			d.report.warn(d.at(line), itemPath, "%s", text)
		}
		hooks = append(hooks, hook)
	}
	return hooks
}

func (w *webhookFields) webhook() app.Webhook {
	hook := app.Webhook{URL: w.URL, LambdaFunction: w.LambdaFunction, EventTypes: w.EventTypes, Headers: w.Headers}
	if w.Lambda != nil {
		hook.Lambda = &app.Lambda{
			FunctionName: w.Lambda.FunctionName, Region: w.Lambda.Region, InvocationType: w.Lambda.InvocationType,
			Qualifier: w.Lambda.Qualifier, EndpointURL: w.Lambda.EndpointURL,
		}
	}
	if w.Filter != nil {
		hook.Filter = &app.WebhookFilter{
			ChannelPrefix: w.Filter.ChannelPrefix, ChannelSuffix: w.Filter.ChannelSuffix,
			ChannelPattern: w.Filter.ChannelPattern, ChannelType: w.Filter.ChannelType,
		}
	}
	return hook
}

// targetFault returns why hook cannot be delivered, else "".
func targetFault(hook *app.Webhook) string {
	if hook.URL != "" {
		u, err := url.Parse(hook.URL)
		switch {
		case err != nil || u.Host == "":
			return "its url is not absolute"
		case u.Scheme != "http" && u.Scheme != "https":
			return "its url is neither http nor https"
		}
		return ""
	}
	if hook.LambdaFunction == "" && (hook.Lambda == nil || hook.Lambda.FunctionName == "") {
		return "it has neither url nor lambda function"
	}
	return ""
}

// adjust corrects what can be corrected and returns what should be known of it.
func adjust(hook *app.Webhook) []string {
	var texts []string
	for i, e := range hook.EventTypes {
		if e == "cache_missed" {
			hook.EventTypes[i] = "cache_miss"
		} else if !slices.Contains(eventTypes, e) {
			texts = append(texts, fmt.Sprintf("event type %q does not exist", e))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(hook.Headers)) {
		switch strings.ToLower(name) {
		case "content-type", "x-pusher-key", "x-pusher-signature":
			delete(hook.Headers, name)
			texts = append(texts, fmt.Sprintf("header %s cannot be changed", name))
		}
	}
	if hook.Filter != nil && hook.Filter.ChannelPattern != nil {
		if _, err := regexp.Compile(*hook.Filter.ChannelPattern); err != nil {
			texts = append(texts, fmt.Sprintf("filter.channel_pattern never matches: %v", err))
		}
	}
	if f := hook.Filter; f != nil && f.ChannelType != nil {
		if !slices.Contains([]string{"public", "private", "presence", "encrypted", "cache"}, *f.ChannelType) {
			texts = append(texts, fmt.Sprintf("filter.channel_type %q never matches", *f.ChannelType))
		}
	}
	return texts
}
