package machine

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/k3lab/k3lab/internal/fault"
)

// Groups is the sandbox's own cgroup in every hierarchy of the computer.
type Groups struct {
	hierarchies []hierarchy
	name        string
}

// hierarchy is one mounted cgroup hierarchy: a controller of cgroup v1, or the
// unified one.
type hierarchy struct {
	dir     string
	unified bool // controllers are enabled per group, and groups with children hold no processes
}

// NewGroups finds the computer's hierarchies. tag tells sandboxes apart.
func NewGroups(tag string) (*Groups, error) {
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, fault.New(fault.Failed, "cgroups", "", "%w", err)
	}
	h := parseHierarchies(string(b))
	if len(h) == 0 {
		return nil, fault.New(fault.Failed, "cgroups", "mount -t cgroup2 none /sys/fs/cgroup", "no hierarchy is mounted below /sys/fs/cgroup")
	}
	return &Groups{hierarchies: h, name: "k3lab-" + tag}, nil
}

// parseHierarchies reads mountinfo. Where cgroup v1 is in use the unified
// hierarchy has no controllers and follows the rules of the others.
func parseHierarchies(mountinfo string) []hierarchy {
	var out []hierarchy
	v1 := false
	for line := range strings.Lines(mountinfo) {
		mount, rest, ok := strings.Cut(line, " - ")
		f := strings.Fields(mount)
		if !ok || len(f) < 5 || !strings.HasPrefix(f[4], "/sys/fs/cgroup") {
			continue
		}
		switch typ, _, _ := strings.Cut(rest, " "); typ {
		case "cgroup":
			v1 = true
			out = append(out, hierarchy{dir: f[4]})
		case "cgroup2":
			out = append(out, hierarchy{dir: f[4], unified: true})
		}
	}
	if v1 {
		for i := range out {
			out[i].unified = false
		}
	}
	slices.SortFunc(out, func(a, b hierarchy) int { return strings.Compare(a.dir, b.dir) })
	return slices.CompactFunc(out, func(a, b hierarchy) bool { return a.dir == b.dir })
}

// limits are a machine's share of the computer's processors, zero for no limit.
type limits struct{ cores, memoryMiB, computer int }

// create makes the cgroup of a machine and returns the directories its keeper
// and its nspawn must enter. Limits are best effort: a computer that does not
// offer them runs the machine without.
func (g *Groups) create(child string, l limits) (keeper, boot []string, err error) {
	for _, h := range g.hierarchies {
		top := filepath.Join(h.dir, g.name)
		dir := filepath.Join(top, child)
		dirs := []string{top, dir}
		if h.unified {
			dirs = append(dirs, filepath.Join(dir, "keeper"), filepath.Join(dir, "machine"))
			enable(h.dir)
		}
		for _, d := range dirs {
			if err := os.Mkdir(d, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
				return nil, nil, fault.New(fault.Failed, "cgroup "+d, "", "%w", err)
			}
			inherit(d)
			if h.unified && (d == top || d == dir) {
				enable(d)
			}
		}
		l.apply(dir)
		if h.unified {
			keeper, boot = append(keeper, dirs[2]), append(boot, dirs[3])
		} else {
			keeper, boot = append(keeper, dir), append(boot, dir)
		}
	}
	return keeper, boot, nil
}

// enable hands every controller of a unified cgroup down to its children.
func enable(dir string) {
	b, err := os.ReadFile(filepath.Join(dir, "cgroup.controllers"))
	if err != nil {
		return
	}
	for _, c := range strings.Fields(string(b)) {
		write(dir, "cgroup.subtree_control", "+"+c)
	}
}

// inherit fills what a new group of the v1 cpuset controller lacks; without it
// no process may enter.
func inherit(dir string) {
	parent := filepath.Dir(dir)
	for _, name := range []string{"cpuset.cpus", "cpuset.mems"} {
		if own, err := os.ReadFile(filepath.Join(dir, name)); err != nil || strings.TrimSpace(string(own)) != "" {
			continue
		}
		if b, err := os.ReadFile(filepath.Join(parent, name)); err == nil && strings.TrimSpace(string(b)) != "" {
			write(dir, name, string(b))
			write(dir, "cgroup.clone_children", "1")
		}
	}
}

func (l limits) apply(dir string) {
	const period = 100_000 // microseconds
	if l.cores > 0 && l.cores < l.computer {
		quota := strconv.Itoa(l.cores * period)
		write(dir, "cpu.cfs_quota_us", quota)
		write(dir, "cpu.max", quota+" "+strconv.Itoa(period))
	}
	if l.memoryMiB > 0 {
		bytes := strconv.FormatInt(int64(l.memoryMiB)<<20, 10)
		write(dir, "memory.limit_in_bytes", bytes)
		write(dir, "memory.max", bytes)
	}
}

// write sets a control file where there is one and it can be set.
func write(dir, name, value string) {
	if f, err := os.OpenFile(filepath.Join(dir, name), os.O_WRONLY, 0); err == nil {
		_, _ = f.WriteString(value)
		f.Close()
	}
}

// Enter moves the calling process into a child group of the sandbox's.
func (g *Groups) Enter(child string) error {
	keeper, _, err := g.create(child, limits{})
	if err != nil {
		return err
	}
	for _, dir := range keeper {
		if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte("0"), 0); err != nil {
			return fault.New(fault.Failed, "cgroup "+dir, "", "%w", err)
		}
	}
	return nil
}

// dirs returns the group's directories with all below, deepest first. An empty
// child is the sandbox's own group.
func (g *Groups) dirs(child string) []string {
	var out []string
	for _, h := range g.hierarchies {
		var found []string
		_ = filepath.WalkDir(filepath.Join(h.dir, g.name, child), func(path string, d fs.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				found = append(found, path)
			}
			return nil // groups come and go while we look
		})
		slices.Reverse(found)
		out = append(out, found...)
	}
	return out
}

// processes lists the group's processes in all hierarchies.
func (g *Groups) processes(child string) []int {
	var out []int
	for _, dir := range g.dirs(child) {
		b, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
		if err != nil {
			continue
		}
		for _, f := range strings.Fields(string(b)) {
			// 0 is a process of a namespace this one cannot see.
			if pid, err := strconv.Atoi(f); err == nil && pid > 0 && pid != os.Getpid() {
				out = append(out, pid)
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// Remove kills every process of the group, the caller excepted, and removes
// the group. An empty child means the whole sandbox. It returns when nothing
// is left, or at ctx's end.
func (g *Groups) Remove(ctx context.Context, child string) error {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		for _, dir := range g.dirs(child) {
			write(dir, "cgroup.kill", "1")
		}
		pids := g.processes(child)
		for _, pid := range pids {
			_ = unix.Kill(pid, unix.SIGKILL) // gone already is as good
		}
		if len(pids) == 0 {
			left := 0
			for _, dir := range g.dirs(child) {
				if err := os.Remove(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
					left++
				}
			}
			if left == 0 {
				return nil
			}
		}
		select {
		case <-ctx.Done():
			return fault.New(fault.Failed, "cgroup "+filepath.Join(g.name, child), "", "processes %s do not end: %w", fmt.Sprint(pids), ctx.Err())
		case <-tick.C:
		}
	}
}
