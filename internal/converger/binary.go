package converger

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
)

const binaryMode = 0o755

func (v *view) planBinary(b *Binary) ([]action, error) {
	want := attributes{mode: binaryMode}
	change := Change{Action: "install", Detail: strings.TrimSpace(b.Version + " (SHA-256 " + b.SHA256[:12] + "…)")}
	install := func(_ context.Context, w *writer) error { return w.install(b) }
	info, err := os.Lstat(v.at(b.Path))
	switch {
	case notThere(err):
		return one(change, install), nil
	case err != nil:
		return nil, err
	case info.IsDir():
		return nil, errors.New("is a directory")
	case !info.Mode().IsRegular():
		return one(change, install), nil
	}
	sum, err := v.digests.of(b.Path)
	if err != nil {
		return nil, err
	}
	if sum != b.SHA256 {
		change.Before, change.After = sum, b.SHA256
		return one(change, install), nil
	}
	if details := want.differences(info); details != nil {
		return one(Change{Action: "update", Detail: strings.Join(details, ", ")}, v.setAttributes(b.Path, binaryMode, "", "")), nil
	}
	return nil, nil
}

// install gives the cached content the binary's name: by a hard link, which
// costs nothing, or a copy where the cache is on another file system. A binary
// that runs keeps its old content until it is started again.
func (w *writer) install(b *Binary) error {
	if err := w.arrived(b.Source, b.SHA256); err != nil {
		return err
	}
	err := w.place(b.Path, func(t string) error {
		if err := os.Link(w.view.at(b.Source), t); err == nil {
			return setPath(t, attributes{mode: binaryMode})
		}
		return copyVerified(t, w.view.at(b.Source), b.SHA256, binaryMode)
	})
	if err != nil {
		return err
	}
	// Linking changed the times that the kept digests are told by.
	w.view.digests.keep(b.Path, b.SHA256)
	w.view.digests.keep(b.Source, b.SHA256)
	w.view.digests.save()
	return nil
}

func setPath(path string, a attributes) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return a.set(f)
}

func copyVerified(to, from, want string, mode uint32) error {
	f, err := os.Open(from)
	if err != nil {
		return err
	}
	defer f.Close()
	h := sha256.New()
	if err := fill(to, io.TeeReader(f, h), attributes{mode: mode}); err != nil {
		return err
	}
	if sum := hex.EncodeToString(h.Sum(nil)); sum != want {
		return fmt.Errorf("%s changed while it was copied: its SHA-256 is %s, but %s is expected", from, sum, want)
	}
	return nil
}

// Digest returns the hex SHA-256 of a file on the machine. As long as the file
// stays as it is, asking again does not read it.
func (c *Converger) Digest(path string) (string, error) {
	if err := os.MkdirAll(filepath.Join(c.root, memoryDir), 0o755); err != nil {
		return "", err
	}
	d := loadDigests(observe(c.root, c.programs, State{}))
	sum, err := d.of(path)
	if err == nil {
		d.save()
	}
	return sum, err
}

// digests remembers the SHA-256 of big files by what changes when they do. It is
// the converger's own memory, so plan may write it too. Safe for concurrent use.
type digests struct {
	view    *view
	mu      sync.Mutex
	entries map[string]digestEntry
	dirty   bool
}

type digestEntry struct {
	Size   int64  `json:"size"`
	MTime  int64  `json:"mtime_ns"`
	CTime  int64  `json:"ctime_ns"`
	Inode  uint64 `json:"inode"`
	Device uint64 `json:"device"`
	SHA256 string `json:"sha256"`
}

func loadDigests(v *view) *digests {
	d := &digests{view: v, entries: map[string]digestEntry{}}
	if json.Unmarshal([]byte(v.text(digestsPath)), &d.entries) != nil || d.entries == nil {
		d.entries = map[string]digestEntry{} // a spoilt memory only costs time
	}
	return d
}

func (d *digests) of(path string) (string, error) {
	entry, err := d.look(path)
	if err != nil {
		return "", err
	}
	d.mu.Lock()
	known, ok := d.entries[path]
	d.mu.Unlock()
	entry.SHA256 = known.SHA256
	if ok && known == entry {
		return known.SHA256, nil
	}
	f, err := os.Open(d.view.at(path))
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.CopyBuffer(struct{ io.Writer }{h}, f, make([]byte, 256<<10)); err != nil {
		return "", err
	}
	sum := hex.EncodeToString(h.Sum(nil))
	if after, err := d.look(path); err == nil && after == (digestEntry{entry.Size, entry.MTime, entry.CTime, entry.Inode, entry.Device, ""}) {
		d.keep(path, sum)
	}
	return sum, nil
}

// keep remembers the digest of what is at path now.
func (d *digests) keep(path, sum string) {
	entry, err := d.look(path)
	if err != nil {
		return
	}
	entry.SHA256 = sum
	d.mu.Lock()
	defer d.mu.Unlock()
	d.dirty = d.dirty || d.entries[path] != entry
	d.entries[path] = entry
}

func (d *digests) look(path string) (digestEntry, error) {
	info, err := os.Stat(d.view.at(path))
	if err != nil {
		return digestEntry{}, err
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok || !info.Mode().IsRegular() {
		return digestEntry{}, &fs.PathError{Op: "read", Path: path, Err: errors.New("is no regular file")}
	}
	return digestEntry{Size: stat.Size, MTime: stat.Mtim.Nano(), CTime: stat.Ctim.Nano(), Inode: stat.Ino, Device: stat.Dev}, nil
}

// save keeps the digests for later runs. It fails silently: without them, later
// runs are slower, not wrong.
func (d *digests) save() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.dirty {
		return
	}
	for path := range d.entries {
		if !d.view.exists(path) {
			delete(d.entries, path)
		}
	}
	f, err := os.CreateTemp(d.view.at(memoryDir), tempPrefix+"digests*"+tempSuffix)
	if err != nil {
		return
	}
	defer os.Remove(f.Name())
	_, err = f.Write(encode(d.entries))
	if errors.Join(err, f.Close()) != nil {
		return
	}
	if os.Rename(f.Name(), d.view.at(digestsPath)) == nil {
		d.dirty = false
	}
}
