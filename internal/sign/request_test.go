package sign

import (
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"
)

const authB = "auth_key=app-key&auth_timestamp=1700000000&auth_version=1.0"

// check verifies a request as the API does, at the time of its own timestamp.
func check(r *Request, key, secret string, now int64) error {
	p, err := r.CheckParams(key, time.Unix(now, 0))
	if err != nil {
		return err
	}
	return r.Verify(p, []string{secret})
}

// TestWorkedExamplesOfTheProtocol is section 5.2, signatures and body digests.
func TestWorkedExamplesOfTheProtocol(t *testing.T) {
	const (
		keyC, secretC = "d41a439c438a100756f5", "4bf35003e819bb138249"
		event         = `{"name":"my-event","channels":["my-channel","presence-room"],"data":"{\"hello\":\"world\"}","socket_id":"1234.5678","info":"user_count,subscription_count"}`
		snow          = `{"name":"greet","channel":"caf-é","data":"☃"}`
		batch         = `{"batch":[{"name":"a","channel":"c1","data":"1"},{"name":"b","channel":"c2","data":"2"}]}`
		authA         = "auth_key=278d425bdf160c739803&auth_timestamp=1353088179&auth_version=1.0"
		empty         = "&body_md5=99914b932bd37a50b983c5e7c90ae93b"
	)
	for _, v := range []struct {
		key, secret               string
		now                       int64
		method, path, query, body string
		signature                 string
	}{
		{keyA, secretA, 1353088179, "POST", "/apps/3/events", authA + "&body_md5=ec365a775a4cd0599faeb73354201b6f", `{"name":"foo","channels":["project-3"],"data":"{\"some\":\"data\"}"}`, "da454824c97ba181a32ccc17a72625ba02771f50b50e1e7430e47a1f3f457e6c"},
		{keyB, secretB, 1700000000, "POST", "/apps/app-id/events", authB + "&body_md5=228df1b65c3d5464ea90a032a8425544", event, "1138e3e3038a684189f610908d7977e9bd00993beeaeed94d5e9f43305a6fb7b"},
		{keyB, secretB, 1700000000, "POST", "/apps/app-id/events", authB + "&body_md5=48f425052e61f25d186c7d4b8cbd986e", snow, "4a40f4b0d5e058171923dfc82b1a9de78797240eedf35bd92705aebb54e239f1"},
		{keyB, secretB, 1700000000, "POST", "/apps/app-id/batch_events", authB + "&body_md5=2b6d0d087be6f92e1c8ae2db10d9ff1a", batch, "fe3b8a838682feb337965908a72618248210416b399c3d54ca066bdae7023b81"},
		{keyB, secretB, 1700000000, "GET", "/apps/app-id/channels", authB, "", "f5cc9dde83ebbd9328d72e076c2b869cdffad888c45f61285077cfc4ca1eca65"},
		{keyB, secretB, 1700000000, "GET", "/apps/app-id/channels", authB + "&filter_by_prefix=presence-&info=user_count", "", "fd5a1b38d92aee2b7913a8cf43136cffab888ee5a097536910d6239f08eb68a2"},
		{keyB, secretB, 1700000000, "GET", "/apps/app-id/channels", "Info=user_count&filter_by_prefix=presence-&" + authB, "", "fd5a1b38d92aee2b7913a8cf43136cffab888ee5a097536910d6239f08eb68a2"},
		{keyB, secretB, 1700000000, "GET", "/apps/app-id/channels", authB + "&filter_by_prefix=private-a%40b%3Bc%3Dd", "", "095e1c0736d8a3a73d5a21958bad9e10510bcb45efb2f68e8c0b2453d1576ecf"},
		{keyB, secretB, 1700000000, "GET", "/apps/app-id/channels", authB + "&filter_by_prefix=private-a@b;c=d", "", "095e1c0736d8a3a73d5a21958bad9e10510bcb45efb2f68e8c0b2453d1576ecf"},
		{keyB, secretB, 1700000000, "GET", "/apps/app-id/channels/presence-room", authB + "&info=user_count", "", "d3221afe6541a9231257fce7e249ef9e9d54b68eb0acecbe334a0746e1d223ce"},
		{keyB, secretB, 1700000000, "GET", "/apps/app-id/channels/cache-room", authB + "&info=subscription_count%2Ccache", "", "39c5057c7462df569c54d97bc1048340843b6169462f7828b8475f4321e3ca5a"},
		{keyB, secretB, 1700000000, "GET", "/apps/app-id/channels/presence-room/users", authB, "", "a7afae233250cdf3d2c9b18ed80afcd11f03f89614c48018dec50a034ca1143a"},
		{keyB, secretB, 1700000000, "POST", "/apps/app-id/users/42/terminate_connections", authB + empty, "{}", "5c90601b7ede27346da725838a3837f982e9712e07d793968f91dbc6d56670ac"},
		{keyB, secretB, 1700000000, "POST", "/apps/app-id/users/42/terminate_connections", authB, "", "5cc3ead47d8429d1ac4e02ab1f0bbf2c699b482cb8f9acfc18cfb79ab8833aea"},
		{keyB, secretB, 1700000000, "POST", "/apps/app-id/users/ann%40x.io/terminate_connections", authB + empty, "{}", "39365732a5abd506cc9638dc1d5830ebc3d918cb043157ad6d7005fe89e36838"},
		{keyB, secretB, 1700000000, "POST", "/apps/app-id/users/ann%40x.io/terminate_connections", authB + empty, "{}", "00722808c66aebaabe45c7e40afb741efa5b30d5a39b1f403439398c2d92f096"},
		{keyC, secretC, 1427036787, "GET", "/apps/102015/channels", "auth_key=" + keyC + "&auth_timestamp=1427036787&auth_version=1.0", "", "df89248f87f6e6d028925e0b04d60f316527a865992ace6936afa91281d8bef0"},
		{keyC, secretC, 1427034994, "GET", "/apps/102015/channels", "auth_key=" + keyC + "&auth_timestamp=1427034994&auth_version=1.0&filter_by_prefix=presence-&info=user_count", "", "4d8a02edcc8a758b0162cd6da690a9a45fb8ae326a276dca1e06a0bc42796c11"},
	} {
		r := Request{Method: v.method, Path: v.path, RawQuery: v.query + "&auth_signature=" + v.signature, Body: []byte(v.body)}
		if err := check(&r, v.key, v.secret, v.now); err != nil {
			t.Errorf("%s %s?%s: %v", v.method, v.path, v.query, err)
		}
		r.RawQuery = v.query + "&auth_signature=" + zeros
		if err := check(&r, v.key, v.secret, v.now); err == nil || strings.Contains(err.Error(), v.signature) {
			t.Errorf("%s %s?%s with a wrong signature: %v", v.method, v.path, v.query, err)
		}
	}
}

// Libraries differ in what they sign; each combination is one of them.
func TestEveryCandidateStringVerifies(t *testing.T) {
	const prefix = "/mount"
	for _, values := range []struct{ sent, decoded string }{
		{"a%2Cb+c%20d", "a,b c d"}, {"a,b", "a,b"}, {"%zz", "%zz"}, {"a;b=c", "a;b=c"}, {"%C3%A9", "é"}, {"", ""},
	} {
		for _, value := range []string{values.sent, values.decoded} {
			for _, received := range []string{prefix + "/apps/1/users/a%40b/x", "/apps/1/users/a%40b/x"} {
				for _, signed := range []string{
					"/apps/1/users/a%40b/x", "/apps/1/users/a@b/x", prefix + "/apps/1/users/a%40b/x", prefix + "/apps/1/users/a@b/x",
				} {
					message := http.MethodGet + "\n" + signed + "\n" + authB + "&x=" + value
					r := Request{Method: http.MethodGet, Path: received, Prefix: prefix, RawQuery: "x=" + values.sent + "&" + authB + "&auth_signature=" + HMAC(secretB, message)}
					if err := check(&r, keyB, secretB, 1700000000); err != nil {
						t.Errorf("received %s?x=%s, signed %q: %v", received, values.sent, message, err)
					}
				}
			}
		}
	}
}

// The first check that fails answers, in the order of section 5.1.
func TestFirstFailedCheckAnswers(t *testing.T) {
	for _, c := range []struct{ name, query, body, reason string }{
		{"nothing", "", "", "Missing query parameter auth_key"},
		{"all wrong, a part missing", "auth_key=no&auth_timestamp=x&auth_version=9", "", "Missing query parameter auth_signature"},
		{"an empty part", "auth_key=&auth_timestamp=1&auth_version=1.0&auth_signature=0", "", "Missing query parameter auth_key"},
		{"a part twice", authB + "&auth_signature=0&AUTH_KEY=app-key", "", "Query parameter auth_key is given 2 times"},
		{"an empty part again", authB + "&auth_signature=0&auth_signature=", "", "Query parameter auth_signature is given 2 times"},
		{"digest twice", authB + "&auth_signature=0&body_md5=0&Body_MD5=0", "", "Query parameter body_md5 is given more than once"},
		{"version before key", "auth_key=no&auth_timestamp=x&auth_version=2.0&auth_signature=0", "", `Unsupported auth_version "2.0": it must be 1.0`},
		{"key before timestamp", "auth_key=no&auth_timestamp=x&auth_version=1.0&auth_signature=0", "", "Unknown auth_key no"},
		{"timestamp before digest", "auth_key=app-key&auth_timestamp=x&auth_version=1.0&auth_signature=0&body_md5=0", "{}", `auth_timestamp must be an integer of Unix seconds, not "x"`},
		{"timestamp too old", "auth_key=app-key&auth_timestamp=1699999399&auth_version=1.0&auth_signature=0", "", "Timestamp expired: Given timestamp (2023-11-14T22:03:19Z) not within 600s of server time (2023-11-14T22:13:20Z)"},
		{"no digest", authB + "&auth_signature=0", "{}", "Missing query parameter body_md5: a request with a body needs it"},
		{"digest before signature", authB + "&auth_signature=0&body_md5=99914b932bd37a50b983c5e7c90ae93c", "{}", "Invalid body_md5: it is not the MD5 of the body that was received"},
		{"digest of nothing", authB + "&auth_signature=0&body_md5=", "", "Invalid body_md5: it is not the MD5 of the body that was received"},
		{"signature", authB + "&auth_signature=0", "", `Invalid signature: you should have sent HmacSHA256Hex("GET\n/x\n` + authB + `", your_secret_key), but you sent "0"`},
		{"a name that cannot be decoded", authB + "&auth_signature=0&%zz=1", "", "Query parameter is not percent-encoded: %zz=1"},
	} {
		r := Request{Method: http.MethodGet, Path: "/x", RawQuery: c.query, Body: []byte(c.body)}
		err := check(&r, keyB, secretB, 1700000000)
		var refused *AuthError
		if !errors.As(err, &refused) || refused.Reason != c.reason {
			t.Errorf("%s: %v, want %s", c.name, err, c.reason)
		}
	}
}

func TestParametersCountInAnyCase(t *testing.T) {
	r := Request{Method: http.MethodGet, Path: "/x", RawQuery: authB + "&auth_signature=0&Info=a%2Cb&info=c&empty&x=%zz"}
	p, err := r.CheckParams(keyB, time.Unix(1700000000, 0))
	if err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]string{"info": "a,b", "empty": "", "x": "%zz", "auth_key": "app-key"} {
		if got, ok := p.Get(key); !ok || got != want {
			t.Errorf("%s: %q, %v, want %q", key, got, ok, want)
		}
	}
	if _, ok := p.Get("absent"); ok {
		t.Error("a parameter that is not there was found")
	}
}
