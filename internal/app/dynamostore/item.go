package dynamostore

import (
	"encoding/json"
	"strconv"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"sockudo/internal/app"
)

// An item is one app as the table holds it.
type item map[string]types.AttributeValue

func keyOf(id string) item { return item{"id": &types.AttributeValueMemberS{Value: id}} }

// text returns an attribute that is a string, "" for any other.
func (it item) text(name string) string {
	s, _ := it[name].(*types.AttributeValueMemberS)
	if s == nil {
		return ""
	}
	return s.Value
}

var kinds = func() map[string]app.Kind {
	m := map[string]app.Kind{}
	for _, c := range app.Columns() {
		m[c.Name] = c.Kind
	}
	return m
}()

// noText stands for an attribute of a type that a column cannot have. It is no
// number, no boolean, no time and no JSON.
const noText = "(of another type)"

// column returns the text of an attribute for app.FromColumns. People write
// numbers and booleans as strings, and lists as lists.
func (it item) column(name string) (string, bool) {
	switch v := it[name].(type) {
	case nil, *types.AttributeValueMemberNULL:
		return "", false
	case *types.AttributeValueMemberS:
		return v.Value, true
	case *types.AttributeValueMemberN:
		return v.Value, true
	case *types.AttributeValueMemberBOOL:
		return strconv.FormatBool(v.Value), true
	case *types.AttributeValueMemberL, *types.AttributeValueMemberSS:
		if kinds[name] == app.JSON {
			return toJSON(v), true
		}
	}
	switch name {
	case "id", "key", "secret", "previous_secret":
		return "", false // it must not become a secret
	}
	return noText, true
}

func toJSON(v types.AttributeValue) string {
	b, err := json.Marshal(plain(v))
	if err != nil {
		return noText
	}
	return string(b)
}

// plain returns an attribute as encoding/json would read it. What JSON does
// not know becomes null, which is no string and no webhook.
func plain(v types.AttributeValue) any {
	switch v := v.(type) {
	case *types.AttributeValueMemberS:
		return v.Value
	case *types.AttributeValueMemberN:
		return json.Number(v.Value)
	case *types.AttributeValueMemberBOOL:
		return v.Value
	case *types.AttributeValueMemberSS:
		return v.Value
	case *types.AttributeValueMemberL:
		list := make([]any, len(v.Value))
		for i := range v.Value {
			list[i] = plain(v.Value[i])
		}
		return list
	case *types.AttributeValueMemberM:
		object := make(map[string]any, len(v.Value))
		for name, member := range v.Value {
			object[name] = plain(member)
		}
		return object
	default:
		return nil
	}
}

// toItem returns a as the table holds it; what is unset is absent.
func toItem(a *app.App) item {
	it := item{}
	for _, c := range app.Columns() {
		if v := attribute(&c, a); v != nil {
			it[c.Name] = v
		}
	}
	return it
}

// attribute returns one field of a, nil if it is unset.
func attribute(c *app.Column, a *app.App) types.AttributeValue {
	if c.Name == "allowed_origins" {
		if len(a.AllowedOrigins) == 0 {
			return nil
		}
		list := &types.AttributeValueMemberL{}
		for _, o := range a.AllowedOrigins {
			list.Value = append(list.Value, &types.AttributeValueMemberS{Value: o})
		}
		return list
	}
	switch v := c.Value(a).(type) {
	case string:
		return &types.AttributeValueMemberS{Value: v}
	case uint32:
		return &types.AttributeValueMemberN{Value: strconv.FormatUint(uint64(v), 10)}
	case bool:
		return &types.AttributeValueMemberBOOL{Value: v}
	}
	return nil
}
