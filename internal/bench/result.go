package bench

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"time"
)

// A Metric is one number that was measured.
type Metric struct {
	Key   string
	Label string
	Unit  Unit
	Value float64
}

// A Unit says how a number is shown.
type Unit uint8

// The units of metrics. JSON has the values in the unit that the key names.
const (
	Count    Unit = iota
	PerSec        // per second
	Micros        // CPU, µs
	Millis        // time, ms
	Percent       // of one core
	Megabyte      // MiB
	Kilobyte      // KiB
	Seconds
)

// A Run is what one run of a case has shown.
type Run struct {
	Metrics  []Metric
	Warnings []string
}

func (r *Run) add(key, label string, unit Unit, value float64) {
	r.Metrics = append(r.Metrics, Metric{key, label, unit, value})
}

func (r *Run) warn(format string, args ...any) {
	r.Warnings = append(r.Warnings, fmt.Sprintf(format, args...))
}

// value returns a metric of the run.
func (r *Run) value(key string) (float64, bool) {
	for _, m := range r.Metrics {
		if m.Key == key {
			return m.Value, true
		}
	}
	return 0, false
}

func millis(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

func micros(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }

// addHist adds quantiles of a histogram, if it holds anything.
func (r *Run) addHist(h *hist, key, label string, quantiles ...float64) {
	if h.n == 0 {
		return
	}
	for _, q := range quantiles {
		switch q {
		case 1:
			r.add(key+"_max_ms", label+" max", Millis, millis(time.Duration(h.max)))
		default:
			name := fmt.Sprintf("p%g", q*100)
			r.add(key+"_"+name+"_ms", label+" "+name, Millis, millis(h.quantile(q)))
		}
	}
}

// A Case is one variant with all of its runs.
type Case struct {
	Name  string
	Flags map[string]string // those that differ from the defaults of the scenario
	Runs  []Run
}

// Median returns the middle value of a metric over all runs, and the lowest and
// highest one.
func (c *Case) Median(key string) (mid, low, high float64, ok bool) {
	var all []float64
	for i := range c.Runs {
		if v, there := c.Runs[i].value(key); there {
			all = append(all, v)
		}
	}
	if len(all) == 0 {
		return 0, 0, 0, false
	}
	slices.Sort(all)
	n := len(all)
	mid = all[n/2]
	if n%2 == 0 {
		mid = (all[n/2-1] + all[n/2]) / 2
	}
	return mid, all[0], all[n-1], true
}

// keys returns the metrics of all cases in the order in which they were added.
func keys(cases []*Case) []Metric {
	var all []Metric
	seen := map[string]bool{}
	for _, c := range cases {
		for i := range c.Runs {
			for _, m := range c.Runs[i].Metrics {
				if !seen[m.Key] {
					seen[m.Key] = true
					all = append(all, m)
				}
			}
		}
	}
	return all
}

// warnings returns what the runs of a case warned of, the same with other
// numbers once.
func (c *Case) warnings() []string {
	times := map[string]int{}
	var kinds, texts []string
	for i := range c.Runs {
		for _, w := range c.Runs[i].Warnings {
			kind := numbers.ReplaceAllString(w, "#")
			if times[kind]++; times[kind] == 1 {
				kinds, texts = append(kinds, kind), append(texts, w)
			}
		}
	}
	for i, kind := range kinds {
		if times[kind] > 1 {
			texts[i] = fmt.Sprintf("%s (and so in %d runs)", texts[i], times[kind])
		}
	}
	return texts
}

var numbers = regexp.MustCompile(`[0-9.]+`)

// A Report is everything that a command has measured.
type Report struct {
	Scenario string
	Began    time.Time
	System   System
	Repeat   int
	Cases    []*Case
	Checks   []Check
}

// Passed reports whether all requirements hold.
func (r *Report) Passed() bool {
	return !slices.ContainsFunc(r.Checks, func(c Check) bool { return !c.Passed })
}

func (r *Report) find(name string) *Case {
	for _, c := range r.Cases {
		if c.Name == name {
			return c
		}
	}
	return nil
}

// sorted returns the names of flags in order.
func sorted(flags map[string]string) []string { return slices.Sorted(maps.Keys(flags)) }
