// Package dynamostore keeps apps in a table of DynamoDB, also one that Sockudo
// or a person made (storage section 3).
package dynamostore

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/aws/smithy-go/logging"

	"sockudo/internal/app"
	"sockudo/internal/backoff"
)

// Options are where the table is and how it is used. What has a default may be
// left out.
type Options struct {
	Region   string // default us-east-1; the environment does not count
	Endpoint string // URL without credentials; default is the region's own
	Table    string // default sockudo-applications

	// AccessKeyID and SecretAccessKey count if both are set. Otherwise the SDK
	// looks for credentials: environment, with session token, then the profile
	// of its files, then the machine's role.
	AccessKeyID     string
	SecretAccessKey app.Secret
	Profile         string // of the SDK's files; default is what AWS_PROFILE says

	MaxConns int           // default 64
	Timeout  time.Duration // of one call with its retries; default 5 s

	Defaults app.Defaults // limits of apps without their own
	Log      *slog.Logger // nil: nothing is logged

	poll time.Duration // between questions whether a new table is ready; 0: 2 s
}

const (
	defaultRegion   = "us-east-1"
	defaultTable    = "sockudo-applications"
	defaultTimeout  = 5 * time.Second
	defaultMaxConns = 64
	maxIdleTime     = 180 * time.Second
	attempts        = 3                      // of one request
	maxPause        = 100 * time.Millisecond // between them
)

// A Store keeps apps in one table. Calls give up after Options.Timeout.
type Store struct {
	db    *dynamodb.Client
	conns *http.Transport
	opts  Options
	log   *slog.Logger
}

var _ app.Backend = (*Store)(nil)

// Open sees to it that the table can be used; it is created if it is missing.
// An error that trying again does not cure is marked by backoff.Permanent.
func Open(ctx context.Context, opts Options) (*Store, error) {
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	if opts.Timeout <= 0 {
		opts.Timeout = defaultTimeout
	}
	if opts.MaxConns <= 0 {
		opts.MaxConns = defaultMaxConns
	}
	if opts.poll <= 0 {
		opts.poll = pollPause
	}
	if opts.Region == "" {
		opts.Region = defaultRegion
	}
	if opts.Table == "" {
		opts.Table = defaultTable
	}
	s := &Store{opts: opts, log: opts.Log.With("component", "apps", "driver", "dynamodb")}
	if err := s.connect(ctx); err != nil {
		return nil, err
	}
	if err := s.ensure(ctx); err != nil {
		_ = s.Close()
		return nil, err
	}
	return s, nil
}

// connect finds the settings of the SDK. It sends nothing yet.
func (s *Store) connect(ctx context.Context) error {
	if s.opts.Endpoint != "" {
		// The cause would repeat the URL.
		u, err := url.Parse(s.opts.Endpoint)
		if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
			return backoff.Permanent(errors.New("dynamostore: the endpoint is no URL such as https://dynamodb.eu-west-1.amazonaws.com"))
		}
		if u.User != nil {
			return backoff.Permanent(errors.New("dynamostore: the URL of the endpoint must not hold credentials"))
		}
	}
	load := []func(*config.LoadOptions) error{
		config.WithRegion(s.opts.Region),
		config.WithLogger(logging.Nop{}),
		config.WithRetryer(func() aws.Retryer { return retryer() }),
	}
	if s.opts.Profile != "" {
		load = append(load, config.WithSharedConfigProfile(s.opts.Profile))
	}
	if s.opts.AccessKeyID != "" && s.opts.SecretAccessKey != "" {
		load = append(load, config.WithCredentialsProvider(
			credentials.NewStaticCredentialsProvider(s.opts.AccessKeyID, s.opts.SecretAccessKey.Reveal(), "")))
	}
	conf, err := config.LoadDefaultConfig(ctx, load...)
	if err != nil {
		return backoff.Permanent(fmt.Errorf("dynamostore: settings: %w", err))
	}
	// The SDK has put the authorities of AWS_CA_BUNDLE into its transport.
	client, ok := conf.HTTPClient.(*awshttp.BuildableClient)
	if !ok {
		client = awshttp.NewBuildableClient()
	}
	s.conns = client.GetTransport()
	s.conns.MaxConnsPerHost, s.conns.MaxIdleConnsPerHost = s.opts.MaxConns, s.opts.MaxConns
	s.conns.IdleConnTimeout = maxIdleTime
	conf.HTTPClient = &http.Client{
		Transport:     s.conns,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	s.db = dynamodb.NewFromConfig(conf, func(o *dynamodb.Options) {
		if s.opts.Endpoint != "" {
			o.BaseEndpoint = &s.opts.Endpoint
		}
	})
	return nil
}

// retryer tries again soon: nobody waits for long.
func retryer() aws.Retryer {
	return retry.NewStandard(func(o *retry.StandardOptions) { o.MaxAttempts, o.MaxBackoff = attempts, maxPause })
}

// once keeps the SDK from sending a request again whose answer was lost: the
// second answer would be that its condition does not hold. What was refused
// for its rate was not done and is sent again.
func once(o *dynamodb.Options) {
	o.Retryer = retry.NewStandard(func(o *retry.StandardOptions) {
		o.MaxAttempts, o.MaxBackoff = attempts, maxPause
		o.Retryables = []retry.IsErrorRetryable{retry.RetryableErrorCode{Codes: retry.DefaultThrottleErrorCodes}}
	})
}

// Close releases the connections. Nothing that is stored changes.
func (s *Store) Close() error {
	s.conns.CloseIdleConnections()
	return nil
}

// Ping asks for the state of the table.
func (s *Store) Ping(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, s.opts.Timeout)
	defer cancel()
	if _, err := s.describe(ctx); err != nil {
		return s.wrap("ping", err)
	}
	return nil
}

// Any reports whether the table has an item.
func (s *Store) Any(ctx context.Context) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, s.opts.Timeout)
	defer cancel()
	in := &dynamodb.ScanInput{TableName: &s.opts.Table, Limit: aws.Int32(1), ProjectionExpression: aws.String("id")}
	for {
		out, err := s.db.Scan(ctx, in)
		if err != nil {
			return false, s.wrap("any app", err)
		}
		if len(out.Items) > 0 || len(out.LastEvaluatedKey) == 0 {
			return len(out.Items) > 0, nil
		}
		in.ExclusiveStartKey = out.LastEvaluatedKey
	}
}

// ByID returns an app; see app.Store.
func (s *Store) ByID(ctx context.Context, id string) (*app.App, error) {
	if !app.ValidName(id) {
		return nil, app.ErrNotFound
	}
	ctx, cancel := context.WithTimeout(ctx, s.opts.Timeout)
	defer cancel()
	it, err := s.get(ctx, id)
	if err != nil {
		return nil, s.wrap("app by id", err)
	}
	if a := s.build(it); a != nil {
		return a, nil
	}
	return nil, app.ErrNotFound
}

// ByKey returns an app; see app.Store. What the index says is looked up in the
// table: an index follows its table with delay, and an app that was found by
// a key that it no longer has would be cached for much longer than that.
func (s *Store) ByKey(ctx context.Context, key string) (*app.App, error) {
	if !app.ValidName(key) {
		return nil, app.ErrNotFound
	}
	ctx, cancel := context.WithTimeout(ctx, s.opts.Timeout)
	defer cancel()
	ids, err := s.idsOf(ctx, key)
	if err != nil {
		return nil, s.wrap("app by key", err)
	}
	if len(ids) > 1 {
		s.log.Warn("several apps have the same key, the first one by id is used", "app_id", ids[0], "others", len(ids)-1)
	}
	for _, id := range ids {
		it, err := s.get(ctx, id)
		if err != nil {
			return nil, s.wrap("app by key", err)
		}
		if it.text("key") != key {
			continue
		}
		if a := s.build(it); a != nil {
			return a, nil
		}
	}
	return nil, app.ErrNotFound
}

// get returns the item with an id, empty if there is none.
func (s *Store) get(ctx context.Context, id string) (item, error) {
	out, err := s.db.GetItem(ctx, &dynamodb.GetItemInput{TableName: &s.opts.Table, Key: keyOf(id), ConsistentRead: aws.Bool(true)})
	if err != nil {
		return nil, err
	}
	return out.Item, nil
}

// idsOf returns the ids of the items that have a key by the index, in order.
func (s *Store) idsOf(ctx context.Context, key string) ([]string, error) {
	out, err := s.db.Query(ctx, &dynamodb.QueryInput{
		TableName: &s.opts.Table, IndexName: aws.String(indexName),
		KeyConditionExpression:    aws.String("#k = :k"),
		ExpressionAttributeNames:  map[string]string{"#k": "key"}, // a reserved word
		ExpressionAttributeValues: item{":k": &types.AttributeValueMemberS{Value: key}},
		ProjectionExpression:      aws.String("id"),
	})
	if err != nil {
		return nil, err
	}
	var ids []string
	for _, it := range out.Items {
		ids = append(ids, item(it).text("id"))
	}
	slices.Sort(ids)
	return ids, nil
}

// build returns the app of an item, or nil if there is none or it cannot be used.
func (s *Store) build(it item) *app.App {
	if len(it) == 0 {
		return nil
	}
	a, fields := app.FromColumns(it.column)
	var origins []error
	if a != nil {
		origins = app.Prepare(a, s.opts.Defaults)
	}
	app.LogProblems(s.log, a, fields, origins)
	return a
}

// List yields all apps in the table's order. It reads in pages, each within
// Options.Timeout.
func (s *Store) List(ctx context.Context, yield func(*app.App) bool) error {
	// Consistent, because what is listed is cached too.
	in := &dynamodb.ScanInput{TableName: &s.opts.Table, ConsistentRead: aws.Bool(true)}
	for {
		out, err := s.page(ctx, in)
		if err != nil {
			return s.wrap("list", err)
		}
		for _, it := range out.Items {
			if a := s.build(it); a != nil && !yield(a) {
				return nil
			}
		}
		if len(out.LastEvaluatedKey) == 0 {
			return nil
		}
		in.ExclusiveStartKey = out.LastEvaluatedKey
	}
}

func (s *Store) page(ctx context.Context, in *dynamodb.ScanInput) (*dynamodb.ScanOutput, error) {
	ctx, cancel := context.WithTimeout(ctx, s.opts.Timeout)
	defer cancel()
	return s.db.Scan(ctx, in)
}
