package bench

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func sampleReport() *Report {
	rep := &Report{
		Scenario: "fanout", Began: time.Unix(1_700_000_000, 0), Repeat: 3,
		System: System{OS: "linux/amd64", Kernel: "6.1", CPU: "CPU", CPUs: 2, Go: "go1.26"},
		Cases:  []*Case{{Name: "floor", Flags: map[string]string{"floor": "true"}}, {Name: "ours", Flags: map[string]string{"serve": "true"}}},
	}
	for i, values := range [][2]float64{{4, 6}, {5, 5.5}, {3, 60}} {
		for j, c := range rep.Cases {
			var r Run
			r.add("lost", "lost", Count, 0)
			r.add("server_us_per_message", "server CPU per message", Micros, values[j])
			if j == 1 {
				r.add("answer_p50_ms", "API answer p50", Millis, 0.25)
				r.warn("late by %d.5 ms", i)
			}
			c.Runs = append(c.Runs, r)
		}
	}
	return rep
}

func TestTable(t *testing.T) {
	rep := sampleReport()
	rep.Checks = []Check{{"lost==0", true, "ours: 0 == 0"}}
	var b bytes.Buffer
	if err := rep.WriteTable(&b); err != nil {
		t.Fatal(err)
	}
	want := `fanout, 2023-11-14T22:13:20Z, linux/amd64 6.1, 2 × CPU, go1.26
floor: floor=true
ours: serve=true

| median of 3 runs       |               floor |                       ours |
|------------------------|--------------------:|---------------------------:|
| lost                   |                   0 |                          0 |
| server CPU per message | 4.00 µs [3.00–5.00] | 6.00 µs [5.50–60.0] ×1.50 |
| API answer p50         |                   – |                   0.250 ms |

ours: late by 0.5 ms (and so in 3 runs)
holds  lost==0 (ours: 0 == 0)
`
	// Columns are as wide as their widest cell.
	squeeze := func(s string) string { return strings.Join(strings.Fields(strings.ReplaceAll(s, "-", "")), " ") }
	if diff := cmp.Diff(squeeze(want), squeeze(b.String())); diff != "" {
		t.Error(diff)
	}
	lines := strings.Split(b.String(), "\n")
	if len([]rune(lines[4])) != len([]rune(lines[7])) {
		t.Errorf("the columns are not aligned:\n%s", b.String())
	}
}

func TestJSONHasRunsAndMedians(t *testing.T) {
	var b bytes.Buffer
	if err := sampleReport().WriteJSON(&b); err != nil {
		t.Fatal(err)
	}
	var got struct {
		Scenario string
		System   struct{ CPUs int }
		Cases    []struct {
			Name   string
			Median map[string]float64
			Runs   []map[string]float64
		}
	}
	if err := json.Unmarshal(b.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	if got.Scenario != "fanout" || got.System.CPUs != 2 || len(got.Cases) != 2 || len(got.Cases[1].Runs) != 3 ||
		got.Cases[1].Median["server_us_per_message"] != 6 || got.Cases[0].Runs[2]["server_us_per_message"] != 3 {
		t.Errorf("%s", b.String())
	}
}

func TestRequirements(t *testing.T) {
	rep := sampleReport()
	for text, want := range map[string][]bool{
		"lost==0":                                         {true, true},
		"ours.lost==0":                                    {true},
		"server_us_per_message<=5":                        {true, false},
		"ours.server_us_per_message<=1.5*floor":           {true},
		"ours.server_us_per_message<=1.4*floor":           {false},
		"server_us_per_message < 1.6*floor":               {true},
		"ours.answer_p50_ms>=0.1*floor.lost":              {true},
		"answer_p50_ms<1*ours.server_us_per_message":      {false, true},
		"theirs.lost==0":                                  {false},
		"nothing<=1":                                      {false, false},
		"ours.lost<=1*theirs":                             {false},
		"ours.lost<=1*floor.nothing":                      {false},
		"ours.server_us_per_message>1*ours.answer_p50_ms": {true},
	} {
		r, err := parseRequirement(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		var got []bool
		for _, c := range r.check(rep) {
			got = append(got, c.Passed)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: %s", text, diff)
		}
	}
}

func TestNumbersForPeople(t *testing.T) {
	for _, c := range []struct {
		unit  Unit
		value float64
		want  string
	}{
		{Count, 1234567, "1,234,567"}, {Count, 0, "0"}, {Count, -1234, "-1,234"}, {PerSec, 12.34, "12.3 /s"}, {PerSec, 19998, "19,998 /s"},
		{Micros, 5.678, "5.68 µs"}, {Micros, 0.1234, "0.123 µs"}, {Millis, 12.345, "12.3 ms"}, {Millis, 1234.5, "1,234 ms"},
		{Percent, 99.96, "100.0 %"}, {Megabyte, 20.04, "20.0 MiB"}, {Kilobyte, 1.934, "1.93 KiB"}, {Seconds, 1.5, "1.50 s"},
	} {
		if got := c.unit.format(c.value); got != c.want {
			t.Errorf("%v is %q, want %q", c.value, got, c.want)
		}
	}
}

func TestCollectionsAreReadFromTheTrace(t *testing.T) {
	all := collections(`starting
gc 1 @0.012s 2%: 0.026+0.39+0.10 ms clock, 0.053+0.12/0.32/0.021+0.20 ms cpu, 3->4->1 MB, 4 MB goal, 0 MB stacks, 0 MB globals, 2 P
gc 12 @120.5s 0%: 0.5+6+0.25 ms clock, 1+1/1/1+1 ms cpu, 30->31->28 MB, 60 MB goal, 0 MB stacks, 0 MB globals, 1 P (forced)
`)
	want := []collection{{1, 0.516, [2]float64{0.026, 0.10}}, {12, 6.75, [2]float64{0.5, 0.25}}}
	if diff := cmp.Diff(want, all, cmp.AllowUnexported(collection{})); diff != "" {
		t.Error(diff)
	}
}
