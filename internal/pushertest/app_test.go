package pushertest

import (
	"net/http"
	"strings"
	"testing"
	"time"
)

var (
	appA = App{ID: "3", Key: "278d425bdf160c739803", Secret: "7ad3773142a6692b25b8"}
	appB = App{ID: "app-id", Key: "app-key", Secret: "app-secret"}
)

func TestChannelSignaturesAreThoseOfTheSpecification(t *testing.T) {
	for _, tt := range []struct {
		app               App
		socket, channel   string
		channelData, want string // channelData "-": none
	}{
		{appA, "1234.1234", "private-foobar", "-", "58df8b0c36d6982b82c3ecf6b4662e34fe8c25bba48f5369f135bf843651c3a4"},
		{appA, "1234.1234", "presence-foobar", `{"user_id":10,"user_info":{"name":"Mr. Channels"}}`, "31935e7d86dba64c2a90aed31fdc61869f9b22ba9d8863bba239c03ca481bc80"},
		{appB, "1234.5678", "private-room", "-", "eac53072418f048540e99a8514ba31f8f84de872c812c2511c014ab7da4cd25f"},
		{appB, "1234.5678", "private-room", "", "af54ee757f4ae5b0bd1ab8cba243b6bd3c36c8263fe1c1d3ad532be9b2bc4935"},
		{appB, "1234.5678", "presence-room", `{"user_id":"zoë","user_info":{"name":"Zoë \"Z\" O'Neil"}}`, "9d9456a7cf890e4876b0a3aee4898870cf8f71375c81a653b34fa0fdb2e97327"},
		{appB, "1234.5678", "presence-room", "-", "1e6f4f8e0dbf2085899e0207d29d988d1520b07be0f3fb4d8e2e740298620815"},
	} {
		var data []string
		if tt.channelData != "-" {
			data = []string{tt.channelData}
		}
		if got, want := tt.app.SignChannel(tt.socket, tt.channel, data...), tt.app.Key+":"+tt.want; got != want {
			t.Errorf("%s %s: got %s, want %s", tt.channel, tt.channelData, got, want)
		}
	}
}

func TestUserSignaturesAreThoseOfTheSpecification(t *testing.T) {
	const want = "app-key:37d2ff197c544746593b322981554be4fb3e25eecb4420e4a3ccc31297eb842e"
	if got := appB.SignUser("1234.5678", `{"id":"42","user_info":{"name":"Ann"},"watchlist":["7","8"]}`); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestRequestSignaturesAreThoseOfTheSpecification(t *testing.T) {
	for _, tt := range []struct {
		name string
		app  App
		at   int64
		call Call
		want string
	}{
		{"app A", appA, 1353088179,
			Call{Path: "/apps/3/events", Body: `{"name":"foo","channels":["project-3"],"data":"{\"some\":\"data\"}"}`},
			"da454824c97ba181a32ccc17a72625ba02771f50b50e1e7430e47a1f3f457e6c"},
		{"UTF-8", appB, 1700000000,
			Call{Path: "/apps/app-id/events", Body: `{"name":"greet","channel":"caf-é","data":"☃"}`},
			"4a40f4b0d5e058171923dfc82b1a9de78797240eedf35bd92705aebb54e239f1"},
		{"query", appB, 1700000000,
			Call{Path: "/apps/app-id/channels", Query: map[string]string{"filter_by_prefix": "presence-", "Info": "user_count"}},
			"fd5a1b38d92aee2b7913a8cf43136cffab888ee5a097536910d6239f08eb68a2"},
		{"comma", appB, 1700000000,
			Call{Path: "/apps/app-id/channels/cache-room", Query: map[string]string{"info": "subscription_count,cache"}},
			"39c5057c7462df569c54d97bc1048340843b6169462f7828b8475f4321e3ca5a"},
		{"empty body", appB, 1700000000,
			Call{Method: http.MethodPost, Path: "/apps/app-id/users/42/terminate_connections"},
			"5cc3ead47d8429d1ac4e02ab1f0bbf2c699b482cb8f9acfc18cfb79ab8833aea"},
		{"signed decoded", appB, 1700000000,
			Call{Method: http.MethodPost, Path: "/apps/app-id/users/ann%40x.io/terminate_connections", Body: "{}",
				SignedPath: "/apps/app-id/users/ann@x.io/terminate_connections"},
			"00722808c66aebaabe45c7e40afb741efa5b30d5a39b1f403439398c2d92f096"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := tt.call
			c.App = tt.app
			if c.Query == nil {
				c.Query = map[string]string{}
			}
			if c.Method == "" {
				c.Method = http.MethodGet
				if c.Body != "" {
					c.Method = http.MethodPost
				}
			}
			c.sign(time.Unix(tt.at, 0))
			if got := c.Query["auth_signature"]; got != tt.want {
				t.Errorf("got %s, want %s for %q", got, tt.want, StringToSign(c.Method, c.Path, c.Query))
			}
		})
	}
}

func TestHooksReachEveryPartOfASignedCall(t *testing.T) {
	c := Call{Method: http.MethodPost, Path: "/p", Body: "{}", App: appB, Query: map[string]string{},
		BeforeSign: func(c *Call) { c.Query["auth_version"] = "2.0" },
		AfterSign: func(c *Call) {
			c.Body, c.Query["auth_signature"] = "[]", strings.ToUpper(c.Query["auth_signature"])
		},
	}
	c.sign(time.Unix(1700000000, 0))
	want := strings.ToUpper(appB.MAC("POST\n/p\nauth_key=app-key&auth_timestamp=1700000000&auth_version=2.0&body_md5=99914b932bd37a50b983c5e7c90ae93b"))
	if c.Query["auth_signature"] != want || c.Body != "[]" {
		t.Errorf("got %q and body %s, want %q and []", c.Query, c.Body, want)
	}
}
