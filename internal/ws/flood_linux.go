package ws

import "time"

// floodShare is how much of each meterEvery the floods of a loop get together. What
// they cost the others is more than that, with what they are answered.
const floodShare = meterEvery / 25

// flood puts a connection on the list of those that are read when there is
// time; turn is held.
func (l *loop) flood(c *Conn) {
	c.flooding = true
	l.mute(c, true)
	l.floods = append(l.floods, c)
	switch {
	case l.pace == nil:
		l.pace = time.AfterFunc(meterEvery, l.readFloods)
	case len(l.floods) == 1:
		l.pace.Reset(meterEvery)
	}
}

// readFloods reads the floods in turn, for their share of the time.
func (l *loop) readFloods() {
	l.turn.Lock()
	defer l.turn.Unlock()
	now := l.p.srv.now()
	for over := now + int64(floodShare); len(l.floods) > 0 && now < over; now = l.p.srv.now() {
		l.readFlood(now)
	}
	if len(l.floods) > 0 {
		l.pace.Reset(meterEvery)
	}
}

// readFlood reads once from the first of the floods. It goes to the end then or,
// if it had nothing to say, is none any more. turn is held.
func (l *loop) readFlood(now int64) {
	c := l.floods[0]
	n := copy(l.floods, l.floods[1:])
	l.floods[n] = nil
	l.floods = l.floods[:n]
	if !c.released && !c.waiting {
		c.meter.spend(l.take(c, now), now)
	}
	switch {
	case c.released:
	case c.waiting:
		c.flooding = false // it stays muted until the end of the Await
	case c.flooding:
		l.floods = append(l.floods, c)
	default:
		l.mute(c, false)
	}
}
