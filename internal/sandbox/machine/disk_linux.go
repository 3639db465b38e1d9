package machine

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/k3lab/k3lab/internal/fault"
)

// bootImage is the file that holds a machine's file system.
const bootImage = "disk.img"

const smallestDisk = 1 << 30 // what the root image and its journal fit in

// makeDisk makes the machine's file system, or grows it when the disk has been
// resized. Disks do not shrink.
func makeDisk(ctx context.Context, file string, size int64) error {
	size = max(size, smallestDisk)
	st, err := os.Stat(file)
	if errors.Is(err, fs.ErrNotExist) {
		return format(ctx, file, size)
	}
	if err != nil {
		return fault.New(fault.Failed, file, "", "%w", err)
	}
	half := file + ".grow" // there while the file is larger than its file system
	if _, err := os.Stat(half); err != nil && st.Size() >= size {
		return nil
	}
	if err := os.WriteFile(half, nil, 0o600); err != nil {
		return fault.New(fault.Failed, half, "", "%w", err)
	}
	if err := growFile(file, size); err != nil {
		return err
	}
	// Not while mounted: the kernel wants CAP_SYS_RESOURCE for that, which some
	// computers withhold. Status 1 of e2fsck is "mended", as after a hard stop.
	if _, err := run(ctx, "", "e2fsck", "-f", "-p", file); err != nil && !exited(err, 1) {
		return err
	}
	if _, err := run(ctx, "", "resize2fs", file); err != nil {
		return err
	}
	if err := os.Remove(half); err != nil {
		return fault.New(fault.Failed, half, "", "%w", err)
	}
	return nil
}

// growFile makes a file that is smaller than size that large.
func growFile(file string, size int64) error {
	st, err := os.Stat(file)
	if err == nil && st.Size() < size {
		err = os.Truncate(file, size)
	}
	if err != nil {
		return fault.New(fault.Failed, file, "", "%w", err)
	}
	return nil
}

// exited reports whether a program that run ran ended with that status.
func exited(err error, status int) bool {
	var e *exec.ExitError
	return errors.As(err, &e) && e.ExitCode() == status
}

func format(ctx context.Context, file string, size int64) error {
	tmp := file + ".new"
	if err := sparse(tmp, size); err != nil {
		return err
	}
	// The inode tables of a file that reads as zeroes need no initialising.
	if _, err := run(ctx, "", "mkfs.ext4", "-q", "-F", "-m", "0", "-E", "lazy_itable_init=1,lazy_journal_init=1,nodiscard", tmp); err != nil {
		return err
	}
	if err := os.Rename(tmp, file); err != nil {
		return fault.New(fault.Failed, file, "", "%w", err)
	}
	return nil
}

// sparse makes a file of that size that takes no room.
func sparse(file string, size int64) error {
	f, err := os.OpenFile(file, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return fault.New(fault.Failed, file, "", "%w", err)
	}
	defer f.Close()
	if err := f.Truncate(size); err != nil {
		return fault.New(fault.Failed, file, "", "%w", err)
	}
	return nil
}

// images lists the disk images in a directory.
func images(dir string) ([]string, error) {
	found, err := filepath.Glob(filepath.Join(dir, "*.img"))
	if err != nil {
		return nil, fault.New(fault.Failed, dir, "", "%w", err)
	}
	return found, nil
}

// copyImages copies the disk images of one directory to another that does not
// exist yet, all or none.
func copyImages(ctx context.Context, from, to string) error {
	found, err := images(from)
	if err != nil {
		return err
	}
	tmp := to + ".new"
	if err := os.RemoveAll(tmp); err != nil {
		return fault.New(fault.Failed, tmp, "", "%w", err)
	}
	if err := os.MkdirAll(tmp, 0o700); err != nil {
		return fault.New(fault.Failed, tmp, "", "%w", err)
	}
	if len(found) > 0 {
		argv := append([]string{"cp", "--reflink=auto", "--sparse=always", "--"}, found...)
		if _, err := run(ctx, "", append(argv, tmp)...); err != nil {
			os.RemoveAll(tmp)
			return err
		}
	}
	if err := os.Rename(tmp, to); err != nil {
		return fault.New(fault.Failed, to, "", "%w", err)
	}
	return nil
}

// Detach waits until no loop device holds a file below dir, and detaches those
// that nothing mounts. After the last process of a machine has ended the
// kernel unmounts its file system by itself, which takes a moment.
func Detach(ctx context.Context, dir string) error {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		held, err := loops(dir)
		if err != nil || len(held) == 0 {
			return err
		}
		for _, device := range held {
			detach(device)
		}
		select {
		case <-ctx.Done():
			return fault.New(fault.Failed, dir, "", "still in use by %s: %w", strings.Join(held, ", "), ctx.Err())
		case <-tick.C:
		}
	}
}

// loops lists the loop devices whose file is below dir.
func loops(dir string) ([]string, error) {
	files := map[[2]uint64]bool{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !strings.Contains(d.Name(), ".img") || !d.Type().IsRegular() {
			return ignoreMissing(err)
		}
		var st unix.Stat_t
		if err := unix.Stat(path, &st); err == nil {
			files[[2]uint64{st.Dev, st.Ino}] = true
		}
		return nil
	})
	if err != nil {
		return nil, fault.New(fault.Failed, dir, "", "%w", err)
	}
	bound, err := filepath.Glob("/sys/block/loop*/loop")
	if err != nil {
		return nil, fault.New(fault.Failed, "/sys/block", "", "%w", err)
	}
	var out []string
	for _, b := range bound {
		device := "/dev/" + filepath.Base(filepath.Dir(b))
		fd, err := unix.Open(device, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			continue
		}
		if info, err := unix.IoctlLoopGetStatus64(fd); err == nil && files[[2]uint64{info.Device, info.Inode}] {
			out = append(out, device)
		}
		unix.Close(fd)
	}
	return out, nil
}

// detach frees a loop device, at once or when its last user is gone.
func detach(device string) {
	if fd, err := unix.Open(device, unix.O_RDONLY|unix.O_CLOEXEC, 0); err == nil {
		_ = unix.IoctlSetInt(fd, unix.LOOP_CLR_FD, 0)
		unix.Close(fd)
	}
}

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
