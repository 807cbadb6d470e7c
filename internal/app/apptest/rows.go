package apptest

import (
	"bytes"
	"log/slog"
	"math"
	"os"
	"strings"
	"sync"
	"testing"

	"sockudo/internal/app"
)

// Lines are what was logged. They may be written and read at the same time.
type Lines struct {
	mu sync.Mutex // guards what follows
	b  bytes.Buffer
}

// Logged returns a log of all levels, and what is written to it.
func Logged() (*slog.Logger, *Lines) {
	l := &Lines{}
	return slog.New(slog.NewTextHandler(l, &slog.HandlerOptions{Level: slog.LevelDebug})), l
}

// Write adds to the lines.
func (l *Lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

// String returns all lines.
func (l *Lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// Want fails the test unless one line has all of the words.
func (l *Lines) Want(t *testing.T, words ...string) {
	t.Helper()
	text := l.String()
lines:
	for line := range strings.Lines(text) {
		for _, w := range words {
			if !strings.Contains(line, w) {
				continue lines
			}
		}
		return
	}
	t.Errorf("no line of the log has %q:\n%s", words, text)
}

// Rows are apps as people wrote them, and what a store makes of them.
type Rows[V any] struct {
	// Put stores an app with the id, the key ID-key, the secret geheim, and with
	// set, in which nil stands for NULL.
	Put func(id string, set map[string]V)

	want map[string]*app.App
	none []string
}

// Good puts an app that is usable, as change makes it of one with nothing set.
func (r *Rows[V]) Good(id string, set map[string]V, change func(*app.App)) {
	r.Put(id, set)
	a := &app.App{ID: id, Key: id + "-key", Secret: "geheim", Enabled: true}
	if change != nil {
		change(a)
	}
	if r.want == nil {
		r.want = map[string]*app.App{}
	}
	r.want[id] = a
}

// Bad puts an app that is none.
func (r *Rows[V]) Bad(id string, set map[string]V) {
	r.Put(id, set)
	r.none = append(r.none, id)
}

// Check fails the test unless the usable apps, and no others, are found and
// listed, and the log names those that are not without any of their values.
func (r *Rows[V]) Check(t *testing.T, s app.Backend, log *Lines) {
	t.Helper()
	for _, a := range r.want {
		Check(t, s, a)
	}
	listed := map[string]bool{}
	must(t, s.List(t.Context(), func(a *app.App) bool { listed[a.ID] = true; return true }))
	for id := range r.want {
		if !listed[id] {
			t.Errorf("%s is not listed", id)
		}
	}
	if len(listed) != len(r.want) {
		t.Errorf("%d apps are listed, want %d", len(listed), len(r.want))
	}
	for _, id := range r.none {
		CheckUnknown(t, s, id, id+"-key")
		log.Want(t, "level=ERROR", "app_id="+id)
	}
	if strings.Contains(log.String(), "geheim") {
		t.Errorf("the log repeats a value:\n%s", log)
	}
	if there, err := s.Any(t.Context()); !there || err != nil {
		t.Errorf("any = %t, %v", there, err)
	}
}

// MalformedText checks every case of the storage document in a table that a
// person made, in which everything is text. open opens the store.
func MalformedText(t *testing.T, put func(id string, set map[string]any), open func(*slog.Logger) app.Backend) {
	r := Rows[any]{Put: put}
	r.Good("all-null", nil, nil)
	r.Good("json-null", map[string]any{"webhooks": "null", "allowed_origins": "null"}, nil)
	r.Good("json-empty", map[string]any{"webhooks": "[]", "allowed_origins": "[]"}, nil)
	r.Good("json-broken", map[string]any{"webhooks": "[{geheim"}, nil)
	r.Good("json-shape", map[string]any{"webhooks": `{"url":"https://geheim"}`}, nil)
	r.Good("bad-url", map[string]any{"webhooks": `[{"url":"geheim","event_types":[]},{"url":"https://good","event_types":["channel_occupied"]}]`}, func(a *app.App) {
		a.Webhooks = []app.Webhook{{URL: "https://good/", EventTypes: []string{"channel_occupied"}}}
	})
	r.Good("origins-broken", map[string]any{"allowed_origins": "geheim"}, func(a *app.App) { a.AllowedOrigins = []string{""} })
	r.Good("origins-mixed", map[string]any{"allowed_origins": `[1,"https://a",null]`}, func(a *app.App) { a.AllowedOrigins = []string{"https://a"} })
	r.Good("negative", map[string]any{"max_connections": "-1"}, func(a *app.App) { a.MaxConnections = math.MaxUint32 })
	r.Good("words", map[string]any{"max_connections": "geheim", "max_event_batch_size": "ten"}, nil)
	r.Good("enabled-word", map[string]any{"enabled": "geheim"}, func(a *app.App) { a.Enabled = false })
	r.Good("enabled-null", map[string]any{"enabled": nil}, nil)
	r.Bad("no-secret", map[string]any{"secret": nil})
	r.Bad("empty-secret", map[string]any{"secret": ""})
	r.Bad("no-key", map[string]any{"key": nil})
	put("", nil)
	put("", map[string]any{"id": nil, "key": "lost"})

	log, lines := Logged()
	r.Check(t, open(log), lines)
	for _, words := range [][]string{
		{"json-broken", "column=webhooks"}, {"json-shape", "column=webhooks"}, {"bad-url", "column=webhooks"},
		{"origins-broken", "column=allowed_origins"}, {"words", "column=max_connections"}, {"words", "column=max_event_batch_size"},
		{"enabled-word", "column=enabled"}, {"no-secret", "column=secret"}, {"no-key", "column=key"},
	} {
		lines.Want(t, words...)
	}
}

// Manual checks that a page of docs/stores has the statements that a driver
// uses: the one for a new table, and those for columns that are ours alone.
func Manual(t *testing.T, page, create string, alter func(*app.Column) string) {
	t.Helper()
	manual, err := os.ReadFile("../../../docs/stores/" + page)
	must(t, err)
	want := []string{create}
	for _, c := range app.Columns() {
		if c.Need == app.Extra {
			want = append(want, alter(&c))
		}
	}
	for _, w := range want {
		if !strings.Contains(string(manual), w) {
			t.Errorf("the manual lacks:\n%s", w)
		}
	}
}

// WhileLocked checks that a change sees what another transaction commits while
// it waits. lock changes the secret of an app to theirs in a transaction and
// returns what commits it once somebody waits.
func WhileLocked(t *testing.T, s app.Backend, lock func(t *testing.T, id string) (commit func())) {
	for name, change := range map[string]func(was, next *app.App) error{
		"update":   func(was, next *app.App) error { return s.Update(t.Context(), was, next) },
		"rotation": func(was, next *app.App) error { return s.SetSecrets(t.Context(), was, next) },
	} {
		t.Run(name, func(t *testing.T) {
			was := Plain(name)
			must(t, s.Create(t.Context(), was))
			commit := lock(t, name)
			done := make(chan error, 1)
			go func() {
				next := *was
				next.Secret = "ours"
				done <- change(was, &next)
			}()
			commit()
			wantErr(t, "what waited", <-done, app.ErrChanged)
			theirs := *was
			theirs.Secret = "theirs"
			Check(t, s, &theirs)
		})
	}
}
