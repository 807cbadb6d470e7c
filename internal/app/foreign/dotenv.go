package foreign

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"regexp"
	"strings"
)

var (
	assignment = regexp.MustCompile(`^\s*(?:export\s+)?([A-Za-z_][A-Za-z0-9_.]*)\s*=\s*(.*)$`)
	variable   = regexp.MustCompile(`\$\{([A-Za-z_][A-Za-z0-9_.]*)\}`)
)

// Dotenv reads an .env file: NAME=value by line, values bare, in '…' as they
// are or in "…" with \n, \" and \\; comments behind #; ${NAME} for a variable
// that was set further above. The error names the line and no value.
func Dotenv(data []byte) (map[string]string, error) {
	vars := map[string]string{}
	lines := bufio.NewScanner(bytes.NewReader(bytes.TrimPrefix(data, []byte("\xef\xbb\xbf"))))
	lines.Buffer(nil, 1<<20)
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" || line[0] == '#' {
			continue
		}
		m := assignment.FindStringSubmatch(line)
		if m == nil {
			return nil, fmt.Errorf("line %d: expected NAME=value", n)
		}
		value, ok := dotenvValue(m[2], vars)
		if !ok {
			return nil, fmt.Errorf("line %d: the value of %s has no closing quote", n, m[1])
		}
		vars[m[1]] = value
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("a line is longer than 1 MiB: %w", err)
	}
	return vars, nil
}

func dotenvValue(text string, vars map[string]string) (value string, ok bool) {
	expand := func(s string) string {
		return variable.ReplaceAllStringFunc(s, func(ref string) string {
			if v, ok := vars[ref[2:len(ref)-1]]; ok {
				return v
			}
			return os.Getenv(ref[2 : len(ref)-1])
		})
	}
	switch {
	case text == "":
		return "", true
	case text[0] == '\'':
		value, _, ok = strings.Cut(text[1:], "'")
		return value, ok
	case text[0] == '"':
		var b strings.Builder
		for i := 1; i < len(text); i++ {
			switch c := text[i]; {
			case c == '"':
				return expand(b.String()), true
			case c == '\\' && i+1 < len(text):
				i++
				switch text[i] {
				case 'n':
					b.WriteByte('\n')
				case '"', '\\', '$':
					b.WriteByte(text[i])
				default:
					b.WriteString(text[i-1 : i+1])
				}
			default:
				b.WriteByte(c)
			}
		}
		return "", false
	}
	if i := strings.Index(text, " #"); i >= 0 {
		text = text[:i]
	}
	return expand(strings.TrimSpace(text)), true
}
