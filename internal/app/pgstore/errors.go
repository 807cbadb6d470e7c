package pgstore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"sockudo/internal/app"
)

// Codes of server errors (SQLSTATE).
const (
	uniqueViolation  = "23505"
	duplicateTable   = "42P07"
	duplicateObject  = "42710"
	duplicateColumn  = "42701"
	undefinedColumn  = "42703"
	changedPlan      = "0A000" // cached plan must not change result type
	deadlock         = "40P01"
	serialization    = "40001"
	lockNotAvailable = "55P03"
)

// code returns the SQLSTATE of a server error, "" for any other.
func code(err error) string {
	if e, ok := errors.AsType[*pgconn.PgError](err); ok {
		return e.Code
	}
	return ""
}

// isValue reports whether the server refused a value. Its text repeats the value.
func isValue(err error) bool { return strings.HasPrefix(code(err), "22") }

// isBroken reports whether the connection is to blame.
func isBroken(err error) bool {
	_, network := errors.AsType[net.Error](err)
	return network || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed) || transient(code(err)) ||
		pgconn.SafeToRetry(err)
}

// transient reports whether a server error passes by itself: connections,
// resources, an operator who stops the server.
func transient(code string) bool {
	for _, class := range []string{"08", "40", "53", "57", "58", "XX"} {
		if strings.HasPrefix(code, class) {
			return true
		}
	}
	return code == lockNotAvailable || code == "25006" // a replica that is not the master yet
}

// wrap says what was attempted and makes the error one of the contract. No
// value of a field becomes part of it.
func (s *Store) wrap(what string, err error) error {
	switch {
	case errors.Is(err, app.ErrNotFound), errors.Is(err, app.ErrInvalid), errors.Is(err, app.ErrExists), errors.Is(err, app.ErrChanged):
		return err
	}
	c := code(err)
	switch {
	case c == uniqueViolation:
		return app.ErrExists
	case isValue(err), strings.HasPrefix(c, "23"):
		return fmt.Errorf("pgstore: %s: the server refused a value (error %s)", what, c)
	case c != "" && !transient(c):
		return fmt.Errorf("pgstore: %s: %w", what, err)
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("pgstore: %s: %w: no answer in time: %w", what, app.ErrUnavailable, err)
	default:
		return fmt.Errorf("pgstore: %s: %w: %w", what, app.ErrUnavailable, err)
	}
}
