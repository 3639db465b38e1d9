package converger

import (
	"context"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const oursMark = "# Ours\n"

// offAgain takes a program of ours off a machine: its unit, its package, a file
// beside it, and last the file by which it is known to be ours.
func offAgain() []Resource {
	known := &Unless{Unmarked: &Marked{Path: "/etc/vip/vip.conf", Mark: oursMark}}
	return []Resource{
		{Unit: &Unit{Name: "vip.service"}, Unless: known},
		{Package: &Package{Name: "vip", Absent: true}, Unless: known},
		{Absent: &Absent{Path: "/etc/vip/check"}, Unless: known},
		{Absent: &Absent{Path: "/etc/vip/vip.conf"}, Unless: known},
		{File: &File{Path: "/etc/vip/manifest.yaml", Content: "# nothing\n", Mode: 0o600, IfThere: true}},
	}
}

func TestTakenOffAgain(t *testing.T) {
	installed := func(f *fakeMachine) {
		f.change(func(s *fakeState) {
			s.Packages["vip"] = "ii"
			s.Units["vip.service"] = &fakeUnit{Load: "loaded", Active: "active", Sub: "running", File: "enabled", Uses: map[string]string{}}
		})
	}
	tests := map[string]struct {
		machine func(t *testing.T, f *fakeMachine)
		want    []Change // of the plan; what fails is said when it is made
		failed  []Change
		ran     []string
		left    []string
	}{
		"never there": {machine: func(*testing.T, *fakeMachine) {}},
		"ours": {
			machine: func(t *testing.T, f *fakeMachine) {
				installed(f)
				f.write(t, "/etc/vip/vip.conf", oursMark+"address\n")
				f.write(t, "/etc/vip/check", "x")
				f.write(t, "/etc/vip/manifest.yaml", "kind: DaemonSet\n")
			},
			want: []Change{
				{Resource: "unit vip.service", Action: "disable"}, {Resource: "unit vip.service", Action: "stop"},
				{Resource: "package vip", Action: "delete"},
				{Resource: "absent /etc/vip/check", Action: "delete"}, {Resource: "absent /etc/vip/vip.conf", Action: "delete"},
				{Resource: "file /etc/vip/manifest.yaml", Action: "update", Detail: "content, mode 0644 → 0600", Before: "kind: DaemonSet\n", After: "# nothing\n"},
			},
			ran:  []string{"systemctl --no-reload --quiet disable -- vip.service", "systemctl stop -- vip.service", "dpkg --purge -- vip", "systemctl daemon-reload"},
			left: []string{"/etc/vip/manifest.yaml"},
		},
		"somebody else's": {
			machine: func(t *testing.T, f *fakeMachine) {
				installed(f)
				f.write(t, "/etc/vip/vip.conf", "# Mine\n")
				f.write(t, "/etc/vip/check", "x")
			},
			left: []string{"/etc/vip/check", "/etc/vip/vip.conf"},
		},
		"the last run was interrupted after the package": {
			machine: func(t *testing.T, f *fakeMachine) { f.write(t, "/etc/vip/vip.conf", oursMark) },
			want:    []Change{{Resource: "absent /etc/vip/vip.conf", Action: "delete"}},
		},
		"another package needs it": {
			machine: func(t *testing.T, f *fakeMachine) {
				f.change(func(s *fakeState) { s.Packages["vip"] = "!i" })
				f.write(t, "/etc/vip/vip.conf", oursMark)
			},
			want: []Change{{Resource: "package vip", Action: "delete"}, {Resource: "absent /etc/vip/vip.conf", Action: "delete"}},
			failed: []Change{
				{Resource: "package vip", Action: "delete", Error: "dpkg --purge -- vip: dependency problems prevent removal of vip"},
				{Resource: "absent /etc/vip/vip.conf", Action: "delete", Error: "not made, because package vip failed"},
			},
			ran:  []string{"dpkg --purge -- vip", "systemctl daemon-reload"},
			left: []string{"/etc/vip/vip.conf"},
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			f := newFakeMachine(t)
			tt.machine(t, f)
			state := State{Resources: offAgain()}
			var failed []Change
			if d := cmp.Diff(tt.want, plan(t, f.converger(), Request{State: state})); d != "" {
				t.Errorf("plan (-want +got):\n%s", d)
			}
			err := f.converger().Apply(context.Background(), Request{State: state}, func(c Change) {
				if c.Error != "" {
					failed = append(failed, c)
				}
			})
			if err != nil && !errors.Is(err, ErrFailed) {
				t.Fatal(err)
			}
			if d := cmp.Diff(tt.failed, failed); d != "" {
				t.Errorf("failed (-want +got):\n%s", d)
			}
			if d := cmp.Diff(tt.ran, f.ran); d != "" {
				t.Errorf("ran (-want +got):\n%s", d)
			}
			var left []string
			for _, path := range []string{"/etc/vip/check", "/etc/vip/manifest.yaml", "/etc/vip/vip.conf"} {
				if (&view{root: f.root}).exists(path) {
					left = append(left, path)
				}
			}
			if d := cmp.Diff(tt.left, left); d != "" {
				t.Errorf("left (-want +got):\n%s", d)
			}
			if tt.failed == nil {
				if again := plan(t, f.converger(), Request{State: state}); again != nil {
					t.Errorf("the next plan: %v", again)
				}
			}
		})
	}
}
