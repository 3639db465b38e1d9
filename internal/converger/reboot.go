package converger

import (
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// ticks is how many of the kernel's units of time make a second (USER_HZ).
const ticks = 100

// rebootReason says why the machine should be rebooted for what was installed;
// empty when there is none. What was there when it booted is no reason: another
// boot would bring the same.
func (v *view) rebootReason() string {
	if v.exists("/run/reboot-required") {
		packages := v.lines("/run/reboot-required.pkgs")
		slices.Sort(packages)
		if packages = slices.Compact(packages); len(packages) > 0 {
			return "asked for by " + strings.Join(packages, ", ")
		}
		return "asked for by /run/reboot-required"
	}
	booted, known := v.booted()
	if !known {
		return ""
	}
	if !v.container { // its kernel is somebody else's
		for _, path := range v.newer(booted, "/boot/vmlinuz-*") {
			return "kernel " + strings.TrimPrefix(path, "/boot/vmlinuz-") + " was installed since it booted"
		}
	}
	for range v.newer(booted, "/lib/*-linux-gnu/libc.so.6") {
		return "libc was installed since it booted"
	}
	return ""
}

// newer are the files a pattern fits that came to be since, the last name first.
func (v *view) newer(since time.Time, pattern string) []string {
	paths, err := filepath.Glob(v.at(pattern))
	if err != nil {
		return nil
	}
	var out []string
	for _, path := range slices.Backward(paths) {
		var stat unix.Stat_t
		// Not the time of its content: that is of when the package was made.
		if unix.Stat(path, &stat) != nil || !time.Unix(stat.Ctim.Unix()).After(since) {
			continue
		}
		if name, err := filepath.Rel(v.root, path); err == nil {
			out = append(out, "/"+name)
		}
	}
	return out
}

// booted is when the machine's first process was started: in a container too, and
// by the clock as it goes now.
func (v *view) booted() (time.Time, bool) {
	var boot int64
	for _, line := range v.lines("/proc/stat") {
		if text, ok := strings.CutPrefix(line, "btime "); ok {
			boot, _ = strconv.ParseInt(text, 10, 64) // 0: not known
		}
	}
	stat := v.text("/proc/1/stat")
	fields := strings.Fields(stat[strings.LastIndexByte(stat, ')')+1:]) // from the third on
	if boot == 0 || len(fields) < 20 {
		return time.Time{}, false
	}
	started, err := strconv.ParseInt(fields[19], 10, 64)
	return time.Unix(boot+started/ticks, 0), err == nil
}
