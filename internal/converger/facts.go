package converger

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Facts tells what the machine is, and what the request asks.
func (c *Converger) Facts(ctx context.Context, q FactsRequest) (Facts, error) {
	v := observe(c.root, c.programs, State{})
	f := Facts{
		Arch:        runtime.GOARCH,
		Hostname:    v.text(kernelHostnamePath),
		BootID:      v.text("/proc/sys/kernel/random/boot_id"),
		Kernel:      v.text("/proc/sys/kernel/osrelease"),
		OS:          v.osRelease(),
		Container:   inContainer(v),
		MemoryMiB:   v.memoryMiB(),
		DiskFreeMiB: map[string]int{},
		Paths:       map[string]bool{},
		Units:       map[string]UnitFact{},
		Files:       map[string]FileFact{},
		Sysctls:     map[string]string{},
		Modules:     map[string]bool{},
		Interfaces:  map[string][]string{},
	}
	for _, p := range q.Paths {
		_, err := os.Stat(v.at(p))
		f.Paths[p] = err == nil
	}
	for _, name := range q.Modules {
		f.Modules[name] = v.moduleThere(name)
	}
	for _, p := range q.DiskFree {
		var fs unix.Statfs_t
		if err := unix.Statfs(nearest(v.at(p)), &fs); err != nil {
			return f, err
		}
		f.DiskFreeMiB[p] = int(mib(fs.Bavail, fs))
	}
	if err := f.readInterfaces(); err != nil {
		return f, err
	}
	if len(q.Units) > 0 {
		units, err := v.queries.units(ctx, q.Units)
		if err != nil {
			return f, err
		}
		for _, name := range q.Units {
			f.Units[name] = units[name].fact()
		}
	}
	if err := f.readFiles(v, q.Files); err != nil {
		return f, err
	}
	for _, key := range q.Sysctls {
		if text, err := os.ReadFile(v.at(sysctlFile(key))); err == nil {
			f.Sysctls[key] = strings.Join(strings.Fields(string(text)), " ")
		}
	}
	if q.Reboot {
		v.container = f.Container
		f.Reboot = v.rebootReason()
	}
	f.Time = time.Now()
	return f, nil
}

// readFiles looks at what the patterns fit. A file that goes away meanwhile is
// not there.
func (f *Facts) readFiles(v *view, patterns []string) error {
	for _, pattern := range patterns {
		paths, err := filepath.Glob(v.at(pattern))
		if err != nil {
			return err
		}
		for _, path := range paths {
			var stat unix.Stat_t
			if err := unix.Stat(path, &stat); err != nil {
				continue
			}
			name, err := filepath.Rel(v.root, path)
			if err != nil {
				return err
			}
			f.Files["/"+name] = FileFact{
				Mode: stat.Mode & 0o7777, UID: stat.Uid, GID: stat.Gid, Modified: time.Unix(stat.Mtim.Unix()),
			}
		}
	}
	return nil
}

func (u unitState) fact() UnitFact {
	fact := UnitFact{Load: u.load, Active: u.active, Sub: u.sub, Enabled: u.file, Result: u.result}
	fact.MainPID, _ = strconv.Atoi(u.mainPID)   // 0 where a unit has none
	fact.Restarts, _ = strconv.Atoi(u.restarts) // 0 where a unit has none
	return fact
}

func (f *Facts) readInterfaces() error {
	interfaces, err := net.Interfaces()
	if err != nil {
		return err
	}
	for _, i := range interfaces {
		addresses, err := i.Addrs()
		if err != nil {
			return err
		}
		for _, a := range addresses {
			f.Interfaces[i.Name] = append(f.Interfaces[i.Name], a.String())
		}
	}
	return nil
}

func (v *view) osRelease() OSRelease {
	var out OSRelease
	for _, line := range v.lines("/etc/os-release") {
		key, value, _ := strings.Cut(line, "=")
		value = strings.Trim(value, `"'`)
		switch key {
		case "ID":
			out.ID = value
		case "VERSION_ID":
			out.Version = value
		}
	}
	return out
}

func (v *view) memoryMiB() int {
	for _, line := range v.lines("/proc/meminfo") {
		if f := strings.Fields(line); len(f) > 1 && f[0] == "MemTotal:" {
			kib, err := strconv.Atoi(f[1])
			if err != nil {
				return 0
			}
			return kib >> 10
		}
	}
	return 0
}
