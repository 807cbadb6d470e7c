package dynamostore

import (
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"sockudo/internal/app"
	"sockudo/internal/app/apptest"
	"sockudo/internal/backoff"
	"sockudo/internal/servicetest"
)

// admin returns a client with which tests do what the store never does.
func admin(t testing.TB, opts Options) *dynamodb.Client {
	t.Helper()
	s := &Store{opts: opts}
	s.opts.MaxConns, s.opts.Region = 8, defaultRegion
	if err := s.connect(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s.db
}

func hash(name string) []types.KeySchemaElement {
	return []types.KeySchemaElement{{AttributeName: &name, KeyType: types.KeyTypeHash}}
}

func attributes(names ...string) (list []types.AttributeDefinition) {
	for _, name := range names {
		list = append(list, types.AttributeDefinition{AttributeName: &name, AttributeType: types.ScalarAttributeTypeS})
	}
	return list
}

func index(key string, projection types.ProjectionType) []types.GlobalSecondaryIndex {
	return []types.GlobalSecondaryIndex{{
		IndexName: aws.String("KeyIndex"), KeySchema: hash(key), Projection: &types.Projection{ProjectionType: projection},
	}}
}

func TestTheTableIsTheOneThatSockudoMakes(t *testing.T) {
	s := newStore(t, server(t))
	got, err := s.describe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	five := &types.ProvisionedThroughputDescription{ReadCapacityUnits: aws.Int64(5), WriteCapacityUnits: aws.Int64(5)}
	want := &types.TableDescription{
		AttributeDefinitions: attributes("id", "key"), KeySchema: hash("id"), ProvisionedThroughput: five,
		GlobalSecondaryIndexes: []types.GlobalSecondaryIndexDescription{{
			IndexName: aws.String("KeyIndex"), KeySchema: hash("key"), Projection: &types.Projection{ProjectionType: types.ProjectionTypeAll},
			ProvisionedThroughput: five, IndexStatus: types.IndexStatusActive,
		}},
		TableStatus: types.TableStatusActive, TableName: &s.opts.Table,
	}
	if diff := cmp.Diff(want, got,
		cmpopts.IgnoreUnexported(types.TableDescription{}, types.AttributeDefinition{}, types.KeySchemaElement{}, types.Projection{},
			types.ProvisionedThroughputDescription{}, types.GlobalSecondaryIndexDescription{}),
		cmpopts.IgnoreFields(types.TableDescription{}, "CreationDateTime", "ItemCount", "TableArn", "TableId", "TableSizeBytes", "BillingModeSummary"),
		cmpopts.IgnoreFields(types.GlobalSecondaryIndexDescription{}, "IndexArn", "IndexSizeBytes", "ItemCount"),
		cmpopts.IgnoreFields(types.ProvisionedThroughputDescription{}, "NumberOfDecreasesToday"),
		cmpopts.SortSlices(func(a, b types.AttributeDefinition) bool { return *a.AttributeName < *b.AttributeName })); diff != "" {
		t.Errorf("table (-want +got):\n%s", diff)
	}
}

func TestManyNodesMakeTheTableAtOnce(t *testing.T) {
	opts := server(t)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			s, err := Open(t.Context(), opts)
			if err != nil {
				t.Error(err)
				return
			}
			defer func() { _ = s.Close() }()
			if err := s.Upsert(t.Context(), apptest.Full("a")); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	apptest.Check(t, newStore(t, opts), apptest.Full("a"))
}

func TestATableThatCannotBeUsedEndsTheStart(t *testing.T) {
	for name, test := range map[string]struct {
		table dynamodb.CreateTableInput
		want  string
	}{
		"another partition key": {
			dynamodb.CreateTableInput{AttributeDefinitions: attributes("app", "key"), KeySchema: hash("app"), GlobalSecondaryIndexes: index("key", types.ProjectionTypeAll)},
			`partition key "id"`,
		},
		"a sort key": {
			dynamodb.CreateTableInput{
				AttributeDefinitions: attributes("id", "key"), GlobalSecondaryIndexes: index("key", types.ProjectionTypeAll),
				KeySchema: append(hash("id"), types.KeySchemaElement{AttributeName: aws.String("key"), KeyType: types.KeyTypeRange}),
			},
			"no sort key",
		},
		"no index": {
			dynamodb.CreateTableInput{AttributeDefinitions: attributes("id"), KeySchema: hash("id")}, "no global secondary index KeyIndex",
		},
		"an index of something else": {
			dynamodb.CreateTableInput{AttributeDefinitions: attributes("id", "name"), KeySchema: hash("id"), GlobalSecondaryIndexes: index("name", types.ProjectionTypeAll)},
			`partition key "key"`,
		},
	} {
		t.Run(strings.ReplaceAll(name, " ", "_"), func(t *testing.T) {
			opts := server(t)
			test.table.TableName, test.table.BillingMode = &opts.Table, types.BillingModePayPerRequest
			if _, err := admin(t, opts).CreateTable(t.Context(), &test.table); err != nil {
				t.Fatal(err)
			}
			fatal(t, opts, test.want)
		})
	}
}

// fatal checks that the table cannot be used and that no retry helps.
func fatal(t *testing.T, opts Options, want string) {
	t.Helper()
	tries := 0
	err := backoff.Retry(t.Context(), backoff.Policy{}, func(ctx context.Context) error {
		tries++
		_, err := Open(ctx, opts)
		return err
	}, nil)
	if err == nil || !strings.Contains(err.Error(), want) || tries != 1 {
		t.Errorf("err = %v after %d tries, want %q after one", err, tries, want)
	}
}

func TestOnlyAMissingTableIsMade(t *testing.T) {
	r := newRecorder(t, servicetest.Env(t, servicetest.DynamoDB))
	opts := options(t, r.url)
	r.answers(func(action string) (int, string) {
		if action == "DescribeTable" {
			return refusal("AccessDeniedException", "User is not authorized to perform: dynamodb:DescribeTable")
		}
		return 0, ""
	})
	fatal(t, opts, "not authorized")
	r.answers(func(action string) (int, string) {
		if action == "CreateTable" {
			return refusal("AccessDeniedException", "User is not authorized to perform: dynamodb:CreateTable")
		}
		return 0, ""
	})
	fatal(t, opts, "is missing and cannot be created")
	if asked := r.take(); asked["CreateTable"] != 1 {
		t.Errorf("asked %v, want one CreateTable", asked)
	}
}

func TestATableThatIsNeverReadyEndsTheStart(t *testing.T) {
	r := newRecorder(t, servicetest.Env(t, servicetest.DynamoDB))
	opts := options(t, r.url)
	newStore(t, opts)
	r.take()
	var status atomic.Value
	r.answers(func(action string) (int, string) {
		return 200, fmt.Sprintf(`{"Table":{"TableName":"x","TableStatus":%q,"KeySchema":[{"AttributeName":"id","KeyType":"HASH"}],`+
			`"GlobalSecondaryIndexes":[{"IndexName":"KeyIndex","IndexStatus":"CREATING"}]}}`, status.Load())
	})
	for _, s := range []types.TableStatus{"CREATING", "DELETING", "INACCESSIBLE_ENCRYPTION_CREDENTIALS", "ACTIVE"} { // the last one with its index
		status.Store(string(s))
		fatal(t, opts, "is not active after")
		if asked := r.take(); asked["DescribeTable"] != 1+polls || len(asked) != 1 {
			t.Errorf("%s: asked %v, want %d times for the table", s, asked, 1+polls)
		}
	}
}

func TestATableThatAPersonMadeWorks(t *testing.T) {
	for _, projection := range []types.ProjectionType{types.ProjectionTypeAll, types.ProjectionTypeKeysOnly} {
		opts := server(t)
		if _, err := admin(t, opts).CreateTable(t.Context(), &dynamodb.CreateTableInput{
			TableName: &opts.Table, BillingMode: types.BillingModePayPerRequest, AttributeDefinitions: attributes("id", "key"),
			KeySchema: hash("id"), GlobalSecondaryIndexes: index("key", projection),
		}); err != nil {
			t.Fatal(err)
		}
		s := newStore(t, opts)
		// By hand, and without numbers.
		s.putRaw(t, item{"id": text("demo"), "key": text("demo-key"), "secret": text("demo-secret")})
		apptest.Check(t, s, apptest.Plain("demo"))
		if err := s.Upsert(t.Context(), apptest.Full("demo")); err != nil {
			t.Error(err)
		}
		apptest.Check(t, s, apptest.Full("demo"))
	}
}

func text(s string) types.AttributeValue   { return &types.AttributeValueMemberS{Value: s} }
func number(s string) types.AttributeValue { return &types.AttributeValueMemberN{Value: s} }
func list(v ...types.AttributeValue) types.AttributeValue {
	return &types.AttributeValueMemberL{Value: v}
}

var (
	null  = &types.AttributeValueMemberNULL{Value: true}
	yes   = &types.AttributeValueMemberBOOL{Value: true}
	blob  = &types.AttributeValueMemberB{Value: []byte("geheim")}
	other = &types.AttributeValueMemberM{Value: item{"geheim": text("geheim")}}
)

// TestAnItemIsStoredAsSockudoDoes compares with what Sockudo 2.9 writes.
func TestAnItemIsStoredAsSockudoDoes(t *testing.T) {
	s := newStore(t, server(t))
	a := apptest.Plain("a")
	n := uint32(7)
	no := false
	a.MaxConnections, a.MaxChannelNameLength, a.EnableWatchlistEvents = 5, &n, &no
	a.AllowedOrigins = []string{"https://a"}
	a.Webhooks = []app.Webhook{{URL: "https://b/", EventTypes: []string{"channel_occupied"}}}
	if err := s.Create(t.Context(), a); err != nil {
		t.Fatal(err)
	}
	got, err := s.get(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	off := &types.AttributeValueMemberBOOL{}
	want := item{
		"id": text("a"), "key": text("a-key"), "secret": text("a-secret"), "enabled": yes, "enable_client_messages": off,
		"max_connections": number("5"), "max_client_events_per_second": number("0"), "max_channel_name_length": number("7"),
		"enable_watchlist_events": off, "allowed_origins": list(text("https://a")),
		"webhooks": text(`[{"url":"https://b/","event_types":["channel_occupied"]}]`),
	}
	if diff := cmp.Diff(want, got, cmpopts.IgnoreUnexported(types.AttributeValueMemberS{}, types.AttributeValueMemberN{},
		types.AttributeValueMemberBOOL{}, types.AttributeValueMemberL{})); diff != "" {
		t.Errorf("item (-want +got):\n%s", diff)
	}
}

func TestMalformedItems(t *testing.T) {
	log, lines := apptest.Logged()
	opts := server(t)
	opts.Log = log
	s := newStore(t, opts)
	r := apptest.Rows[types.AttributeValue]{Put: func(id string, set map[string]types.AttributeValue) {
		it := item{"id": text(id), "key": text(id + "-key"), "secret": text("geheim")}
		for name, v := range set {
			if it[name] = v; v == nil {
				delete(it, name)
			}
		}
		s.putRaw(t, it)
	}}
	ten := uint32(10)
	hook := app.Webhook{URL: "https://good/", EventTypes: []string{"channel_occupied"}}
	nobody := func(a *app.App) { a.AllowedOrigins = []string{""} }
	off := func(a *app.App) { a.Enabled = false }

	r.Good("bare", nil, nil)
	r.Good("nulls", item{"enabled": null, "max_connections": null, "webhooks": null, "allowed_origins": null, "max_event_batch_size": null}, nil)
	r.Good("json-null", item{"webhooks": text("null")}, nil)
	r.Good("json-empty", item{"webhooks": text("[]"), "allowed_origins": list()}, nil)
	r.Good("json-broken", item{"webhooks": text("[{geheim")}, nil)
	r.Good("json-shape", item{"webhooks": text(`{"url":"https://geheim"}`)}, nil)
	r.Good("bad-url", item{"webhooks": text(`[{"url":"geheim","event_types":[]},{"url":"https://good","event_types":["channel_occupied"]}]`)},
		func(a *app.App) { a.Webhooks = []app.Webhook{hook} })
	r.Good("hooks-native", item{"webhooks": list(&types.AttributeValueMemberM{Value: item{"url": text("https://good"), "event_types": list(text("channel_occupied"))}})},
		func(a *app.App) { a.Webhooks = []app.Webhook{hook} })
	r.Good("hooks-blob", item{"webhooks": blob}, nil)
	r.Good("origins-mixed", item{"allowed_origins": list(number("1"), text("https://a"), null, other, blob)},
		func(a *app.App) { a.AllowedOrigins = []string{"https://a"} })
	r.Good("origins-bad", item{"allowed_origins": list(number("1"), null)}, nobody)
	r.Good("origins-text", item{"allowed_origins": text(`["https://a"]`)}, func(a *app.App) { a.AllowedOrigins = []string{"https://a"} })
	r.Good("origins-word", item{"allowed_origins": text("geheim")}, nobody)
	r.Good("origins-map", item{"allowed_origins": other}, nobody)
	r.Good("origins-flag", item{"allowed_origins": yes}, nobody)
	r.Good("origins-blob", item{"allowed_origins": blob}, nobody)
	r.Good("origins-set", item{"allowed_origins": &types.AttributeValueMemberSS{Value: []string{"https://a"}}}, func(a *app.App) { a.AllowedOrigins = []string{"https://a"} })
	r.Good("numbers-text", item{"max_connections": text("10"), "max_event_batch_size": text(" 10 ")}, func(a *app.App) { a.MaxConnections, a.MaxEventBatchSize = 10, &ten })
	r.Good("numbers-bad", item{"max_connections": text("geheim"), "max_event_batch_size": other, "max_channel_name_length": number("1.5")}, nil)
	r.Good("number-large", item{"max_connections": number("1e12")}, func(a *app.App) { a.MaxConnections = math.MaxUint32 })
	r.Good("number-huge", item{"max_connections": number("123456789012")}, func(a *app.App) { a.MaxConnections = math.MaxUint32 })
	r.Good("number-flag", item{"max_connections": yes}, nil)
	r.Good("flags", item{"enabled": text("false"), "enable_client_messages": number("1")}, func(a *app.App) { a.Enabled, a.EnableClientMessages = false, true })
	r.Good("enabled-word", item{"enabled": text("geheim")}, off)
	r.Good("enabled-blob", item{"enabled": blob}, off)
	r.Good("messages-list", item{"enable_client_messages": list(yes)}, nil)
	r.Good("previous-blob", item{"previous_secret": blob}, nil)
	r.Good("previous-until", item{"previous_secret": text("geheim-alt"), "previous_secret_until": other}, nil)
	r.Bad("no-secret", item{"secret": nil})
	r.Bad("secret-blob", item{"secret": blob})
	r.Bad("empty-secret", item{"secret": text("")})
	r.Bad("no-key", item{"key": nil})

	r.Check(t, s, lines)
	for _, line := range [][]string{
		{"json-broken", "column=webhooks"}, {"json-shape", "column=webhooks"}, {"bad-url", "column=webhooks"},
		{"origins-mixed", "column=allowed_origins"}, {"origins-word", "column=allowed_origins"}, {"origins-map", "column=allowed_origins"},
		{"numbers-bad", "column=max_connections"}, {"numbers-bad", "column=max_event_batch_size"}, {"numbers-bad", "column=max_channel_name_length"},
		{"enabled-word", "column=enabled"}, {"enabled-blob", "column=enabled"}, {"messages-list", "column=enable_client_messages"},
		{"previous-until", "column=previous_secret_until"}, {"no-secret", "column=secret"}, {"no-key", "column=key"},
	} {
		lines.Want(t, line...)
	}
}

func TestAttributesOfOthersAreKept(t *testing.T) {
	s := newStore(t, server(t))
	policy := &types.AttributeValueMemberM{Value: item{"limits": list(number("1"))}}
	s.putRaw(t, item{"id": text("a"), "key": text("a-key"), "secret": text("s"), "policy": policy, "require_tls": yes})
	for what, change := range map[string]func() error{
		"update":      func() error { return s.Update(t.Context(), nil, apptest.Plain("a")) },
		"upsert":      func() error { return s.Upsert(t.Context(), apptest.Plain("a")) },
		"set secrets": func() error { return s.SetSecrets(t.Context(), nil, &app.App{ID: "a", Secret: "a-secret"}) },
	} {
		if err := change(); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		it, err := s.get(t.Context(), "a")
		if err != nil {
			t.Fatal(err)
		}
		if it["policy"] == nil {
			t.Errorf("%s loses an attribute that is not ours", what)
		}
	}
	apptest.Check(t, s, apptest.Plain("a")) // and what is ours and unset is gone
}

func TestAnIndexThatIsBehindIsNotBelieved(t *testing.T) {
	r := newRecorder(t, servicetest.Env(t, servicetest.DynamoDB))
	s := newStore(t, options(t, r.url))
	a := apptest.Plain("a")
	a.Key = "rotated"
	if err := s.Create(t.Context(), a); err != nil {
		t.Fatal(err)
	}
	r.answers(func(action string) (int, string) {
		if action == "Query" { // the old key, and an app that was deleted
			return 200, `{"Items":[{"id":{"S":"a"}},{"id":{"S":"gone"}}],"Count":2}`
		}
		return 0, ""
	})
	if _, err := s.ByKey(t.Context(), "a-key"); !errors.Is(err, app.ErrNotFound) {
		t.Errorf("the old key: err = %v, want %v", err, app.ErrNotFound)
	}
	if err := s.Create(t.Context(), &app.App{ID: "b", Key: "a-key", Secret: "s"}); err != nil {
		t.Errorf("an app with the old key: %v", err)
	}
}

func TestOfAppsWithTheSameKeyOneIsUsed(t *testing.T) {
	log, lines := apptest.Logged()
	opts := server(t)
	opts.Log = log
	s := newStore(t, opts)
	for _, id := range []string{"c", "a", "b"} {
		s.putRaw(t, item{"id": text(id), "key": text("same"), "secret": text(id)})
	}
	for range 3 {
		if a, err := s.ByKey(t.Context(), "same"); err != nil || a.ID != "a" {
			t.Errorf("got %v, %v; want the app a", a, err)
		}
	}
	lines.Want(t, "level=WARN", "several apps have the same key", "app_id=a", "others=2")
}

func TestAUserWhoMayOnlyReadIsEnoughToServe(t *testing.T) {
	r := newRecorder(t, servicetest.Env(t, servicetest.DynamoDB))
	s := newStore(t, options(t, r.url))
	if err := s.Create(t.Context(), apptest.Full("a")); err != nil {
		t.Fatal(err)
	}
	r.answers(func(action string) (int, string) {
		switch action {
		case "PutItem", "UpdateItem", "DeleteItem", "CreateTable":
			return refusal("AccessDeniedException", "User is not authorized to perform: dynamodb:"+action)
		}
		return 0, ""
	})
	s = newStore(t, s.opts)
	apptest.Check(t, s, apptest.Full("a"))
	for what, err := range map[string]error{
		"create": s.Create(t.Context(), apptest.Plain("b")), "update": s.Update(t.Context(), nil, apptest.Plain("a")),
		"upsert": s.Upsert(t.Context(), apptest.Plain("a")), "delete": s.Delete(t.Context(), "a"),
		"set secrets": s.SetSecrets(t.Context(), nil, &app.App{ID: "a", Secret: "geheim"}),
	} {
		if err == nil || !strings.Contains(err.Error(), "not authorized") || errors.Is(err, app.ErrUnavailable) || strings.Contains(err.Error(), "geheim") {
			t.Errorf("%s: err = %v, want that it is denied", what, err)
		}
	}
	apptest.Check(t, s, apptest.Full("a"))
}

func TestTooManyRequestsAreTriedAgainAndNeverAnUnknownApp(t *testing.T) {
	r := newRecorder(t, servicetest.Env(t, servicetest.DynamoDB))
	s := newStore(t, options(t, r.url))
	if err := s.Create(t.Context(), apptest.Plain("a")); err != nil {
		t.Fatal(err)
	}
	var refuse atomic.Int64
	r.answers(func(string) (int, string) {
		if refuse.Add(-1) >= 0 {
			return refusal("ProvisionedThroughputExceededException", "The level of configured provisioned throughput was exceeded")
		}
		return 0, ""
	})
	calls := map[string]func() error{
		"by id":       func() error { _, err := s.ByID(t.Context(), "a"); return err },
		"by key":      func() error { _, err := s.ByKey(t.Context(), "a-key"); return err },
		"any":         func() error { _, err := s.Any(t.Context()); return err },
		"list":        func() error { return s.List(t.Context(), func(*app.App) bool { return true }) },
		"upsert":      func() error { return s.Upsert(t.Context(), apptest.Plain("a")) },
		"update":      func() error { return s.Update(t.Context(), nil, apptest.Plain("a")) },
		"set secrets": func() error { return s.SetSecrets(t.Context(), nil, &app.App{ID: "a", Secret: "a-secret"}) },
	}
	for what, call := range calls {
		refuse.Store(1)
		if err := call(); err != nil {
			t.Errorf("%s after one refusal: %v", what, err)
		}
		refuse.Store(math.MaxInt64)
		if err := call(); !errors.Is(err, app.ErrUnavailable) || errors.Is(err, app.ErrNotFound) {
			t.Errorf("%s: err = %v, want %v", what, err, app.ErrUnavailable)
		}
	}
	refuse.Store(0)
	apptest.Check(t, s, apptest.Plain("a"))
}

func TestATableThatVanishesIsNoUnknownApp(t *testing.T) {
	s := newStore(t, server(t))
	if _, err := s.db.DeleteTable(t.Context(), &dynamodb.DeleteTableInput{TableName: &s.opts.Table}); err != nil {
		t.Fatal(err)
	}
	for what, err := range map[string]error{
		"by id":  func() error { _, err := s.ByID(t.Context(), "a"); return err }(),
		"by key": func() error { _, err := s.ByKey(t.Context(), "a"); return err }(),
		"delete": s.Delete(t.Context(), "a"),
		"ping":   s.Ping(t.Context()),
	} {
		if err == nil || errors.Is(err, app.ErrNotFound) {
			t.Errorf("%s: err = %v, want one, and not %v", what, err, app.ErrNotFound)
		}
	}
}

func TestCredentialsComeFromWhereTheSettingsSay(t *testing.T) {
	r := newRecorder(t, servicetest.Env(t, servicetest.DynamoDB))
	files := t.TempDir()
	if err := os.WriteFile(filepath.Join(files, "credentials"), []byte(
		"[default]\naws_access_key_id = OFDEFAULT\naws_secret_access_key = geheim\n"+
			"[special]\naws_access_key_id = OFSPECIAL\naws_secret_access_key = geheim\naws_session_token = special-token\nregion = eu-north-1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"} {
		t.Setenv(name, "")
	}
	t.Setenv("AWS_EC2_METADATA_DISABLED", "true")
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", filepath.Join(files, "credentials"))
	t.Setenv("AWS_CONFIG_FILE", filepath.Join(files, "config"))
	t.Setenv("AWS_REGION", "eu-south-2")
	t.Setenv("AWS_DEFAULT_REGION", "eu-south-2")
	bare := options(t, r.url)
	bare.AccessKeyID, bare.SecretAccessKey = "", ""
	env := map[string]string{"AWS_ACCESS_KEY_ID": "OFENV", "AWS_SECRET_ACCESS_KEY": "geheim", "AWS_SESSION_TOKEN": "env-token"}
	for name, test := range map[string]struct {
		env            map[string]string
		edit           func(*Options)
		id, token      string
		region, reason string
	}{
		"default profile": {nil, func(*Options) {}, "OFDEFAULT", "", "us-east-1", ""},
		"profile":         {nil, func(o *Options) { o.Profile = "special" }, "OFSPECIAL", "special-token", "us-east-1", ""},
		"AWS_PROFILE":     {map[string]string{"AWS_PROFILE": "special"}, func(*Options) {}, "OFSPECIAL", "special-token", "us-east-1", ""},
		"environment":     {env, func(o *Options) { o.Region = "eu-west-3" }, "OFENV", "env-token", "eu-west-3", ""},
		"settings":        {env, func(o *Options) { o.AccessKeyID, o.SecretAccessKey = "OFFILE", "geheim" }, "OFFILE", "", "us-east-1", ""},
		"half":            {env, func(o *Options) { o.AccessKeyID = "OFFILE" }, "OFENV", "env-token", "us-east-1", ""},
		"no such profile": {nil, func(o *Options) { o.Profile = "nobody" }, "", "", "", "nobody"},
		"bad endpoint":    {nil, func(o *Options) { o.Endpoint = "geheim" }, "", "", "", "is no URL"},
		"endpoint":        {nil, func(o *Options) { o.Endpoint = "http://user:geheim@localhost" }, "", "", "", "must not hold credentials"},
	} {
		t.Run(strings.ReplaceAll(name, " ", "_"), func(t *testing.T) {
			for k, v := range test.env {
				t.Setenv(k, v)
			}
			opts := bare
			test.edit(&opts)
			if test.reason != "" {
				_, err := Open(t.Context(), opts)
				if err == nil || !strings.Contains(err.Error(), test.reason) || strings.Contains(err.Error(), "geheim") {
					t.Errorf("err = %v, want %q", err, test.reason)
				}
				return
			}
			newStore(t, opts)
			if scope := r.header("Authorization"); !strings.Contains(scope, "Credential="+test.id+"/") || !strings.Contains(scope, "/"+test.region+"/dynamodb/") {
				t.Errorf("signed for %q, want %s in %s", scope, test.id, test.region)
			}
			if token := r.header("X-Amz-Security-Token"); token != test.token {
				t.Errorf("session token %q, want %q", token, test.token)
			}
		})
	}
}

func TestEndpointAndAuthorityMayComeFromTheEnvironment(t *testing.T) {
	var authority []byte
	r := record(t, servicetest.Env(t, servicetest.DynamoDB), func(h http.Handler) *httptest.Server {
		srv := httptest.NewTLSServer(h)
		srv.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug)
		authority = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw})
		return srv
	})
	opts := options(t, "")
	t.Setenv("AWS_ENDPOINT_URL_DYNAMODB", r.url)
	if _, err := Open(t.Context(), opts); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("with an unknown authority: err = %v", err)
	}
	file := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(file, authority, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("AWS_CA_BUNDLE", file)
	newStore(t, opts)
	if r.take()["CreateTable"] != 1 {
		t.Error("the table was not made there")
	}
	opts.Endpoint = "http://127.0.0.1:1" // the settings win
	if _, err := Open(t.Context(), opts); !errors.Is(err, app.ErrUnavailable) {
		t.Errorf("err = %v, want %v", err, app.ErrUnavailable)
	}
}

func TestCredentialsAppearNowhere(t *testing.T) {
	r := newRecorder(t, servicetest.Env(t, servicetest.DynamoDB))
	log, lines := apptest.Logged()
	opts := options(t, r.url)
	opts.Log, opts.SecretAccessKey = log, "geheim-key"
	said := fmt.Sprintf("%v %+v %#v", opts, opts, opts)
	s := newStore(t, opts)
	a := apptest.Plain("a")
	a.Secret, a.PreviousSecret = "geheim-a", "geheim-b"
	// More than an item holds, and an answer that repeats it.
	a.AllowedOrigins = []string{"https://geheim-" + strings.Repeat("x", 500<<10)}
	tell := func(what string, err error) {
		t.Helper()
		if err == nil {
			t.Errorf("%s: no error", what)
			return
		}
		said += err.Error()
	}
	tell("create", s.Create(t.Context(), a))
	tell("upsert", s.Upsert(t.Context(), a))
	r.answers(func(action string) (int, string) {
		return refusal("ValidationException", "the value geheim-a is not valid")
	})
	a.AllowedOrigins = nil
	tell("create", s.Create(t.Context(), a))
	tell("set secrets", s.SetSecrets(t.Context(), nil, &app.App{ID: "a", Secret: "geheim-a", PreviousSecret: "geheim-b", PreviousUntil: a.PreviousUntil}))
	r.answers(func(action string) (int, string) {
		return refusal("UnrecognizedClientException", "The security token included in the request is invalid.")
	})
	_, err := s.ByID(t.Context(), "a")
	tell("by id", err)
	opts.Endpoint = "http://127.0.0.1:1"
	_, err = Open(t.Context(), opts)
	tell("open", err)
	if strings.Contains(said+lines.String(), "geheim") {
		t.Errorf("a credential was told: %.2000s\n%s", said, lines)
	}
}

func TestLargeNumbersAreKept(t *testing.T) {
	s := newStore(t, server(t))
	a := apptest.Plain("a")
	most := uint32(math.MaxUint32)
	a.MaxConnections, a.MaxEventBatchSize = most, &most
	if err := s.Create(t.Context(), a); err != nil {
		t.Fatal(err)
	}
	apptest.Check(t, s, a)
}
