package ws

import "testing"

// What a client is told in its own turn, such as a pong, does not wait behind
// what the flusher has for others: here the flusher never comes to an end.
func TestAnswersDoNotWaitForTheFlusher(t *testing.T) {
	for _, name := range []string{"poll", "tls-poll"} {
		t.Run(name, testAnswersDoNotWait)
	}
}

func testAnswersDoNotWait(t *testing.T) {
	conns := make(chan *Conn, 1)
	_, addr := start(t, Options{}, handled(&echo{open: func(c *Conn) { conns <- c }}))
	byLoop := map[link]*Conn{}
	for {
		p := connect(t, addr)
		c := <-conns
		stuck := byLoop[c.link]
		if stuck == nil {
			byLoop[c.link] = c
			continue
		}
		stuck.mu.Lock()
		defer stuck.mu.Unlock()
		c.link.flush(stuck)
		p.send(raw(finBit|opPing, []byte("there?")))
		p.expect(opPong, "there?")
		p.send(text("an answer"))
		p.expect(opText, "an answer")
		return
	}
}
