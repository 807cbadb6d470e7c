package cluster

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"
)

// topics are the names of the topics of one cluster.
type topics struct {
	channels  string // beginning of those of channels
	nodes     string // beginning of those of nodes
	directory string
	control   string
	beacon    string // shared by all clusters of a prefix
}

func newTopics(prefix, cluster string) topics {
	p := escape(strings.TrimRight(prefix, ":"))
	base := p + ":" + escape(cluster)
	return topics{
		channels:  base + ":c:",
		nodes:     base + ":n:",
		directory: base + ":directory",
		control:   base + ":control",
		beacon:    p + ":beacon",
	}
}

func (t *topics) channel(app, channel string) string {
	name := t.channels + escape(app) + ":" + channel
	if len(name) <= MaxTopic && printableASCII(channel) {
		return name
	}
	sum := sha256.Sum256([]byte(app + "\x00" + channel))
	return t.channels + "=" + hex.EncodeToString(sum[:])
}

// everywhere reports whether a channel is a topic that is of interest to nodes
// without subscriptions to it: of a user, or of the nodes themselves.
func everywhere(channel string) bool { return strings.HasPrefix(channel, "#") }

func (t *topics) node(id string) string { return t.nodes + escape(id) }

func printableASCII(s string) bool {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}

// escape makes a name part of a topic: without colons, which divide, and
// without an equals sign in front, which marks a digest.
func escape(s string) string {
	plain := true
	for i := range len(s) {
		plain = plain && s[i] > ' ' && s[i] <= '~' && s[i] != ':' && s[i] != '%' && s[i] != '='
	}
	if plain {
		return s
	}
	const digits = "0123456789ABCDEF"
	var b strings.Builder
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c > '~' || c == ':' || c == '%' || c == '=' {
			b.WriteByte('%')
			b.WriteByte(digits[c>>4])
			b.WriteByte(digits[c&15])
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}
