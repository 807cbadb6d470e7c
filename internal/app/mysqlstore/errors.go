package mysqlstore

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"net"

	"github.com/go-sql-driver/mysql"

	"sockudo/internal/app"
)

// Numbers of server errors.
const (
	errDuplicateEntry  = 1062
	errDuplicateColumn = 1060
	errUnknownColumn   = 1054
	errNullColumn      = 1048
	errLockWait        = 1205
	errDeadlock        = 1213
	errRecordChanged   = 1020 // MariaDB: since it was last read
)

// number returns the number of a server error, 0 for any other.
func number(err error) uint16 {
	if e, ok := errors.AsType[*mysql.MySQLError](err); ok {
		return e.Number
	}
	return 0
}

// isBroken reports whether the connection is to blame.
func isBroken(err error) bool {
	_, network := errors.AsType[net.Error](err)
	return network || errors.Is(err, mysql.ErrInvalidConn) || errors.Is(err, driver.ErrBadConn) || errors.Is(err, io.EOF) ||
		errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, sql.ErrConnDone)
}

// transient are the server errors that pass by themselves: too many
// connections, shutting down, locks, out of memory, read-only for now.
var transient = map[uint16]bool{
	1040: true, 1053: true, 1203: true, errLockWait: true, errDeadlock: true, errRecordChanged: true, 1037: true, 1041: true,
	1129: true, 1159: true, 1161: true, 1290: true, 1792: true, 1836: true, 1317: true, 1969: true, 3024: true,
}

// telling are the server errors whose text repeats values, which may be secrets.
var telling = map[uint16]bool{
	1064: true, 1264: true, 1265: true, 1292: true, 1366: true, 1406: true, 3140: true, 3141: true, 4025: true, 1411: true,
}

// wrap says what was attempted and makes the error one of the contract. No
// value of a field becomes part of it.
func (s *Store) wrap(what string, err error) error {
	switch {
	case errors.Is(err, app.ErrNotFound), errors.Is(err, app.ErrInvalid), errors.Is(err, app.ErrExists), errors.Is(err, app.ErrChanged):
		return err
	case errors.Is(err, sql.ErrNoRows):
		return app.ErrNotFound
	}
	n := number(err)
	switch {
	case n == errDuplicateEntry:
		return app.ErrExists
	case telling[n]:
		return fmt.Errorf("mysqlstore: %s: the server refused a value (error %d)", what, n)
	case n != 0 && !transient[n]:
		return fmt.Errorf("mysqlstore: %s: %w", what, err)
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("mysqlstore: %s: %w: no answer in time: %w", what, app.ErrUnavailable, err)
	default:
		return fmt.Errorf("mysqlstore: %s: %w: %w", what, app.ErrUnavailable, err)
	}
}
