package redisconn

import (
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestURLsOfAllFormsAreRead(t *testing.T) {
	for raw, want := range map[string]Endpoint{
		"redis://h":                        {Network: "tcp", Addrs: []string{"h:6379"}},
		" redis://h:7000/3 ":               {Network: "tcp", Addrs: []string{"h:7000"}, DB: 3},
		"redis://:pw@h":                    {Network: "tcp", Addrs: []string{"h:6379"}, Password: "pw"},
		"redis://u:p%40%2F%20%23w@h/0":     {Network: "tcp", Addrs: []string{"h:6379"}, Username: "u", Password: "p@/ #w"},
		"redis://u@h":                      {Network: "tcp", Addrs: []string{"h:6379"}, Username: "u"},
		"rediss://h":                       {Network: "tcp", Addrs: []string{"h:6379"}, TLS: true},
		"rediss://h:1/#insecure":           {Network: "tcp", Addrs: []string{"h:1"}, TLS: true, Insecure: true},
		"redis://h:1#insecure":             {Network: "tcp", Addrs: []string{"h:1"}},
		"redis://[::1]:7000":               {Network: "tcp", Addrs: []string{"[::1]:7000"}},
		"redis://[::1]":                    {Network: "tcp", Addrs: []string{"[::1]:6379"}},
		"unix:///run/r.sock":               {Network: "unix", Addrs: []string{"/run/r.sock"}},
		"unix:///run/r.sock?db=2&pass=x":   {Network: "unix", Addrs: []string{"/run/r.sock"}, DB: 2, Password: "x"},
		"redis+unix:///r.sock?user=u&db=0": {Network: "unix", Addrs: []string{"/r.sock"}, Username: "u"},
	} {
		got, err := Parse(raw)
		if err != nil {
			t.Errorf("%q: %v", raw, err)
		} else if got, want := fmt.Sprint(fields(got)), fmt.Sprint(fields(want)); got != want {
			t.Errorf("%q: %s", raw, cmp.Diff(want, got))
		}
	}
}

// fields shows what the endpoint itself hides.
func fields(e Endpoint) []any {
	return []any{e.Network, e.Addrs, e.Cluster, e.Master, e.TLS, e.Insecure, e.Username, e.Password, e.DB}
}

func TestABadURLIsNotRepeated(t *testing.T) {
	for _, raw := range []string{
		"", "h:6379", "http://u:geheim@h", "redis://", "redis://:geheim@", "redis://u:geheim@h:0", "redis://u:geheim@h:65536",
		"redis://u:geheim@h:x", "redis://u:geheim@h/x", "redis://u:geheim@h/-1", "redis://u:gehe im@h\x7f", "redis://u:geheim%@h",
		"unix://geheim", "unix:///", "unix:///s?db=geheim", "redis://h/99999999999",
	} {
		_, err := Parse(raw)
		if err == nil {
			t.Errorf("%q was accepted", raw)
		} else if strings.Contains(err.Error(), "geheim") {
			t.Errorf("the error repeats a password: %v", err)
		}
	}
}

func TestAnEndpointPrintsWithoutCredentials(t *testing.T) {
	e := Endpoint{Addrs: []string{"h:1"}, Master: "m", Username: "u", Password: "geheim", SentinelPassword: "geheimer", DB: 4, TLS: true}
	var log strings.Builder
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "redis", e)
	for _, s := range []string{fmt.Sprint(e), fmt.Sprintf("%+v", e), fmt.Sprintf("%#v", e), fmt.Sprintf("%v", []Endpoint{e}), log.String()} {
		if strings.Contains(s, "geheim") || !strings.Contains(s, "h:1") {
			t.Errorf("printed %q, want the address and no password", s)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("redis://u:p@h:1/2")
	f.Add("unix:///x?db=1")
	f.Fuzz(func(t *testing.T, raw string) {
		e, err := Parse(raw)
		if err != nil {
			return
		}
		if len(e.Addrs) != 1 || e.Addrs[0] == "" || e.DB < 0 {
			t.Errorf("%q gives %v", raw, fields(e))
		}
		if e.Password != "" && len(e.Password) > 12 && strings.Contains(e.String(), e.Password) && !strings.Contains(e.Addrs[0], e.Password) {
			t.Errorf("%q prints its password", raw)
		}
	})
}
