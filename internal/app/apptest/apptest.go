// Package apptest is the contract test of the stores of apps.
package apptest

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"sockudo/internal/app"
)

// Run checks that what open returns keeps the contract of app.Backend. open
// returns a new, empty store each time; all stores of one test that it returns
// for the same name share their apps.
func Run(t *testing.T, open func(t *testing.T, name string) app.Backend) {
	for _, test := range []struct {
		name string
		run  func(t *testing.T, s app.Backend, open func() app.Backend)
	}{
		{"a created app is found by id and by key, whole", testCreate},
		{"an unknown app is not found", testUnknown},
		{"ids and keys match byte by byte", testExact},
		{"names that no store can hold are not found and not stored", testInvalid},
		{"names are data, never code", testNames},
		{"ids and keys are unique", testUnique},
		{"an update replaces all fields", testUpdate},
		{"an upsert creates or replaces", testUpsert},
		{"many nodes upsert the same apps at once", testUpsertRace},
		{"a deleted app is gone", testDelete},
		{"secrets are replaced alone", testSetSecrets},
		{"what was changed or deleted meanwhile is not overwritten", testGuards},
		{"of many rotations at once one happens", testRotateRace},
		{"of many updates at once none is lost", testUpdateRace},
		{"all apps are listed once", testList},
		{"a store knows whether it is empty", testAny},
		{"limits and origins are prepared", testPrepared},
		{"many callers at once", testConcurrent},
	} {
		t.Run(strings.ReplaceAll(test.name, " ", "_"), func(t *testing.T) {
			reopen := func() app.Backend { return open(t, test.name) }
			test.run(t, reopen(), reopen)
		})
	}
}

func ptr[T any](v T) *T { return &v }

// Plain returns an app with nothing but what it must have.
func Plain(name string) *app.App {
	return &app.App{ID: name, Key: name + "-key", Secret: app.Secret(name + "-secret"), Enabled: true}
}

// Full returns an app with every field set, and its numbers as large as all
// stores hold them.
func Full(name string) *app.App {
	a := Plain(name)
	a.MaxConnections, a.EnableClientMessages, a.MaxClientEventsPerSecond = 1000, true, math.MaxInt32
	a.MaxBackendEventsPerSecond, a.MaxReadRequestsPerSecond = ptr(uint32(2)), ptr(uint32(3))
	a.MaxPresenceMembersPerChannel, a.MaxPresenceMemberSizeInKB = ptr(uint32(4)), ptr(uint32(5))
	a.MaxChannelNameLength, a.MaxEventChannelsAtOnce = ptr(uint32(6)), ptr(uint32(7))
	a.MaxEventNameLength, a.MaxEventPayloadInKB, a.MaxEventBatchSize = ptr(uint32(8)), ptr(uint32(9)), ptr(uint32(0))
	a.EnableUserAuthentication, a.EnableWatchlistEvents = ptr(true), ptr(false)
	a.EnableSubscriptionCount, a.EnableSignin, a.RequireTLS = ptr(true), ptr(false), ptr(true)
	a.PreviousSecret = app.Secret(name + "-older-secret")
	a.PreviousUntil = time.Date(2099, 12, 31, 23, 59, 58, 0, time.UTC)
	a.Webhooks = []app.Webhook{
		{
			URL: "https://hooks.example/s?a=1&b=<2>", EventTypes: []string{"channel_occupied", "channel_vacated"},
			Headers: map[string]string{"X-Env": `"prod" \ 'ü' 😀`},
		},
		{
			Lambda: &app.Lambda{FunctionName: "fn", Region: "eu-west-1"}, EventTypes: []string{"member_added"},
			Filter: &app.WebhookFilter{ChannelPrefix: ptr("presence-")},
		},
		{LambdaFunction: "old", EventTypes: []string{"cache_miss"}},
	}
	a.AllowedOrigins = []string{"https://example.com", "*.exämple.org"}
	return a
}

// Diff compares what a store returned with what it was given.
func Diff(want, got *app.App) string {
	return cmp.Diff(want, got, cmpopts.IgnoreFields(app.App{}, "Limits", "Origins"), cmpopts.EquateEmpty())
}

// Check fails the test unless the store finds want by its id and by its key.
func Check(t *testing.T, s app.Store, want *app.App) {
	t.Helper()
	got, err := s.ByID(t.Context(), want.ID)
	if err != nil {
		t.Fatalf("by id %q: %v", want.ID, err)
	}
	if diff := Diff(want, got); diff != "" {
		t.Errorf("by id %q (-want +got):\n%s", want.ID, diff)
	}
	if got, err = s.ByKey(t.Context(), want.Key); err != nil {
		t.Fatalf("by key %q: %v", want.Key, err)
	}
	if diff := Diff(want, got); diff != "" {
		t.Errorf("by key %q (-want +got):\n%s", want.Key, diff)
	}
}

// CheckUnknown fails the test unless the store says that there is no such app.
func CheckUnknown(t *testing.T, s app.Store, id, key string) {
	t.Helper()
	if a, err := s.ByID(t.Context(), id); !errors.Is(err, app.ErrNotFound) || a != nil {
		t.Errorf("by id %q: %v, %v; want %v", id, a != nil, err, app.ErrNotFound)
	}
	if a, err := s.ByKey(t.Context(), key); !errors.Is(err, app.ErrNotFound) || a != nil {
		t.Errorf("by key %q: %v, %v; want %v", key, a != nil, err, app.ErrNotFound)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantErr(t *testing.T, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: err = %v, want %v", what, err, want)
	}
}

func testCreate(t *testing.T, s app.Backend, open func() app.Backend) {
	for _, a := range []*app.App{Plain("plain"), Full("full"), {ID: "off", Key: "k", Secret: "s"}} {
		must(t, s.Create(t.Context(), a))
		Check(t, s, a)
		Check(t, open(), a) // and another node finds it
	}
}

func testUnknown(t *testing.T, s app.Backend, _ func() app.Backend) {
	CheckUnknown(t, s, "nobody", "nobody-key")
	must(t, s.Create(t.Context(), Plain("a")))
	CheckUnknown(t, s, "nobody", "nobody-key")
	CheckUnknown(t, s, "a-key", "a") // an id is no key
	wantErr(t, "update", s.Update(t.Context(), nil, Plain("nobody")), app.ErrNotFound)
	wantErr(t, "delete", s.Delete(t.Context(), "nobody"), app.ErrNotFound)
	wantErr(t, "set secrets", s.SetSecrets(t.Context(), nil, &app.App{ID: "nobody", Secret: "x"}), app.ErrNotFound)
	CheckUnknown(t, s, "nobody", "nobody-key") // and none of it created one
}

func testExact(t *testing.T, s app.Backend, _ func() app.Backend) {
	a := &app.App{ID: "Straße", Key: "Key-é", Secret: "s", Enabled: true}
	must(t, s.Create(t.Context(), a))
	Check(t, s, a)
	CheckUnknown(t, s, "straße", "key-é")        // case
	CheckUnknown(t, s, "Strasse", "Key-e")       // what collations call equal
	CheckUnknown(t, s, "Straße ", "Key-é ")      // trailing blanks
	CheckUnknown(t, s, "Strasse", "Key-e\u0301") // another normal form
	for id, err := range map[string]error{
		"STRASSE": s.Delete(t.Context(), "STRASSE"),
		"straße":  s.SetSecrets(t.Context(), nil, &app.App{ID: "straße", Secret: "other"}),
		"Straße ": s.Update(t.Context(), nil, &app.App{ID: "Straße ", Key: "Key-x", Secret: "other"}),
	} {
		wantErr(t, "change of "+id, err, app.ErrNotFound)
	}
	Check(t, s, a)
}

func testInvalid(t *testing.T, s app.Backend, _ func() app.Backend) {
	for _, name := range []string{"", "\x00", "a\x00b", "\xff\xfe", "a\xc3", strings.Repeat("x", 256), strings.Repeat("y", 1<<20)} {
		CheckUnknown(t, s, name, name)
		for what, a := range map[string]*app.App{
			"id": {ID: name, Key: "k", Secret: "s"}, "key": {ID: "i", Key: name, Secret: "s"}, "secret": {ID: "i", Key: "k", Secret: app.Secret(name)},
		} {
			wantErr(t, "create with bad "+what, s.Create(t.Context(), a), app.ErrInvalid)
			wantErr(t, "upsert with bad "+what, s.Upsert(t.Context(), a), app.ErrInvalid)
			wantErr(t, "update with bad "+what, s.Update(t.Context(), nil, a), app.ErrInvalid)
		}
		wantErr(t, "set secret "+fmt.Sprintf("%.10q", name), s.SetSecrets(t.Context(), nil, &app.App{ID: "i", Secret: app.Secret(name)}), app.ErrInvalid)
		wantErr(t, "delete", s.Delete(t.Context(), name), app.ErrNotFound)
	}
	if there, err := s.Any(t.Context()); there || err != nil {
		t.Errorf("an app was stored: %t, %v", there, err)
	}
}

func testNames(t *testing.T, s app.Backend, _ func() app.Backend) {
	for i, name := range []string{
		`'; DROP TABLE applications; --`, `a"b`, "a`b", `a\'b`, `a\`, "a%", "a_", "{}", "$1", "?", ":id", "😀", "日本", "a\tb\nc", "\u200b", " lead",
		strings.Repeat("é", 127),
	} {
		a := &app.App{ID: name, Key: name + "k"[:min(1, 255-len(name))], Secret: app.Secret(fmt.Sprintf("s%d", i)), Enabled: true}
		must(t, s.Create(t.Context(), a))
		Check(t, s, a)
		a.MaxConnections = 5
		must(t, s.Update(t.Context(), nil, a))
		Check(t, s, a)
		must(t, s.Delete(t.Context(), a.ID))
		CheckUnknown(t, s, a.ID, a.Key)
	}
}

func testUnique(t *testing.T, s app.Backend, _ func() app.Backend) {
	a, b := Plain("a"), Plain("b")
	must(t, s.Create(t.Context(), a))
	must(t, s.Create(t.Context(), b))
	wantErr(t, "same id", s.Create(t.Context(), &app.App{ID: "a", Key: "new", Secret: "s"}), app.ErrExists)
	wantErr(t, "same key", s.Create(t.Context(), &app.App{ID: "new", Key: "a-key", Secret: "s"}), app.ErrExists)
	wantErr(t, "update to another's key", s.Update(t.Context(), nil, &app.App{ID: "b", Key: "a-key", Secret: "s"}), app.ErrExists)
	wantErr(t, "upsert to another's key", s.Upsert(t.Context(), &app.App{ID: "b", Key: "a-key", Secret: "s"}), app.ErrExists)
	wantErr(t, "upsert of a new one with another's key", s.Upsert(t.Context(), &app.App{ID: "c", Key: "a-key", Secret: "s"}), app.ErrExists)
	Check(t, s, a)
	Check(t, s, b)
	CheckUnknown(t, s, "c", "new")
}

func testUpdate(t *testing.T, s app.Backend, _ func() app.Backend) {
	must(t, s.Create(t.Context(), Plain("other")))
	a := Full("a")
	must(t, s.Create(t.Context(), a))
	for _, next := range []*app.App{
		{ID: "a", Key: "rotated", Secret: "s2", MaxConnections: 3}, // everything else is unset
		{ID: "a", Key: "rotated", Secret: "s2", MaxConnections: 3}, // the same again is no unknown app
		Full("a"),
	} {
		must(t, s.Update(t.Context(), nil, next))
		Check(t, s, next)
	}
	if _, err := s.ByKey(t.Context(), "rotated"); !errors.Is(err, app.ErrNotFound) {
		t.Errorf("the old key: err = %v, want %v", err, app.ErrNotFound)
	}
	Check(t, s, Plain("other"))
}

func testUpsert(t *testing.T, s app.Backend, _ func() app.Backend) {
	must(t, s.Create(t.Context(), Plain("other")))
	for _, a := range []*app.App{Plain("a"), Full("a"), Full("a"), {ID: "a", Key: "rotated", Secret: "s2"}} {
		must(t, s.Upsert(t.Context(), a))
		Check(t, s, a)
	}
	if _, err := s.ByKey(t.Context(), "a-key"); !errors.Is(err, app.ErrNotFound) {
		t.Errorf("the old key: err = %v, want %v", err, app.ErrNotFound)
	}
	Check(t, s, Plain("other"))
}

func testUpsertRace(t *testing.T, _ app.Backend, open func() app.Backend) {
	var wg sync.WaitGroup
	for range 8 {
		s := open()
		wg.Go(func() {
			for i := range 10 {
				if err := s.Upsert(t.Context(), Full(fmt.Sprintf("app-%d", i))); err != nil {
					t.Errorf("upsert: %v", err)
				}
			}
		})
	}
	wg.Wait()
	s := open()
	for i := range 10 {
		Check(t, s, Full(fmt.Sprintf("app-%d", i)))
	}
	if n := len(list(t, s)); n != 10 {
		t.Errorf("%d apps, want 10", n)
	}
}

func testDelete(t *testing.T, s app.Backend, _ func() app.Backend) {
	must(t, s.Create(t.Context(), Full("a")))
	must(t, s.Create(t.Context(), Plain("b")))
	must(t, s.Delete(t.Context(), "a"))
	CheckUnknown(t, s, "a", "a-key")
	wantErr(t, "delete again", s.Delete(t.Context(), "a"), app.ErrNotFound)
	Check(t, s, Plain("b"))
	must(t, s.Create(t.Context(), Plain("a"))) // id and key are free again
	Check(t, s, Plain("a"))
}

func testSetSecrets(t *testing.T, s app.Backend, _ func() app.Backend) {
	a := Full("a")
	a.PreviousSecret, a.PreviousUntil = "", time.Time{}
	must(t, s.Create(t.Context(), a))
	must(t, s.Create(t.Context(), Plain("b")))
	a.Secret, a.PreviousSecret = "newer", a.Secret
	must(t, s.SetSecrets(t.Context(), nil, &app.App{ID: "a", Secret: a.Secret, PreviousSecret: a.PreviousSecret}))
	Check(t, s, a)
	must(t, s.SetSecrets(t.Context(), nil, &app.App{ID: "a", Secret: a.Secret, PreviousSecret: a.PreviousSecret})) // the same again is no unknown app
	a.PreviousUntil = time.Date(2099, 1, 1, 0, 0, 0, 0, time.UTC)
	must(t, s.SetSecrets(t.Context(), nil, &app.App{ID: "a", Secret: a.Secret, PreviousSecret: a.PreviousSecret, PreviousUntil: a.PreviousUntil}))
	Check(t, s, a)
	a.PreviousSecret, a.PreviousUntil = "", time.Time{}
	must(t, s.SetSecrets(t.Context(), nil, &app.App{ID: "a", Secret: a.Secret}))
	Check(t, s, a)
	Check(t, s, Plain("b"))
}

func testGuards(t *testing.T, s app.Backend, open func() app.Backend) {
	must(t, s.Create(t.Context(), Full("a")))
	must(t, s.Create(t.Context(), Plain("b")))
	read := func(id string) *app.App {
		t.Helper()
		a, err := s.ByID(t.Context(), id)
		must(t, err)
		return a
	}
	with := func(a *app.App, change func(*app.App)) *app.App {
		next := *a
		change(&next)
		return &next
	}
	// Each field counts, also one that is not set any more, and the order of a list.
	was := read("a")
	for what, change := range map[string]func(*app.App){
		"key":         func(a *app.App) { a.Key = "other-key" },
		"secret":      func(a *app.App) { a.Secret = "rotated" },
		"flag":        func(a *app.App) { a.Enabled = false },
		"number":      func(a *app.App) { a.MaxConnections++ },
		"limit unset": func(a *app.App) { a.MaxEventBatchSize = nil },
		"limit":       func(a *app.App) { a.MaxEventNameLength = ptr(uint32(77)) },
		"feature":     func(a *app.App) { a.RequireTLS = nil },
		"webhooks":    func(a *app.App) { a.Webhooks = a.Webhooks[:1] },
		"origins":     func(a *app.App) { a.AllowedOrigins = []string{"*.exämple.org", "https://example.com"} },
		"no origins":  func(a *app.App) { a.AllowedOrigins = nil },
	} {
		others := with(was, change)
		must(t, open().Update(t.Context(), was, others))
		wantErr(t, "update after "+what, s.Update(t.Context(), was, with(was, func(a *app.App) { a.MaxConnections = 9 })), app.ErrChanged)
		Check(t, s, others)
		must(t, s.Update(t.Context(), others, was)) // what was read anew can be changed
		Check(t, s, was)
	}
	// Secrets and the rest do not stand in each other's way, but an update has both.
	must(t, open().Update(t.Context(), was, with(was, func(a *app.App) { a.MaxConnections = 5 })))
	rotated := with(was, func(a *app.App) { a.Secret, a.PreviousSecret, a.PreviousUntil = "new", a.Secret, time.Time{} })
	must(t, s.SetSecrets(t.Context(), was, rotated))
	rotated.MaxConnections = 5
	Check(t, s, rotated)
	wantErr(t, "a second rotation", open().SetSecrets(t.Context(), was, with(was, func(a *app.App) { a.Secret = "newer" })), app.ErrChanged)
	wantErr(t, "the end of an earlier one", open().SetSecrets(t.Context(), was, with(was, func(a *app.App) { a.PreviousSecret = "" })), app.ErrChanged)
	wantErr(t, "an update from before", open().Update(t.Context(), was, with(was, func(a *app.App) { a.MaxConnections = 6 })), app.ErrChanged)
	Check(t, s, rotated)
	// Deleted, and made anew.
	b := read("b")
	must(t, open().Delete(t.Context(), "b"))
	wantErr(t, "update of a deleted app", s.Update(t.Context(), b, with(b, func(a *app.App) { a.MaxConnections = 6 })), app.ErrNotFound)
	wantErr(t, "rotation of a deleted app", s.SetSecrets(t.Context(), b, with(b, func(a *app.App) { a.Secret = "new" })), app.ErrNotFound)
	CheckUnknown(t, s, "b", "b-key")
	must(t, open().Create(t.Context(), Full("b")))
	wantErr(t, "update of another app of that id", s.Update(t.Context(), b, with(b, func(a *app.App) { a.MaxConnections = 6 })), app.ErrChanged)
	wantErr(t, "rotation of another app of that id", s.SetSecrets(t.Context(), b, with(b, func(a *app.App) { a.Secret = "new" })), app.ErrChanged)
	Check(t, s, Full("b"))
	// Another app's key, and names that no app has.
	a := read("a")
	wantErr(t, "update to another's key", s.Update(t.Context(), a, with(a, func(a *app.App) { a.Key = "b-key" })), app.ErrExists)
	wantErr(t, "update of nobody", s.Update(t.Context(), Plain("nobody"), Plain("nobody")), app.ErrNotFound)
	wantErr(t, "rotation of nobody", s.SetSecrets(t.Context(), Plain("nobody"), Plain("nobody")), app.ErrNotFound)
	Check(t, s, a)
}

func testRotateRace(t *testing.T, s app.Backend, open func() app.Backend) {
	for round := range 5 {
		was := Plain(fmt.Sprintf("app-%d", round))
		must(t, s.Create(t.Context(), was))
		var wg sync.WaitGroup
		var mu sync.Mutex
		var done []*app.App
		for w := range 8 {
			other := open()
			wg.Go(func() {
				next := *was
				next.Secret, next.PreviousSecret = app.Secret(fmt.Sprintf("new-%d", w)), was.Secret
				switch err := other.SetSecrets(t.Context(), was, &next); {
				case err == nil:
					mu.Lock()
					defer mu.Unlock()
					done = append(done, &next)
				case !errors.Is(err, app.ErrChanged):
					t.Errorf("rotation: err = %v, want none or %v", err, app.ErrChanged)
				}
			})
		}
		wg.Wait()
		if len(done) != 1 {
			t.Fatalf("%d of 8 rotations at once were told that they happened, want 1", len(done))
		}
		Check(t, s, done[0])
	}
}

func testUpdateRace(t *testing.T, s app.Backend, open func() app.Backend) {
	const callers, each = 6, 4
	must(t, s.Create(t.Context(), Full("a")))
	first, err := s.ByID(t.Context(), "a")
	must(t, err)
	var wg sync.WaitGroup
	for range callers {
		other := open()
		wg.Go(func() {
			for range each {
				for err := app.ErrChanged; err != nil; {
					var was *app.App
					if was, err = other.ByID(t.Context(), "a"); err != nil {
						t.Errorf("by id: %v", err)
						return
					}
					next := *was
					next.MaxConnections++
					if err = other.Update(t.Context(), was, &next); err != nil && !errors.Is(err, app.ErrChanged) {
						t.Errorf("update: err = %v, want none or %v", err, app.ErrChanged)
						return
					}
				}
			}
		})
	}
	wg.Wait()
	last, err := s.ByID(t.Context(), "a")
	must(t, err)
	if got := last.MaxConnections - first.MaxConnections; got != callers*each {
		t.Errorf("%d updates by one left a sum of %d", callers*each, got)
	}
}

func list(t *testing.T, s app.Editor) map[string]int {
	t.Helper()
	seen := map[string]int{}
	must(t, s.List(t.Context(), func(a *app.App) bool {
		seen[a.ID]++
		if a.Key != a.ID+"-key" || a.Secret.Reveal() == "" {
			t.Errorf("app %q is listed with key %q", a.ID, a.Key)
		}
		return true
	}))
	return seen
}

func testList(t *testing.T, s app.Backend, _ func() app.Backend) {
	if seen := list(t, s); len(seen) != 0 {
		t.Errorf("an empty store lists %v", seen)
	}
	const apps = 1234 // more than fits a page of any store
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			for i := w; i < apps; i += 8 {
				a := Plain(fmt.Sprintf("app-%d", i))
				a.AllowedOrigins = []string{"https://" + strings.Repeat("x", 2000) + ".example"}
				if err := s.Create(t.Context(), a); err != nil {
					t.Errorf("create: %v", err)
				}
			}
		})
	}
	wg.Wait()
	seen := list(t, s)
	for i := range apps {
		if id := fmt.Sprintf("app-%d", i); seen[id] != 1 {
			t.Fatalf("%s is listed %d times, want once", id, seen[id])
		}
	}
	if len(seen) != apps {
		t.Errorf("%d apps are listed, want %d", len(seen), apps)
	}
	n := 0
	must(t, s.List(t.Context(), func(*app.App) bool { n++; return n < 3 }))
	if n != 3 {
		t.Errorf("%d apps were listed, want that it stops at 3", n)
	}
	// Whoever lists may ask the store meanwhile.
	must(t, s.List(t.Context(), func(a *app.App) bool {
		if _, err := s.ByID(t.Context(), a.ID); err != nil {
			t.Errorf("by id while listing: %v", err)
		}
		n++
		return n < 20
	}))
}

func testAny(t *testing.T, s app.Backend, _ func() app.Backend) {
	must(t, s.Ping(t.Context()))
	for _, want := range []bool{false, true, false} {
		if got, err := s.Any(t.Context()); got != want || err != nil {
			t.Errorf("any = %t, %v; want %t", got, err, want)
		}
		if want {
			must(t, s.Delete(t.Context(), "a"))
		} else {
			must(t, s.Upsert(t.Context(), Plain("a")))
		}
	}
}

func testPrepared(t *testing.T, s app.Backend, _ func() app.Backend) {
	a := Plain("a")
	a.MaxEventPayloadInKB = ptr(uint32(3))
	a.AllowedOrigins = []string{"https://good.example", "b*a*d"}
	must(t, s.Create(t.Context(), a))
	check := func(got *app.App) {
		t.Helper()
		if got.Limits.EventPayloadBytes != 3<<10 || got.Limits.ChannelNameLength != 200 {
			t.Errorf("limits = %+v, want the app's own and the default ones", got.Limits)
		}
		if got.Origins == nil || !got.Origins.Allows("https://good.example", true) || got.Origins.Allows("https://bad", true) {
			t.Errorf("origins do not work")
		}
	}
	got, err := s.ByID(t.Context(), "a")
	must(t, err)
	check(got)
	got, err = s.ByKey(t.Context(), "a-key")
	must(t, err)
	check(got)
	must(t, s.List(t.Context(), func(got *app.App) bool { check(got); return true }))
}

func testConcurrent(t *testing.T, s app.Backend, _ func() app.Backend) {
	for i := range 10 {
		must(t, s.Create(t.Context(), Plain(fmt.Sprintf("app-%d", i))))
	}
	var wg sync.WaitGroup
	for w := range 32 {
		wg.Go(func() {
			for i := range 20 {
				name := fmt.Sprintf("app-%d", (w+i)%10)
				if a, err := s.ByKey(t.Context(), name+"-key"); err != nil || a.ID != name {
					t.Errorf("by key %s: %v", name, err)
				}
				if _, err := s.ByID(t.Context(), "nobody"+name); !errors.Is(err, app.ErrNotFound) {
					t.Errorf("unknown id: %v", err)
				}
				if w == 0 {
					if err := s.Update(t.Context(), nil, Plain(name)); err != nil {
						t.Errorf("update: %v", err)
					}
				}
			}
		})
	}
	wg.Wait()
}
