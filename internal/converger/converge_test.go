package converger

import (
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func sum(text string) string {
	s := sha256.Sum256([]byte(text))
	return hex.EncodeToString(s[:])
}

func file(path, content string) Resource {
	return Resource{File: &File{Path: path, Content: content, Mode: 0o644}}
}

func unit(name string, restartOn ...string) Resource {
	return Resource{Unit: &Unit{Name: name, Enabled: true, Running: true, RestartOn: restartOn}}
}

// TestConverge plans, applies what was planned, and plans again: nothing is left
// but notices and what cannot be made.
func TestConverge(t *testing.T) {
	const config = "/etc/k3s/config.yaml"
	running := func(f *fakeMachine) {
		f.change(func(s *fakeState) {
			s.Units["k3s.service"] = &fakeUnit{Load: "loaded", Active: "active", Sub: "running", File: "enabled", Uses: map[string]string{}}
		})
	}
	tests := []struct {
		name      string
		machine   func(t *testing.T, f *fakeMachine)
		resources []Resource
		want      []Change
		remains   []Change // of the second plan
		ran       []string
		files     map[string]string
	}{
		{name: "a file is created with its parents", resources: []Resource{file("/a/b", "text\n")},
			want:  []Change{{Resource: "file /a/b", Action: "create", Detail: "mode 0644", After: "text\n"}},
			files: map[string]string{"/a/b": "text\n"}},
		{name: "a file is updated", machine: func(t *testing.T, f *fakeMachine) { f.write(t, "/a", "old\n") },
			resources: []Resource{{File: &File{Path: "/a", Content: "new\n", Mode: 0o600}}},
			want:      []Change{{Resource: "file /a", Action: "update", Detail: "content, mode 0644 → 0600", Before: "old\n", After: "new\n"}},
			files:     map[string]string{"/a": "new\n"}},
		{name: "a secret is never shown", machine: func(t *testing.T, f *fakeMachine) { f.write(t, "/a", "old secret") },
			resources: []Resource{{File: &File{Path: "/a", Content: "new secret", Mode: 0o644, Secret: true}}},
			want:      []Change{{Resource: "file /a", Action: "update", Detail: "secret content"}},
			files:     map[string]string{"/a": "new secret"}},
		{name: "a file that is no longer read is left", machine: func(t *testing.T, f *fakeMachine) { f.write(t, "/a", "old"); f.write(t, "/db/x", "") },
			resources: []Resource{{File: &File{Path: "/a", Content: "new", Mode: 0o600, KeepIf: "/db"}}},
			want:      []Change{{Resource: "file /a", Action: "update", Detail: "mode 0644 → 0600"}},
			files:     map[string]string{"/a": "old"}},
		{name: "a file in the place of a link", machine: func(t *testing.T, f *fakeMachine) {
			f.write(t, "/other", "other")
			if err := os.Symlink("other", filepath.Join(f.root, "a")); err != nil {
				t.Fatal(err)
			}
		},
			resources: []Resource{file("/a", "mine")},
			want:      []Change{{Resource: "file /a", Action: "update", Detail: "a symbolic link becomes a file", Before: "symbolic link → other\n", After: "mine"}},
			files:     map[string]string{"/a": "mine", "/other": "other"}},
		{name: "a directory stands where a file should be", machine: func(t *testing.T, f *fakeMachine) { f.write(t, "/a/b", "") },
			resources: []Resource{file("/a", "x")},
			want:      []Change{{Resource: "file /a", Error: "is a directory"}},
			remains:   []Change{{Resource: "file /a", Error: "is a directory"}}},
		{name: "an owner nobody knows", resources: []Resource{{File: &File{Path: "/a", Mode: 0o600, Owner: "nobody-knows"}}},
			want:    []Change{{Resource: "file /a", Error: `owner: there is no "nobody-knows" on this machine`}},
			remains: []Change{{Resource: "file /a", Error: `owner: there is no "nobody-knows" on this machine`}}},
		{name: "directories", machine: func(t *testing.T, f *fakeMachine) { f.write(t, "/there/x", "") },
			resources: []Resource{{Directory: &Directory{Path: "/there", Mode: 0o700}}, {Directory: &Directory{Path: "/new/one", Mode: 0o1777}}},
			want: []Change{{Resource: "directory /there", Action: "update", Detail: "mode 0755 → 0700"},
				{Resource: "directory /new/one", Action: "create", Detail: "mode 1777"}}},
		{name: "absent", machine: func(t *testing.T, f *fakeMachine) { f.write(t, "/var/x/y/z", ""); f.write(t, "/a", "") },
			resources: []Resource{{Absent: &Absent{Path: "/var/x"}}, {Absent: &Absent{Path: "/a"}}, {Absent: &Absent{Path: "/b"}}},
			want:      []Change{{Resource: "absent /var/x", Action: "delete", Detail: "directory with what it holds"}, {Resource: "absent /a", Action: "delete"}}},
		{name: "a top directory is never removed", resources: []Resource{{Absent: &Absent{Path: "/etc"}}},
			want:    []Change{{Resource: "absent /etc", Error: "is a top directory of the machine; that is never removed"}},
			remains: []Change{{Resource: "absent /etc", Error: "is a top directory of the machine; that is never removed"}}},
		{name: "links", machine: func(t *testing.T, f *fakeMachine) {
			if err := os.Symlink("old", filepath.Join(f.root, "b")); err != nil {
				t.Fatal(err)
			}
		},
			resources: []Resource{{Link: &Link{Path: "/a", Target: "/x"}}, {Link: &Link{Path: "/b", Target: "new"}}},
			want:      []Change{{Resource: "link /a", Action: "create", Detail: "→ /x"}, {Resource: "link /b", Action: "update", Detail: "old → new"}}},
		{name: "a binary is installed and its unit restarted", machine: func(t *testing.T, f *fakeMachine) {
			running(f)
			f.write(t, "/usr/local/bin/k3s", "old")
			f.write(t, "/cache/k3s", "new")
		},
			resources: []Resource{{Binary: &Binary{Path: "/usr/local/bin/k3s", SHA256: sum("new"), Source: "/cache/k3s", Version: "v2"}},
				unit("k3s.service", "binary /usr/local/bin/k3s")},
			want: []Change{{Resource: "binary /usr/local/bin/k3s", Action: "install", Detail: "v2 (SHA-256 " + sum("new")[:12] + "…)", Before: sum("old"), After: sum("new")},
				{Resource: "unit k3s.service", Action: "restart", Detail: "because binary /usr/local/bin/k3s changes"}},
			ran:   []string{"systemctl restart -- k3s.service"},
			files: map[string]string{"/usr/local/bin/k3s": "new"}},
		{name: "sysctls, kept in one sorted file", resources: []Resource{
			{Sysctl: &Sysctl{Key: "vm.overcommit_memory", Value: "1"}}, {Sysctl: &Sysctl{Key: "net.ipv4.ip_forward", Value: "1"}}},
			want: []Change{{Resource: "sysctl vm.overcommit_memory", Action: "update", Before: "0", After: "1", Detail: "0 → 1"},
				{Resource: "sysctl net.ipv4.ip_forward", Action: "update", Before: "0", After: "1", Detail: "0 → 1"}},
			files: map[string]string{sysctlPath: fileHeader + "net.ipv4.ip_forward = 1\nvm.overcommit_memory = 1\n", "/proc/sys/vm/overcommit_memory": "1\n"}},
		{name: "a sysctl nobody wants any more", machine: func(t *testing.T, f *fakeMachine) {
			f.write(t, sysctlPath, fileHeader+"net.ipv4.ip_forward = 0\nvm.old = 1\n")
		}, resources: []Resource{{Sysctl: &Sysctl{Key: "net.ipv4.ip_forward", Value: "0"}}},
			want:  []Change{{Resource: "sysctl vm.old", Action: "delete", Detail: "no longer kept; what it is now stays until the next boot"}},
			files: map[string]string{sysctlPath: fileHeader + "net.ipv4.ip_forward = 0\n"}},
		{name: "in a container kernel-wide settings are only verified", machine: func(t *testing.T, f *fakeMachine) {
			f.write(t, "/run/systemd/container", "systemd-nspawn\n")
			f.write(t, "/proc/swaps", "Filename\n/dev/sda2 partition 1 0 -2\n")
		}, resources: []Resource{{Sysctl: &Sysctl{Key: "vm.overcommit_memory", Value: "1"}}, {Sysctl: &Sysctl{Key: "net.ipv4.ip_forward", Value: "1"}},
			{Module: &Module{Name: "overlay"}}, {Swap: &Swap{Off: true}}},
			want: []Change{{Resource: "sysctl vm.overcommit_memory", Notice: "belongs to the computer: it is 0 there and should be 1"},
				{Resource: "sysctl net.ipv4.ip_forward", Action: "update", Before: "0", After: "1", Detail: "0 → 1"},
				{Resource: "module overlay", Notice: "belongs to the computer and is not loaded there"},
				{Resource: "swap", Notice: "belongs to the computer: it has swap on /dev/sda2"}},
			remains: []Change{{Resource: "sysctl vm.overcommit_memory", Notice: "belongs to the computer: it is 0 there and should be 1"},
				{Resource: "module overlay", Notice: "belongs to the computer and is not loaded there"},
				{Resource: "swap", Notice: "belongs to the computer: it has swap on /dev/sda2"}},
			files: map[string]string{sysctlPath: fileHeader + "net.ipv4.ip_forward = 1\n", "/proc/sys/vm/overcommit_memory": "0\n"}},
		{name: "modules", machine: func(t *testing.T, f *fakeMachine) {
			f.write(t, "/proc/modules", "br_netfilter 1 0 - Live 0x0\n")
			f.write(t, modulesPath, fileHeader+"old\n")
		}, resources: []Resource{{Module: &Module{Name: "br_netfilter"}}, {Module: &Module{Name: "overlay"}}},
			want: []Change{{Resource: "module br_netfilter", Action: "update", Detail: "load at boot"},
				{Resource: "module overlay", Action: "update", Detail: "load, now and at boot"},
				{Resource: "module old", Action: "delete", Detail: "no longer loaded at boot; stays loaded until then"}},
			ran:   []string{"modprobe -- overlay"},
			files: map[string]string{modulesPath: fileHeader + "br_netfilter\noverlay\n"}},
		{name: "swap in its three places", machine: func(t *testing.T, f *fakeMachine) {
			f.write(t, "/proc/swaps", "Filename\n/dev/sda2 partition 1 0 -2\n")
			f.write(t, fstabPath, "UUID=1 / ext4 defaults 0 1\nUUID=2 none swap sw 0 0\n")
			f.change(func(s *fakeState) {
				s.Units["dev-zram0.swap"] = &fakeUnit{Load: "loaded", Active: "inactive"}
				s.Units[swapTarget] = &fakeUnit{Load: "loaded", Active: "active", File: "static"}
			})
		}, resources: []Resource{{Swap: &Swap{Off: true}}},
			want: []Change{{Resource: "swap", Action: "stop", Detail: "swap on /dev/sda2"},
				{Resource: "swap", Action: "update", Detail: "/etc/fstab: 1 swap lines become comments",
					Before: "UUID=1 / ext4 defaults 0 1\nUUID=2 none swap sw 0 0\n", After: "UUID=1 / ext4 defaults 0 1\n# k3lab: UUID=2 none swap sw 0 0\n"},
				{Resource: "swap", Action: "disable", Detail: "mask swap.target, which starts swap units at boot"}},
			ran:   []string{"swapoff -- /dev/sda2", "systemctl --no-reload mask -- swap.target", "systemctl daemon-reload"},
			files: map[string]string{fstabPath: "UUID=1 / ext4 defaults 0 1\n# k3lab: UUID=2 none swap sw 0 0\n"}},
		{name: "the host name", resources: []Resource{{Hostname: &Hostname{Name: "server-1"}}},
			want:  []Change{{Resource: "hostname", Action: "update", Before: "old", After: "server-1", Detail: "old → server-1, /etc/hostname, /etc/hosts"}},
			files: map[string]string{"/etc/hostname": "server-1\n", "/proc/sys/kernel/hostname": "server-1\n", "/etc/hosts": "127.0.0.1 localhost\n127.0.1.1\tserver-1\n"}},
		{name: "packages are installed together", machine: func(_ *testing.T, f *fakeMachine) {
			f.change(func(s *fakeState) { s.Packages = map[string]string{"there": "ii", "held": "hi", "half": "iF"} })
		}, resources: []Resource{{Package: &Package{Name: "there"}}, {Package: &Package{Name: "held"}}, {Package: &Package{Name: "half"}}, {Package: &Package{Name: "curl"}}},
			want: []Change{{Resource: "package half", Action: "install", Detail: "an earlier installation did not end"}, {Resource: "package curl", Action: "install"}},
			ran: []string{"dpkg --configure -a", "apt-get install --yes --quiet --no-install-recommends --option=DPkg::Lock::Timeout=300" +
				" --option=Dpkg::Options::=--force-confdef --option=Dpkg::Options::=--force-confold -- half curl", "systemctl daemon-reload"}},
		{name: "what a package starts is restarted with our settings", resources: []Resource{{Package: &Package{Name: "vip"}}, file(config, "ours"), unit("vip.service", "file "+config)},
			want: []Change{{Resource: "package vip", Action: "install"}, {Resource: "file " + config, Action: "create", Detail: "mode 0644", After: "ours"},
				{Resource: "unit vip.service", Action: "enable"}, {Resource: "unit vip.service", Action: "start"}},
			ran: []string{"apt-get install --yes --quiet --no-install-recommends --option=DPkg::Lock::Timeout=300" +
				" --option=Dpkg::Options::=--force-confdef --option=Dpkg::Options::=--force-confold -- vip",
				"systemctl --no-reload --quiet enable -- vip.service", "systemctl daemon-reload", "systemctl restart -- vip.service"}},
		{name: "a new unit", resources: []Resource{file("/etc/systemd/system/k3s.service", "[Unit]\n"), unit("k3s.service", "file /etc/systemd/system/k3s.service")},
			want: []Change{{Resource: "file /etc/systemd/system/k3s.service", Action: "create", Detail: "mode 0644", After: "[Unit]\n"},
				{Resource: "unit k3s.service", Action: "enable"}, {Resource: "unit k3s.service", Action: "start"}},
			ran: []string{"systemctl --no-reload --quiet enable -- k3s.service", "systemctl daemon-reload", "systemctl restart -- k3s.service"}},
		{name: "a unit that is not there", resources: []Resource{unit("k3s.service")},
			want:    []Change{{Resource: "unit k3s.service", Error: "systemd knows no such unit"}},
			remains: []Change{{Resource: "unit k3s.service", Error: "systemd knows no such unit"}}},
		{name: "a unit that was stopped", machine: func(_ *testing.T, f *fakeMachine) {
			running(f)
			f.change(func(s *fakeState) { s.Units["k3s.service"].Active = "inactive" })
		}, resources: []Resource{{Unit: &Unit{Name: "k3s.service", Enabled: true, Running: true, NoBlock: true}}},
			want: []Change{{Resource: "unit k3s.service", Action: "start"}},
			ran:  []string{"systemctl --no-block start -- k3s.service"}},
		{name: "a unit that has failed", machine: func(_ *testing.T, f *fakeMachine) {
			running(f)
			f.change(func(s *fakeState) {
				s.Units["k3s.service"].Active, s.Units["k3s.service"].Result = "failed", "exit-code"
			})
		}, resources: []Resource{unit("k3s.service")},
			want: []Change{{Resource: "unit k3s.service", Action: "start", Detail: "it has failed: exit-code"}},
			ran:  []string{"systemctl reset-failed -- k3s.service", "systemctl start -- k3s.service"}},
		{name: "a unit that is being started is left alone", machine: func(_ *testing.T, f *fakeMachine) {
			running(f)
			f.change(func(s *fakeState) { s.Units["k3s.service"].Active = "activating" })
		}, resources: []Resource{unit("k3s.service")}},
		{name: "a unit is reloaded", machine: func(_ *testing.T, f *fakeMachine) { running(f) },
			resources: []Resource{file(config, "x"), {Unit: &Unit{Name: "k3s.service", Enabled: true, Running: true, ReloadOn: []string{"file " + config}}}},
			want: []Change{{Resource: "file " + config, Action: "create", Detail: "mode 0644", After: "x"},
				{Resource: "unit k3s.service", Action: "reload", Detail: "because file " + config + " changes"}},
			ran: []string{"systemctl reload -- k3s.service"}},
		{name: "units are switched off", machine: func(_ *testing.T, f *fakeMachine) {
			running(f)
			f.change(func(s *fakeState) {
				s.Units["apt-daily.timer"] = &fakeUnit{Load: "loaded", Active: "active", File: "enabled"}
			})
		}, resources: []Resource{{Unit: &Unit{Name: "k3s.service"}}, {Unit: &Unit{Name: "apt-daily.timer", Masked: true}}, {Unit: &Unit{Name: "gone.service"}}},
			want: []Change{{Resource: "unit k3s.service", Action: "disable"}, {Resource: "unit k3s.service", Action: "stop"},
				{Resource: "unit apt-daily.timer", Action: "stop"}, {Resource: "unit apt-daily.timer", Action: "update", Detail: "mask"}},
			ran: []string{"systemctl --no-reload --quiet disable -- k3s.service", "systemctl stop -- k3s.service",
				"systemctl stop -- apt-daily.timer", "systemctl --no-reload --quiet mask -- apt-daily.timer", "systemctl daemon-reload"}},
		{name: "systemd has not read a unit file", machine: func(_ *testing.T, f *fakeMachine) {
			running(f)
			f.change(func(s *fakeState) { s.Units["k3s.service"].Stale = true })
		}, resources: []Resource{unit("k3s.service")},
			want: []Change{{Resource: "unit k3s.service", Action: "update", Detail: "systemd reads its unit file again"}},
			ran:  []string{"systemctl daemon-reload"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			f := newFakeMachine(t)
			if test.machine != nil {
				test.machine(t, f)
			}
			q := Request{State: State{Machine: "m", Resources: test.resources}}
			before := snapshot(t, f.root)
			planned := plan(t, f.converger(), q)
			if diff := cmp.Diff(test.want, planned); diff != "" {
				t.Errorf("plan (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(before, snapshot(t, f.root)); diff != "" || f.ran != nil {
				t.Errorf("plan changed the machine: %v\n%s", f.ran, diff)
			}
			want := made(test.want)
			if diff := cmp.Diff(want, apply(t, f.converger(), q)); diff != "" {
				t.Errorf("apply (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(test.ran, f.ran); diff != "" {
				t.Errorf("programs (-want +got):\n%s", diff)
			}
			for path, want := range test.files {
				if diff := cmp.Diff(want, f.read(path)); diff != "" {
					t.Errorf("%s (-want +got):\n%s", path, diff)
				}
			}
			if diff := cmp.Diff(test.remains, plan(t, f.converger(), q)); diff != "" {
				t.Errorf("second plan (-want +got):\n%s", diff)
			}
		})
	}
}

func made(planned []Change) []Change {
	var out []Change
	for _, c := range planned {
		c.Made = c.IsChange()
		out = append(out, c)
	}
	return out
}

// snapshot lists everything below root: mode, target or content. The
// converger's own memory is not the machine's state.
func snapshot(t *testing.T, root string) map[string]string {
	t.Helper()
	out := map[string]string{}
	err := filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel := strings.TrimPrefix(path, root)
		info, err := d.Info()
		if err != nil || strings.HasPrefix(rel, memoryDir) {
			return err
		}
		text := info.Mode().String()
		switch {
		case info.Mode().IsRegular():
			content, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			text += " " + string(content)
		case info.Mode()&os.ModeSymlink != 0:
			target, err := os.Readlink(path)
			if err != nil {
				return err
			}
			text += " " + target
		}
		out[rel] = text
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}
