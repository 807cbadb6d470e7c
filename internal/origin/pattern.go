package origin

import "strings"

type form uint8

const (
	everything   form = iota // *
	exact                    // scheme://host[:port], or anything without a scheme in the same words
	onHost                   // host[:port], any scheme
	subdomains               // *.domain[:port], any scheme
	wildcard                 // one * in an origin with a scheme
	hostWildcard             // one * in host[:port]
)

type pattern struct {
	form           form
	text           string // lower case, normalised
	prefix, suffix string // around the *
}

// parse returns the pattern or the reason why text is none.
func parse(text string) (pattern, string) {
	text = lower(strings.TrimSpace(text))
	switch text {
	case "":
		return pattern{}, "is empty"
	case "*", "any":
		return pattern{form: everything}, ""
	}
	p := split(text)
	if reason := p.fault(); reason != "" {
		return pattern{}, reason
	}
	p = p.withoutDefaultPort()
	text = p.String()
	prefix, suffix, wild := strings.Cut(text, "*")
	domain, below := strings.CutPrefix(p.host, "*.")
	switch {
	case !wild && p.hasScheme:
		return pattern{form: exact, text: text}, ""
	case !wild:
		return pattern{form: onHost, text: text}, ""
	case below && !p.hasScheme:
		return pattern{form: subdomains, text: domain, suffix: "." + domain}, ""
	case p.hasScheme:
		return pattern{form: wildcard, prefix: prefix, suffix: suffix}, ""
	default:
		return pattern{form: hostWildcard, prefix: prefix, suffix: suffix}, ""
	}
}

// fault returns what makes p unusable as a pattern, else "".
func (p parts) fault() string {
	switch {
	case p.hasScheme && p.scheme == "":
		return "has no scheme before ://"
	case p.hasScheme && p.host == "":
		return "has no host after ://"
	case p.host == "":
		return "is empty"
	case !p.hasScheme && p.host == "*":
		return `allows everything: write "*" alone if that is meant`
	case strings.Count(p.scheme, "*")+strings.Count(p.host, "*") > 1:
		return "has more than one *"
	}
	domain, ok := strings.CutPrefix(p.host, "*.")
	if !ok {
		return ""
	}
	domain, _, _ = strings.Cut(domain, ":")
	switch {
	case domain == "":
		return "has no domain after *."
	case strings.Contains(domain, ".."):
		return "has an empty label (..)"
	case strings.HasPrefix(domain, "."), strings.HasSuffix(domain, "."):
		return "has a domain that begins or ends with a dot"
	}
	return ""
}

func (p *pattern) matches(o parts) bool {
	switch p.form {
	case everything:
		return true
	case exact:
		return o.hasScheme && o.equals(p.text)
	case onHost:
		return o.host == p.text && o.host != ""
	case subdomains:
		return o.hasScheme && (o.host == p.text || strings.HasSuffix(o.host, p.suffix))
	case wildcard:
		return o.hasScheme && around(o.String(), p.prefix, p.suffix)
	case hostWildcard:
		return o.hasScheme && around(o.host, p.prefix, p.suffix)
	}
	return false
}

// equals is o.String() == text without building the string.
func (p parts) equals(text string) bool {
	n := len(p.scheme)
	return len(text) == n+len("://")+len(p.host) &&
		text[:n] == p.scheme && text[n:n+len("://")] == "://" && text[n+len("://"):] == p.host
}

// around reports whether s is prefix, any text, suffix, without overlap.
func around(s, prefix, suffix string) bool {
	return len(s) >= len(prefix)+len(suffix) &&
		strings.HasPrefix(s, prefix) && strings.HasSuffix(s, suffix)
}
