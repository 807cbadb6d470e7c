package server

import "testing"

func TestCapacityIsTheLowerOfFilesAndSetting(t *testing.T) {
	for _, c := range []struct {
		files   uint64
		setting uint64
		most    int
		limit   string
	}{
		{20_000, 0, 19_936, "open files (20000)"},
		{20_000, 1000, 1000, "max_connections"},
		{1024, 1000, 960, "open files (1024)"},
		{32, 0, 1, "open files (32)"},
		{0, 0, 0, "nothing known"},
		{0, 7, 7, "max_connections"},
		{1 << 63, 0, 0, "nothing known"},
		{1 << 63, 5, 5, "max_connections"},
	} {
		most, limit := capacity(c.files, c.setting)
		if most != c.most || limit != c.limit {
			t.Errorf("%d files, max_connections %d: %d by %s, want %d by %s", c.files, c.setting, most, limit, c.most, c.limit)
		}
	}
}
