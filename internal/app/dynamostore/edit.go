package dynamostore

import (
	"context"
	"errors"
	"maps"
	"strings"
	"time"

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
		return unless(app.ErrExists, s.put(ctx, toItem(a), notThere))
	})
}

// Update replaces all fields of an app; see app.Editor.
func (s *Store) Update(ctx context.Context, a *app.App) error {
	return s.change(ctx, "update", a, func(ctx context.Context) error {
		old, err := s.get(ctx, a.ID)
		switch {
		case err != nil:
			return err
		case len(old) == 0:
			return app.ErrNotFound
		case old.text("key") != a.Key:
			if err := s.keyIsFree(ctx, a); err != nil {
				return err
			}
		}
		return unless(app.ErrNotFound, s.put(ctx, old.with(a), isThere))
	})
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
		return s.put(ctx, old.with(a), "")
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
func (s *Store) SetSecrets(ctx context.Context, id string, secret, previous app.Secret, until time.Time) error {
	if err := app.ValidateSecrets(secret, previous); err != nil {
		return err
	}
	if !app.ValidName(id) {
		return app.ErrNotFound
	}
	ctx, cancel := context.WithTimeout(ctx, s.opts.Timeout)
	defer cancel()
	a := &app.App{Secret: secret, PreviousSecret: previous, PreviousUntil: until}
	var sets, removes []string
	names, values := map[string]string{}, item{}
	for _, c := range app.Columns() {
		if !c.Secret() {
			continue
		}
		names["#"+c.Name] = c.Name
		if v := attribute(&c, a); v != nil {
			sets = append(sets, "#"+c.Name+" = :"+c.Name)
			values[":"+c.Name] = v
		} else {
			removes = append(removes, "#"+c.Name)
		}
	}
	expression := "SET " + strings.Join(sets, ", ")
	if len(removes) > 0 {
		expression += " REMOVE " + strings.Join(removes, ", ")
	}
	_, err := s.db.UpdateItem(ctx, &dynamodb.UpdateItemInput{
		TableName: &s.opts.Table, Key: keyOf(id), UpdateExpression: &expression, ConditionExpression: aws.String(isThere),
		ExpressionAttributeNames: names, ExpressionAttributeValues: values,
	})
	return s.wrapWrite("set secrets", unless(app.ErrNotFound, err))
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

func (s *Store) put(ctx context.Context, it item, condition string) error {
	in := &dynamodb.PutItemInput{TableName: &s.opts.Table, Item: it}
	if condition == "" {
		_, err := s.db.PutItem(ctx, in)
		return err
	}
	in.ConditionExpression = &condition
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
