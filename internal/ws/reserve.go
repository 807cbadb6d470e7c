package ws

import (
	"log/slog"
	"os"
)

// reserveFiles is how many API connections there is room for when all other
// descriptors are taken.
const reserveFiles = 16

// A reserve keeps descriptors back, to be spent on the API when there are no
// others. It belongs to one goroutine.
type reserve struct {
	files  []*os.File
	alarms bool // the operator has been told
}

func newReserve() *reserve {
	r := &reserve{}
	r.refill()
	return r
}

// refill takes back what was spent and reports whether the reserve is complete.
func (r *reserve) refill() bool {
	for len(r.files) < reserveFiles {
		f, err := os.Open(os.DevNull)
		if err != nil {
			return false
		}
		r.files = append(r.files, f)
	}
	return true
}

// spend frees one descriptor; false when there is none left.
func (r *reserve) spend() bool {
	if len(r.files) == 0 {
		return false
	}
	last := len(r.files) - 1
	_ = r.files[last].Close()
	r.files = r.files[:last]
	return true
}

func (r *reserve) close() {
	for r.spend() {
	}
}

// alarm tells the operator once.
func (r *reserve) alarm(log *slog.Logger, err error) {
	if !r.alarms {
		log.Error("out of file descriptors, new clients are turned away", "err", err)
	}
	r.alarms = true
}

// calm tells that an alarm is over.
func (r *reserve) calm(log *slog.Logger) {
	if r.alarms {
		log.Info("file descriptors are free again")
	}
	r.alarms = false
}
