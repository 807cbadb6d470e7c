package ws

import "time"

// Reading from a client costs the server about 6 µs, and each frame 1 to 2 µs
// more. A client gets a reserve for what it does at once, such as subscribing
// to hundreds of channels, and an income that lasts for 2,000 pings a second.
// One that wants more is a flood, and is read when there is time.
const (
	meterEvery   = 5 * time.Millisecond
	meterIncome  = 32 // each meterEvery
	meterReserve = 512
	meterRead    = 2 // one read
	meterFrame   = 1 // one frame of it
)

// A meter says how much a client may still ask for. The zero meter is full.
type meter struct {
	spent  int32
	window int32 // in which spent was computed
}

// spend notes a read and reports whether the client has asked for too much.
func (m *meter) spend(frames int, now int64) (over bool) {
	window := int32(now / int64(meterEvery))
	passed := min(max(window-m.window, 0), meterReserve) // its number wraps round after four months
	m.spent, m.window = max(m.spent-passed*meterIncome, 0), window
	m.spent = min(m.spent+meterRead+int32(frames)*meterFrame, 2*meterReserve)
	return m.spent > meterReserve
}
