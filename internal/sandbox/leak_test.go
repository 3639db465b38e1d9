//go:build linux

package sandbox

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/k3lab/k3lab/internal/report"
)

// footprint is all that sandboxes may leave on a computer, as far as it is
// recognisable as theirs, and the kernel's settings.
func footprint(t *testing.T, tags ...string) []string {
	t.Helper()
	var out []string
	ours := func(what, text string) {
		for line := range strings.Lines(text) {
			for _, tag := range tags {
				if strings.Contains(line, tag) {
					out = append(out, what+": "+strings.TrimSpace(line))
				}
			}
		}
	}
	command := func(argv ...string) string {
		b, err := exec.CommandContext(context.Background(), argv[0], argv[1:]...).Output()
		if err != nil {
			t.Fatalf("%v: %v", argv, err)
		}
		return string(b)
	}
	ours("process", processes(t))
	ours("link", command("ip", "-o", "link"))
	ours("route", command("ip", "route"))
	ours("namespace", command("ip", "netns"))
	ours("loop device", command("losetup", "--all"))
	if record, err := os.ReadFile(kernelDir + "/record.json"); err == nil {
		ours("kernel settings for", string(record))
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	ours("mount", string(mounts))
	for _, pattern := range []string{"/sys/fs/cgroup/*", "/sys/fs/cgroup/*/*", "/run/systemd/nspawn/*/*", "/run/*", "/run/k3lab*/*", "/tmp/*", "/var/lib/k3lab/*", "/var/lib/k3lab/*/*"} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		ours("file", strings.Join(found, "\n"))
	}
	return out
}

// processes lists every process that runs, with its cgroups and arguments.
func processes(t *testing.T) string {
	t.Helper()
	var out strings.Builder
	found, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range found {
		if dir == "/proc/self" || dir == "/proc/"+strconv.Itoa(os.Getpid()) {
			continue
		}
		args, _ := os.ReadFile(dir + "/cmdline")
		groups, _ := os.ReadFile(dir + "/cgroup")
		if len(args) == 0 {
			continue // a kernel thread, or dead and not yet waited for
		}
		out.WriteString(strings.Join(strings.Fields(dir+" "+strings.ReplaceAll(string(args)+"\x00"+string(groups), "\x00", " ")), " ") + "\n")
	}
	return out.String()
}

// kernelNow reads the settings that machines could have changed. Counters and
// the like are left out.
func kernelNow(t *testing.T) map[string]string {
	t.Helper()
	forward, err := readSysctl("net.ipv4.ip_forward")
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{sysctlPath("net.ipv4.ip_forward"): forward}
	for _, root := range []string{"kernel", "vm", "fs"} {
		err := filepath.WalkDir("/proc/sys/"+root, func(path string, d os.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return nil //nolint:nilerr // what cannot be read cannot be compared
			}
			moving := []string{"random/", "-nr", "-state", "ns_last_pid", "dentry", "inode", "fs/aio", "pty/nr", "binfmt_misc", "tainted", "fs/quota"}
			if slices.ContainsFunc(moving, func(m string) bool { return strings.Contains(path, m) }) {
				return nil
			}
			if b, err := os.ReadFile(path); err == nil {
				out[path] = strings.TrimSpace(string(b))
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return out
}

// kernelShared reports whether any sandbox holds kernel settings.
func kernelShared() bool {
	_, err := os.Stat(kernelDir + "/record.json")
	return err == nil
}

// tagOf is what the names of a sandbox's things contain.
func tagOf(t *testing.T, name string) string {
	t.Helper()
	p, err := placeOf(name)
	if err != nil {
		t.Fatal(err)
	}
	return p.tag()
}

// leavesNothing tears the sandboxes down when the test ends, however it ends,
// and compares the computer with what it was before.
func leavesNothing(t *testing.T, names ...string) {
	t.Helper()
	dir, err := home()
	if err != nil {
		t.Fatal(err)
	}
	tags := []string{dir}
	for _, n := range names {
		tags = append(tags, tagOf(t, n), "k3lab-"+n)
	}
	before, kernel, shared := footprint(t, tags...), kernelNow(t), kernelShared()
	t.Cleanup(func() {
		if d := cmp.Diff(before, footprint(t, tags...)); d != "" {
			t.Errorf("left behind (-before +after):\n%s", d)
		}
		now := kernelNow(t)
		if shared || kernelShared() { // somebody else's sandbox comes and goes
			for _, s := range kernelSettings(true) {
				delete(kernel, sysctlPath(s.key))
				delete(now, sysctlPath(s.key))
			}
		}
		if d := cmp.Diff(kernel, now); d != "" {
			t.Errorf("kernel settings (-before +after):\n%s", d)
		}
	})
	// Registered last, it runs first.
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		for _, n := range names {
			if err := Down(ctx, n, report.Discard); err != nil {
				t.Errorf("Down %s: %v", n, err)
			}
		}
	})
}
