package bench

import (
	"fmt"
	"os"
	"runtime"
	"strings"
)

// A System is what the numbers depend on and cannot be compared without.
type System struct {
	OS         string `json:"os"`
	Kernel     string `json:"kernel,omitempty"`
	CPU        string `json:"cpu,omitempty"`
	CPUs       int    `json:"cpus"`
	Go         string `json:"go"`
	Congestion string `json:"congestion_control,omitempty"`
}

// String is one line of it.
func (s System) String() string {
	parts := []string{fmt.Sprintf("%s %s", s.OS, s.Kernel), fmt.Sprintf("%d × %s", s.CPUs, s.CPU), s.Go}
	if s.Congestion != "" {
		parts = append(parts, s.Congestion)
	}
	return strings.Join(parts, ", ")
}

func thisSystem() System {
	s := System{OS: runtime.GOOS + "/" + runtime.GOARCH, CPUs: runtime.NumCPU(), CPU: "CPU", Go: runtime.Version()}
	s.Kernel = line("/proc/sys/kernel/osrelease")
	s.Congestion = line("/proc/sys/net/ipv4/tcp_congestion_control")
	cpuinfo, _ := os.ReadFile("/proc/cpuinfo") // Linux only; the name is for people
	for l := range strings.SplitSeq(string(cpuinfo), "\n") {
		if name, value, ok := strings.Cut(l, ":"); ok && strings.TrimSpace(name) == "model name" {
			s.CPU = strings.TrimSpace(value)
			break
		}
	}
	return s
}

// line returns the content of a file of one line, "" if there is none.
func line(file string) string {
	b, _ := os.ReadFile(file) // some systems do not have it
	return strings.TrimSpace(string(b))
}
