package converger

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

const (
	keyA = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAINXP77wy1GOzooPqOilKyX6HfG1yFAn/N9MiQJ391mYE a@desk"
	keyB = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOdk0MCCqAmPIYzaYv+NdmkzCD1z/iMfH/6xhIEHteW6 b@desk"
	keyC = "ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTYAAABBBAfiAgKeh0vUWk5q65VwaMC/sYm6SppgMWnX8yxOumLgICUsZ6l/LJmM4y+budpu2m+cW5mTg5jQ9eeDvHv0Xtg= by hand"

	// As ssh-keygen -l names it.
	nameA = "SHA256:5DRetPzpXBOZWWd9croOIfgBDNOByaFEJLnSRTJAwiU a@desk"
)

func ourBlock(lines ...string) string {
	return blockBegin + "\n" + strings.Join(lines, "\n") + "\n" + blockEnd + "\n"
}

func TestWithBlock(t *testing.T) {
	tests := []struct {
		name, text string
		lines      []string
		want       string
	}{
		{"nothing in nothing", "", nil, ""},
		{"a new file", "", []string{"a"}, ourBlock("a")},
		{"at the end", "x\ny\n", []string{"a", "b"}, "x\ny\n" + ourBlock("a", "b")},
		{"where the last line has no end", "x", []string{"a"}, "x\n" + ourBlock("a")},
		{"in its place", "x\n" + ourBlock("old") + "y\n", []string{"a"}, "x\n" + ourBlock("a") + "y\n"},
		{"unchanged", "x\n\n" + ourBlock("a") + "\ny\n", []string{"a"}, "x\n\n" + ourBlock("a") + "\ny\n"},
		{"no more lines", "x\n" + ourBlock("old") + "y\n", nil, "x\ny\n"},
		{"nothing else in the file", ourBlock("old"), nil, ""},
		{"the end was lost: what follows may be somebody's", "x\n" + blockBegin + "\nold\ny\n", []string{"a"}, "x\nold\ny\n" + ourBlock("a")},
		{"the begin was lost", "x\nold\n" + blockEnd + "\ny\n", []string{"a"}, "x\nold\ny\n" + ourBlock("a")},
		{"the marks changed places", blockEnd + "\nx\n" + blockBegin + "\n", []string{"a"}, "x\n" + ourBlock("a")},
		{"twice", ourBlock("one") + "x\n" + ourBlock("two"), []string{"a"}, ourBlock("a") + "x\ntwo\n"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got := withBlock(test.text, test.lines, nil)
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if again := withBlock(got, test.lines, nil); again != got {
				t.Errorf("not stable:\n%s", again)
			}
		})
	}
}

// TestOperatingSystem plans, applies, and plans again, as TestConverge does.
func TestOperatingSystem(t *testing.T) {
	keys := func(lines ...string) []Resource {
		return []Resource{{Keys: &AuthorizedKeys{User: "root", Keys: lines}}}
	}
	const keysPath = "/root/.ssh/authorized_keys"
	home := func(text string) func(*testing.T, *fakeMachine) {
		return func(t *testing.T, f *fakeMachine) {
			f.write(t, keysPath, text)
			if err := errors.Join(os.Chmod(f.root+"/root/.ssh", 0o700), os.Chmod(f.root+keysPath, 0o600)); err != nil {
				t.Fatal(err)
			}
		}
	}
	unitIs := func(name string, u fakeUnit) func(*testing.T, *fakeMachine) {
		return func(_ *testing.T, f *fakeMachine) { f.change(func(s *fakeState) { s.Units[name] = &u }) }
	}
	byHand := Change{Resource: "authorized keys of root", Notice: "left alone, put there by somebody else: SHA256:nWNxoQLLcm6ZM3jRbaI2SPZPh7AHxX4IvAkli9+UT+g by hand"}
	container := func(t *testing.T, f *fakeMachine) { f.write(t, "/run/systemd/container", "systemd-nspawn") }
	tests := []struct {
		name      string
		machine   func(t *testing.T, f *fakeMachine)
		resources []Resource
		want      []Change
		remains   []Change
		ran       []string
		files     map[string]string
	}{
		{name: "lines of ours among those of others", resources: []Resource{{Block: &Block{Path: "/etc/hosts", Lines: []string{"192.0.2.1 one"}, Mode: 0o644}}},
			want:  []Change{{Resource: "block /etc/hosts", Action: "update", Detail: "our lines", Before: "127.0.0.1 localhost\n", After: "127.0.0.1 localhost\n" + ourBlock("192.0.2.1 one")}},
			files: map[string]string{"/etc/hosts": "127.0.0.1 localhost\n" + ourBlock("192.0.2.1 one")}},
		{name: "lines of ours in a file that is not there", resources: []Resource{{Block: &Block{Path: "/etc/x", Lines: []string{"a"}, Mode: 0o600}}, {Block: &Block{Path: "/etc/y", Lines: []string{"a"}, Mode: 0o600, IfThere: true}}},
			want:  []Change{{Resource: "block /etc/x", Action: "create", Detail: "our lines", After: ourBlock("a")}},
			files: map[string]string{"/etc/x": ourBlock("a"), "/etc/y": "error: open /etc/y: no such file or directory"}},
		{name: "first keys", resources: keys(keyA),
			want:  []Change{{Resource: "authorized keys of root", Action: "create", Detail: "add " + nameA, After: ourBlock(keyA)}},
			files: map[string]string{keysPath: ourBlock(keyA)}},
		{name: "keys of the first boot become ours, those put there by hand stay", machine: home(keyA + "\n# mine\n" + keyC + "\n"), resources: keys(keyA),
			want: []Change{byHand, {Resource: "authorized keys of root", Action: "update", Detail: "the same keys, as k3lab's own lines",
				Before: keyA + "\n# mine\n" + keyC + "\n", After: "# mine\n" + keyC + "\n" + ourBlock(keyA)}},
			remains: []Change{byHand}, files: map[string]string{keysPath: "# mine\n" + keyC + "\n" + ourBlock(keyA)}},
		{name: "a key that was ours goes, another comes", machine: home(ourBlock(keyA) + keyC + "\n"), resources: keys(keyB),
			want: []Change{byHand, {Resource: "authorized keys of root", Action: "update",
				Detail: "add SHA256:dFdTLOH3qpYdf094/fn/+SrYzxT75uOnyEo6RtTqDBI b@desk, remove " + nameA,
				Before: ourBlock(keyA) + keyC + "\n", After: ourBlock(keyB) + keyC + "\n"}},
			remains: []Change{byHand}, files: map[string]string{keysPath: ourBlock(keyB) + keyC + "\n"}},
		{name: "a retired key goes wherever it stands", machine: home(keyA + "\n" + `from="192.0.2.1" ` + keyA + "\n" + keyC + "\n" + ourBlock(keyA)),
			resources: []Resource{{Keys: &AuthorizedKeys{User: "root", Keys: []string{keyB}, Retired: []string{keyA}}}},
			want: []Change{byHand, {Resource: "authorized keys of root", Action: "update",
				Detail: "add SHA256:dFdTLOH3qpYdf094/fn/+SrYzxT75uOnyEo6RtTqDBI b@desk, remove " + nameA,
				Before: keyA + "\n" + `from="192.0.2.1" ` + keyA + "\n" + keyC + "\n" + ourBlock(keyA), After: keyC + "\n" + ourBlock(keyB)}},
			remains: []Change{byHand}, files: map[string]string{keysPath: keyC + "\n" + ourBlock(keyB)}},
		{name: "a key with options is somebody else's", machine: home(`from="192.0.2.1" ` + keyA + "\n" + ourBlock(keyA)), resources: keys(keyA),
			want:    []Change{{Resource: "authorized keys of root", Notice: "left alone, put there by somebody else: " + nameA}},
			remains: []Change{{Resource: "authorized keys of root", Notice: "left alone, put there by somebody else: " + nameA}}},
		{name: "keys others could write", machine: func(t *testing.T, f *fakeMachine) {
			home(ourBlock(keyA))(t, f)
			if err := errors.Join(os.Chmod(f.root+"/root/.ssh", 0o770), os.Chmod(f.root+keysPath, 0o666)); err != nil {
				t.Fatal(err)
			}
		}, resources: keys(keyA), want: []Change{{Resource: "authorized keys of root", Action: "update", Detail: "the same keys, as k3lab's own lines"}}},
		{name: "keys of nobody", resources: []Resource{{Keys: &AuthorizedKeys{User: "ghost", Keys: []string{keyA}}}},
			want:    []Change{{Resource: "authorized keys of ghost", Error: `there is no user "ghost" on this machine`}},
			remains: []Change{{Resource: "authorized keys of ghost", Error: `there is no user "ghost" on this machine`}}},
		{name: "keys that lead elsewhere", machine: func(t *testing.T, f *fakeMachine) {
			home("")(t, f)
			if err := errors.Join(os.Remove(f.root+keysPath), os.Symlink("/etc/passwd", f.root+keysPath)); err != nil {
				t.Fatal(err)
			}
		}, resources: keys(keyA),
			want:    []Change{{Resource: "authorized keys of root", Error: keysPath + ": is a symbolic link, and what it leads to is not ours to change"}},
			remains: []Change{{Resource: "authorized keys of root", Error: keysPath + ": is a symbolic link, and what it leads to is not ours to change"}}},
		{name: "a time zone", machine: func(t *testing.T, f *fakeMachine) { f.write(t, "/usr/share/zoneinfo/Etc/UTC", "") },
			resources: []Resource{{Link: &Link{Path: "/etc/localtime", Target: "/usr/share/zoneinfo/Etc/UTC", MustLead: true}}},
			want:      []Change{{Resource: "link /etc/localtime", Action: "create", Detail: "→ /usr/share/zoneinfo/Etc/UTC"}}},
		{name: "a time zone this machine does not know", resources: []Resource{{Link: &Link{Path: "/etc/localtime", Target: "/usr/share/zoneinfo/US/Eastern", MustLead: true}}},
			want:    []Change{{Resource: "link /etc/localtime", Error: "there is no /usr/share/zoneinfo/US/Eastern on this machine"}},
			remains: []Change{{Resource: "link /etc/localtime", Error: "there is no /usr/share/zoneinfo/US/Eastern on this machine"}}},
		{name: "content a program takes", resources: []Resource{{File: &File{Path: "/a", Content: "Good", Mode: 0o644, Check: []string{"sshd", "-t", "-f", "{}"}}}},
			want:  []Change{{Resource: "file /a", Action: "create", Detail: "mode 0644", After: "Good"}},
			ran:   []string{"sshd -t -f ROOT/var/lib/k3lab/checked"},
			files: map[string]string{"/a": "Good", checkedPath: "error: open " + checkedPath + ": no such file or directory"}},
		{name: "a unit that runs is reloaded, whatever starts it", machine: unitIs("ssh.service", fakeUnit{Load: "loaded", Active: "active", File: "disabled"}),
			resources: []Resource{file("/a", "x"), {Unit: &Unit{Name: "ssh.service", AsIs: true, ReloadOn: []string{"file /a"}}}},
			want: []Change{{Resource: "file /a", Action: "create", Detail: "mode 0644", After: "x"},
				{Resource: "unit ssh.service", Action: "reload", Detail: "because file /a changes"}},
			ran: []string{"systemctl reload -- ssh.service"}},
		{name: "a unit that does not run is left so", machine: unitIs("ssh.service", fakeUnit{Load: "loaded", Active: "inactive", File: "disabled"}),
			resources: []Resource{file("/a", "x"), {Unit: &Unit{Name: "ssh.service", AsIs: true, ReloadOn: []string{"file /a"}}}},
			want:      []Change{{Resource: "file /a", Action: "create", Detail: "mode 0644", After: "x"}}},
		{name: "somebody else does it", machine: unitIs("chrony.service", fakeUnit{Load: "loaded", Active: "active", File: "enabled"}),
			resources: []Resource{
				{Package: &Package{Name: "systemd-timesyncd"}, Unless: &Unless{UnitsUp: []string{"ntpsec.service", "chrony.service"}}},
				{File: &File{Path: "/a", Mode: 0o644}, Unless: &Unless{UnitsUp: []string{"ntpsec.service"}}}},
			want: []Change{{Resource: "file /a", Action: "create", Detail: "mode 0644"}}},
		{name: "not in a container", machine: container,
			resources: []Resource{{File: &File{Path: "/a", Mode: 0o644}, Unless: &Unless{Container: true}}, {File: &File{Path: "/b", Mode: 0o644}, Unless: &Unless{UnitsUp: []string{"x.service"}}}},
			want:      []Change{{Resource: "file /b", Action: "create", Detail: "mode 0644"}}},
		{name: "a service that turns swap on", machine: func(t *testing.T, f *fakeMachine) {
			f.write(t, "/proc/swaps", "Filename\n/dev/zram0 partition 1 0 -2\n")
			unitIs("zramswap.service", fakeUnit{Load: "loaded", Active: "active", File: "enabled"})(t, f)
		}, resources: []Resource{{Swap: &Swap{Off: true}}},
			want: []Change{{Resource: "swap", Action: "disable", Detail: "stop and mask zramswap.service, which turns swap on"}, {Resource: "swap", Action: "stop", Detail: "swap on /dev/zram0"}},
			ran: []string{"systemctl stop -- zramswap.service", "systemctl --no-reload mask -- zramswap.service",
				"swapoff -- /dev/zram0", "systemctl daemon-reload"}},
		{name: "a package nobody has is no reason to leave out the others", machine: func(_ *testing.T, f *fakeMachine) {
			f.change(func(s *fakeState) { s.Packages["nowhere"] = "!E: Unable to locate package nowhere" })
		}, resources: []Resource{{Package: &Package{Name: "nowhere"}}, {Package: &Package{Name: "curl"}}},
			want: []Change{{Resource: "package nowhere", Action: "install", Error: "apt knows no such package: correct the name in os.packages, or add the archive that has it"},
				{Resource: "package curl", Action: "install"}},
			remains: []Change{{Resource: "package nowhere", Action: "install"}},
			ran: []string{"apt-get … nowhere curl", "apt-get update --quiet --option=APT::Update::Error-Mode=any", "apt-get … nowhere curl", "apt-get … curl",
				"systemctl daemon-reload"}},
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
			if diff := cmp.Diff(withoutFailures(test.want), planned); diff != "" {
				t.Errorf("plan (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(before, snapshot(t, f.root)); diff != "" || f.ran != nil {
				t.Errorf("plan changed the machine: %v\n%s", f.ran, diff)
			}
			applied := apply(t, f.converger(), q)
			want := made(test.want)
			for i := range want {
				want[i].Made = want[i].Made && want[i].Error == ""
			}
			if diff := cmp.Diff(want, applied); diff != "" {
				t.Errorf("apply (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(test.ran, shortened(f)); diff != "" {
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

// withoutFailures drops what only making a change can find out.
func withoutFailures(want []Change) []Change {
	var out []Change
	for _, c := range want {
		if c.Action != "" {
			c.Error = ""
		}
		out = append(out, c)
	}
	return out
}

func shortened(f *fakeMachine) []string {
	var out []string
	for _, line := range f.ran {
		line = strings.ReplaceAll(line, f.root, "ROOT")
		if _, names, ok := strings.Cut(line, " -- "); ok && strings.HasPrefix(line, "apt-get") {
			line = "apt-get … " + names
		}
		out = append(out, line)
	}
	return out
}

// TestContentIsCheckedBeforeItIsPutInPlace: what a program refuses never stands
// where it would be read.
func TestContentIsCheckedBeforeItIsPutInPlace(t *testing.T) {
	f := newFakeMachine(t)
	f.write(t, "/a", "old")
	r := Resource{File: &File{Path: "/a", Content: "Bad", Mode: 0o644, Check: []string{"sshd", "-t", "-f", "{}"}}}
	got := apply(t, f.converger(), Request{State: State{Resources: []Resource{r}}})
	want := "not put in place: sshd -t -f ROOT/var/lib/k3lab/checked: bad configuration"
	if len(got) != 1 || strings.ReplaceAll(got[0].Error, f.root, "ROOT") != want || f.read("/a") != "old" {
		t.Errorf("got %+v and %q", got, f.read("/a"))
	}
}

func TestClock(t *testing.T) {
	tests := []struct {
		name      string
		container bool
		answer    bool
		err       error
		want      []action
		wantErr   string
	}{
		{name: "kept", answer: true},
		{name: "not kept", want: told("is not synchronised (see timedatectl timesync-status); certificates and the datastore need the right time")},
		{name: "in a container", container: true, want: told("belongs to the computer, which does not keep it synchronised")},
		{name: "not known", err: errors.New("not permitted"), wantErr: "not permitted"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			v := &view{container: test.container, synchronised: func() (bool, error) { return test.answer, test.err }}
			got, err := v.planClock()
			if fmt.Sprint(err) != fmt.Sprint(test.err) {
				t.Errorf("got %v, want %v", err, test.err)
			}
			if diff := cmp.Diff(fmt.Sprintf("%+v", test.want), fmt.Sprintf("%+v", got)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

const childLock = "K3LAB_TEST_CONVERGER_LOCK" // makes the test binary hold this file as apt does

// holdLock holds a file's lock until stdin ends.
func holdLock(path string) int {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o640)
	if err == nil {
		err = unix.FcntlFlock(f.Fd(), unix.F_SETLK, &unix.Flock_t{Type: unix.F_WRLCK, Whence: io.SeekStart})
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	fmt.Println("held")
	_, _ = io.Copy(io.Discard, os.Stdin)
	return 0
}

// locked has another process hold a lock of the package manager; release ends it.
func locked(t *testing.T, f *fakeMachine, path string) (pid int, release func()) {
	t.Helper()
	f.write(t, path, "")
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childLock+"="+filepath.Join(f.root, path))
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { in.Close(); _ = cmd.Wait() })
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "held\n" {
		t.Fatalf("%q, %v", line, err)
	}
	f.write(t, fmt.Sprintf("/proc/%d/comm", cmd.Process.Pid), "unattended-upgr\n")
	return cmd.Process.Pid, func() { in.Close() }
}

// TestPackageManagerHeld: a converger waits for another process, says for which,
// and gives up after a time.
func TestPackageManagerHeld(t *testing.T) {
	q := Request{State: State{Resources: []Resource{{Package: &Package{Name: "curl"}}}}}
	for _, path := range packageLocks {
		t.Run(filepath.Base(path), func(t *testing.T) {
			f := newFakeMachine(t)
			pid, release := locked(t, f, path)
			by := fmt.Sprintf("process %d (unattended-upgr)", pid)
			waiting := Change{Resource: "packages", Notice: "waiting for the package manager, held by " + by + " (0s of at most 100ms)"}
			c := f.converger()
			c.lockWait = 100 * time.Millisecond
			got := apply(t, c, q)
			want := []Change{waiting, {Resource: "package curl", Action: "install",
				Error: "the package manager is held by " + by + ", still after 100ms; run this again when that has ended"}}
			if diff := cmp.Diff(want, got); diff != "" || f.ran != nil {
				t.Errorf("held too long: ran %v (-want +got):\n%s", f.ran, diff)
			}
			c.lockWait = time.Minute
			var seen []Change
			err := c.Apply(t.Context(), q, func(change Change) {
				if change.Notice != "" {
					release()
				}
				seen = append(seen, change)
			})
			waiting.Notice = strings.Replace(waiting.Notice, "100ms", "1m0s", 1)
			want = []Change{waiting, {Resource: "package curl", Action: "install", Made: true}}
			if diff := cmp.Diff(want, seen); diff != "" || err != nil {
				t.Errorf("released: %v (-want +got):\n%s", err, diff)
			}
		})
	}
}
