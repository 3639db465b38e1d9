package machine

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/k3lab/k3lab/internal/fault"
)

// A machine's instance file names it to its own file system. A copied disk
// finds another name there and gives itself a new identity.
const instanceFile = "instance"

func (d *Driver) snapshot(vmid int, name string) string {
	return d.file(vmid, filepath.Join("snapshots", filepath.Base(name)))
}

// Snapshot copies the machine's disks. A running machine holds its breath
// meanwhile: its file system is frozen, as the guest agent does on a hypervisor.
// Extra disks are copied as they are.
func (d *Driver) Snapshot(ctx context.Context, vmid int, name string) error {
	unlock, err := d.lock(ctx, vmid)
	if err != nil {
		return err
	}
	defer unlock()
	to := d.snapshot(vmid, name)
	if there, err := exists(to); err != nil {
		return err
	} else if there {
		return fault.New(fault.Failed, "machine "+strconv.Itoa(vmid), "", "snapshot %s exists", name)
	}
	return d.frozen(ctx, vmid, func() error { return copyImages(ctx, d.dir(vmid), to) })
}

// Rollback puts the disks back to what they were at the snapshot.
func (d *Driver) Rollback(ctx context.Context, vmid int, name string) error {
	unlock, err := d.lockStopped(ctx, vmid, "roll back the disks")
	if err != nil {
		return err
	}
	defer unlock()
	from := d.snapshot(vmid, name)
	if there, err := exists(from); err != nil {
		return err
	} else if !there {
		return fault.New(fault.Failed, "machine "+strconv.Itoa(vmid), "", "there is no snapshot %s", name)
	}
	if err := Detach(ctx, d.dir(vmid)); err != nil {
		return err
	}
	// Copied aside first: a failed copy changes nothing.
	fresh := d.file(vmid, "rollback")
	if err := os.RemoveAll(fresh); err != nil {
		return fault.New(fault.Failed, fresh, "", "%w", err)
	}
	if err := copyImages(ctx, from, fresh); err != nil {
		return err
	}
	return d.replaceImages(vmid, fresh)
}

// replaceImages puts the disks in a directory in place of the machine's.
func (d *Driver) replaceImages(vmid int, fresh string) error {
	old, err := images(d.dir(vmid))
	if err != nil {
		return err
	}
	for _, file := range old {
		if err := os.Remove(file); err != nil {
			return fault.New(fault.Failed, file, "", "%w", err)
		}
	}
	found, err := images(fresh)
	if err != nil {
		return err
	}
	for _, file := range found {
		if err := os.Rename(file, d.file(vmid, filepath.Base(file))); err != nil {
			return fault.New(fault.Failed, file, "", "%w", err)
		}
	}
	if err := os.RemoveAll(fresh); err != nil {
		return fault.New(fault.Failed, fresh, "", "%w", err)
	}
	return nil
}

// DeleteSnapshot forgets a snapshot; one that is not there is forgotten already.
func (d *Driver) DeleteSnapshot(ctx context.Context, vmid int, name string) error {
	unlock, err := d.lock(ctx, vmid)
	if err != nil {
		return err
	}
	defer unlock()
	if err := os.RemoveAll(d.snapshot(vmid, name)); err != nil {
		return fault.New(fault.Failed, d.snapshot(vmid, name), "", "%w", err)
	}
	return nil
}

// Copy makes a full clone: the disks are the same, the identity is not.
func (d *Driver) Copy(ctx context.Context, from, to int) error {
	unlockTo, err := d.lockStopped(ctx, to, "overwrite the disks")
	if err != nil {
		return err
	}
	defer unlockTo()
	unlock, err := d.lock(ctx, from)
	if err != nil {
		return err
	}
	defer unlock()
	if there, err := exists(d.file(from, bootImage)); err != nil || !there {
		return err // never started: a clone starts from the root image, too
	}
	if there, err := exists(d.file(to, bootImage)); err != nil {
		return err
	} else if there {
		return fault.New(fault.Failed, "machine "+strconv.Itoa(to), "", "has disks already")
	}
	if err := os.MkdirAll(d.dir(to), 0o700); err != nil {
		return fault.New(fault.Failed, d.dir(to), "", "%w", err)
	}
	fresh := d.file(to, "rollback")
	if err := d.frozen(ctx, from, func() error { return copyImages(ctx, d.dir(from), fresh) }); err != nil {
		return err
	}
	if base, err := os.ReadFile(d.file(from, baseFile)); err == nil {
		if err := d.put(to, baseFile, string(base)); err != nil {
			return err
		}
	}
	return d.replaceImages(to, fresh)
}

// frozen runs f while nothing is written to the machine's disk.
func (d *Driver) frozen(ctx context.Context, vmid int, f func() error) error {
	if !d.Running(vmid) {
		if err := Detach(ctx, d.dir(vmid)); err != nil {
			return err
		}
		return f()
	}
	if err := d.freeze(ctx, vmid, "--freeze"); err != nil {
		return err
	}
	err := f()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	if thaw := d.freeze(ctx, vmid, "--unfreeze"); err == nil {
		err = thaw
	}
	return err
}

func (d *Driver) freeze(ctx context.Context, vmid int, how string) error {
	pid, err := d.nspawn(vmid)
	if err != nil {
		return err
	}
	return freeze(ctx, pid, how)
}

func freeze(ctx context.Context, nspawn int, how string) error {
	_, err := run(ctx, "", "nsenter", "--target", strconv.Itoa(nspawn), "--mount", "fsfreeze", how, "/tmp/machine/disk")
	return err
}

// Thaw unfreezes the file systems of the machines below dir, which a driver
// killed in the middle of a snapshot leaves frozen. Their processes could not
// even be killed before.
func Thaw(ctx context.Context, dir string) {
	found, err := filepath.Glob(filepath.Join(dir, "*", nspawnFile))
	if err != nil {
		return
	}
	for _, file := range found {
		// The file may be old, and its process somebody else's by now, in whose
		// mount namespace there is no such file system.
		if pid, err := readPID(file); err == nil {
			_ = freeze(ctx, pid, "--unfreeze") // fails for one not frozen, as it should be
		}
	}
}
