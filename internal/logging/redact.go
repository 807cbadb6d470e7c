package logging

import (
	"regexp"
	"strings"
)

const mask = "***"

// RedactURL returns the URL s with its credentials masked:
// scheme://user:secret@host becomes scheme://***@host. It masks too much
// rather than too little where s is malformed, such as a password that holds
// unescaped slashes or blanks.
func RedactURL(s string) string {
	scheme, rest, ok := strings.Cut(s, "://")
	if !ok {
		scheme, rest = "", s
	} else {
		scheme += "://"
	}
	if at := strings.LastIndexByte(rest, '@'); at >= 0 {
		rest = mask + rest[at:]
	}
	return scheme + redactQuery(rest)
}

// RedactText returns the message s with the credentials of every URL in it
// masked. Within a message a URL ends at a blank, a quote or a comma.
func RedactText(s string) string {
	if !strings.Contains(s, "://") {
		return s
	}
	return urlInText.ReplaceAllStringFunc(s, RedactURL)
}

var (
	urlInText   = regexp.MustCompile(`[A-Za-z][A-Za-z0-9+.-]*://[^\s"'<>,]+`)
	secretQuery = regexp.MustCompile(`(?i)([?&](?:pass|password|pwd|secret|token|auth|auth_signature)=)[^&#\s]*`)
)

func redactQuery(s string) string { return secretQuery.ReplaceAllString(s, "${1}"+mask) }
