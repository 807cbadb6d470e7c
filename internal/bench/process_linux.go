package bench

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// userHz is the unit of times in /proc, the same on every Linux.
const userHz = 100

// canMeasure says that other processes can be looked at.
const canMeasure = true

// readUsage returns what a process has used since it began.
func readUsage(pid int) (usage, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return usage{}, fmt.Errorf("--pid %d: %w", pid, err)
	}
	// The name, in brackets, may hold anything.
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	if len(fields) < 22 {
		return usage{}, fmt.Errorf("--pid %d: /proc/%d/stat is not understood", pid, pid)
	}
	number := func(i int) int64 { n, _ := strconv.ParseInt(fields[i], 10, 64); return n }
	const tick = int64(time.Second / userHz)
	u := usage{
		user: time.Duration(number(11) * tick),
		sys:  time.Duration(number(12) * tick),
		rss:  number(21) * int64(os.Getpagesize()),
	}
	u.cpu = u.user + u.sys
	var exact unix.Timespec
	if unix.ClockGettime(processClock(pid), &exact) == nil {
		u.cpu = time.Duration(exact.Nano())
	}
	return u, nil
}

// processClock returns the clock of all CPU time of a process, as
// clock_getcpuclockid does.
func processClock(pid int) int32 { return int32(^pid<<3 | 2) }

// parseCPUs reads a list such as 0,2-3.
func parseCPUs(list string) (unix.CPUSet, int, error) {
	var set unix.CPUSet
	for part := range strings.SplitSeq(list, ",") {
		lo, hi, ranged := strings.Cut(part, "-")
		from, err := strconv.Atoi(strings.TrimSpace(lo))
		to := from
		if err == nil && ranged {
			to, err = strconv.Atoi(strings.TrimSpace(hi))
		}
		if err != nil || from < 0 || to < from || to > 1023 {
			return set, 0, fmt.Errorf("CPUs %q: a list such as 0 or 0,2-3 is expected", list)
		}
		for cpu := from; cpu <= to; cpu++ {
			set.Set(cpu)
		}
	}
	return set, set.Count(), nil
}

// bindSelf binds every thread of this process to a list of CPUs; threads to
// come inherit it.
func bindSelf(list string) error {
	set, n, err := parseCPUs(list)
	if err != nil {
		return err
	}
	bound := map[string]bool{}
	for again := true; again; {
		again = false
		tasks, err := os.ReadDir("/proc/self/task")
		if err != nil {
			return err
		}
		for _, task := range tasks {
			if bound[task.Name()] {
				continue
			}
			tid, err := strconv.Atoi(task.Name())
			if err != nil {
				return err
			}
			if err := unix.SchedSetaffinity(tid, &set); err != nil && err != unix.ESRCH {
				return fmt.Errorf("CPUs %q: %w", list, os.NewSyscallError("sched_setaffinity", err))
			}
			bound[task.Name()], again = true, true
		}
	}
	runtime.GOMAXPROCS(n)
	return nil
}

// startOn starts a command that is bound to a list of CPUs and ends with us.
func startOn(cmd *exec.Cmd, list string) error {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if list == "" {
		return cmd.Start()
	}
	set, _, err := parseCPUs(list)
	if err != nil {
		return err
	}
	// The child inherits from the thread that makes it.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var was unix.CPUSet
	if err := unix.SchedGetaffinity(0, &was); err != nil {
		return os.NewSyscallError("sched_getaffinity", err)
	}
	if err := unix.SchedSetaffinity(0, &set); err != nil {
		return fmt.Errorf("CPUs %q: %w", list, os.NewSyscallError("sched_setaffinity", err))
	}
	defer func() { _ = unix.SchedSetaffinity(0, &was) }() // it was allowed before
	return cmd.Start()
}

// kill ends a started command with all that it started.
func kill(cmd *exec.Cmd, force bool) {
	sig := unix.SIGTERM
	if force {
		sig = unix.SIGKILL
	}
	_ = unix.Kill(-cmd.Process.Pid, sig) // it may be gone
}
