package dynamostore

import (
	"context"
	"errors"
	"maps"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"sockudo/internal/app"
)

const (
	isThere  = "attribute_exists(id)"
	notThere = "attribute_not_exists(id)"
)

// Create puts an app; see app.Editor.
func (s *Store) Create(ctx context.Context, a *app.App) error {
	return s.change(ctx, "create", a, func(ctx context.Context) error {
		if err := s.keyIsFree(ctx, a); err != nil {
			return err
		}
		return unless(app.ErrExists, s.put(ctx, toItem(a), condition{text: notThere}))
	})
}

// Update replaces all fields of an app; see app.Editor.
func (s *Store) Update(ctx context.Context, was, next *app.App) error {
	return s.change(ctx, "update", next, func(ctx context.Context) error {
		old, err := s.still(ctx, next.ID, app.Still(was, app.Same))
		if err != nil {
			return err
		}
		if old.text("key") != next.Key {
			if err := s.keyIsFree(ctx, next); err != nil {
				return err
			}
		}
		if was == nil {
			return unless(app.ErrNotFound, s.put(ctx, old.with(next), condition{text: isThere}))
		}
		return s.orChanged(ctx, next.ID, s.put(ctx, old.with(next), old.unchanged(anyColumn)))
	})
}

// still returns the item of an app, or why it must not be changed.
func (s *Store) still(ctx context.Context, id string, same func(*app.App) bool) (item, error) {
	it, err := s.get(ctx, id)
	switch {
	case err != nil:
		return nil, err
	case len(it) == 0:
		return nil, app.ErrNotFound
	case same == nil:
		return it, nil
	}
	a := s.build(it)
	if a == nil {
		return nil, app.ErrNotFound // as it is for a look-up
	}
	if !same(a) {
		return nil, app.ErrChanged
	}
	return it, nil
}

// orChanged says what it means that the condition of a change did not hold.
func (s *Store) orChanged(ctx context.Context, id string, err error) error {
	err = unless(app.ErrChanged, err)
	if !errors.Is(err, app.ErrChanged) {
		return err
	}
	it, getErr := s.get(ctx, id)
	switch {
	case getErr != nil:
		return getErr
	case len(it) == 0:
		return app.ErrNotFound
	}
	return err
}

// A condition is what must hold of an item for a change of it.
type condition struct {
	text   string
	names  map[string]string
	values item
}

func anyColumn(*app.Column) bool { return true }

// unchanged is the condition that those columns that which selects are still
// what they are in it.
func (it item) unchanged(which func(*app.Column) bool) condition {
	c := condition{names: map[string]string{}, values: item{}}
	terms := []string{isThere}
	for _, col := range app.Columns() {
		if !which(&col) {
			continue
		}
		c.names["#"+col.Name] = col.Name
		if v, ok := it[col.Name]; ok {
			c.values[":was_"+col.Name] = v
			terms = append(terms, "#"+col.Name+" = :was_"+col.Name)
		} else {
			terms = append(terms, "attribute_not_exists(#"+col.Name+")")
		}
	}
	c.text = strings.Join(terms, " AND ")
	return c
}

// Upsert creates or replaces an app; see app.Editor. When many nodes start
// with the same apps, one of them is the last, and all write the same.
func (s *Store) Upsert(ctx context.Context, a *app.App) error {
	return s.change(ctx, "upsert", a, func(ctx context.Context) error {
		old, err := s.get(ctx, a.ID)
		if err != nil {
			return err
		}
		if old.text("key") != a.Key {
			if err := s.keyIsFree(ctx, a); err != nil {
				return err
			}
		}
		return s.put(ctx, old.with(a), condition{})
	})
}

// Delete removes an app; see app.Editor.
func (s *Store) Delete(ctx context.Context, id string) error {
	if !app.ValidName(id) {
		return app.ErrNotFound
	}
	ctx, cancel := context.WithTimeout(ctx, s.opts.Timeout)
	defer cancel()
	_, err := s.db.DeleteItem(ctx, &dynamodb.DeleteItemInput{
		TableName: &s.opts.Table, Key: keyOf(id), ConditionExpression: aws.String(isThere),
	}, once)
	return s.wrap("delete", unless(app.ErrNotFound, err))
}

// SetSecrets replaces the secrets of an app and nothing else; see app.Editor.
func (s *Store) SetSecrets(ctx context.Context, was, next *app.App) error {
	if err := app.ValidateSecrets(next.Secret, next.PreviousSecret); err != nil {
		return err
	}
	if !app.ValidName(next.ID) {
		return app.ErrNotFound
	}
	ctx, cancel := context.WithTimeout(ctx, s.opts.Timeout)
	defer cancel()
	return s.wrapWrite("set secrets", s.setSecrets(ctx, was, next))
}

func (s *Store) setSecrets(ctx context.Context, was, next *app.App) error {
	if was == nil {
		return unless(app.ErrNotFound, s.updateSecrets(ctx, next, condition{text: isThere}))
	}
	old, err := s.still(ctx, next.ID, app.Still(was, app.SameSecrets))
	if err != nil {
		return err
	}
	return s.orChanged(ctx, next.ID, s.updateSecrets(ctx, next, old.unchanged((*app.Column).Secret), once))
}

func (s *Store) updateSecrets(ctx context.Context, a *app.App, c condition, opts ...func(*dynamodb.Options)) error {
	var sets, removes []string
	names, values := map[string]string{}, item{}
	maps.Copy(names, c.names)
	maps.Copy(values, c.values)
	for _, col := range app.Columns() {
		if !col.Secret() {
			continue
		}
		names["#"+col.Name] = col.Name
		if v := attribute(&col, a); v != nil {
			sets = append(sets, "#"+col.Name+" = :"+col.Name)
			values[":"+col.Name] = v
		} else {
			removes = append(removes, "#"+col.Name)
		}
	}
	expression := "SET " + strings.Join(sets, ", ")
	if len(removes) > 0 {
		expression += " REMOVE " + strings.Join(removes, ", ")
	}
	_, err := s.db.UpdateItem(ctx, &dynamodb.UpdateItemInput{
		TableName: &s.opts.Table, Key: keyOf(a.ID), UpdateExpression: &expression, ConditionExpression: &c.text,
		ExpressionAttributeNames: names, ExpressionAttributeValues: values,
	}, opts...)
	return err
}

// change validates a and bounds what do does.
func (s *Store) change(ctx context.Context, what string, a *app.App, do func(context.Context) error) error {
	if err := app.Validate(a); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, s.opts.Timeout)
	defer cancel()
	return s.wrapWrite(what, do(ctx))
}

// keyIsFree returns ErrExists if another app has the key of a. Nothing in the
// table keeps keys apart, so that two changes at the same moment may both pass.
func (s *Store) keyIsFree(ctx context.Context, a *app.App) error {
	ids, err := s.idsOf(ctx, a.Key)
	if err != nil {
		return err
	}
	for _, id := range ids {
		if id == a.ID {
			continue
		}
		other, err := s.get(ctx, id)
		if err != nil {
			return err
		}
		if other.text("key") == a.Key {
			return app.ErrExists
		}
	}
	return nil
}

// with returns the item of a, with those attributes of it that are not ours:
// newer versions of Sockudo keep more in an item.
func (it item) with(a *app.App) item {
	all := item{}
	for name, v := range it {
		if _, ours := kinds[name]; !ours {
			all[name] = v
		}
	}
	maps.Copy(all, toItem(a))
	return all
}

func (s *Store) put(ctx context.Context, it item, c condition) error {
	in := &dynamodb.PutItemInput{TableName: &s.opts.Table, Item: it}
	if c.text == "" {
		_, err := s.db.PutItem(ctx, in)
		return err
	}
	in.ConditionExpression = &c.text
	if len(c.names) > 0 {
		in.ExpressionAttributeNames = c.names
	}
	if len(c.values) > 0 {
		in.ExpressionAttributeValues = c.values
	}
	_, err := s.db.PutItem(ctx, in, once)
	return err
}

// unless returns instead if err says that a condition did not hold.
func unless(instead, err error) error {
	if _, failed := errors.AsType[*types.ConditionalCheckFailedException](err); failed {
		return instead
	}
	return err
}
