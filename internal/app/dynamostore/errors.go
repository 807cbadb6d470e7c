package dynamostore

import (
	"context"
	"errors"
	"fmt"

	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/smithy-go"

	"sockudo/internal/app"
)

// wrap says what was attempted and makes the error one of the contract.
func (s *Store) wrap(what string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, app.ErrNotFound), errors.Is(err, app.ErrExists), errors.Is(err, app.ErrInvalid), errors.Is(err, app.ErrChanged):
		return err
	}
	answer, answered := errors.AsType[smithy.APIError](err)
	switch {
	case answered && !transient(answer):
		return fmt.Errorf("dynamostore: %s: %w", what, err)
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("dynamostore: %s: %w: no answer in time: %w", what, app.ErrUnavailable, err)
	default:
		return fmt.Errorf("dynamostore: %s: %w: %w", what, app.ErrUnavailable, err)
	}
}

// wrapWrite is wrap for a call that carried an app. The server repeats values
// that it refuses.
func (s *Store) wrapWrite(what string, err error) error {
	if answer, ok := errors.AsType[smithy.APIError](err); ok {
		switch answer.ErrorCode() {
		case "ValidationException", "SerializationException":
			return fmt.Errorf("dynamostore: %s: the server refused a value (%s)", what, answer.ErrorCode())
		}
	}
	return s.wrap(what, err)
}

// transient reports whether an answer is one of those that pass by themselves:
// too many requests, a fault of the server, a table that changes.
func transient(answer smithy.APIError) bool {
	if answer.ErrorFault() == smithy.FaultServer {
		return true
	}
	code := answer.ErrorCode()
	if _, ok := retry.DefaultThrottleErrorCodes[code]; ok {
		return true
	}
	switch code {
	case "InternalServerError", "InternalFailure", "ServiceUnavailable", "ServiceUnavailableException", "TransactionConflictException":
		return true
	}
	return false
}
