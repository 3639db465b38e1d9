package converger

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// newerPackages is what apt-get of Debian 12 writes.
const newerPackages = `Reading package lists...
Building dependency tree...
Calculating upgrade...
The following packages will be upgraded:
  curl libcurl4
Remv old-thing [1.2]
Inst libcurl4 [7.88.1-10+deb12u5] (7.88.1-10+deb12u8 Debian-Security:12/stable-security [amd64]) [curl:amd64 ]
Inst curl [7.88.1-10+deb12u5] (7.88.1-10+deb12u8 Debian-Security:12/stable-security [amd64])
Inst linux-image-6.1.0-28-amd64 (6.1.119-1 Debian-Security:12/stable-security [amd64])
Conf libcurl4 (7.88.1-10+deb12u8 Debian-Security:12/stable-security [amd64])
Conf curl (7.88.1-10+deb12u8 Debian-Security:12/stable-security [amd64])
Conf linux-image-6.1.0-28-amd64 (6.1.119-1 Debian-Security:12/stable-security [amd64])
`

const listOptions = " --option=Dir::State::lists=/var/cache/k3lab/apt-lists --option=Dir::Cache::pkgcache= --option=Dir::Cache::srcpkgcache="

func TestUpgrades(t *testing.T) {
	q := Request{State: State{Resources: []Resource{{Upgrades: &Upgrades{}}}}}
	lists := "apt-get update --quiet --option=APT::Update::Error-Mode=any" + listOptions
	const upgrade = "apt-get dist-upgrade --yes --quiet --option=DPkg::Lock::Timeout=300" +
		" --option=Dpkg::Options::=--force-confdef --option=Dpkg::Options::=--force-confold" + listOptions
	tests := map[string]struct {
		apt    string
		left   bool // dpkg was interrupted
		refuse string
		want   []Change
		ran    []string // by apply, after a plan
		rest   []Change // of the plan afterwards
	}{
		"nothing is newer": {apt: "Reading package lists...\n0 upgraded, 0 newly installed\n", ran: []string{lists, lists, lists}},
		"some are, one more and one less": {apt: newerPackages,
			want: []Change{{Resource: "packages", Action: "update", Detail: "2 to a newer version, 1 more, 1 removed",
				Before: "curl 7.88.1-10+deb12u5\nlibcurl4 7.88.1-10+deb12u5\nold-thing 1.2\n",
				After:  "curl 7.88.1-10+deb12u8\nlibcurl4 7.88.1-10+deb12u8\nlinux-image-6.1.0-28-amd64 6.1.119-1\n"}},
			ran: []string{lists, lists, "dpkg --configure -a --force-confdef --force-confold", upgrade, "systemctl daemon-reload", lists}},
		"an installation was interrupted": {apt: "Conf curl (7.88.1 Debian:12 [amd64])\n",
			want: []Change{{Resource: "packages", Action: "update", Detail: "to its end what an interruption has left of curl"}},
			ran:  []string{lists, lists, "dpkg --configure -a --force-confdef --force-confold", upgrade, "systemctl daemon-reload", lists}},
		"dpkg was killed": {left: true,
			want: []Change{{Resource: "packages", Action: "update", Detail: "to its end what an interruption has left of the package manager's own records"}},
			ran:  []string{lists, lists, "dpkg --configure -a --force-confdef --force-confold", upgrade, "systemctl daemon-reload", lists},
			rest: []Change{{Resource: "packages", Action: "update", Detail: "to its end what an interruption has left of the package manager's own records"}}},
		"the archive does not answer": {refuse: "update", apt: newerPackages,
			want: []Change{{Resource: "packages", Error: "E: Failed to fetch http://deb.debian.org"}},
			rest: []Change{{Resource: "packages", Error: "E: Failed to fetch http://deb.debian.org"}}},
		"one cannot be had": {refuse: "dist-upgrade", apt: "Inst curl [1] (2 Debian:12 [amd64])\n",
			want: []Change{{Resource: "packages", Action: "update", Detail: "1 to a newer version", Before: "curl 1\n", After: "curl 2\n",
				Error: "E: Failed to fetch http://deb.debian.org"}},
			ran:  []string{lists, lists, "dpkg --configure -a --force-confdef --force-confold", "systemctl daemon-reload", lists},
			rest: []Change{{Resource: "packages", Action: "update", Detail: "1 to a newer version", Before: "curl 1\n", After: "curl 2\n"}}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			f := newFakeMachine(t)
			f.change(func(s *fakeState) { s.Upgrades = test.apt })
			if test.left {
				f.write(t, "/var/lib/dpkg/updates/0001", "")
			}
			f.refuse = func(args []string) error {
				if args[0] == "apt-get" && args[1] == test.refuse {
					return errors.New("E: Failed to fetch http://deb.debian.org")
				}
				return nil
			}
			planned := plan(t, f.converger(), q)
			made := apply(t, f.converger(), q)
			for i := range test.want {
				c := test.want[i]
				c.Made = c.Error == ""
				if d := cmp.Diff(c, made[i]); d != "" {
					t.Errorf("apply (-want +got):\n%s", d)
				}
				if c.Action != "" {
					test.want[i].Error = ""
				}
			}
			if d := cmp.Diff(test.want, planned); d != "" {
				t.Errorf("plan (-want +got):\n%s", d)
			}
			if d := cmp.Diff(test.rest, plan(t, f.converger(), q)); d != "" {
				t.Errorf("plan afterwards (-want +got):\n%s", d)
			}
			if d := cmp.Diff(test.ran, f.ran); d != "" {
				t.Errorf("ran (-want +got):\n%s", d)
			}
		})
	}
}

func TestRebootReason(t *testing.T) {
	// started says that the machine's first process was started n seconds from now.
	started := func(seconds int) func(t *testing.T, f *fakeMachine) {
		return func(t *testing.T, f *fakeMachine) {
			f.write(t, "/proc/stat", fmt.Sprintf("cpu  1 2\nbtime %d\nprocesses 7\n", time.Now().Unix()-1000))
			f.write(t, "/proc/1/stat", fmt.Sprintf("1 (sys) temd) S 0 1 1 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 %d 9 9\n", (1000+seconds)*ticks))
		}
	}
	file := func(path, text string) func(t *testing.T, f *fakeMachine) {
		return func(t *testing.T, f *fakeMachine) { f.write(t, path, text) }
	}
	kernels := func(t *testing.T, f *fakeMachine) {
		f.write(t, "/boot/vmlinuz-6.1.0-25-amd64", "")
		f.write(t, "/boot/vmlinuz-6.1.0-28-amd64", "")
	}
	type machine = []func(t *testing.T, f *fakeMachine)
	tests := map[string]struct {
		machine machine
		want    string
	}{
		"nothing is known":             {nil, ""},
		"a package asks for it":        {machine{file("/run/reboot-required", "*** System restart required ***\n"), file("/run/reboot-required.pkgs", "linux-base\ndbus\nlinux-base\n")}, "asked for by dbus, linux-base"},
		"nobody says who asks":         {machine{file("/run/reboot-required", "")}, "asked for by /run/reboot-required"},
		"a kernel was there at boot":   {machine{started(60), kernels}, ""},
		"a kernel came later":          {machine{started(-60), kernels}, "kernel 6.1.0-28-amd64 was installed since it booted"},
		"a container has no kernel":    {machine{started(-60), kernels, file("/run/systemd/container", "systemd-nspawn")}, ""},
		"libc came later":              {machine{started(-60), file("/lib/x86_64-linux-gnu/libc.so.6", "")}, "libc was installed since it booted"},
		"libc came later, a container": {machine{started(-60), file("/lib/aarch64-linux-gnu/libc.so.6", ""), file("/run/systemd/container", "")}, "libc was installed since it booted"},
		"libc was there at boot":       {machine{started(60), file("/lib/x86_64-linux-gnu/libc.so.6", "")}, ""},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			f := newFakeMachine(t)
			for _, prepare := range test.machine {
				prepare(t, f)
			}
			got, err := f.converger().Facts(t.Context(), FactsRequest{Reboot: true})
			if err != nil || got.Reboot != test.want {
				t.Errorf("%q, %v; want %q", got.Reboot, err, test.want)
			}
			if unasked, err := f.converger().Facts(t.Context(), FactsRequest{}); err != nil || unasked.Reboot != "" {
				t.Errorf("not asked: %q, %v", unasked.Reboot, err)
			}
		})
	}
	if _, err := os.Stat(filepath.Join("/proc/1", "stat")); err != nil {
		return
	}
	if booted, known := observe("/", system{}, State{}).booted(); !known || time.Since(booted) < 0 {
		t.Errorf("this computer's first process was started at %v, known: %v", booted, known)
	}
}
