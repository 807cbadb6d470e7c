package origin

import (
	"errors"
	"strings"
	"testing"
)

func TestPatternsMatchAsTheTableSays(t *testing.T) {
	const missing = "\x00missing"
	for _, c := range []struct {
		patterns string // separated by blanks
		allow    string
		deny     string
	}{
		{"https://example.com", "https://example.com HTTPS://Example.COM https://example.com/ https://example.com:443",
			"http://example.com https://example.com:8443 https://www.example.com example.com"},
		{"https://example.com/", "https://example.com https://example.com/", "https://example.com/x"},
		{"https://example.com:443", "https://example.com https://example.com:443", "https://example.com:4430 http://example.com"},
		{"http://example.com:80", "http://example.com http://example.com:80", "http://example.com:8080 https://example.com"},
		{"https://example.com:80", "https://example.com:80", "https://example.com"},
		{"HTTPS://EXAMPLE.com", "https://example.com", "http://example.com"},
		{"example.com", "http://example.com https://example.com example.com https://example.com:443",
			"https://example.com:3000 https://api.example.com https://example.com.evil.org"},
		{"example.com:443", "https://example.com:443", "https://example.com:444"},
		{"localhost:3000", "http://localhost:3000", "http://localhost:3001 http://localhost"},
		{"*.example.com", "https://a.example.com http://x.y.example.com https://example.com",
			"https://example.org https://badexample.com https://a.example.com:8443 https://example.com.evil.org"},
		{"*.example.com:8443", "https://a.example.com:8443 https://example.com:8443", "https://a.example.com"},
		{"https://*.example.com", "https://a.example.com https://a.b.example.com", "https://example.com http://a.example.com"},
		{"https://*.example.com:443", "https://a.example.com", "https://a.example.com:8443"},
		{"https://*:443", "https://a.example:443", "https://a.example:8443 http://a.example:443"},
		{"https://*", "https://a.example:8443", "http://a.example"},
		{"https://ab*ba.com", "https://abba.com https://ab-ba.com", "https://aba.com"},
		{"*://example.com", "https://example.com", "https://www.example.com"},
		{"localhost:*", "http://localhost:5173", "http://localhost http://localhost.evil.org:1"},
		{"app-*.example.com", "https://app-7.example.com", "https://app7.example.com https://app-7.example.org"},
		{"null", "null", "https://example.com " + missing},
		{"*", "https://example.com null " + missing, ""},
		{"any", "https://example.com " + missing, ""},
		{"https://other.org *", missing, ""},
		{"https://a.com b.com", "https://a.com http://b.com", "http://a.com " + missing},
		{"http://[::1]:80", "http://[::1]", "http://[::1]:81"},
		{"k.example", "https://k.example", "https://\u212a.example"},
	} {
		l, err := Parse(strings.Fields(c.patterns))
		if err != nil {
			t.Errorf("Parse(%q): %v", c.patterns, err)
			continue
		}
		check := func(origins string, want bool) {
			for _, o := range strings.Fields(origins) {
				present := o != missing
				if !present {
					o = ""
				}
				if got := l.Allows(o, present); got != want {
					t.Errorf("%q allows origin %q (present %v): got %v, want %v", c.patterns, o, present, got, want)
				}
			}
		}
		check(c.allow, true)
		check(c.deny, false)
	}
}

func TestEmptyListAllowsEverything(t *testing.T) {
	for _, patterns := range [][]string{nil, {}} {
		l, err := Parse(patterns)
		if err != nil || l != nil {
			t.Fatalf("Parse(%v) = %v, %v; want nil, nil", patterns, l, err)
		}
		if !l.Allows("https://x.example", true) || !l.Allows("", false) {
			t.Errorf("list %v does not allow everything", patterns)
		}
	}
}

func TestEmptyOriginIsTreatedLikeAMissingOne(t *testing.T) {
	l, err := Parse([]string{"https://*", "*.example.com"})
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range []string{"", " ", "/"} {
		if l.Allows(o, true) {
			t.Errorf("origin %q is allowed", o)
		}
	}
}

var badPatterns = []string{
	"", "  ", "/", "**", "*.*.com", "https://*.*", "*.", "*.:80", "*..example.com", "*.a..b", "*.example.com.",
	"*.example.com.:80", "://example.com", "https://", "https:///", "https://*.", "*/",
}

func TestBadPatternsAreNamedWithTheReason(t *testing.T) {
	for _, text := range badPatterns {
		_, err := Parse([]string{"https://ok.example", text})
		e, ok := errors.AsType[*Error](err)
		if !ok {
			t.Errorf("Parse(%q): error %v, want *Error", text, err)
			continue
		}
		if e.Index != 1 || e.Pattern != text || e.Reason == "" || !strings.Contains(err.Error(), e.Reason) {
			t.Errorf("Parse(%q): %+v", text, e)
		}
	}
}

func TestLenientListNeverWidens(t *testing.T) {
	l, errs := ParseLenient(badPatterns)
	if len(errs) != len(badPatterns) {
		t.Fatalf("%d errors, want %d", len(errs), len(badPatterns))
	}
	if l == nil || l.Allows("https://example.com", true) || l.Allows("", false) {
		t.Error("a list of bad patterns allows an origin")
	}
	l, errs = ParseLenient([]string{"**", "good.example"})
	if len(errs) != 1 || !l.Allows("https://good.example", true) || l.Allows("https://bad.example", true) {
		t.Errorf("the good pattern alone should count; errors %v", errs)
	}
}

func FuzzPatterns(f *testing.F) {
	for _, p := range []string{"*", "https://example.com", "*.example.com:8443", "localhost:*", "https://*:443", "any", "null"} {
		f.Add(p, "https://a.example.com:443")
		f.Add(p, "")
	}
	for _, p := range badPatterns {
		f.Add(p, "https://example.com")
	}
	f.Fuzz(func(t *testing.T, text, origin string) {
		l, errs := ParseLenient([]string{text})
		allowed := l.Allows(origin, true)
		if len(errs) > 0 && allowed {
			t.Fatalf("bad pattern %q allows %q", text, origin)
		}
		if all := len(errs) == 0 && l.Allows("", false); all {
			if s := lower(strings.TrimSpace(text)); s != "*" && s != "any" {
				t.Fatalf("pattern %q allows a missing origin", text)
			}
		}
		if len(errs) == 0 && !strings.Contains(text, "*") && strings.Contains(text, "://") && !l.Allows(text, true) {
			t.Fatalf("pattern %q does not allow itself", text)
		}
	})
}

func BenchmarkAllows(b *testing.B) {
	l, err := Parse([]string{"https://example.com", "*.example.net", "localhost:*"})
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if !l.Allows("http://localhost:5173", true) {
			b.Fatal("denied")
		}
	}
}
