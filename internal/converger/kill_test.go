package converger

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const (
	childRoot    = "K3LAB_TEST_CONVERGER_ROOT"    // makes the test binary a converger
	childGuarded = "K3LAB_TEST_CONVERGER_GUARDED" // makes it apply the guarded state
	childKill    = "K3LAB_TEST_CONVERGER_KILL"    // the program before which it kills itself, counted from 1
)

// TestMain lets the test binary be the converger that is killed.
func TestMain(m *testing.M) {
	if path := os.Getenv(childLock); path != "" {
		os.Exit(holdLock(path))
	}
	root := os.Getenv(childRoot)
	if root == "" {
		os.Exit(m.Run())
	}
	f := &fakeMachine{root: root}
	n, _ := strconv.Atoi(os.Getenv(childKill))
	f.before = func([]string) {
		if n--; n == 0 {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		}
	}
	q := killState()
	if os.Getenv(childGuarded) != "" {
		q = guardedState()
	}
	if err := f.converger().Apply(context.Background(), q, func(Change) {}); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// killState has something of everything that is made in several moves.
func killState() Request {
	const config, unitFile, binary = "/etc/k3s/config.yaml", "/etc/systemd/system/k3s.service", "/usr/local/bin/k3s"
	resources := []Resource{
		{Hostname: &Hostname{Name: "server-1"}},
		{Sysctl: &Sysctl{Key: "net.ipv4.ip_forward", Value: "1"}},
		{Sysctl: &Sysctl{Key: "vm.overcommit_memory", Value: "1"}},
		{Module: &Module{Name: "overlay"}},
		{Swap: &Swap{Off: true}},
		{Block: &Block{Path: "/etc/hosts", Lines: []string{"192.0.2.1 one", "192.0.2.2 two"}, Mode: 0o644}},
		{Keys: &AuthorizedKeys{User: "root", Keys: []string{keyA}}},
		{Package: &Package{Name: "curl"}},
		{Directory: &Directory{Path: "/etc/k3s", Mode: 0o755}},
		file(config, strings.Repeat("new: setting\n", 1000)),
		{Binary: &Binary{Path: binary, SHA256: sum("new k3s"), Source: "/cache/k3s"}},
		{Link: &Link{Path: "/usr/local/bin/kubectl", Target: binary}},
		file(unitFile, "[Unit]\nDescription=new\n"),
		{Absent: &Absent{Path: "/etc/old"}},
		unit("k3s.service", "file "+config, "binary "+binary, "file "+unitFile),
		{Unit: &Unit{Name: "ssh.service", AsIs: true, ReloadOn: []string{"file " + config}}},
	}
	for i := range 10 {
		resources = append(resources, file(fmt.Sprintf("/etc/many/%d", i), strings.Repeat("x", i*1000)))
	}
	return Request{State: State{Machine: "server-1", Resources: resources}}
}

func killMachine(t *testing.T) *fakeMachine {
	f := newFakeMachine(t)
	f.write(t, "/cache/k3s", "new k3s")
	f.write(t, "/usr/local/bin/k3s", "old k3s")
	f.write(t, "/etc/k3s/config.yaml", "old: setting\n")
	f.write(t, "/etc/systemd/system/k3s.service", "[Unit]\nDescription=old\n")
	f.write(t, "/etc/old/x/y", "")
	f.write(t, fstabPath, "/dev/x none swap sw 0 0\n")
	f.change(func(s *fakeState) {
		s.Units["ssh.service"] = &fakeUnit{Load: "loaded", Active: "active", Sub: "running", File: "disabled",
			Uses: map[string]string{"/etc/k3s/config.yaml": "old: setting\n"}}
		s.Units["k3s.service"] = &fakeUnit{Load: "loaded", Active: "active", Sub: "running", File: "enabled",
			Definition: "[Unit]\nDescription=old\n", Uses: map[string]string{"/etc/k3s/config.yaml": "old: setting\n"}}
	})
	return f
}

// killed runs the converger in a process of its own and reports whether it was
// killed.
func killed(t *testing.T, root string, beforeProgram int, after time.Duration) bool {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childRoot+"="+root, childKill+"="+strconv.Itoa(beforeProgram))
	var stderr strings.Builder
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if after > 0 {
		timer := time.AfterFunc(after, func() { _ = cmd.Process.Kill() })
		defer timer.Stop()
	}
	err := cmd.Wait()
	if err == nil {
		return false
	}
	if status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || status.Signal() != syscall.SIGKILL {
		t.Fatalf("%v: %s", err, stderr.String())
	}
	return true
}

// end is what a run must lead to: the tree, and what the running process uses.
type end struct {
	Tree  map[string]string
	Units map[string]*fakeUnit
}

func (f *fakeMachine) end(t *testing.T) end {
	t.Helper()
	tree := snapshot(t, f.root)
	delete(tree, fakeStatePath)
	delete(tree, fakeStatePath+".new")
	s := f.load()
	for _, u := range s.Units {
		u.Starts = 0 // an interrupted run may restart once more
	}
	return end{tree, s.Units}
}

// TestKilledAnywhere kills the converger, runs it again, and compares with a run
// that was left alone: before each program it runs, and at random moments.
func TestKilledAnywhere(t *testing.T) {
	whole := killMachine(t)
	began := time.Now()
	if killed(t, whole.root, 0, 0) {
		t.Fatal("nobody killed it")
	}
	took := time.Since(began)
	want := whole.end(t)
	if uses := want.Units["k3s.service"].Uses; uses["/usr/local/bin/k3s"] != "new k3s" || uses["definition"] != "[Unit]\nDescription=new\n" {
		t.Fatalf("k3s uses %v", uses)
	}
	check := func(t *testing.T, f *fakeMachine) {
		t.Helper()
		if killed(t, f.root, 0, 0) {
			t.Fatal("nobody killed it")
		}
		if diff := cmp.Diff(want, f.end(t)); diff != "" {
			t.Errorf("another end (-undisturbed +killed):\n%s", diff)
		}
		if left, err := filepath.Glob(filepath.Join(f.root, memoryDir, "pending.json")); err != nil || left != nil {
			t.Errorf("still owed: %s", f.read(pendingPath))
		}
	}
	programs := 0
	for n := 1; ; n++ {
		f := killMachine(t)
		if !killed(t, f.root, n, 0) {
			programs = n - 1
			break
		}
		check(t, f)
	}
	if programs < 6 {
		t.Errorf("it ran only %d programs", programs)
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	hits := 0
	for range 30 {
		f := killMachine(t)
		for range 2 {
			if killed(t, f.root, 0, time.Duration(random.Int64N(int64(took)))) {
				hits++
			}
		}
		check(t, f)
	}
	if hits == 0 {
		t.Error("it was never killed in time")
	}
	t.Logf("killed before each of %d programs and %d times in between", programs, hits)
}
