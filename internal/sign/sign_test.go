package sign

import (
	"errors"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"
)

const (
	keyA, secretA = "278d425bdf160c739803", "7ad3773142a6692b25b8"
	keyB, secretB = "app-key", "app-secret"
)

// A fake digest for the cases where any will do.
var zeros = strings.Repeat("0", 64)

// TestVectorsOfTheProtocol is item 99 of the conformance checklist: every
// digest of sections 4.1, 4.2 and 4.3.
func TestVectorsOfTheProtocol(t *testing.T) {
	data := func(s string) *string { return &s }
	channels := []struct {
		key, secret, socket, channel string
		data                         *string
		digest                       string
	}{
		{keyA, secretA, "1234.1234", "private-foobar", nil, "58df8b0c36d6982b82c3ecf6b4662e34fe8c25bba48f5369f135bf843651c3a4"},
		{keyA, secretA, "1234.1234", "presence-foobar", data(`{"user_id":"10","user_info":{"name":"Mr. Pusher"}}`), "48dac51d2d7569e1e9c0f48c227d4b26f238fa68e5c0bb04222c966909c4f7c4"},
		{keyA, secretA, "1234.1234", "presence-foobar", data(`{"user_id":10,"user_info":{"name":"Mr. Pusher"}}`), "afaed3695da2ffd16931f457e338e6c9f2921fa133ce7dac49f529792be6304c"},
		{keyA, secretA, "1234.1234", "presence-foobar", data(`{"user_id":10,"user_info":{"name":"Mr. Channels"}}`), "31935e7d86dba64c2a90aed31fdc61869f9b22ba9d8863bba239c03ca481bc80"},
		{keyB, secretB, "1234.5678", "private-room", nil, "eac53072418f048540e99a8514ba31f8f84de872c812c2511c014ab7da4cd25f"},
		{keyB, secretB, "1234.5678", "private-encrypted-room", nil, "d52d15288a2c31e950b16f5636292cf7cd8ec09fa6bfe78ed0a3492c00a3607c"},
		{keyB, secretB, "1234.5678", "private-cache-room", nil, "340e12c6ee5c1f6009c829fa9d5651ffc4ee4dc9ca2f3f0a6094181d7d3cd276"},
		{keyB, secretB, "1234.5678", "private-encrypted-cache-room", nil, "893ba384a59cc6ecb3b379f070212ccca4d01651098bad3be5b793295327df86"},
		{keyB, secretB, "1234.5678", "presence-room", data(`{"user_id":"1","user_info":{"name":"Ann"}}`), "22d0ad018202937a3ad0ab4f596477cf14c4068f116a14a52cd6cf9a478a6daa"},
		{keyB, secretB, "1234.5678", "presence-room", data(`{"user_id":2}`), "52660f3a9fc42fe5cef96ae13731cdf9ceaadf87028851c038712cdc561a898f"},
		{keyB, secretB, "1234.5678", "presence-room", data(`{"user_id":"zoë","user_info":{"name":"Zoë \"Z\" O'Neil"}}`), "9d9456a7cf890e4876b0a3aee4898870cf8f71375c81a653b34fa0fdb2e97327"},
		{keyB, secretB, "1234.5678", "presence-cache-room", data(`{"user_id":"1","user_info":{"name":"Ann"}}`), "6e5197aaa7cfd3b87d4eab59e09e9eddf38e4559463a16548c3ab7f0e004ad0f"},
		{keyB, secretB, "1234.5678", "presence-room", nil, "1e6f4f8e0dbf2085899e0207d29d988d1520b07be0f3fb4d8e2e740298620815"},
		{keyB, secretB, "1234.5678", "private-room", data(`{"user_id":"1"}`), "273a43996a85503db265e1fea08d7966bba19d13506a0b2244b0094b6d4d7dff"},
		{keyB, secretB, "1234.5678", "private-room", data(""), "af54ee757f4ae5b0bd1ab8cba243b6bd3c36c8263fe1c1d3ad532be9b2bc4935"},
	}
	for _, v := range channels {
		auth := v.key + ":" + v.digest
		if got := Channel(v.key, v.secret, v.socket, v.channel, v.data); got != auth {
			t.Errorf("%s: signed %s, want %s", v.channel, got, auth)
		}
		if err := VerifyChannel(auth, v.key, []string{"other", v.secret}, v.socket, v.channel, v.data); err != nil {
			t.Errorf("%s: %v", v.channel, err)
		}
		if err := VerifyChannel(auth, v.key, []string{v.secret}, v.socket+"1", v.channel, v.data); !errors.Is(err, ErrSignature) {
			t.Errorf("%s: another socket: %v", v.channel, err)
		}
	}
	users := []struct{ key, secret, socket, data, digest string }{
		{keyA, secretA, "1234.1234", `{"id":"12345"}`, "4708d583dada6a56435fb8bc611c77c359a31eebde13337c16ab43aa6de336ba"},
		{keyB, secretB, "1234.5678", `{"id":"42"}`, "bad09d1aa98d9ffccc94c727f2b4e44869d55b80bd90d1f9ee89317bf95b480a"},
		{keyB, secretB, "1234.5678", `{"id":"42","user_info":{"name":"Ann"},"watchlist":["7","8"]}`, "37d2ff197c544746593b322981554be4fb3e25eecb4420e4a3ccc31297eb842e"},
		{keyB, secretB, "1234.5678", `{"id":42}`, "ec71ad8325d7b2414c9f158dfe2de7525f2a3db725d68b84015626de5d457b0e"},
	}
	for _, v := range users {
		if err := VerifyUser(v.key+":"+v.digest, v.key, []string{v.secret}, v.socket, v.data); err != nil {
			t.Errorf("%s: %v", v.data, err)
		}
		if got := User(v.key, v.secret, v.socket, v.data); got != v.key+":"+v.digest {
			t.Errorf("%s: signed %s", v.data, got)
		}
	}
}

func TestWebhookVectors(t *testing.T) {
	for _, v := range []struct{ secret, body, digest string }{
		{"app-secret", `{"time_ms":1700000000123,"events":[{"name":"channel_occupied","channel":"private-room"}]}`, "2c8166ffd2a4c4f44aae23e9c8bbc9c30a8cfd75607a54116cd6e82ca3453f41"},
		{"app-secret", `{"time_ms":1700000000123,"events":[{"name":"member_added","channel":"presence-room","user_id":"1"},{"name":"client_event","channel":"presence-room","event":"client-typing","data":"{\"on\":true}","socket_id":"1234.5678","user_id":"1"}]}`, "1f153546589a4371bf44bb71a5622cc35951a04d5b925735a4569447b6e50e7a"},
		{"secret", `{"hello":"world"}`, "2677ad3e7c090b2fa2c0fb13020d66d5420879b8316eb356a2d60fb9073bc778"},
	} {
		if got := Webhook(v.secret, []byte(v.body)); got != v.digest {
			t.Errorf("%s: %s, want %s", v.body, got, v.digest)
		}
	}
}

func TestEmptyChannelDataMayBeSignedBothWays(t *testing.T) {
	empty := ""
	for _, digest := range []string{"eac53072418f048540e99a8514ba31f8f84de872c812c2511c014ab7da4cd25f", "af54ee757f4ae5b0bd1ab8cba243b6bd3c36c8263fe1c1d3ad532be9b2bc4935"} {
		if err := VerifyChannel("app-key:"+digest, keyB, []string{secretB}, "1234.5678", "private-room", &empty); err != nil {
			t.Errorf("%s: %v", digest, err)
		}
	}
	if err := VerifyChannel("app-key:af54ee757f4ae5b0bd1ab8cba243b6bd3c36c8263fe1c1d3ad532be9b2bc4935", keyB, []string{secretB}, "1234.5678", "private-room", nil); err == nil {
		t.Error("a trailing colon was accepted without channel data")
	}
}

func TestAuthValuesFailForTheRightReason(t *testing.T) {
	good := Channel(keyB, secretB, "1.2", "private-x", nil)
	digest := strings.TrimPrefix(good, keyB+":")
	for auth, want := range map[string]error{
		good: nil, "": ErrMissing, "nonsense": ErrMalformed, "other:" + digest: ErrKey, ":" + digest: ErrKey,
		keyB + ":": ErrSignature, keyB + ":" + zeros: ErrSignature, keyB + ":" + strings.ToUpper(digest): ErrSignature,
		keyB + ":" + digest[:63]: ErrSignature, keyB + ":" + digest + "0": ErrSignature, keyB + ":x:" + digest: ErrSignature,
	} {
		if err := VerifyChannel(auth, keyB, []string{secretB}, "1.2", "private-x", nil); !errors.Is(err, want) {
			t.Errorf("%q: %v, want %v", auth, err, want)
		}
	}
}

func TestSignedQueryVerifies(t *testing.T) {
	now := time.Unix(1700000000, 0)
	body := []byte(`{"a":1}`)
	for _, prefix := range []string{"", "/mount"} {
		for _, path := range []string{"/apps/1/events", "/mount/apps/1/events", "/apps/1/users/a%40b/terminate_connections"} {
			query := Query(keyB, secretB, http.MethodPost, path, url.Values{"Info": {"a b,c"}}, body, now)
			r := Request{Method: "post", Path: path, RawQuery: query, Body: body, Prefix: prefix}
			p, err := r.CheckParams(keyB, now)
			if err != nil {
				t.Fatal(err)
			}
			if err := r.Verify(p, []string{"older", secretB}); err != nil {
				t.Errorf("%s with prefix %q: %v", path, prefix, err)
			}
			r.Body = []byte(`{"a":2}`)
			if err := r.Verify(p, []string{secretB}); err == nil {
				t.Error("another body was accepted")
			}
		}
	}
}

func TestPrefixMayBeSignedOrNot(t *testing.T) {
	now := time.Unix(1700000000, 0)
	for _, c := range []struct{ signed, received string }{
		{"/apps/1/channels", "/mount/apps/1/channels"}, {"/mount/apps/1/channels", "/apps/1/channels"},
	} {
		r := Request{Method: "GET", Path: c.received, RawQuery: Query(keyB, secretB, "GET", c.signed, nil, nil, now), Prefix: "/mount"}
		p, err := r.CheckParams(keyB, now)
		if err != nil {
			t.Fatal(err)
		}
		if err := r.Verify(p, []string{secretB}); err != nil {
			t.Errorf("signed %s, received %s: %v", c.signed, c.received, err)
		}
	}
}

func TestRepeatedAuthParametersAreRefused(t *testing.T) {
	now := time.Unix(1700000000, 0)
	query := Query(keyB, secretB, "GET", "/apps/1/channels", nil, nil, now)
	for _, extra := range []string{"&auth_key=app-key", "&AUTH_KEY=app-key", "&auth_signature=0", "&auth_timestamp=1700000000", "&auth_version=1.0"} {
		r := Request{Method: "GET", Path: "/apps/1/channels", RawQuery: query + extra}
		if _, err := r.CheckParams(keyB, now); err == nil {
			t.Errorf("%s was accepted", extra)
		}
	}
}

func FuzzRequest(f *testing.F) {
	f.Add("GET", "/apps/1/channels", "auth_key=app-key&auth_timestamp=1700000000&auth_version=1.0&auth_signature=0", []byte(nil))
	f.Add("POST", "/apps/1/events", "auth_key=app-key&auth_timestamp=1700000000&auth_version=1.0&auth_signature=0&body_md5=0&x=%zz&=&&a", []byte("{}"))
	f.Add("POST", "/a%2fb", "%61uth_key=app-key", []byte("\xff"))
	now := time.Unix(1700000000, 0)
	f.Fuzz(func(t *testing.T, method, path, query string, body []byte) {
		r := Request{Method: method, Path: path, RawQuery: query, Body: body, Prefix: "/mount"}
		p, err := r.CheckParams(keyB, now)
		if err != nil {
			return
		}
		// Nobody knows this secret, so nothing may verify; and what is refused
		// must not tell the right signature.
		const secret = "a secret that the fuzzer does not know"
		err = r.Verify(p, []string{secret})
		if err == nil {
			t.Fatal("verified without the secret")
		}
		if strings.Contains(err.Error(), HMAC(secret, string(p.appendMessage(nil, method, path, false)))) {
			t.Fatalf("the error tells the signature: %v", err)
		}
	})
}

func FuzzAuthValue(f *testing.F) {
	f.Add("app-key:"+zeros, "1.2", "private-x", "{}")
	f.Add(":", "", "", "")
	f.Fuzz(func(t *testing.T, auth, socket, channel, data string) {
		if VerifyChannel(auth, keyB, []string{"unknown to the fuzzer"}, socket, channel, &data) == nil ||
			VerifyUser(auth, keyB, []string{"unknown to the fuzzer"}, socket, data) == nil {
			t.Fatal("verified without the secret")
		}
		good := Channel(keyB, secretB, socket, channel, &data)
		if err := VerifyChannel(good, keyB, []string{secretB}, socket, channel, &data); err != nil {
			t.Fatal(err)
		}
	})
}

func BenchmarkVerifyChannel(b *testing.B) {
	auth := Channel(keyB, secretB, "1234.5678", "private-room", nil)
	secrets := []string{secretB}
	b.ReportAllocs()
	for b.Loop() {
		if VerifyChannel(auth, keyB, secrets, "1234.5678", "private-room", nil) != nil {
			b.Fatal("refused")
		}
	}
}

func BenchmarkVerifyRequest(b *testing.B) {
	now := time.Unix(1700000000, 0)
	body := []byte(`{"name":"my-event","channels":["my-channel"],"data":"{\"hello\":\"world\"}"}`)
	r := Request{Method: "POST", Path: "/apps/1/events", RawQuery: Query(keyB, secretB, "POST", "/apps/1/events", nil, body, now), Body: body}
	secrets := []string{secretB}
	b.ReportAllocs()
	for b.Loop() {
		p, err := r.CheckParams(keyB, now)
		if err != nil || r.Verify(p, secrets) != nil {
			b.Fatal("refused")
		}
	}
}
