package dynamostore

import (
	"errors"
	"fmt"
	"net"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
)

// TestTheEndpointIsLikeDynamoDB checks what test/dynalite mends: what other
// tests take for granted.
func TestTheEndpointIsLikeDynamoDB(t *testing.T) {
	opts := server(t)
	s := newStore(t, opts)
	t.Run("lists and maps are equal by what is in them", func(t *testing.T) {
		hook := func(url string) types.AttributeValue {
			return &types.AttributeValueMemberM{Value: item{"url": text(url), "event_types": list(text("a"), text("b"))}}
		}
		for _, test := range []struct {
			is, want types.AttributeValue
			equal    bool
		}{
			{list(text("a"), text("b")), list(text("a"), text("b")), true},
			{list(text("a"), text("b")), list(text("a"), text("c")), false},
			{list(text("a")), list(text("a"), text("b")), false},
			{list(hook("x")), list(hook("x")), true},
			{list(hook("x")), list(hook("y")), false},
			{hook("x"), hook("x"), true},
			{hook("x"), hook("y"), false},
			{list(text("1")), list(number("1")), false},
		} {
			it := item{"id": text("a"), "key": text("a-key"), "secret": text("s"), "v": test.is}
			s.putRaw(t, it)
			_, err := s.db.PutItem(t.Context(), &dynamodb.PutItemInput{
				TableName: &s.opts.Table, Item: it, ConditionExpression: aws.String("attribute_exists(id) AND v = :v"),
				ExpressionAttributeValues: item{":v": test.want},
			})
			if _, refused := errors.AsType[*types.ConditionalCheckFailedException](err); refused == test.equal || err != nil && !refused {
				t.Errorf("%v = %v: err = %v, want equal %t", plain(test.is), plain(test.want), err, test.equal)
			}
		}
	})
	t.Run("a client that goes away in the middle of a request ends nothing", func(t *testing.T) {
		for range 20 {
			c, err := net.Dial("tcp", parse(t, opts.Endpoint).Host)
			if err != nil {
				t.Fatal(err)
			}
			fmt.Fprintf(c, "POST / HTTP/1.1\r\nHost: x\r\nX-Amz-Target: DynamoDB_20120810.ListTables\r\nContent-Type: application/x-amz-json-1.0\r\nContent-Length: 100\r\n\r\n{")
			if err := c.(*net.TCPConn).SetLinger(0); err != nil { // a reset
				t.Fatal(err)
			}
			_ = c.Close()
			if err := s.Ping(t.Context()); err != nil {
				t.Fatalf("the endpoint has ended: %v", err)
			}
		}
	})

}
