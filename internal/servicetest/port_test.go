package servicetest

import "testing"

func TestAPortIsKeptUntilTheTestEnds(t *testing.T) {
	var p int
	t.Run("holder", func(t *testing.T) {
		p = Port(t)
		if err := listened(p); err != nil {
			t.Errorf("the port is not free: %v", err)
		}
		if claim, err := claimed(p + above); err == nil {
			_ = claim.Close()
			t.Error("another test could have got the port")
		}
	})
	claim, err := claimed(p + above)
	if err != nil {
		t.Fatalf("the port is still kept: %v", err)
	}
	_ = claim.Close()
}
