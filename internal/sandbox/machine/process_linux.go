package machine

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/google/renameio/v2"
)

// Process names one process for good: a process identifier is used again, but
// not with the same start time.
type Process struct {
	PID     int
	Started uint64 // clock ticks since the computer's boot
}

// FindProcess returns the running process with that identifier.
func FindProcess(pid int) (Process, error) {
	started, err := startTime(pid)
	return Process{PID: pid, Started: started}, err
}

// ReadProcess reads what Write has written.
func ReadProcess(file string) (Process, error) {
	var p Process
	b, err := os.ReadFile(file)
	if err != nil {
		return p, err
	}
	if _, err := fmt.Sscanf(string(b), "%d %d", &p.PID, &p.Started); err != nil {
		return Process{}, fmt.Errorf("%s: %w", file, err)
	}
	return p, nil
}

// Write records the process in a file.
func (p Process) Write(file string) error {
	return renameio.WriteFile(file, fmt.Appendf(nil, "%d %d\n", p.PID, p.Started), 0o644)
}

// Alive reports whether this very process still runs.
func (p Process) Alive() bool {
	if p.PID <= 0 {
		return false
	}
	started, err := startTime(p.PID)
	return err == nil && started == p.Started
}

// startTime fails for a process that has ended, waited for or not.
func startTime(pid int) (uint64, error) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0, err
	}
	// The second field, the program's name, may itself hold ") ".
	fields := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	if len(fields) < 20 || fields[0] == "X" {
		return 0, os.ErrProcessDone
	}
	// While other threads are dying the process still holds files and ports.
	if threads := fields[17]; fields[0] == "Z" && (threads == "0" || threads == "1") {
		return 0, os.ErrProcessDone
	}
	return strconv.ParseUint(fields[19], 10, 64)
}
