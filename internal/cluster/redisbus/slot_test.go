package redisbus

import (
	"testing"

	"sockudo/internal/redisconn"
	"sockudo/internal/servicetest"
)

func TestSlotsAreThoseOfTheServer(t *testing.T) {
	e := servicetest.RedisClusterEndpoint(t)
	c, err := redisconn.Dial(t.Context(), redisconn.Options(e))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for _, topic := range []string{
		"", "sockudo:dir", "a", "{a}b", "x{a}b", "{}a", "{a", "a}b", "a{}{b}", "{a}{b}", "{{a}}", "sockudo:c:app:presence-x@y,z;=",
	} {
		want, err := c.Do(t.Context(), c.B().ClusterKeyslot().Key(topic).Build()).AsInt64()
		if err != nil {
			t.Fatal(err)
		}
		if got := slotOf(topic); int64(got) != want {
			t.Errorf("slotOf(%q) = %d, want %d", topic, got, want)
		}
	}
}
