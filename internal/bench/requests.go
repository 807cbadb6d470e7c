package bench

import (
	"context"
	"time"
)

var publish = &Scenario{
	Name:  "publish",
	Short: "The API alone: messages to a channel without subscribers",
	Long: `Publish to a channel that nobody listens to, over --http connections: as fast as
answers come, with --pipeline requests on their way on each, or at --rate.`,
	Example: `  sockudo bench publish --serve --server-cpu 0 --cpu 1 --http 8
  sockudo bench publish --url http://127.0.0.1:6001 --app 1 --key KEY --secret SECRET --pid 4711 -r 5000`,
	flags:    []string{"rate", "payload", "http", "pipeline"},
	defaults: func(o *Options) { o.Rate, o.HTTP, o.Pipeline = 0, 4, 4 },
	files:    func(o *Options) int { return o.HTTP },
	run: func(ctx context.Context, m *measurement) error {
		o, cr := m.opts, m.crowd
		for i := range cr.openAPI(o.HTTP) {
			cr.streams = append(cr.streams, newStream(i, channelName("public", 0), i%len(cr.targets), 0, 1))
		}
		if o.Rate == 0 {
			o.InFlight = o.HTTP * o.Pipeline
		}
		pub, err := newPublisher(cr)
		if err != nil {
			return err
		}
		start := cr.clock.now() + int64(50*time.Millisecond)
		w := &window{from: start + int64(o.Warmup), to: start + int64(o.Warmup+o.Duration)}
		merged, marks, err := m.publishAll(ctx, pub, start, []*window{w})
		if err != nil {
			return err
		}
		m.drain(ctx)
		from, to := marks[0], marks[1]
		answered := float64(to.answered - from.answered)
		refused := 0
		for _, s := range cr.streams {
			refused += len(s.refusals())
		}
		m.add("published", "requests, with the warm-up", Count, float64(pub.sent))
		m.add("refused", "not answered with 200", Count, float64(refused))
		m.add("requests_per_s", "requests", PerSec, answered/time.Duration(to.at-from.at).Seconds())
		merged()
		m.addHist(&w.answer, "answer", "answer", 0.5, 0.9, 0.99, 0.999, 1)
		m.addCosts(from, to, answered, "request")
		m.addLag(w)
		return nil
	},
}
