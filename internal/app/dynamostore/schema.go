package dynamostore

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"sockudo/internal/app"
	"sockudo/internal/backoff"
)

const (
	indexName = "KeyIndex"
	units     = 5 // read and write capacity of a new table, and of its index
	pollPause = 2 * time.Second
	polls     = 10
)

// ensure makes the table usable: it creates it if it is missing, and waits
// until it and its index are ready.
func (s *Store) ensure(ctx context.Context) error {
	t, err := s.askTable(ctx)
	if isMissing(err) {
		t, err = nil, s.create(ctx)
	}
	for poll := 0; err == nil || isMissing(err); poll++ {
		if t != nil && ready(t) {
			return s.check(t)
		}
		if poll == polls {
			return backoff.Permanent(fmt.Errorf("dynamostore: the table %s is not active after %v", s.opts.Table, polls*s.opts.poll))
		}
		if err := backoff.Sleep(ctx, s.opts.poll); err != nil {
			return s.wrap("table", err)
		}
		t, err = s.askTable(ctx)
	}
	if errors.Is(err, app.ErrUnavailable) {
		return err
	}
	return backoff.Permanent(err)
}

func isMissing(err error) bool {
	_, missing := errors.AsType[*types.ResourceNotFoundException](err)
	return missing
}

// askTable returns what the server says of the table.
func (s *Store) askTable(ctx context.Context) (*types.TableDescription, error) {
	ctx, cancel := context.WithTimeout(ctx, s.opts.Timeout)
	defer cancel()
	t, err := s.describe(ctx)
	if err != nil {
		return nil, s.wrap("describe the table "+s.opts.Table, err)
	}
	return t, nil
}

func (s *Store) describe(ctx context.Context) (*types.TableDescription, error) {
	out, err := s.db.DescribeTable(ctx, &dynamodb.DescribeTableInput{TableName: &s.opts.Table})
	if err != nil {
		return nil, err
	}
	return out.Table, nil
}

// ready reports whether the table serves reads and writes, and its index too.
func ready(t *types.TableDescription) bool {
	switch t.TableStatus {
	case types.TableStatusActive, types.TableStatusUpdating:
	default:
		return false
	}
	index := keyIndex(t)
	return index == nil || index.IndexStatus != types.IndexStatusCreating // a missing one is told by check
}

func keyIndex(t *types.TableDescription) *types.GlobalSecondaryIndexDescription {
	for i := range t.GlobalSecondaryIndexes {
		if aws.ToString(t.GlobalSecondaryIndexes[i].IndexName) == indexName {
			return &t.GlobalSecondaryIndexes[i]
		}
	}
	return nil
}

// check returns why the table cannot be used, or nil.
func (s *Store) check(t *types.TableDescription) error {
	if !isKey(t, t.KeySchema, "id") {
		return backoff.Permanent(fmt.Errorf("dynamostore: the table %s must have the partition key \"id\", a string, and no sort key", s.opts.Table))
	}
	index := keyIndex(t)
	if index == nil {
		return backoff.Permanent(fmt.Errorf("dynamostore: the table %s has no global secondary index %s with the partition key \"key\"", s.opts.Table, indexName))
	}
	// A sort key of the index does no harm.
	if len(index.KeySchema) == 0 || !isKey(t, index.KeySchema[:1], "key") {
		return backoff.Permanent(fmt.Errorf("dynamostore: the index %s of the table %s must have the partition key \"key\", a string", indexName, s.opts.Table))
	}
	return nil
}

func isKey(t *types.TableDescription, schema []types.KeySchemaElement, name string) bool {
	if len(schema) != 1 || aws.ToString(schema[0].AttributeName) != name || schema[0].KeyType != types.KeyTypeHash {
		return false
	}
	for _, d := range t.AttributeDefinitions {
		if aws.ToString(d.AttributeName) == name {
			return d.AttributeType == types.ScalarAttributeTypeS
		}
	}
	return false
}

// create makes the table as Sockudo does; that another node was first is fine.
func (s *Store) create(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, s.opts.Timeout)
	defer cancel()
	capacity := &types.ProvisionedThroughput{ReadCapacityUnits: aws.Int64(units), WriteCapacityUnits: aws.Int64(units)}
	attribute := func(name string) types.AttributeDefinition {
		return types.AttributeDefinition{AttributeName: &name, AttributeType: types.ScalarAttributeTypeS}
	}
	key := func(name string) []types.KeySchemaElement {
		return []types.KeySchemaElement{{AttributeName: &name, KeyType: types.KeyTypeHash}}
	}
	_, err := s.db.CreateTable(ctx, &dynamodb.CreateTableInput{
		TableName:            &s.opts.Table,
		AttributeDefinitions: []types.AttributeDefinition{attribute("id"), attribute("key")},
		KeySchema:            key("id"),
		GlobalSecondaryIndexes: []types.GlobalSecondaryIndex{{
			IndexName: aws.String(indexName), KeySchema: key("key"),
			Projection:            &types.Projection{ProjectionType: types.ProjectionTypeAll},
			ProvisionedThroughput: capacity,
		}},
		BillingMode:           types.BillingModeProvisioned,
		ProvisionedThroughput: capacity,
	})
	if _, first := errors.AsType[*types.ResourceInUseException](err); first {
		return nil
	}
	if err != nil {
		return s.wrap("the table "+s.opts.Table+" is missing and cannot be created", err)
	}
	s.log.Info("table created", "table", s.opts.Table)
	return nil
}
