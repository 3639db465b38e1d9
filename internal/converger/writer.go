package converger

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// writer is the only way to change the machine. Apply alone has one.
type writer struct {
	view     *view
	programs programs
	selected map[string]bool // IDs of resources that are changed
	done     map[string]error
	pending  pending
	emit     func(Change) // tells of what takes long
	lockWait time.Duration
	refused  map[string]error      // packages that cannot be had
	verdicts map[string]chan error // whether somebody else has what a file claims, by its path

	reloadFirst bool // unit files changed: systemd must read them before a unit is started
	reloadLast  bool // units were enabled: systemd must read that before it is asked again
}

func newWriter(v *view, p programs, actions []action) *writer {
	w := &writer{view: v, programs: p, selected: map[string]bool{}, done: map[string]error{}, refused: map[string]error{}, verdicts: map[string]chan error{}, emit: func(Change) {}, lockWait: lockWait,
		pending: v.pending.clone(), reloadFirst: v.pending.DaemonReload}
	for _, a := range actions {
		if a.make != nil {
			w.selected[a.Resource] = true
		}
	}
	return w
}

// once does what serves several resources together, the first time it is asked.
func (w *writer) once(what string, f func() error) error {
	err, ok := w.done[what]
	if !ok {
		err = f()
		w.done[what] = err
	}
	return err
}

// attributes are who may do what with a file.
type attributes struct {
	mode     uint32
	uid, gid int
}

func (a attributes) set(f *os.File) error {
	if err := f.Chown(a.uid, a.gid); err != nil {
		return err
	}
	return f.Chmod(fileMode(a.mode)) // after chown, which drops setuid bits
}

// fileMode maps permission bits as chmod(2) takes them to Go's.
func fileMode(mode uint32) os.FileMode {
	m := os.FileMode(mode & 0o777)
	for bit, flag := range map[uint32]os.FileMode{0o4000: os.ModeSetuid, 0o2000: os.ModeSetgid, 0o1000: os.ModeSticky} {
		if mode&bit != 0 {
			m |= flag
		}
	}
	return m
}

const (
	tempPrefix = ".k3lab-"
	tempSuffix = ".tmp"
)

// temp is a name beside path that no other program uses.
func temp(path string) string {
	return filepath.Join(filepath.Dir(path), tempPrefix+filepath.Base(path)+tempSuffix)
}

// replace puts content at path, whole or not at all, also when the machine loses
// power: content and attributes are on disk before the name points to them.
func (w *writer) replace(path string, content io.Reader, a attributes) error {
	if err := w.parents(path); err != nil {
		return err
	}
	t := temp(w.view.at(path))
	err := fill(t, content, a)
	if err == nil {
		err = os.Rename(t, w.view.at(path))
	}
	if err != nil {
		os.Remove(t)
		return w.explain(path, err)
	}
	return w.syncDir(path)
}

func fill(path string, content io.Reader, a attributes) error {
	os.Remove(path) // of a converger that was killed
	// Not readable by others before the owner and mode are right.
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, content)
	if err == nil {
		err = a.set(f)
	}
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// place has what makes a name make it beside path, then gives it path's name.
func (w *writer) place(path string, makeAt func(temp string) error) error {
	if err := w.parents(path); err != nil {
		return err
	}
	t := temp(w.view.at(path))
	os.Remove(t) // of a converger that was killed
	err := makeAt(t)
	if err == nil {
		err = os.Rename(t, w.view.at(path))
	}
	os.Remove(t) // also after success: renaming one link of a file to another leaves both
	if err != nil {
		return w.explain(path, err)
	}
	return w.syncDir(path)
}

func (w *writer) parents(path string) error {
	if err := os.MkdirAll(filepath.Dir(w.view.at(path)), 0o755); err != nil {
		return w.explain(path, err)
	}
	return nil
}

// syncDir makes the directory entry of path outlive a loss of power.
func (w *writer) syncDir(path string) error {
	d, err := os.Open(filepath.Dir(w.view.at(path)))
	if err != nil {
		return err
	}
	defer d.Close()
	if err := d.Sync(); err != nil && !errors.Is(err, syscall.EINVAL) { // EINVAL: a file system that has no such thing
		return w.explain(path, err)
	}
	return nil
}

// explain adds what a full disk leaves to be known.
func (w *writer) explain(path string, err error) error {
	if !errors.Is(err, syscall.ENOSPC) && !errors.Is(err, syscall.EDQUOT) {
		return err
	}
	var fs unix.Statfs_t
	if unix.Statfs(nearest(w.view.at(path)), &fs) != nil {
		return fmt.Errorf("disk full: %s cannot be written: %w", path, err)
	}
	return fmt.Errorf("disk full: %s cannot be written: %d of %d MiB and %d of %d inodes are free there: %w", path,
		mib(fs.Bavail, fs), mib(fs.Blocks, fs), fs.Ffree, fs.Files, err)
}

func mib(blocks uint64, fs unix.Statfs_t) uint64 { return blocks * uint64(fs.Bsize) >> 20 }

// nearest is the path itself or the nearest parent that is there.
func nearest(path string) string {
	for path != "/" && path != "." {
		if _, err := os.Lstat(path); err == nil {
			return path
		}
		path = filepath.Dir(path)
	}
	return path
}

// cleanLeftovers removes temporary files of a converger that was killed. The
// lock is held, so they are nobody's.
func (w *writer) cleanLeftovers() {
	dirs := map[string]bool{memoryDir: true, filepath.Dir(sysctlPath): true, filepath.Dir(modulesPath): true}
	for _, r := range w.view.state.Resources {
		switch {
		case r.File != nil:
			dirs[filepath.Dir(r.File.Path)] = true
		case r.Link != nil:
			dirs[filepath.Dir(r.Link.Path)] = true
		case r.Binary != nil:
			dirs[filepath.Dir(r.Binary.Path)] = true
		case r.Block != nil:
			dirs[filepath.Dir(r.Block.Path)] = true
		case r.Keys != nil:
			if owner, err := w.view.account(r.Keys.User); err == nil {
				dirs[filepath.Join(owner.home, ".ssh")] = true
			}
		case r.Archive != nil:
			dirs[filepath.Dir(r.Archive.Path)] = true
		case r.Nftables != nil:
			dirs[filepath.Dir(r.Nftables.Path)] = true
		case r.Hostname != nil, r.Swap != nil:
			dirs["/etc"] = true
		}
	}
	for dir := range dirs {
		entries, err := os.ReadDir(w.view.at(dir))
		if err != nil {
			continue
		}
		for _, e := range entries {
			if strings.HasPrefix(e.Name(), tempPrefix) && strings.HasSuffix(e.Name(), tempSuffix) {
				os.Remove(filepath.Join(w.view.at(dir), e.Name()))
			}
		}
	}
}

// run runs a program that changes something.
func (w *writer) run(ctx context.Context, args ...string) error {
	_, err := w.programs.run(ctx, nil, args...)
	return err
}
