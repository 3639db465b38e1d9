//go:build linux

package sandbox

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/k3lab/k3lab/internal/report"
)

// TestTwoSandboxes runs two side by side; taking one down leaves the other, and
// the kernel settings it needs, alone.
func TestTwoSandboxes(t *testing.T) {
	needRoot(t)
	t.Setenv("K3LAB_SANDBOX_DIR", t.TempDir())
	names := []string{"test-left", "test-right"}
	leavesNothing(t, names...)
	labs := make([]*lab, 2)
	var wg sync.WaitGroup
	for i, name := range names {
		wg.Go(func() {
			labs[i] = up(t, options(name))
			labs[i].create(201)
			labs[i].power(201, "start")
			labs[i].dial(201).Close()
		})
	}
	wg.Wait()
	if labs[0] == nil || labs[1] == nil {
		t.FailNow()
	}
	if labs[0].info.CIDR == labs[1].info.CIDR || labs[0].info.Endpoint == labs[1].info.Endpoint {
		t.Errorf("both have network %s and endpoint %s", labs[0].info.CIDR, labs[0].info.Endpoint)
	}
	wants(t, "a machine of the other", labs[0].run(201, "ping -c 1 -W 1 "+labs[1].ip(201)+" >/dev/null || echo out of reach"), "out of reach")
	found, err := List()
	wants(t, "list", fmt.Sprint(found, err), "[test-left test-right] <nil>")

	if err := Down(t.Context(), "test-left", report.Discard); err != nil {
		t.Fatal(err)
	}
	wants(t, "the other one's machine", labs[1].run(201, "hostname"), "node-201")
	for _, s := range kernelSettings(false) {
		if now, err := readSysctl(s.key); err == nil && now != s.value && (!s.atLeast || number(now) < number(s.value)) {
			t.Errorf("%s is %s while a sandbox needs %s", s.key, now, s.value)
		}
	}
}

// TestDownAfterKill kills Up in ever later moments. Down removes what there is,
// and Up completes it.
func TestDownAfterKill(t *testing.T) {
	needRoot(t)
	t.Setenv("K3LAB_SANDBOX_DIR", t.TempDir())
	leavesNothing(t, "test-killed")
	up(t, options("test-killed")) // the root image exists from here on
	if err := Down(t.Context(), "test-killed", report.Discard); err != nil {
		t.Fatal(err)
	}
	for _, after := range []time.Duration{5, 15, 30, 60, 100, 150, 300} {
		for _, then := range []string{"down", "up"} {
			t.Run(fmt.Sprintf("%d ms, then %s", after, then), func(t *testing.T) {
				leavesNothing(t, "test-killed")
				cmd := exec.Command(os.Args[0], upArgument, "test-killed")
				if err := cmd.Start(); err != nil {
					t.Fatal(err)
				}
				time.Sleep(after * time.Millisecond)
				_ = cmd.Process.Kill()
				_ = cmd.Wait()
				if then == "up" {
					l := up(t, options("test-killed"))
					l.create(201)
					l.power(201, "start")
					wants(t, "status", l.status(201), "running")
				}
			})
		}
	}
}

// TestDownAfterDaemonKilled kills the daemon in the middle of a start and of a
// snapshot, which leaves a file system frozen.
func TestDownAfterDaemonKilled(t *testing.T) {
	needRoot(t)
	t.Setenv("K3LAB_SANDBOX_DIR", t.TempDir())
	leavesNothing(t, "test-orphans")
	l := up(t, options("test-orphans"))
	l.create(201)
	l.create(202)
	l.power(201, "start")
	l.run(201, "sudo fallocate -l 10M /var/lib/rancher/some")
	p, err := placeOf("test-orphans")
	if err != nil {
		t.Fatal(err)
	}
	pid, err := os.ReadFile(filepath.Join(p.machines(), "201", "nspawn.pid"))
	if err != nil {
		t.Fatal(err)
	}
	freeze := exec.Command("nsenter", "--target", strings.TrimSpace(string(pid)), "--mount", "fsfreeze", "--freeze", "/tmp/machine/disk")
	if out, err := freeze.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	writer := l.dial(201)
	defer writer.Close()
	if s, err := writer.NewSession(); err == nil {
		_ = s.Start("sudo sh -c 'echo x >/var/lib/rancher/stuck; sync'") // hangs in the kernel
	}
	l.call("POST", "/nodes/pve1/qemu/202/status/start", nil)
	if err := unix.Kill(l.info.PID, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
}

// TestCancelledUp: Up ends when its context does, and Down removes what it made.
func TestCancelledUp(t *testing.T) {
	needRoot(t)
	t.Setenv("K3LAB_SANDBOX_DIR", t.TempDir())
	leavesNothing(t, "test-cancelled")
	o := options("test-cancelled")
	o.ServeCommand = []string{"sh", "-c", "sleep 60"} // never answers
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	start := time.Now()
	_, err := Up(ctx, o, report.Discard)
	if !errors.Is(err, context.DeadlineExceeded) || time.Since(start) > 5*time.Second {
		t.Errorf("Up ended with %v after %v", err, time.Since(start))
	}
}

// TestInternet reaches a network beyond the computer, which knows nothing of
// the sandbox's, only when told to.
func TestInternet(t *testing.T) {
	needRoot(t)
	t.Setenv("K3LAB_SANDBOX_DIR", t.TempDir())
	if _, err := exec.LookPath("nft"); err != nil {
		t.Skip("nft is not there")
	}
	leavesNothing(t, "test-open")
	ip := func(args string) {
		t.Helper()
		if out, err := exec.Command("ip", strings.Fields(args)...).CombinedOutput(); err != nil {
			t.Fatalf("ip %s: %v: %s", args, err, out)
		}
	}
	ip("netns add test-outside")
	t.Cleanup(func() { _ = exec.Command("ip", "netns", "delete", "test-outside").Run() })
	ip("link add test-out type veth peer name eth0 netns test-outside")
	ip("address add 192.0.2.254/24 dev test-out")
	ip("link set test-out up")
	ip("-n test-outside address add 192.0.2.1/24 dev eth0")
	ip("-n test-outside link set eth0 up")
	const ping = "ping -c 1 -W 2 192.0.2.1 >/dev/null && echo yes || echo no"
	for _, open := range []bool{false, true} {
		o := options("test-open")
		o.Internet = open
		l := up(t, o)
		l.create(201)
		l.power(201, "start")
		wants(t, fmt.Sprintf("reaches the outside with internet %v", open), l.run(201, ping), map[bool]string{false: "no", true: "yes"}[open])
		if err := Down(t.Context(), "test-open", report.Discard); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := exec.Command("nft", "list", "tables").Output(); err != nil || strings.Contains(string(out), "k3lab_"+tagOf(t, "test-open")) {
		t.Errorf("tables left: %s %v", out, err)
	}
}

// TestWithoutMachines needs no root; as root it runs itself again as nobody.
func TestWithoutMachines(t *testing.T) {
	if os.Geteuid() == 0 {
		dir, err := os.MkdirTemp("", "k3lab-nobody-")
		if err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(dir)
		const nobody = 65534
		binary := filepath.Join(dir, "test")
		if out, err := exec.Command("cp", options("").ServeCommand[0], binary).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		if err := os.Chown(dir, nobody, nobody); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(binary, "-test.run=^(TestWithoutMachines|TestNotRoot)$", "-test.v")
		cmd.Dir = dir
		cmd.Env = []string{"HOME=" + dir, "TMPDIR=" + dir, "PATH=" + os.Getenv("PATH")}
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
		out, err := cmd.CombinedOutput()
		if err != nil || strings.Contains(string(out), "SKIP") {
			t.Fatalf("as nobody: %v\n%s", err, out)
		}
	}
	t.Setenv("K3LAB_SANDBOX_DIR", "")
	t.Setenv("XDG_STATE_HOME", t.TempDir())
	if os.Geteuid() == 0 {
		t.Setenv("K3LAB_SANDBOX_DIR", t.TempDir())
	}
	o := options("test-none")
	o.Machines = None
	leavesNothing(t, o.Name)
	l := up(t, o)
	l.task("POST", "/nodes/pve2/qemu", map[string][]string{"vmid": {"100"}, "name": {"paper"}, "memory": {"512"}})
	l.task("POST", "/nodes/pve2/qemu/100/status/start", nil)
	if err := unix.Kill(l.info.PID, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	again := up(t, o)
	wants(t, "endpoint", again.info.Endpoint, l.info.Endpoint)
	s, err := Status(t.Context(), o.Name)
	if err != nil {
		t.Fatal(err)
	}
	wants(t, "VMs", fmt.Sprint(s.Answers, s.VMs), "true [{100 paper pve2 running false}]")
	wants(t, "the token, printed", fmt.Sprintf("%v %+v %#v", s.Token, s.Token, s.Token), "*** *** ***")
	for range 2 { // the second time there is nothing to do
		if err := Down(t.Context(), o.Name, report.Discard); err != nil {
			t.Fatal(err)
		}
	}
	_, err = Status(t.Context(), o.Name)
	wants(t, "status", fmt.Sprint(err), "sandbox test-none: is not up (try: k3lab sandbox up test-none)")
}
