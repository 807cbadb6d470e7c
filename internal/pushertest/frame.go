package pushertest

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"
)

// A Frame is one text frame that came from the server.
type Frame struct {
	Event   string
	Channel string                     // "" when the frame has no channel
	UserID  string                     // "" when the frame has no user_id
	Data    json.RawMessage            // the value of data as it stands in the frame, nil when absent
	Keys    map[string]json.RawMessage // every key of the frame
	Raw     string                     // the frame exactly as received
	At      time.Time                  // when it had been read
}

// parseFrame reads what a server may send: an object with a string event. An
// unusable frame is an error of the server, so it is reported as such.
func parseFrame(raw []byte, at time.Time) (Frame, error) {
	f := Frame{Raw: string(raw), At: at}
	if err := json.Unmarshal(raw, &f.Keys); err != nil {
		return f, fmt.Errorf("the server sent no JSON object: %w: %s", err, raw)
	}
	for key, target := range map[string]*string{"event": &f.Event, "channel": &f.Channel, "user_id": &f.UserID} {
		value, ok := f.Keys[key]
		if !ok {
			continue
		}
		var text *string
		if err := json.Unmarshal(value, &text); err != nil || text == nil || *text == "" {
			return f, fmt.Errorf("the server sent a frame whose %s is not a string with content: %s", key, raw)
		}
		*target = *text
	}
	if f.Event == "" {
		return f, fmt.Errorf("the server sent a frame without event: %s", raw)
	}
	f.Data = f.Keys["data"]
	if !f.dataFits() {
		return f, fmt.Errorf("the server sent a frame with unfit data: %s", raw)
	}
	return f, nil
}

// dataFits tells whether data is a string, in pusher:error an object with a
// numeric code and a text (section 2.2).
func (f Frame) dataFits() bool {
	if f.Event == "pusher:error" {
		_, ok := f.decodeError()
		return ok
	}
	var text *string
	return json.Unmarshal(f.Data, &text) == nil && text != nil
}

// errorCode returns the code of a pusher:error, 0 for other frames.
func (f Frame) errorCode() int {
	if f.Event != "pusher:error" {
		return 0
	}
	e, _ := f.decodeError()
	return e.Code
}

func (f Frame) decodeError() (Error, bool) {
	var e struct {
		Code    *int    `json:"code"`
		Message *string `json:"message"`
	}
	if err := json.Unmarshal(f.Data, &e); err != nil || e.Code == nil || e.Message == nil {
		return Error{}, false
	}
	return Error{Code: *e.Code, Message: *e.Message}, true
}

// Has tells whether the frame has key at its top level.
func (f Frame) Has(key string) bool {
	_, ok := f.Keys[key]
	return ok
}

// Text returns the content of data, which has to be a JSON string, as it is in
// every frame except pusher:error (section 2.2).
func (f Frame) Text(t testing.TB) string {
	t.Helper()
	var text *string
	if err := json.Unmarshal(f.Data, &text); err != nil || text == nil {
		t.Fatalf("data is not a string: %s", f.Raw)
	}
	return *text
}

// Decode reads the JSON inside of the string data into v.
func (f Frame) Decode(t testing.TB, v any) {
	t.Helper()
	if err := json.Unmarshal([]byte(f.Text(t)), v); err != nil {
		t.Fatalf("the string data holds no usable JSON: %v: %s", err, f.Raw)
	}
}

// An Error is the content of a pusher:error frame.
type Error struct {
	Code    int
	Message string
}

// Error reads the frame as pusher:error: data is an object with a numeric code
// and a string message (item 16).
func (f Frame) Error(t testing.TB) Error {
	t.Helper()
	if f.Event != "pusher:error" {
		t.Fatalf("got %s, want pusher:error", f.Raw)
	}
	e, ok := f.decodeError()
	if !ok {
		t.Fatalf("data of pusher:error is not an object with a numeric code and a string message: %s", f.Raw)
	}
	return e
}

// A SubscriptionError is the content of a pusher:subscription_error frame.
type SubscriptionError struct {
	Type   string `json:"type"`
	Error  string `json:"error"`
	Status int    `json:"status"`
}
