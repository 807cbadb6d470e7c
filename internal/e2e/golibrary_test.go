package e2e

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	pusher "github.com/pusher/pusher-http-go/v5"

	"sockudo/internal/pushertest"
)

// The official Go library, unmodified, at one node of two; what it causes is
// seen at the other.
func TestGoLibraryWorks(t *testing.T) {
	items(t, 331)
	c := serveCluster(t, 2, nil)
	lib := &pusher.Client{
		AppID: plain.ID, Key: plain.Key, Secret: plain.Secret, Host: c[0].Addr,
		EncryptionMasterKeyBase64: "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=",
	}
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	a := pushertest.Dial(t, c[1].Addr, plain, patient)
	params := func(channel string) []byte {
		return fmt.Appendf(nil, "socket_id=%s&channel_name=%s", a.SocketID, channel)
	}
	subscribe := func(channel string, answer []byte) {
		t.Helper()
		var auth map[string]string
		check(json.Unmarshal(answer, &auth))
		delete(auth, "shared_secret")
		auth["channel"] = channel
		a.Emit("pusher:subscribe", "", auth)
		a.Expect("pusher_internal:subscription_succeeded", channel)
	}

	t.Run("authorizes", func(t *testing.T) {
		for _, channel := range []string{"private-x", "private-encrypted-x", "private-cache-x"} {
			answer, err := lib.AuthorizePrivateChannel(params(channel))
			check(err)
			a.Drain() // a cache miss
			subscribe(channel, answer)
		}
		a.Drain()
		answer, err := lib.AuthorizePresenceChannel(params("presence-x"), pusher.MemberData{UserID: "1", UserInfo: map[string]string{"name": "Ann"}})
		check(err)
		subscribe("presence-x", answer)
		user, err := lib.AuthenticateUser(fmt.Appendf(nil, "socket_id=%s", a.SocketID), map[string]any{"id": "user1"})
		check(err)
		var auth map[string]string
		check(json.Unmarshal(user, &auth))
		a.Emit("pusher:signin", "", auth)
		a.Expect("pusher:signin_success", "")
	})
	c.Settle(t)

	t.Run("triggers", func(t *testing.T) {
		a.Subscribe("x")
		c.Settle(t)
		check(lib.Trigger("x", "e", map[string]any{"n": 1}))
		if got := a.Expect("e", "x").Text(t); got != `{"n":1}` {
			t.Errorf("got %s", got)
		}
		check(lib.TriggerMulti([]string{"x", "private-x"}, "e", "text"))
		for range 2 {
			a.Next()
		}
		check(lib.Trigger("private-encrypted-x", "e", "secret"))
		if got := a.Expect("e", "private-encrypted-x").Text(t); strings.Contains(got, "secret") || !strings.Contains(got, "nonce") {
			t.Errorf("got %s", got)
		}
		info := "subscription_count,user_count"
		got, err := lib.TriggerMultiWithParams([]string{"x", "presence-x", "nobody"}, "e", "x", pusher.TriggerParams{SocketID: &a.SocketID, Info: &info})
		check(err)
		counts, err := json.Marshal(got.Channels)
		check(err)
		if want := `{"nobody":{"subscription_count":0},"presence-x":{"user_count":1,"subscription_count":1},"x":{"subscription_count":1}}`; string(counts) != want {
			t.Errorf("got %s, want %s", counts, want)
		}
		check(lib.SendToUser("user1", "greet", "hello"))
		a.Expect("greet", "#server-to-user-user1")
		a.Quiet()
	})

	t.Run("triggers batches", func(t *testing.T) {
		info := "subscription_count"
		got, err := lib.TriggerBatch([]pusher.Event{
			{Channel: "x", Name: "one", Data: "1", Info: &info},
			{Channel: "x", Name: "not me", Data: "2", SocketID: &a.SocketID},
			{Channel: "private-encrypted-x", Name: "two", Data: "3"},
		})
		check(err)
		if len(got.Batch) != 3 || got.Batch[0].SubscriptionCount == nil || *got.Batch[0].SubscriptionCount != 1 || got.Batch[1].SubscriptionCount != nil {
			t.Errorf("got %+v", got.Batch)
		}
		a.Await("one", "x")
		a.Await("two", "private-encrypted-x")
	})

	t.Run("queries", func(t *testing.T) {
		prefix, info := "presence-", "user_count"
		list, err := lib.Channels(pusher.ChannelsParams{FilterByPrefix: &prefix, Info: &info})
		check(err)
		if len(list.Channels) != 1 || list.Channels["presence-x"].UserCount != 1 {
			t.Errorf("channels %+v", list.Channels)
		}
		all, err := lib.Channels(pusher.ChannelsParams{})
		check(err)
		var names []string
		for name := range all.Channels {
			names = append(names, name)
		}
		slices.Sort(names)
		if want := []string{"presence-x", "private-cache-x", "private-encrypted-x", "private-x", "x"}; !slices.Equal(names, want) {
			t.Errorf("channels %v, want %v", names, want)
		}
		info = "user_count,subscription_count"
		channel, err := lib.Channel("presence-x", pusher.ChannelParams{Info: &info})
		check(err)
		if !channel.Occupied || channel.UserCount != 1 || channel.SubscriptionCount != 1 {
			t.Errorf("channel %+v", channel)
		}
		users, err := lib.GetChannelUsers("presence-x")
		check(err)
		if len(users.List) != 1 || users.List[0].ID != "1" {
			t.Errorf("users %+v", users.List)
		}
	})
	a.Quiet()
}
