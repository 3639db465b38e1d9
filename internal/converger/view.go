package converger

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Where the converger keeps its own memory on a machine.
const (
	memoryDir   = "/var/lib/k3lab"
	pendingPath = memoryDir + "/pending.json"
	digestsPath = memoryDir + "/digests.json"
	lockPath    = memoryDir + "/lock"
)

// view is all that planning has: it reads the machine and cannot change it.
type view struct {
	root         string
	state        State
	queries      queries
	planned      map[string]bool // IDs of resources planned to change so far
	synchronised func() (bool, error)

	container bool
	digests   *digests
	pending   pending
	users     names
	groups    names

	tables      map[string]*tableState
	units       map[string]unitState
	unitsErr    error
	packages    map[string]string // name → dpkg's status, e.g. "ii"
	packagesErr error
	remains     remains
	remainsErr  error
	upgrades    upgrades
	upgradesErr error
	lockWait    time.Duration     // how long another program may update package lists
	sysctls     map[string]string // what our file says
	modules     map[string]bool   // what our file says
}

func observe(root string, p programs, s State) *view {
	return &view{root: root, state: s, queries: queries{p}, planned: map[string]bool{}, synchronised: synchronised, lockWait: lockWait}
}

// gather reads at once what takes long or serves many resources.
func (v *view) gather(ctx context.Context) {
	v.container = inContainer(v)
	v.digests = loadDigests(v)
	v.pending = loadPending(v)
	v.users, v.groups = v.readNames("/etc/passwd"), v.readNames("/etc/group")
	v.sysctls, v.modules = v.readSysctlFile(), v.readModulesFile()
	var units, packages []string
	var wait sync.WaitGroup
	v.tables = map[string]*tableState{}
	for _, r := range v.state.Resources {
		if r.Unless != nil {
			units = append(units, r.Unless.UnitsUp...)
		}
		switch {
		case r.Unit != nil:
			units = append(units, r.Unit.Name)
		case r.Swap != nil:
			units = append(units, swapTarget)
			units = append(units, swapServices...)
		case r.Package != nil:
			packages = append(packages, r.Package.Name)
		case r.Remains != nil:
			wait.Go(func() { v.remains, v.remainsErr = v.queries.remains(ctx, v, r.Remains) })
		case r.Upgrades != nil:
			wait.Go(func() { v.upgrades, v.upgradesErr = v.queries.upgrades(ctx, v, v.lockWait) })
		case r.Nftables != nil:
			t := &tableState{}
			v.tables[r.Nftables.Table] = t
			wait.Go(func() { t.is, t.isErr = v.queries.table(ctx, r.Nftables.Table) })
			wait.Go(func() { t.want, t.wantErr = v.queries.tableOf(ctx, r.Nftables) })
		case r.Binary != nil:
			// What fails here fails again, and is told, when the binary is planned.
			wait.Go(func() { _, _ = v.digests.of(r.Binary.Path) })
		}
	}
	if units != nil {
		wait.Go(func() { v.units, v.unitsErr = v.queries.units(ctx, append(units, "*.swap")) })
	}
	if packages != nil {
		wait.Go(func() { v.packages, v.packagesErr = v.queries.packages(ctx, packages) })
	}
	wait.Wait()
}

// unless reports whether the resource is not wanted on this machine. What cannot
// be known is no reason: reading the units fails again where it is told.
func (v *view) unless(u *Unless) bool {
	if u == nil {
		return false
	}
	return u.Container && v.container || u.Unmarked != nil && !v.marked(u.Unmarked) ||
		slices.ContainsFunc(u.UnitsUp, func(name string) bool { return v.units[name].up() })
}

// marked reports whether the file is there and begins with its mark.
func (v *view) marked(m *Marked) bool {
	ours, err := v.begins(m.Path, m.Mark)
	return ours && err == nil
}

// markLast has a file by which other resources are known to be wanted go only when
// those were made: else the next run would not know.
func (v *view) markLast(r Resource, actions []action) {
	if r.Absent == nil || r.Unless == nil || r.Unless.Unmarked == nil || r.Unless.Unmarked.Path != r.Absent.Path {
		return
	}
	for _, other := range v.state.Resources {
		if other.Unless == nil || other.Unless.Unmarked == nil || other.Unless.Unmarked.Path != r.Absent.Path || other.ID() == r.ID() {
			continue
		}
		for i := range actions {
			actions[i].needs = append(actions[i].needs, other.ID())
		}
	}
}

// at is where a path of the machine lies for this process.
func (v *view) at(path string) string { return filepath.Join(v.root, path) }

func (v *view) exists(path string) bool {
	_, err := os.Lstat(v.at(path))
	return err == nil
}

// text reads a small file; one that is not there is empty.
func (v *view) text(path string) string {
	content, err := os.ReadFile(v.at(path))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(content))
}

// lines are those of a small file; one that is not there has none.
func (v *view) lines(path string) []string {
	text := v.text(path)
	if text == "" {
		return nil
	}
	return strings.Split(text, "\n")
}

// inContainer reports whether the kernel belongs to somebody else.
func inContainer(v *view) bool {
	if v.exists("/run/systemd/container") || v.exists("/.dockerenv") || v.exists("/run/.containerenv") {
		return true
	}
	environ, err := os.ReadFile(v.at("/proc/1/environ"))
	if err != nil {
		return false
	}
	for entry := range bytes.SplitSeq(environ, []byte{0}) {
		if bytes.HasPrefix(entry, []byte("container=")) {
			return true
		}
	}
	return false
}

// names maps user or group names to their numbers.
type names map[string]int

func (v *view) readNames(path string) names {
	out := names{"root": 0}
	f, err := os.Open(v.at(path))
	if err != nil {
		return out
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		fields := strings.Split(s.Text(), ":")
		if len(fields) < 3 {
			continue
		}
		if id, err := strconv.Atoi(fields[2]); err == nil {
			out[fields[0]] = id
		}
	}
	return out
}

func (n names) id(name string) (int, error) {
	if name == "" {
		name = "root"
	}
	if id, ok := n[name]; ok {
		return id, nil
	}
	if id, err := strconv.Atoi(name); err == nil && id >= 0 {
		return id, nil
	}
	return 0, fmt.Errorf("there is no %q on this machine", name)
}

// packagesPlanned reports whether a package is to be installed first, which may
// bring users, directories and units that are not there yet.
func (v *view) packagesPlanned() bool {
	for id := range v.planned {
		if strings.HasPrefix(id, "package ") {
			return true
		}
	}
	return false
}

func notThere(err error) bool { return errors.Is(err, fs.ErrNotExist) }
