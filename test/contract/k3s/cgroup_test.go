package k3s

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const cgroupRoot = "/sys/fs/cgroup"

// groups is one cgroup per hierarchy of this computer, parents of the machines'.
type groups struct {
	unified bool // cgroup v2 alone
	parents []string
}

func newGroups(t *testing.T) *groups {
	t.Helper()
	g := &groups{}
	name := fmt.Sprintf("k3lab-contract-%d", os.Getpid())
	if _, err := os.Stat(filepath.Join(cgroupRoot, "cgroup.controllers")); err == nil {
		g.unified = true
		g.parents = []string{filepath.Join(cgroupRoot, name)}
	} else {
		hierarchies, err := filepath.Glob(cgroupRoot + "/*/cgroup.procs")
		if err != nil || len(hierarchies) == 0 {
			t.Skipf("no cgroups at %s", cgroupRoot)
		}
		for _, file := range hierarchies {
			dir := filepath.Dir(file)
			if link, err := os.Lstat(dir); err == nil && link.Mode()&os.ModeSymlink == 0 {
				g.parents = append(g.parents, filepath.Join(dir, name))
			}
		}
	}
	g.make(t, g.parents)
	return g
}

// child makes the cgroups of one machine.
func (g *groups) child(t *testing.T, name string) []string {
	t.Helper()
	var dirs []string
	for _, parent := range g.parents {
		dirs = append(dirs, filepath.Join(parent, name))
	}
	g.make(t, dirs)
	return dirs
}

func (g *groups) make(t *testing.T, dirs []string) {
	t.Helper()
	t.Cleanup(func() {
		for _, dir := range dirs {
			if err := removeGroup(dir); err != nil {
				t.Error(err)
			}
		}
	})
	for _, dir := range dirs {
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if g.unified {
			handControllers(t, dir)
		}
		// A cpuset group starts empty and takes no process before it is filled.
		for _, setting := range []string{"cpuset.cpus", "cpuset.mems"} {
			value, err := os.ReadFile(filepath.Join(filepath.Dir(dir), setting))
			if g.unified || err != nil {
				continue
			}
			if err := os.WriteFile(filepath.Join(dir, setting), value, 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// handControllers gives a cgroup v2 group what its parent has.
func handControllers(t *testing.T, dir string) {
	t.Helper()
	parent := filepath.Dir(dir)
	have, err := os.ReadFile(filepath.Join(parent, "cgroup.controllers"))
	if err != nil {
		t.Fatal(err)
	}
	for _, controller := range strings.Fields(string(have)) {
		// What cannot be handed on is not needed, or K3s will say so.
		os.WriteFile(filepath.Join(parent, "cgroup.subtree_control"), []byte("+"+controller), 0o644) //nolint:errcheck
	}
}

// removeGroup removes a cgroup and its children. The kernel empties a group a
// moment after its last process has been waited for.
func removeGroup(dir string) error {
	deadline := time.Now().Add(20 * time.Second)
	for {
		var dirs []string
		err := filepath.WalkDir(dir, func(path string, entry os.DirEntry, err error) error {
			if err != nil {
				return err
			}
			if entry.IsDir() {
				dirs = append(dirs, path)
			}
			return nil
		})
		for i := len(dirs) - 1; i >= 0; i-- {
			err = errors.Join(err, os.Remove(dirs[i]))
		}
		if _, gone := os.Stat(dir); os.IsNotExist(gone) {
			return nil
		}
		if time.Now().After(deadline) {
			return err
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// processGroups is where the machine's processes live: on cgroup v2 one level
// below the machine's own group.
func (m *machine) processGroups() []string {
	if !m.lab.groups.unified {
		return m.groups
	}
	return []string{filepath.Join(m.groups[0], "init")}
}
