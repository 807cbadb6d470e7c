package bench

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"strings"
	"time"
	"unicode/utf8"
)

// format shows a number for people.
func (u Unit) format(v float64) string {
	switch u {
	case Count:
		return grouped(v)
	case PerSec:
		if v < 100 {
			return fmt.Sprintf("%.1f /s", v)
		}
		return grouped(v) + " /s"
	case Micros:
		return precise(v) + " µs"
	case Millis:
		return precise(v) + " ms"
	case Percent:
		return fmt.Sprintf("%.1f %%", v)
	case Megabyte:
		return fmt.Sprintf("%.1f MiB", v)
	case Kilobyte:
		return precise(v) + " KiB"
	}
	return precise(v) + " s"
}

// precise shows three digits.
func precise(v float64) string {
	switch a := math.Abs(v); {
	case a >= 100:
		return grouped(v)
	case a >= 10:
		return fmt.Sprintf("%.1f", v)
	case a >= 1:
		return fmt.Sprintf("%.2f", v)
	}
	return fmt.Sprintf("%.3f", v)
}

// grouped shows a whole number with separators.
func grouped(v float64) string {
	digits := fmt.Sprintf("%.0f", math.Abs(v))
	var b strings.Builder
	if v < 0 && digits != "0" {
		b.WriteByte('-')
	}
	for i, d := range digits {
		if i > 0 && (len(digits)-i)%3 == 0 {
			b.WriteByte(',')
		}
		b.WriteRune(d)
	}
	return b.String()
}

// WriteTable writes a table that can be pasted into a text or into Markdown.
// Columns are the medians of the cases; behind them, with several runs, the
// lowest and the highest value, and with several cases the ratio to the first.
func (r *Report) WriteTable(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s, %s, %s\n", r.Scenario, r.Began.UTC().Format(time.RFC3339), r.System)
	for _, c := range r.Cases {
		var flags []string
		for _, name := range sorted(c.Flags) {
			flags = append(flags, name+"="+c.Flags[name])
		}
		fmt.Fprintf(&b, "%s: %s\n", c.Name, strings.Join(flags, " "))
	}
	b.WriteByte('\n')
	rows := [][]string{{r.heading()}}
	for _, c := range r.Cases {
		rows[0] = append(rows[0], c.Name)
	}
	for _, m := range keys(r.Cases) {
		row := []string{m.Label}
		first, _, _, _ := r.Cases[0].Median(m.Key)
		for i, c := range r.Cases {
			row = append(row, r.cell(c, m, i > 0, first))
		}
		rows = append(rows, row)
	}
	writeColumns(&b, rows)
	for _, c := range r.Cases {
		for _, text := range c.warnings() {
			fmt.Fprintf(&b, "\n%s: %s", c.Name, text)
		}
	}
	for _, c := range r.Checks {
		verdict := "FAILS"
		if c.Passed {
			verdict = "holds"
		}
		fmt.Fprintf(&b, "\n%s  %s (%s)", verdict, c.Text, c.Detail)
	}
	b.WriteByte('\n')
	_, err := io.WriteString(w, strings.TrimRight(b.String(), "\n")+"\n")
	return err
}

func (r *Report) heading() string {
	if r.Repeat > 1 {
		return fmt.Sprintf("median of %d runs", r.Repeat)
	}
	return r.Scenario
}

func (r *Report) cell(c *Case, m Metric, ratio bool, first float64) string {
	mid, low, high, ok := c.Median(m.Key)
	if !ok {
		return "–"
	}
	text := m.Unit.format(mid)
	if r.Repeat > 1 && low != high {
		text += fmt.Sprintf(" [%s–%s]", strings.Fields(m.Unit.format(low))[0], strings.Fields(m.Unit.format(high))[0])
	}
	if ratio && first > 0 && mid > 0 && m.Unit != Count {
		text += fmt.Sprintf(" ×%.2f", mid/first)
	}
	return text
}

// writeColumns writes rows as a Markdown table whose columns are aligned.
func writeColumns(b *strings.Builder, rows [][]string) {
	widths := make([]int, len(rows[0]))
	for _, row := range rows {
		for i, text := range row {
			widths[i] = max(widths[i], utf8.RuneCountInString(text))
		}
	}
	for n, row := range rows {
		for i, text := range row {
			pad := strings.Repeat(" ", widths[i]-utf8.RuneCountInString(text))
			if i == 0 {
				fmt.Fprintf(b, "| %s%s |", text, pad)
			} else {
				fmt.Fprintf(b, " %s%s |", pad, text)
			}
		}
		b.WriteByte('\n')
		if n == 0 {
			for i, width := range widths {
				switch i {
				case 0:
					fmt.Fprintf(b, "|%s|", strings.Repeat("-", width+2))
				default:
					fmt.Fprintf(b, "%s:|", strings.Repeat("-", width+1))
				}
			}
			b.WriteByte('\n')
		}
	}
}

// WriteJSON writes every run and the medians.
func (r *Report) WriteJSON(w io.Writer) error {
	type jsonCase struct {
		Name     string               `json:"name"`
		Flags    map[string]string    `json:"flags"`
		Median   map[string]float64   `json:"median"`
		Runs     []map[string]float64 `json:"runs"`
		Warnings []string             `json:"warnings,omitempty"`
	}
	type jsonCheck struct {
		Text   string `json:"text"`
		Passed bool   `json:"passed"`
		Detail string `json:"detail"`
	}
	out := struct {
		Scenario string      `json:"scenario"`
		Began    time.Time   `json:"began"`
		System   System      `json:"system"`
		Cases    []jsonCase  `json:"cases"`
		Checks   []jsonCheck `json:"checks,omitempty"`
	}{Scenario: r.Scenario, Began: r.Began.UTC().Truncate(time.Second), System: r.System}
	for _, c := range r.Cases {
		j := jsonCase{Name: c.Name, Flags: c.Flags, Median: map[string]float64{}, Warnings: c.warnings()}
		for _, m := range keys([]*Case{c}) {
			mid, _, _, _ := c.Median(m.Key)
			j.Median[m.Key] = rounded(mid)
		}
		for i := range c.Runs {
			values := map[string]float64{}
			for _, m := range c.Runs[i].Metrics {
				values[m.Key] = rounded(m.Value)
			}
			j.Runs = append(j.Runs, values)
		}
		out.Cases = append(out.Cases, j)
	}
	for _, c := range r.Checks {
		out.Checks = append(out.Checks, jsonCheck(c))
	}
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(out)
}

// rounded keeps six digits, more than anything here is worth.
func rounded(v float64) float64 {
	if v == 0 || math.IsNaN(v) || math.IsInf(v, 0) {
		return 0
	}
	scale := math.Pow(10, 5-math.Floor(math.Log10(math.Abs(v))))
	return math.Round(v*scale) / scale
}
