// Package foreign reads apps as other servers keep them, Soketi and Laravel
// Reverb, and tells what became of each of their settings.
package foreign

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"sockudo/internal/app"
)

// An Imported is an app of another server as one of this.
type Imported struct {
	App    *app.App
	Mapped []Mapping // what is kept, in the order of the members of an app
	Left   []Mapping // what is not, without To
}

// A Mapping is what became of one setting. It never holds a secret.
type Mapping struct {
	From string // as the other server calls it
	To   string // the member of an app
	Note string // what is different, or why it is not kept; may be empty
}

func (im *Imported) mapped(from, to, note string) {
	im.Mapped = append(im.Mapped, Mapping{from, to, note})
}

func (im *Imported) left(from, why string) { im.Left = append(im.Left, Mapping{From: from, Note: why}) }

// limit turns a limit of another server, where 0 lets nothing through and a
// negative one everything, into one of ours, where 0 is no limit.
func limit(text string) (n uint32, note string, err error) {
	f, err := strconv.ParseFloat(strings.TrimSpace(text), 64)
	switch {
	case err != nil || math.IsNaN(f):
		return 0, "", fmt.Errorf("is %q, want a number", clip(text))
	case f < 0:
		return 0, "no limit", nil
	case f == 0:
		return 1, "0 lets nothing through there and everything here; 1 is used", nil
	case f > math.MaxUint32:
		return math.MaxUint32, "the largest that there is", nil
	case f != math.Trunc(f):
		return uint32(math.Ceil(f)), "rounded up", nil
	}
	return uint32(f), "", nil
}

// boolean reads true, false and what dotenv files and PHP have for them.
func boolean(text string) (bool, error) {
	switch strings.ToLower(strings.Trim(strings.TrimSpace(text), "()")) {
	case "true", "1", "yes", "on":
		return true, nil
	case "false", "0", "no", "off", "", "null":
		return false, nil
	}
	return false, fmt.Errorf("is %q, want true or false", clip(text))
}

func clip(s string) string {
	const most = 60
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "…"
}
