package app

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"slices"
)

// jsonList returns a list as a column of kind JSON holds it, nil for an empty one.
func jsonList[T any](list []T) any {
	if len(list) == 0 {
		return nil
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(list); err != nil {
		panic(fmt.Sprintf("app: a list of strings and structs cannot be encoded: %v", err))
	}
	return string(bytes.TrimSuffix(b.Bytes(), []byte("\n")))
}

var errNoList = errors.New("is no JSON list")

// elements takes a JSON list apart; null and nothing are an empty one.
func elements(raw []byte) ([]json.RawMessage, error) {
	raw = bytes.TrimSpace(raw)
	if len(raw) == 0 || string(raw) == "null" {
		return nil, nil
	}
	// Sockudo's DynamoDB items, and people, sometimes hold the list as a string.
	var quoted string
	if raw[0] == '"' && json.Unmarshal(raw, &quoted) == nil {
		raw = []byte(quoted)
	}
	var list []json.RawMessage
	if json.Unmarshal(raw, &list) != nil {
		return nil, errNoList // the cause may repeat a value
	}
	return list, nil
}

// ParseOrigins reads a stored list of origin patterns. Elements that are no
// strings are left out, each with an error. What is not empty and has no
// usable element becomes a list that admits nobody, because an empty one
// admits everybody.
func ParseOrigins(raw []byte) ([]string, error) {
	list, err := elements(raw)
	if err != nil {
		return []string{nobody}, err
	}
	var origins []string
	var errs []error
	for i, element := range list {
		var s *string
		if json.Unmarshal(element, &s) != nil || s == nil {
			errs = append(errs, fmt.Errorf("element %d is no string", i))
			continue
		}
		origins = append(origins, *s)
	}
	if len(origins) == 0 && len(list) > 0 {
		origins = []string{nobody}
	}
	return origins, errors.Join(errs...)
}

// nobody is a pattern that matches no origin.
const nobody = ""

// ParseWebhooks reads a stored list of webhooks. One that cannot be used is
// left out, with an error that tells its position and not its content.
func ParseWebhooks(raw []byte) ([]Webhook, error) {
	list, err := elements(raw)
	if err != nil {
		return nil, err
	}
	var hooks []Webhook
	var errs []error
	for i, element := range list {
		var hook struct {
			Webhook
			EventTypes *[]string `json:"event_types"`
		}
		if err := json.Unmarshal(element, &hook); err != nil {
			errs = append(errs, fmt.Errorf("element %d: %w", i, shape(err)))
			continue
		}
		if hook.EventTypes == nil {
			errs = append(errs, fmt.Errorf("element %d has no event_types", i))
			continue
		}
		hook.Webhook.EventTypes = *hook.EventTypes
		if err := hook.Webhook.Normalise(); err != nil {
			errs = append(errs, fmt.Errorf("element %d: %w", i, err))
			continue
		}
		hooks = append(hooks, hook.Webhook)
	}
	return hooks, errors.Join(errs...)
}

// shape says which member has the wrong type, without the value.
func shape(err error) error {
	if e, ok := errors.AsType[*json.UnmarshalTypeError](err); ok && e.Field != "" {
		return fmt.Errorf("member %s is of the wrong type", e.Field)
	}
	return errors.New("is no webhook")
}

// Normalise brings a webhook into the form that stores keep: a URL without a
// path gets /, the old name cache_missed becomes cache_miss. It returns why a
// webhook can never be delivered; the error does not repeat the URL, which
// may hold credentials.
func (w *Webhook) Normalise() error {
	if w.URL != "" {
		u, err := url.Parse(w.URL)
		switch {
		case err != nil || u.Host == "":
			return errors.New("its url is not absolute")
		case u.Scheme != "http" && u.Scheme != "https":
			return errors.New("its url is neither http nor https")
		}
		if u.Path == "" {
			u.Path = "/"
			w.URL = u.String()
		}
	} else if w.LambdaFunction == "" && (w.Lambda == nil || w.Lambda.FunctionName == "") {
		return errors.New("it has neither url nor lambda function")
	}
	if i := slices.Index(w.EventTypes, "cache_missed"); i >= 0 {
		w.EventTypes = slices.Clone(w.EventTypes)
		w.EventTypes[i] = "cache_miss"
	}
	return nil
}
