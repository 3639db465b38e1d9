//go:build linux

package machine

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseHierarchies(t *testing.T) {
	tests := map[string]struct {
		mountinfo string
		want      []hierarchy
	}{
		"unified": {
			"30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw\n31 23 0:27 / /sys/fs/bpf rw - bpf bpf rw\n",
			[]hierarchy{{dir: "/sys/fs/cgroup", unified: true}},
		},
		"hybrid": {
			"30 23 0:26 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n" +
				"31 30 0:27 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n" +
				"32 30 0:28 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd\n" +
				"33 30 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n",
			[]hierarchy{{dir: "/sys/fs/cgroup/cpu,cpuacct"}, {dir: "/sys/fs/cgroup/systemd"}, {dir: "/sys/fs/cgroup/unified"}},
		},
		"elsewhere": {"30 23 0:26 / /mnt/cg rw - cgroup2 cgroup2 rw\n", nil},
		"nothing":   {"", nil},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if d := cmp.Diff(tt.want, parseHierarchies(tt.mountinfo), cmp.AllowUnexported(hierarchy{})); d != "" {
				t.Error(d)
			}
		})
	}
}

// TestCreateGroups: on cgroup v2 a group with children holds no processes, so
// the keeper and nspawn have one each.
func TestCreateGroups(t *testing.T) {
	v1, v2 := t.TempDir(), t.TempDir()
	g := &Groups{hierarchies: []hierarchy{{dir: v1}, {dir: v2, unified: true}}, name: "k3lab-x"}
	keeper, boot, err := g.create("201", limits{})
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]string{v1 + "/k3lab-x/201", v2 + "/k3lab-x/201/keeper"}, keeper); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff([]string{v1 + "/k3lab-x/201", v2 + "/k3lab-x/201/machine"}, boot); d != "" {
		t.Error(d)
	}
	if err := g.Remove(t.Context(), ""); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{v1, v2} {
		if left, _ := os.ReadDir(dir); len(left) > 0 {
			t.Errorf("left in %s: %v", dir, left)
		}
	}
}

func TestLimits(t *testing.T) {
	dir := t.TempDir()
	files := map[string]string{"memory.max": "", "memory.limit_in_bytes": "", "cpu.max": "", "cpu.cfs_quota_us": ""}
	for name := range files {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	limits{cores: 1, memoryMiB: 512, computer: 4}.apply(dir)
	for name := range files {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		files[name] = string(b)
	}
	want := map[string]string{
		"memory.max": "536870912", "memory.limit_in_bytes": "536870912", "cpu.max": "100000 100000", "cpu.cfs_quota_us": "100000",
	}
	if d := cmp.Diff(want, files); d != "" {
		t.Error(d)
	}
}
