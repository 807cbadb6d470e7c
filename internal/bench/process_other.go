//go:build !linux

package bench

import (
	"errors"
	"os"
	"os/exec"
)

// canMeasure says that other processes cannot be looked at.
const canMeasure = false

func readUsage(int) (usage, error) {
	return usage{}, errors.New("--pid: the CPU and memory of another process can be read on Linux only")
}

func bindSelf(string) error {
	return errors.New("--cpu: binding to CPUs is possible on Linux only")
}

func startOn(cmd *exec.Cmd, list string) error {
	if list != "" {
		return errors.New("--server-cpu: binding to CPUs is possible on Linux only")
	}
	return cmd.Start()
}

func kill(cmd *exec.Cmd, force bool) {
	if !force && cmd.Process.Signal(os.Interrupt) == nil {
		return
	}
	_ = cmd.Process.Kill() // it may be gone
}
