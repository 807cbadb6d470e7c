package foreign

import (
	"bytes"
	"encoding/json"
	"errors"
	"path/filepath"
	"strings"

	"sockudo/internal/app"
)

// A Format is how a file holds apps.
type Format string

// The formats that Detect knows.
const (
	FormatSockudo Format = "sockudo" // a settings file, JSON or TOML, or a list of apps in JSON
	FormatSoketi  Format = "soketi"  // JSON
	FormatEnv     Format = "env"     // NAME=value by line, of Soketi or Reverb
)

// Detect tells the format of a file from its name, which may be empty, and its
// content.
func Detect(name string, data []byte) (Format, error) {
	base := strings.ToLower(filepath.Base(name))
	trimmed := bytes.TrimPrefix(bytes.TrimSpace(data), []byte("\xef\xbb\xbf"))
	switch {
	case strings.HasSuffix(base, ".toml"):
		return FormatSockudo, nil
	case json.Valid(trimmed):
		return detectJSON(trimmed), nil
	case strings.HasSuffix(base, ".json"):
		return FormatSockudo, nil // whose reader tells the line that is wrong
	case strings.HasPrefix(base, ".env") || strings.HasSuffix(base, ".env"):
		return FormatEnv, nil
	}
	if vars, err := Dotenv(data); err == nil && hasApp(vars) {
		return FormatEnv, nil
	}
	return "", errors.New("cannot be told by its content: it is no JSON, its name does not end in .toml or .env, and it sets no REVERB_APP_ID or SOKETI_DEFAULT_APP_ID")
}

func hasApp(vars map[string]string) bool {
	for _, name := range []string{"REVERB_APP_ID", "SOKETI_DEFAULT_APP_ID", "DEFAULT_APP_ID"} {
		if vars[name] != "" {
			return true
		}
	}
	return false
}

func detectJSON(data []byte) Format {
	var list []map[string]json.RawMessage
	if json.Unmarshal(data, &list) != nil {
		if _, err := soketiList(data); err == nil {
			return FormatSoketi
		}
		return FormatSockudo
	}
	// Of a mere list only the names of members tell.
	theirs := map[string]bool{}
	for _, l := range soketiLimits {
		for _, n := range l.names {
			theirs[n] = true
		}
	}
	for _, members := range list {
		for _, c := range app.Columns() {
			if _, there := members[c.Name]; there && strings.Contains(c.Name, "_") && !theirs[c.Name] && c.Name != "enable_client_messages" && c.Name != "enable_user_authentication" {
				return FormatSockudo
			}
		}
	}
	return FormatSoketi
}
