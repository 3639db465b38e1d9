//go:build linux

package sandbox

import (
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"testing"

	"github.com/k3lab/k3lab/internal/report"
)

func TestNotRoot(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("is root; TestWithoutMachines runs this as nobody")
	}
	_, err := Up(t.Context(), options("test-user"), report.Discard)
	wants(t, "Up", fmt.Sprint(err), "sandbox test-user: real machines need root (try: sudo k3lab sandbox up, or --machines none)")
}

func TestOptionsRefused(t *testing.T) {
	t.Setenv("K3LAB_SANDBOX_DIR", t.TempDir())
	tests := map[string]struct {
		change func(*Options)
		want   string
	}{
		"name":        {func(o *Options) { o.Name = "Übung" }, "sandbox Übung: the name must be lower-case letters, digits and dashes, at most 31"},
		"path":        {func(o *Options) { o.Name = "../x" }, "sandbox ../x: the name must be lower-case letters, digits and dashes, at most 31"},
		"machines":    {func(o *Options) { o.Machines = "qemu" }, `sandbox test-bad: machines "qemu": must be nspawn or none`},
		"hypervisors": {func(o *Options) { o.Hypervisors = 100 }, "sandbox test-bad: 100 hypervisors: must be 1 to 99"},
		"images":      {func(o *Options) { o.ImagesDir = "/nowhere" }, "/nowhere: is no directory of container images"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			o := options("test-bad")
			o.Machines = None
			tt.change(&o)
			_, err := Up(t.Context(), o, report.Discard)
			wants(t, "Up", fmt.Sprint(err), tt.want)
			if found, _ := List(); len(found) > 0 {
				t.Errorf("left behind: %v", found)
			}
		})
	}
}

// TestUpFails names the cause, and leaves nothing that Down does not remove.
func TestUpFails(t *testing.T) {
	needRoot(t)
	t.Setenv("K3LAB_SANDBOX_DIR", t.TempDir())
	leavesNothing(t, "test-fails")
	tests := map[string]struct {
		prepare func(*testing.T, *Options)
		want    string // a pattern
	}{
		"address range in use": {
			func(_ *testing.T, o *Options) { o.CIDR = "127.0.0.0/24" },
			`^network 127\.0\.0\.0/24: overlaps with 127\.0\.0\.\d+/\d+, in use by a route of this computer on lo \(try: choose another --cidr, or none for a free one\)$`,
		},
		"no network": {
			func(_ *testing.T, o *Options) { o.CIDR = "198.18.0.1" },
			`^network 198\.18\.0\.1: must be an IPv4 network between /16 and /28, such as 198\.18\.7\.0/24$`,
		},
		"missing programs": {
			func(t *testing.T, _ *Options) { t.Setenv("PATH", "/nowhere") },
			`^sandbox: missing: systemd-nspawn, ip, .* \(try: apt-get install e2fsprogs iproute2 .*systemd-container util-linux\)$`,
		},
		"disk full": {
			func(t *testing.T, _ *Options) {
				dir := t.TempDir()
				if out, err := exec.Command("mount", "-t", "tmpfs", "-o", "size=50M", "tmpfs", dir).CombinedOutput(); err != nil {
					t.Fatalf("%v: %s", err, out)
				}
				t.Cleanup(func() { _ = exec.Command("umount", dir).Run() })
				t.Setenv("K3LAB_SANDBOX_DIR", dir)
			},
			`^/tmp/.*: 50 MiB are free, machines need 2048 \(try: free some disk space, or set K3LAB_SANDBOX_DIR to another disk\)$`,
		},
		"daemon ends": {
			func(_ *testing.T, o *Options) { o.ServeCommand = []string{"sh", "-c", "echo no luck; exit 3"} },
			`^sandbox test-fails: the API's daemon ended \(exit status 3\): no luck \(try: see /.*/api\.log\)$`,
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			o := options("test-fails")
			tt.prepare(t, &o)
			_, err := Up(t.Context(), o, report.Discard)
			if !regexp.MustCompile(tt.want).MatchString(fmt.Sprint(err)) {
				t.Errorf("Up: %v\nwant %s", err, tt.want)
			}
			t.Setenv("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
			if err := Down(t.Context(), "test-fails", report.Discard); err != nil {
				t.Errorf("Down: %v", err)
			}
		})
	}
}
