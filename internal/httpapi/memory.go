package httpapi

import (
	"bytes"
	"os"
	"runtime"
	"strconv"
	"strings"
)

// readMemory returns the memory of the container if it has a limit, else of
// the machine. Where the system tells neither, it is what this process got
// from the system, and the total is the same.
func readMemory() memory {
	total, available := machineMemory()
	for _, g := range []struct{ limit, usage string }{
		{"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"},
		{"/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"},
	} {
		limit, ok := readNumber(g.limit)
		usage, ok2 := readNumber(g.usage)
		if ok && ok2 && limit > 0 && (total == 0 || limit < total) {
			return newMemory(usage, limit)
		}
	}
	if total > 0 {
		return newMemory(total-min(available, total), total)
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return newMemory(m.Sys-m.HeapReleased, m.Sys)
}

func readNumber(path string) (uint64, bool) {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0, false
	}
	n, err := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 64)
	return n, err == nil // "max" stands for no limit
}

// machineMemory reads Linux's /proc/meminfo; zeros elsewhere.
func machineMemory() (total, available uint64) {
	text, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0, 0
	}
	for line := range bytes.Lines(text) {
		fields := bytes.Fields(line)
		if len(fields) < 2 {
			continue
		}
		kib, err := strconv.ParseUint(string(fields[1]), 10, 64)
		if err != nil {
			continue
		}
		switch string(fields[0]) {
		case "MemTotal:":
			total = kib << 10
		case "MemAvailable:":
			available = kib << 10
		}
	}
	return total, available
}
