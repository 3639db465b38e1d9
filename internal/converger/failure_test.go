package converger

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

func TestFailures(t *testing.T) {
	tests := []struct {
		name      string
		machine   func(t *testing.T, f *fakeMachine)
		resources []Resource
		want      []Change // of apply
	}{
		{name: "a start that fails shows the journal, and the rest is made",
			machine: func(_ *testing.T, f *fakeMachine) {
				f.change(func(s *fakeState) {
					s.Units["k3s.service"] = &fakeUnit{Load: "loaded", Active: "inactive", File: "enabled", FailsWith: "Job for k3s.service failed."}
				})
			},
			resources: []Resource{unit("k3s.service"), file("/a", "x")},
			want: []Change{{Resource: "unit k3s.service", Action: "start",
				Error: "systemctl start -- k3s.service: Job for k3s.service failed.\nits journal ends:\n  first\n  last line of its journal"},
				{Resource: "file /a", Action: "create", Detail: "mode 0644", After: "x", Made: true}}},
		{name: "a unit is not started with what failed",
			machine: func(_ *testing.T, f *fakeMachine) {
				f.change(func(s *fakeState) {
					s.Units["k3s.service"] = &fakeUnit{Load: "loaded", Active: "inactive", File: "enabled"}
				})
			},
			resources: []Resource{{Binary: &Binary{Path: "/bin/k3s", SHA256: sum("x"), Source: "/cache/x"}}, unit("k3s.service", "binary /bin/k3s")},
			want: []Change{{Resource: "binary /bin/k3s", Action: "install", Detail: "(SHA-256 " + sum("x")[:12] + "…)",
				Error: "its content is not on this machine: /cache/x is missing"},
				{Resource: "unit k3s.service", Action: "start", Error: "not made, because binary /bin/k3s failed"}}},
		{name: "a binary that is not what it should be",
			machine:   func(t *testing.T, f *fakeMachine) { f.write(t, "/cache/x", "spoilt") },
			resources: []Resource{{Binary: &Binary{Path: "/bin/k3s", SHA256: sum("x"), Source: "/cache/x"}}},
			want: []Change{{Resource: "binary /bin/k3s", Action: "install", Detail: "(SHA-256 " + sum("x")[:12] + "…)",
				Error: "/cache/x is not what it should be: its SHA-256 is " + sum("spoilt") + ", but " + sum("x") + " is expected"}}},
		{name: "the kernel lacks a setting", resources: []Resource{{Sysctl: &Sysctl{Key: "net.bridge.x", Value: "1"}}},
			want: []Change{{Resource: "sysctl net.bridge.x", Action: "create", Detail: "1", After: "1",
				Error: "the kernel has no such setting; a kernel module may be missing: open ROOT/proc/sys/net/bridge/x: no such file or directory"}}},
		{name: "the package manager is held",
			machine: func(_ *testing.T, f *fakeMachine) {
				f.change(func(s *fakeState) {
					s.Packages["curl"] = "!E: Could not get lock /var/lib/dpkg/lock-frontend. It is held by process 42 (unattended-upgr)"
				})
			},
			resources: []Resource{{Package: &Package{Name: "curl"}}},
			want: []Change{{Resource: "package curl", Action: "install",
				Error: "the package manager is held by process 42 (unattended-upgr), still after 5m0s; run this again when that has ended\n" +
					"apt-get install --yes --quiet --no-install-recommends --option=DPkg::Lock::Timeout=300: E: Could not get lock /var/lib/dpkg/lock-frontend. It is held by process 42 (unattended-upgr)"}}},
		{name: "outdated package lists are updated",
			machine: func(_ *testing.T, f *fakeMachine) {
				f.change(func(s *fakeState) { s.Packages["curl"] = "!E: Unable to locate package curl" })
			},
			resources: []Resource{{Package: &Package{Name: "curl"}}},
			want:      []Change{{Resource: "package curl", Action: "install", Made: true}}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			f := newFakeMachine(t)
			if test.machine != nil {
				test.machine(t, f)
			}
			got := apply(t, f.converger(), Request{State: State{Resources: test.resources}})
			for i := range got {
				got[i].Error = strings.ReplaceAll(got[i].Error, f.root, "ROOT")
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestRequestIsRefusedWhole(t *testing.T) {
	tests := []struct {
		name     string
		resource Resource
		want     string
	}{
		{"nothing", Resource{}, "resource 0 says nothing this converger knows"},
		{"relative path", file("etc/x", ""), `file etc/x: "etc/x" is no absolute, clean path`},
		{"path with dots", file("/etc/../x", ""), `file /etc/../x: "/etc/../x" is no absolute, clean path`},
		{"root", Resource{Absent: &Absent{Path: "/"}}, `absent /: "/" is no absolute, clean path`},
		{"no mode", Resource{File: &File{Path: "/x"}}, "file /x: 0 are no permission bits"},
		{"an option for a unit", unit("--force"), `unit --force: "--force" is no unit name`},
		{"an option for a package", Resource{Package: &Package{Name: "-o=x"}}, `package -o=x: "-o=x" is no package name`},
		{"a path for a sysctl", Resource{Sysctl: &Sysctl{Key: "../x"}}, `sysctl ../x: "../x" is no sysctl key`},
		{"a digest that is none", Resource{Binary: &Binary{Path: "/a", Source: "/b", SHA256: "12"}}, `binary /a: "12" is no SHA-256 digest`},
		{"masked and running", Resource{Unit: &Unit{Name: "a.service", Masked: true, Running: true}}, "unit a.service: is masked, so it can be neither enabled nor running"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			f := newFakeMachine(t)
			q := Request{State: State{Resources: []Resource{test.resource}}}
			for verb, run := range map[string]func(context.Context, Request, func(Change)) error{"plan": f.converger().Plan, "apply": f.converger().Apply} {
				err := run(t.Context(), q, func(c Change) { t.Errorf("%s emitted %+v", verb, c) })
				if err == nil || err.Error() != test.want {
					t.Errorf("%s: got %v, want %s", verb, err, test.want)
				}
			}
		})
	}
	f := newFakeMachine(t)
	twice := Request{State: State{Resources: []Resource{file("/x", "a"), file("/x", "b")}}}
	if err := f.converger().Plan(t.Context(), twice, func(Change) {}); err == nil || err.Error() != "file /x: stands twice in the desired state" {
		t.Errorf("got %v", err)
	}
}

func TestOnlyAndTags(t *testing.T) {
	tagged := func(path, tag string) Resource {
		r := file(path, path)
		r.Tags = []string{tag}
		return r
	}
	state := State{Resources: []Resource{tagged("/a", "os"), tagged("/b", "k3s"), tagged("/c", "os")}}
	tests := []struct {
		name    string
		request Request
		want    []string
	}{
		{"all", Request{}, []string{"/a", "/b", "/c"}},
		{"one tag", Request{Tags: []string{"os"}}, []string{"/a", "/c"}},
		{"only one", Request{Only: []string{"file /b"}}, []string{"/b"}},
		{"only one, of another tag", Request{Only: []string{"file /b"}, Tags: []string{"os"}}, nil},
		{"none", Request{Only: []string{}}, nil},
		{"one held", Request{Hold: []string{"file /b"}}, []string{"/a", "/c"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			f := newFakeMachine(t)
			test.request.State = state
			apply(t, f.converger(), test.request)
			var got []string
			for _, path := range []string{"/a", "/b", "/c"} {
				if f.read(path) == path {
					got = append(got, path)
				}
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// TestLostRestart shows that a restart owed by a run that ended early is made by
// the next, unless the machine has booted since.
func TestLostRestart(t *testing.T) {
	const config = "/etc/k3s/config.yaml"
	state := State{Resources: []Resource{file(config, "new"), unit("k3s.service", "file "+config)}}
	interrupted := func(t *testing.T) *fakeMachine {
		f := newFakeMachine(t)
		f.change(func(s *fakeState) {
			s.Units["k3s.service"] = &fakeUnit{Load: "loaded", Active: "active", File: "enabled"}
		})
		ctx, stop := context.WithCancel(t.Context())
		err := f.converger().Apply(ctx, Request{State: state}, func(Change) { stop() })
		if !errors.Is(err, context.Canceled) || f.read(config) != "new" || f.ran != nil {
			t.Fatalf("not interrupted between file and restart: %v, %q, %v", err, f.read(config), f.ran)
		}
		return f
	}
	f := interrupted(t)
	want := []Change{{Resource: "unit k3s.service", Action: "restart", Detail: "what changed in an earlier run that was interrupted is not in use yet"}}
	if diff := cmp.Diff(want, plan(t, f.converger(), Request{State: state})); diff != "" {
		t.Error(diff)
	}
	apply(t, f.converger(), Request{State: state})
	if diff := cmp.Diff([]string{"systemctl restart -- k3s.service"}, f.ran); diff != "" {
		t.Error(diff)
	}
	if got := plan(t, f.converger(), Request{State: state}); got != nil {
		t.Errorf("still planned: %v", got)
	}
	f = interrupted(t)
	f.write(t, "/proc/sys/kernel/random/boot_id", "boot-2\n")
	if got := plan(t, f.converger(), Request{State: state}); got != nil {
		t.Errorf("planned after a boot: %v", got)
	}
}

// TestHeldUnit shows that a unit that is left alone still gets its restart later.
func TestHeldUnit(t *testing.T) {
	const config = "/etc/k3s/config.yaml"
	f := newFakeMachine(t)
	f.change(func(s *fakeState) {
		s.Units["k3s.service"] = &fakeUnit{Load: "loaded", Active: "active", File: "enabled"}
	})
	q := Request{State: State{Resources: []Resource{file(config, "new"), unit("k3s.service", "file "+config)}}}
	held := q
	held.Hold = []string{"unit k3s.service"}
	if got := apply(t, f.converger(), held); len(got) != 1 || f.ran != nil {
		t.Errorf("got %v, ran %v", got, f.ran)
	}
	if got := apply(t, f.converger(), q); len(got) != 1 || got[0].Action != "restart" {
		t.Errorf("got %v", got)
	}
}

func TestDigestsAreRemembered(t *testing.T) {
	f := newFakeMachine(t)
	f.write(t, "/bin/k3s", "one")
	digest := func() string {
		t.Helper()
		s, err := f.converger().Digest("/bin/k3s")
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	if got := digest(); got != sum("one") {
		t.Errorf("got %s", got)
	}
	text := f.read(digestsPath)
	if !strings.Contains(text, sum("one")) {
		t.Fatalf("not remembered: %s", text)
	}
	// What is remembered is used: a false memory gives a false answer.
	f.write(t, digestsPath, strings.ReplaceAll(text, sum("one"), sum("false")))
	if got := digest(); got != sum("false") {
		t.Errorf("the file was read again: %s", got)
	}
	// And forgotten when the file changes, also to one of the same size and time.
	info, err := os.Stat(filepath.Join(f.root, "/bin/k3s"))
	if err != nil {
		t.Fatal(err)
	}
	f.write(t, "/bin/k3s", "two")
	if err := os.Chtimes(filepath.Join(f.root, "/bin/k3s"), info.ModTime(), info.ModTime()); err != nil {
		t.Fatal(err)
	}
	if got := digest(); got != sum("two") {
		t.Errorf("got %s", got)
	}
	f.write(t, digestsPath, "{spoilt")
	if got := digest(); got != sum("two") {
		t.Errorf("got %s", got)
	}
}

func TestOneConvergerAtATime(t *testing.T) {
	f := newFakeMachine(t)
	unlock, err := lock(t.Context(), f.root)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	enough := errors.New("waited enough")
	done := make(chan error, 1)
	go func() {
		done <- f.converger().Apply(ctx, Request{State: State{Resources: []Resource{file("/a", "x")}}}, func(Change) {})
	}()
	cancel(enough)
	if err := <-done; !errors.Is(err, enough) {
		t.Errorf("got %v", err)
	}
	unlock()
	apply(t, f.converger(), Request{State: State{Resources: []Resource{file("/a", "x")}}})
	if got := f.read("/a"); got != "x" {
		t.Errorf("got %q", got)
	}
}

func TestFullDiskIsNamed(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: mounts a small file system")
	}
	f := newFakeMachine(t)
	small := filepath.Join(f.root, "small")
	if err := os.Mkdir(small, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("k3lab-test", small, "tmpfs", 0, "size=1m"); err != nil {
		t.Skip("needs to mount: ", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(small, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	q := Request{State: State{Resources: []Resource{{File: &File{Path: "/small/x", Content: strings.Repeat("x", 2<<20), Mode: 0o600}}}}}
	got := apply(t, f.converger(), q)
	if len(got) != 1 {
		t.Fatal(got)
	}
	want := regexp.MustCompile(`^disk full: /small/x cannot be written: [01] of 1 MiB and \d+ of \d+ inodes are free there: write .*: no space left on device$`)
	if !want.MatchString(got[0].Error) {
		t.Errorf("got %q", got[0].Error)
	}
	if entries, err := os.ReadDir(small); err != nil || len(entries) != 0 {
		t.Errorf("left behind: %v, %v", entries, err)
	}
}

func TestFacts(t *testing.T) {
	f := newFakeMachine(t)
	f.write(t, "/etc/os-release", "PRETTY_NAME=\"x\"\nID=debian\nVERSION_ID=\"13\"\n")
	f.write(t, "/proc/meminfo", "MemTotal:        4096000 kB\n")
	f.write(t, "/lib/modules/6.1.0/modules.dep", "kernel/drivers/net/on_disk.ko.xz: kernel/lib/none.ko\n")
	f.write(t, "/proc/modules", "loaded 16384 0 - Live 0x0\n")
	f.change(func(s *fakeState) {
		s.Units["k3s.service"] = &fakeUnit{Load: "loaded", Active: "active", Sub: "running", File: "enabled", Result: "success"}
	})
	f.write(t, "/tls/a.key", "x")
	f.write(t, "/tls/a.crt", "x")
	if err := os.Chmod(f.root+"/tls/a.key", 0o640); err != nil {
		t.Fatal(err)
	}
	got, err := f.converger().Facts(t.Context(), FactsRequest{
		Paths: []string{"/etc/hosts", "/none"}, DiskFree: []string{"/var/lib/none"}, Units: []string{"k3s.service", "none.service"},
		Files: []string{"/tls/*.key", "/none/*"}, Sysctls: []string{"kernel.osrelease", "kernel.none"}, Modules: []string{"on-disk", "loaded", "none"},
	})
	if err != nil {
		t.Fatal(err)
	}
	if got.Time.IsZero() || got.Arch == "" || len(got.Interfaces) == 0 || got.DiskFreeMiB["/var/lib/none"] == 0 {
		t.Errorf("got %+v", got)
	}
	key := got.Files["/tls/a.key"]
	if age := time.Since(key.Modified); key.Mode != 0o640 || int(key.UID) != os.Getuid() || age < 0 || age > time.Hour || len(got.Files) != 1 {
		t.Errorf("files %+v", got.Files)
	}
	got.Time, got.Arch, got.Interfaces, got.DiskFreeMiB, got.Files = Facts{}.Time, "", nil, nil, nil
	want := Facts{
		Hostname: "old", BootID: "boot-1", Kernel: "6.1.0", OS: OSRelease{ID: "debian", Version: "13"}, MemoryMiB: 4000,
		Paths:   map[string]bool{"/etc/hosts": true, "/none": false},
		Modules: map[string]bool{"on-disk": true, "loaded": true, "none": false},
		Units: map[string]UnitFact{
			"k3s.service":  {Load: "loaded", Active: "active", Sub: "running", Enabled: "enabled", Result: "success", MainPID: 7, Restarts: 2},
			"none.service": {Load: "not-found", Active: "inactive", Sub: "dead", MainPID: 7, Restarts: 2},
		},
		Sysctls: map[string]string{"kernel.osrelease": "6.1.0"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestCommand(t *testing.T) {
	tests := []struct {
		args         []string
		stdin        string
		code         int
		out, problem string
	}{
		{args: []string{"version"}, out: "k3lab-converger protocol 1 "},
		{args: []string{}, code: 2, problem: usage},
		{args: []string{"plan", "more"}, code: 2, problem: usage},
		{args: []string{"plan"}, stdin: "{", code: 1, problem: "k3lab-converger: request: unexpected EOF"},
		{args: []string{"plan"}, stdin: `{"state":{"machine":"x","resources":[{"user":{}}]}}`, code: 1, problem: `k3lab-converger: request: json: unknown field "user"`},
		{args: []string{"plan"}, stdin: `{"state":{"machine":"x","resources":[{"absent":{"path":"/etc"}}]}}`, code: 1, out: `{"resource":"absent /etc","action":"","made":false,"error":"is a top`},
		{args: []string{"plan"}, stdin: `{"state":{"machine":"x","resources":[]}}`},
	}
	for _, test := range tests {
		t.Run(fmt.Sprint(test.args, test.stdin), func(t *testing.T) {
			var out, problem strings.Builder
			code := Main(t.Context(), test.args, strings.NewReader(test.stdin), &out, &problem)
			if code != test.code || !strings.HasPrefix(out.String(), test.out) || (test.out == "") != (out.String() == "") || strings.TrimSpace(problem.String()) != test.problem {
				t.Errorf("got %d, %q, %q", code, out.String(), problem.String())
			}
		})
	}
}
