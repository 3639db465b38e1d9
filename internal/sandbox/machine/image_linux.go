package machine

import (
	"context"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/k3lab/k3lab/internal/fault"
)

// rootfs is what the root image has beside Debian's packages.
//
//go:embed all:rootfs
var rootfs embed.FS

// Image is the recipe of the root image all machines share.
type Image struct {
	CacheDir string // where it is kept, outside any sandbox
	Mirror   string // Debian's archive; empty for deb.debian.org
	Log      func(format string, args ...any)
}

const suite = "bookworm"

// packages of the root image. What K3s and its pods need of the operating
// system, what Ansible needs, and what a lab's settings install most often.
func packages() []string {
	return []string{
		"systemd", "systemd-sysv", "dbus", "openssh-server", "sudo", "procps", "kmod", "curl", "ca-certificates",
		"python3", "python3-apt",
		"iproute2", "iptables", "nftables", "ethtool", "conntrack", "socat", "iputils-ping", "iputils-arping", "keepalived",
		"e2fsprogs", "util-linux-extra", "nfs-common", "tzdata", "unattended-upgrades",
	}
}

// units that make no sense on a shared kernel, or would cost time at boot.
func masked() []string {
	return []string{
		"dpkg-db-backup.timer", "e2scrub_all.timer", "e2scrub_reap.service", "fstrim.timer",
		"getty@tty1.service", "getty-static.service", "console-getty.service",
		"run-rpc_pipefs.mount", "proc-sys-fs-binfmt_misc.automount", "proc-sys-fs-binfmt_misc.mount", "systemd-binfmt.service", "systemd-modules-load.service",
		"systemd-pstore.service", "systemd-random-seed.service",
		"sys-fs-fuse-connections.mount", "sys-kernel-config.mount", "sys-kernel-debug.mount", "sys-kernel-tracing.mount",
	}
}

func (i Image) mirror() string {
	if i.Mirror == "" {
		return "http://deb.debian.org/debian"
	}
	return i.Mirror
}

// arguments of mmdebstrap, without the target and the mirror.
func (i Image) arguments() []string {
	return []string{
		"--mode=root", "--variant=minbase", "--quiet", "--aptopt=Acquire::Languages \"none\"",
		"--dpkgopt=force-unsafe-io", "--dpkgopt=path-exclude=/usr/share/doc/*",
		"--dpkgopt=path-exclude=/usr/share/man/*", "--dpkgopt=path-exclude=/usr/share/locale/*",
		"--include=" + strings.Join(packages(), ","),
	}
}

// base is where Debian's part of the image lies once it is made: its name is a
// hash of all that goes into it.
func (i Image) base() string {
	return filepath.Join(i.CacheDir, "debian-"+digest(runtime.GOARCH, suite, i.mirror(), i.arguments(), started()))
}

func digest(parts ...any) string {
	sum := sha256.Sum256([]byte(fmt.Sprintf("%q", parts)))
	return hex.EncodeToString(sum[:8])
}

// Made reports whether Make has nothing of Debian to fetch.
func (i Image) Made() bool { return present(i.base()) }

// Make makes the image unless it is there. It returns its layers as overlayfs
// takes them: the sandbox's own files above Debian. Only one process makes it
// at a time; the others wait.
func (i Image) Make(ctx context.Context) (layers string, err error) {
	own, err := ownFiles()
	if err != nil {
		return "", fault.New(fault.Failed, "root image", "", "%w", err)
	}
	base, top := i.base(), filepath.Join(i.CacheDir, "sandbox-"+digest(own, masked()))
	layers = top + ":" + base
	if present(base) && present(top) {
		return layers, nil
	}
	if err := os.MkdirAll(i.CacheDir, 0o755); err != nil {
		return "", fault.New(fault.Failed, i.CacheDir, "", "root image: %w", err)
	}
	unlock, err := i.lock(ctx)
	if err != nil {
		return "", err
	}
	defer unlock()
	if err := makeWhole(top, func(dir string) error { return furnish(dir, own) }); err != nil {
		return "", err
	}
	return layers, makeWhole(base, func(dir string) error {
		i.Log("making the root image from %s, once, in about 30 s", i.mirror())
		if err := i.bootstrap(ctx, dir); err != nil {
			return err
		}
		return unidentify(dir)
	})
}

// makeWhole makes a directory that appears under its name only when it is whole.
func makeWhole(path string, fill func(dir string) error) error {
	if present(path) {
		return nil
	}
	tmp := path + ".new"
	err := os.RemoveAll(tmp)
	if err == nil {
		err = fill(tmp)
	}
	if err == nil {
		err = publish(tmp, path)
	}
	if err != nil {
		os.RemoveAll(tmp)
		return fault.New(fault.Failed, "root image", "", "%w", err)
	}
	return nil
}

func present(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// lock waits for the right to make images.
func (i Image) lock(ctx context.Context) (unlock func(), err error) {
	f, err := os.OpenFile(filepath.Join(i.CacheDir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fault.New(fault.Failed, i.CacheDir, "", "root image: %w", err)
	}
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for told := false; ; told = true {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() { f.Close() }, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) {
			f.Close()
			return nil, fault.New(fault.Failed, f.Name(), "", "root image: %w", err)
		}
		if !told {
			i.Log("waiting for another process that makes the root image")
		}
		select {
		case <-ctx.Done():
			f.Close()
			return nil, ctx.Err()
		case <-tick.C:
		}
	}
}

// bootstrap runs mmdebstrap in process and mount namespaces of its own, so that
// nothing of it is left when it is interrupted.
func (i Image) bootstrap(ctx context.Context, target string) error {
	// The parent's death is its thread's: keep the thread.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	argv := append([]string{"--mount", "--pid", "--fork", "--kill-child", "--mount-proc",
		"sh", "-c", `umask 022; exec mmdebstrap "$@"`, "mmdebstrap"}, i.arguments()...)
	cmd := exec.CommandContext(ctx, "unshare", append(argv, suite, target, i.mirror())...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	out, err := cmd.CombinedOutput()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		text := strings.TrimSpace(string(out))
		return fault.New(fault.Unreachable, "root image", "see that "+i.mirror()+" can be reached, or set K3LAB_DEBIAN_MIRROR",
			"mmdebstrap: %w\n%s", err, text[max(0, len(text)-2000):])
	}
	return nil
}

// ownFiles maps the paths of the sandbox's own files to what is in them.
func ownFiles() (map[string]string, error) {
	out := map[string]string{}
	return out, fs.WalkDir(rootfs, "rootfs", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := rootfs.ReadFile(path)
		out[strings.TrimPrefix(path, "rootfs/")] = string(b)
		return err
	})
}

// furnish makes the layer of the sandbox's own files, with masked units.
func furnish(dir string, files map[string]string) error {
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			return err
		}
		if err := os.Chmod(path, 0o644); err != nil {
			return err
		}
	}
	system := filepath.Join(dir, "etc/systemd/system")
	if err := os.MkdirAll(filepath.Join(system, "sysinit.target.wants"), 0o755); err != nil {
		return err
	}
	links := map[string]string{"sysinit.target.wants/k3lab-sandbox.service": "/usr/lib/systemd/system/k3lab-sandbox.service"}
	for _, unit := range masked() {
		links[unit] = "/dev/null"
	}
	for name, target := range links {
		if err := os.Symlink(target, filepath.Join(system, name)); err != nil {
			return err
		}
	}
	// Whatever the umask was: these lie above Debian's directories.
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	return fs.WalkDir(root.FS(), ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return err
		}
		return root.Chmod(path, 0o755)
	})
}

// started are units that Debian starts as soon as they are installed and a
// machine must not.
func started() []string { return []string{"keepalived.service"} }

// unidentify takes away what each machine must have for itself.
func unidentify(root string) error {
	remove := []string{"etc/resolv.conf", "etc/hostname"}
	for _, unit := range started() {
		remove = append(remove, "etc/systemd/system/multi-user.target.wants/"+unit)
	}
	for _, name := range remove {
		if err := os.Remove(filepath.Join(root, name)); ignoreMissing(err) != nil {
			return err
		}
	}
	keys, err := filepath.Glob(filepath.Join(root, "etc/ssh/ssh_host_*"))
	if err != nil {
		return err
	}
	for _, key := range keys {
		if err := os.Remove(key); err != nil {
			return err
		}
	}
	return os.WriteFile(filepath.Join(root, "etc/machine-id"), nil, 0o444)
}

// publish gives the finished image its name once all of it is on the disk.
func publish(tmp, path string) error {
	d, err := os.Open(tmp)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := unix.Syncfs(int(d.Fd())); err != nil {
		return err
	}
	return os.Rename(tmp, path)
}
