package converger

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

const sshdConfig = "/etc/ssh/sshd_config"

// guardedState replaces something of every kind that can be guarded.
func guardedState() Request {
	guarded := []Resource{
		{Directory: &Directory{Path: "/etc/ssh/sshd_config.d", Mode: 0o750}},
		{File: &File{Path: sshdConfig, Content: "new\n", Mode: 0o600}},
		{File: &File{Path: "/etc/ssh/sshd_config.d/50-k3lab.conf", Content: "made\n", Mode: 0o600}},
		{Absent: &Absent{Path: "/etc/ssh/old.conf"}},
		{Link: &Link{Path: "/etc/ssh/link", Target: "new"}},
		{Unit: &Unit{Name: "extra.service", Enabled: true, Running: true}},
		{Unit: &Unit{Name: "ssh.service", Enabled: true, Running: true, ReloadOn: []string{"file " + sshdConfig}}},
	}
	for i := range guarded {
		guarded[i].Guarded = true
	}
	return Request{State: State{Machine: "server-1", Resources: append(append([]Resource{file("/etc/before", "x")}, guarded...), file("/etc/after", "x"))}}
}

func guardMachine(t *testing.T) *fakeMachine {
	f := newFakeMachine(t)
	f.write(t, sshdConfig, "old\n")
	f.write(t, "/etc/ssh/old.conf", "old too\n")
	if err := os.Symlink("old", filepath.Join(f.root, "/etc/ssh/link")); err != nil {
		t.Fatal(err)
	}
	f.change(func(s *fakeState) {
		s.Units["ssh.service"] = &fakeUnit{Load: "loaded", Active: "active", Sub: "running", File: "enabled", Uses: f.config()}
		s.Units["extra.service"] = &fakeUnit{Load: "loaded", Active: "inactive", Sub: "dead", File: "disabled", Uses: map[string]string{}}
	})
	return f
}

// sshState is what must be as before when a guard was not confirmed: what is
// below /etc/ssh, and what the processes use.
type sshState struct {
	Files   map[string]string
	Uses    string // what sshd runs with
	Extra   string // of the unit that was off
	Pending bool
	Starter []string // what would start a watchdog
}

func (f *fakeMachine) ssh(t *testing.T) sshState {
	t.Helper()
	out := sshState{Files: map[string]string{}, Uses: f.load().Units["ssh.service"].Uses[sshdConfig]}
	for path, text := range snapshot(t, f.root) {
		if strings.HasPrefix(path, "/etc/ssh/") {
			out.Files[path] = text
		}
	}
	extra := f.load().Units["extra.service"]
	out.Extra = extra.Active + " " + extra.File
	for _, path := range []string{guardUnitPath, guardWantPath, guardProgram} {
		if _, err := os.Lstat(filepath.Join(f.root, path)); err == nil {
			out.Starter = append(out.Starter, path)
		}
	}
	_, err := os.Lstat(filepath.Join(f.root, guardPath))
	out.Pending = err == nil
	return out
}

func wantSSH(t *testing.T, what string, want, got sshState) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

// asked returns the one confirmation the changes ask for.
func asked(t *testing.T, changes []Change) Confirm {
	t.Helper()
	i := slices.IndexFunc(changes, func(c Change) bool { return c.Confirm != nil })
	if i < 0 {
		t.Fatalf("no confirmation is asked for: %+v", changes)
	}
	return *changes[i].Confirm
}

// expire makes the deadline of the pending guard the past, or its boot another.
func (f *fakeMachine) editGuard(t *testing.T, edit func(g *guard)) {
	t.Helper()
	var g guard
	if err := json.Unmarshal([]byte(f.read(guardPath)), &g); err != nil {
		t.Fatal(err)
	}
	edit(&g)
	f.write(t, guardPath, string(encode(g)))
}

func expired(g *guard) { g.Deadline = 0 }

// watch runs the watchdog to its end.
func (f *fakeMachine) watch(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	ready := false
	if err := f.converger().Watch(ctx, func() { ready = true }, func(s string) { t.Log(s) }); err != nil {
		t.Fatal("the watchdog: ", err)
	}
	if !ready {
		t.Error("the watchdog was never ready")
	}
}

func TestGuardConfirmed(t *testing.T) {
	f := guardMachine(t)
	changes := apply(t, f.converger(), guardedState())
	var order []string
	for _, c := range changes {
		if c.Error != "" || c.Action != "" && !c.Made {
			t.Errorf("%+v", c)
		}
		order = append(order, c.Resource)
	}
	want := []string{"file /etc/before", "directory /etc/ssh/sshd_config.d", "file " + sshdConfig, "file /etc/ssh/sshd_config.d/50-k3lab.conf",
		"absent /etc/ssh/old.conf", "link /etc/ssh/link", "unit extra.service", "unit extra.service", "unit ssh.service", "guard", "file /etc/after"}
	if diff := cmp.Diff(want, order); diff != "" {
		t.Error(diff)
	}
	confirm := asked(t, changes)
	if confirm.Seconds != 60 {
		t.Errorf("%d s", confirm.Seconds)
	}
	during := f.ssh(t)
	if !during.Pending || len(during.Starter) != 3 || !slices.Contains(f.ran, "systemctl restart -- "+guardUnit) {
		t.Errorf("no watchdog: %+v, ran %q", during, f.ran)
	}
	if info, err := os.Stat(filepath.Join(f.root, guardDir)); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	for range 2 { // also when the answer was lost, and it is asked again
		out, err := f.converger().Confirm(t.Context(), confirm.ID)
		if err != nil || out.Outcome != Confirmed {
			t.Fatalf("%+v, %v", out, err)
		}
	}
	out, err := f.converger().Revert(t.Context(), confirm.ID)
	if err != nil || out.Outcome != Confirmed {
		t.Errorf("what is confirmed was put back: %+v, %v", out, err)
	}
	f.watch(t) // ends at once
	during.Pending, during.Starter = false, nil
	wantSSH(t, "after the confirmation", during, f.ssh(t))
	if again := plan(t, f.converger(), guardedState()); len(again) > 0 {
		t.Errorf("not converged: %+v", again)
	}
}

func TestGuardPutsBack(t *testing.T) {
	tests := []struct {
		name string
		end  func(t *testing.T, f *fakeMachine, id string)
	}{
		{"when it is told to", func(t *testing.T, f *fakeMachine, id string) {
			if out, err := f.converger().Revert(t.Context(), id); err != nil || out.Outcome != PutBack {
				t.Errorf("%+v, %v", out, err)
			}
		}},
		{"at the deadline", func(t *testing.T, f *fakeMachine, id string) {
			f.editGuard(t, expired)
			f.watch(t)
			if out, err := f.converger().Confirm(t.Context(), id); err != nil || out.Outcome != PutBack {
				t.Errorf("%+v, %v", out, err)
			}
		}},
		{"after the second attempt", func(t *testing.T, f *fakeMachine, _ string) {
			f.editGuard(t, expired)
			f.change(func(s *fakeState) { s.Units["ssh.service"].FailsWith = "busy" })
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			failed := make(chan string, 1)
			err := f.converger().Watch(ctx, func() {}, func(line string) { failed <- line; cancel() })
			if !errors.Is(err, context.Canceled) || !strings.Contains(<-failed, "not put back yet: ") {
				t.Fatal(err)
			}
			if f.read(sshdConfig) != "old\n" || !f.ssh(t).Pending {
				t.Error("it did not go as far as it could, or has given up")
			}
			f.change(func(s *fakeState) { s.Units["ssh.service"].FailsWith = "" })
			f.watch(t)
		}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			f := guardMachine(t)
			before := f.ssh(t)
			id := asked(t, apply(t, f.converger(), guardedState())).ID
			test.end(t, f, id)
			wantSSH(t, "put back", before, f.ssh(t))
			if f.read("/etc/before") != "x" {
				t.Error("what is not guarded was put back too")
			}
			// The change is planned again, and can be made.
			again := plan(t, f.converger(), guardedState())
			if len(again) != 8 {
				t.Errorf("planned again: %+v", again)
			}
			asked(t, apply(t, f.converger(), guardedState()))
		})
	}
}

// TestGuardAfterBoot: power was lost between the change and its confirmation.
func TestGuardAfterBoot(t *testing.T) {
	f := guardMachine(t)
	before := f.ssh(t)
	id := asked(t, apply(t, f.converger(), guardedState())).ID
	f.write(t, "/proc/sys/kernel/random/boot_id", "boot-2\n")
	f.change(func(s *fakeState) { // sshd is not started yet
		s.Units["ssh.service"].Active, s.Units["extra.service"].Active = "inactive", "inactive"
	})
	f.ran = nil
	if _, err := f.converger().Confirm(t.Context(), id); err == nil || err.Error() != "the machine has booted since; its old state is put back" {
		t.Errorf("got %v", err)
	}
	f.watch(t)
	if diff := cmp.Diff([]string{"systemctl --quiet disable -- extra.service"}, f.ran); diff != "" {
		t.Errorf("ran at boot: %s", diff)
	}
	after := f.ssh(t)
	after.Uses = before.Uses
	wantSSH(t, "after the boot", before, after)
}

// TestHalfOfAGuardedChange: sshd does not take its new configuration.
func TestHalfOfAGuardedChange(t *testing.T) {
	f := guardMachine(t)
	before := f.ssh(t)
	refuses := true
	f.refuse = func(args []string) error {
		if refuses && slices.Contains(args, "reload") {
			refuses = false
			return &programError{args: args, code: 1, stderr: "sshd: bad configuration"}
		}
		return nil
	}
	got := apply(t, f.converger(), guardedState())
	var told []string
	for _, c := range got {
		if c.Error+c.Notice != "" {
			told = append(told, c.Resource+": "+c.Error+c.Notice)
		}
	}
	want := []string{
		"unit ssh.service: systemctl reload -- ssh.service: sshd: bad configuration\nits journal ends:\n  first\n  last line of its journal",
		"guard: the old state was put back, because unit ssh.service failed",
	}
	if diff := cmp.Diff(want, told); diff != "" {
		t.Error(diff)
	}
	wantSSH(t, "put back", before, f.ssh(t))
	if f.read("/etc/after") != "x" {
		t.Error("what is not guarded was not made")
	}
}

// TestNothingIsChangedUnguarded: where no watchdog can be had, or what is replaced
// cannot be saved, nothing guarded is changed.
func TestNothingIsChangedUnguarded(t *testing.T) {
	tests := []struct {
		name  string
		spoil func(t *testing.T, f *fakeMachine)
		want  string
	}{
		{"the watchdog does not start", func(_ *testing.T, f *fakeMachine) {
			f.change(func(s *fakeState) {
				s.Units[guardUnit] = &fakeUnit{Load: "loaded", Active: "inactive", FailsWith: "no notification"}
			})
		}, `^not made: it could not be guarded: the watchdog: systemctl restart -- k3lab-guard.service: no notification$`},
		{"the disk is full", func(t *testing.T, f *fakeMachine) { fullDisk(t, f, guardDir) },
			`^not made: it could not be guarded: disk full: /var/lib/k3lab/guard/pending.json cannot be written: 0 of 1 MiB .*: no space left on device$`},
		{"what is there is no file", func(t *testing.T, f *fakeMachine) {
			if err := os.Remove(filepath.Join(f.root, "/etc/ssh/old.conf")); err != nil {
				t.Fatal(err)
			}
			f.write(t, "/etc/ssh/old.conf/x", "")
		}, `^not made: it could not be guarded: /etc/ssh/old.conf cannot be saved: what the directory holds would not be put back$`},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			f := guardMachine(t)
			test.spoil(t, f)
			before := f.ssh(t)
			want := regexp.MustCompile(test.want)
			for _, c := range apply(t, f.converger(), guardedState()) {
				unguarded := strings.HasPrefix(c.Resource, "file /etc/") && !strings.Contains(c.Resource, "ssh")
				if unguarded != c.Made || !unguarded && !want.MatchString(c.Error) {
					t.Errorf("%s: made %v, %q, want %s", c.Resource, c.Made, c.Error, want)
				}
			}
			wantSSH(t, "unchanged", before, f.ssh(t))
		})
	}
}

// fullDisk mounts a file system without any space at path.
func fullDisk(t *testing.T, f *fakeMachine, path string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: mounts a small file system")
	}
	small := filepath.Join(f.root, path)
	if err := os.MkdirAll(small, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("k3lab-test", small, "tmpfs", 0, "size=1m,mode=0700"); err != nil {
		t.Skip("needs to mount: ", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(small, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	err := os.WriteFile(filepath.Join(small, "ballast"), make([]byte, 2<<20), 0o600)
	if !errors.Is(err, unix.ENOSPC) {
		t.Fatal("the disk does not get full: ", err)
	}
}

// TestGuardTakenOver: a run was killed before it could confirm, and another one
// changes more. What is put back is the state that was confirmed last.
func TestGuardTakenOver(t *testing.T) {
	f := guardMachine(t)
	before := f.ssh(t)
	first := asked(t, apply(t, f.converger(), guardedState())).ID
	want := []Change{{Resource: "guard", Action: "update", Detail: "what an earlier run changed was not confirmed and would be put back"}}
	if diff := cmp.Diff(want, plan(t, f.converger(), guardedState())); diff != "" {
		t.Error(diff)
	}
	more := guardedState()
	more.State.Resources[2].File.Content = "newer\n"
	second := asked(t, apply(t, f.converger(), more)).ID
	_, err := f.converger().Confirm(t.Context(), first)
	if want := "another run has taken the change over, and awaits its confirmation itself"; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	third := asked(t, apply(t, f.converger(), more)).ID // only the confirmation was wanting
	if second == third {
		t.Error("one confirmation could end two guards")
	}
	f.editGuard(t, expired)
	f.watch(t)
	wantSSH(t, "put back", before, f.ssh(t))
	if _, err := f.converger().Confirm(t.Context(), "0123"); err == nil || err.Error() != "nothing awaits this confirmation" {
		t.Errorf("got %v", err)
	}
}

// TestGuardWaitsForTheRun: neither watchdog nor confirmation comes between two
// guarded changes of a run that is at it.
func TestGuardWaitsForTheRun(t *testing.T) {
	f := guardMachine(t)
	before := f.ssh(t)
	unlock, err := lockGuard(t.Context(), f.root)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- f.converger().Apply(t.Context(), guardedState(), func(Change) {}) }()
	again := time.NewTicker(5 * time.Millisecond)
	defer again.Stop()
	for range 20 {
		<-again.C
		wantSSH(t, "while somebody else has the guard", before, f.ssh(t))
	}
	unlock()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if f.read(sshdConfig) != "new\n" {
		t.Error("it was not made")
	}
}
