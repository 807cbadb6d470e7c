package bench

import (
	"fmt"
	"strconv"
	"strings"
)

// A Check is a requirement and whether it holds.
type Check struct {
	Text   string
	Passed bool
	Detail string // the numbers
}

// A requirement is 'METRIC<=NUMBER', with a case before the metric and a factor
// behind the number if wanted: 'ours.server_us_per_message<=1.4*floor'.
type requirement struct {
	text     string
	name     string // of the case; "": every one but that which it is compared with
	key      string
	op       string
	number   float64
	otherKey string
	other    string // case that the number is multiplied with; "": none
}

func parseRequirement(text string) (r requirement, err error) {
	bad := func(why string) (requirement, error) {
		return r, fmt.Errorf("--require %q: %s; it must be like 'METRIC<=NUMBER' or 'CASE.METRIC<=NUMBER*CASE.METRIC'", text, why)
	}
	r.text = text
	var left, right string
	for _, op := range []string{"<=", ">=", "==", "<", ">"} {
		var ok bool
		if left, right, ok = strings.Cut(text, op); ok {
			r.op = op
			break
		}
	}
	if r.op == "" {
		return bad("there is no comparison")
	}
	left, right = strings.TrimSpace(left), strings.TrimSpace(right)
	r.key = left
	if name, key, ok := strings.Cut(left, "."); ok {
		r.name, r.key = name, key
	}
	number, other, ok := strings.Cut(right, "*")
	if r.number, err = strconv.ParseFloat(strings.TrimSpace(number), 64); err != nil {
		return bad("there is no number")
	}
	if r.key == "" || ok && strings.TrimSpace(other) == "" {
		return bad("a name is missing")
	}
	if ok {
		r.other, r.otherKey = strings.TrimSpace(other), r.key
		if name, key, ok := strings.Cut(r.other, "."); ok {
			r.other, r.otherKey = name, key
		}
	}
	return r, nil
}

// check compares the medians. What was not measured does not pass.
func (r requirement) check(rep *Report) []Check {
	bound, right := r.number, fmt.Sprintf("%g", r.number)
	if r.other != "" {
		c := rep.find(r.other)
		if c == nil {
			return []Check{{r.text, false, "there is no case " + r.other}}
		}
		v, _, _, ok := c.Median(r.otherKey)
		if !ok {
			return []Check{{r.text, false, r.otherKey + " of " + r.other + " was not measured"}}
		}
		bound *= v
		right = fmt.Sprintf("%.4g = %g × %.4g of %s", bound, r.number, v, r.other)
	}
	var all []Check
	for _, c := range rep.Cases {
		itself := c.Name == r.other && r.key == r.otherKey
		if r.name != "" && c.Name != r.name || r.name == "" && itself {
			continue
		}
		v, _, _, ok := c.Median(r.key)
		if !ok {
			all = append(all, Check{r.text, false, r.key + " of " + c.Name + " was not measured"})
			continue
		}
		all = append(all, Check{r.text, compare(v, r.op, bound), fmt.Sprintf("%s: %.4g %s %s", c.Name, v, r.op, right)})
	}
	if len(all) == 0 {
		all = append(all, Check{r.text, false, "there is no case " + r.name})
	}
	return all
}

func compare(a float64, op string, b float64) bool {
	switch op {
	case "<=":
		return a <= b
	case ">=":
		return a >= b
	case "<":
		return a < b
	case ">":
		return a > b
	}
	return a == b
}
