package sandbox

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/k3lab/k3lab/internal/fault"
	"github.com/k3lab/k3lab/internal/sandbox/machine"
)

// leastDisk is what the root image and a few young machines take.
const leastDisk = 2 << 30

// ready checks all that real machines need of this computer.
func ready(p place, image machine.Image, internet bool) error {
	if a := runtime.GOARCH; a != "amd64" && a != "arm64" {
		return fault.New(fault.Failed, "sandbox", "", "machines are made for amd64 and arm64, this computer is %s", a)
	}
	if err := programs(machine.Requirements(!image.Made(), internet)); err != nil {
		return err
	}
	if _, err := os.Stat("/dev/loop-control"); err != nil {
		return fault.New(fault.Failed, "sandbox", "modprobe loop", "machines need loop devices: %w", err)
	}
	dirs := []string{string(p)}
	if !image.Made() {
		dirs = append(dirs, image.CacheDir)
	}
	for _, dir := range dirs {
		if err := space(dir); err != nil {
			return err
		}
	}
	return nil
}

// programs names every missing program at once, and the command that brings them.
func programs(needed []machine.Requirement) error {
	var missing, packages []string
	for _, n := range needed {
		if _, err := exec.LookPath(n.Program); err != nil {
			missing, packages = append(missing, n.Program), append(packages, n.Package)
		}
	}
	if slices.ContainsFunc(needed, func(n machine.Requirement) bool { return n.Program == "mmdebstrap" }) {
		const keyring = "/usr/share/keyrings/debian-archive-keyring.gpg"
		if _, err := os.Stat(keyring); err != nil {
			missing, packages = append(missing, keyring), append(packages, "debian-archive-keyring")
		}
	}
	if len(missing) == 0 {
		return nil
	}
	slices.Sort(packages)
	return fault.New(fault.Failed, "sandbox", "apt-get install "+strings.Join(slices.Compact(packages), " "),
		"missing: %s", strings.Join(missing, ", "))
}

// space checks that there is room below dir, which need not exist yet.
func space(dir string) error {
	for {
		if _, err := os.Stat(dir); err == nil || dir == filepath.Dir(dir) {
			break
		}
		dir = filepath.Dir(dir)
	}
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return fault.New(fault.Failed, dir, "", "free space: %w", err)
	}
	if free := st.Bavail * uint64(st.Bsize); free < leastDisk {
		return fault.New(fault.Failed, dir, "free some disk space, or set K3LAB_SANDBOX_DIR to another disk",
			"%d MiB are free, machines need %d", free>>20, leastDisk>>20)
	}
	return nil
}
