package bench

import (
	"fmt"
	"io"
	"sync"
	"time"
)

// A progress shows on one line what is going on.
type progress struct {
	w     io.Writer // nil: nothing is shown
	live  bool      // the line can be overwritten
	title string

	mu    sync.Mutex // guards what follows
	last  time.Time
	width int
}

// progressEvery is how often the line changes.
const progressEvery = 200 * time.Millisecond

// say shows a state, unless another one was shown just now.
func (p *progress) say(format string, args ...any) {
	if p == nil || p.w == nil || !p.live {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if time.Since(p.last) < progressEvery {
		return
	}
	p.last = time.Now()
	line := p.title + ": " + fmt.Sprintf(format, args...)
	fmt.Fprintf(p.w, "\r%-*s", p.width, line)
	p.width = len(line)
}

// done shows a line that stays.
func (p *progress) done(format string, args ...any) {
	if p == nil || p.w == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	line := p.title + ": " + fmt.Sprintf(format, args...)
	if p.live {
		fmt.Fprintf(p.w, "\r%-*s", p.width, line)
	} else {
		fmt.Fprint(p.w, line)
	}
	fmt.Fprintln(p.w)
	p.width = 0
}
