package release

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/k3lab/k3lab/internal/fault"
)

// lockEvery is the time between two looks at whether another process is done.
const lockEvery = 100 * time.Millisecond

// Fetch has the file with this SHA-256 at path, which is replaced whole or not at
// all. What a broken download left is gone on with. Of several processes one
// downloads, the others wait for it. A file with another digest is fault.Invalid,
// and nothing of it is kept.
func (d *Downloader) Fetch(ctx context.Context, url, path, want string, mode os.FileMode) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return d.explained(ctx, url, err)
	}
	part := path + ".part"
	f, err := open(ctx, part)
	if err != nil {
		return d.explained(ctx, url, err)
	}
	defer f.Close()
	if sum, err := Digest(path); err == nil && sum == want {
		return os.Remove(part) // another process was faster
	}
	if err := d.fetch(ctx, url, filepath.Base(path), f, want); err != nil {
		if info, failed := f.Stat(); failed != nil || info.Size() == 0 || diskFull(err) || fault.KindOf(err) == fault.Invalid {
			os.Remove(part)
		}
		return d.explained(ctx, url, err)
	}
	err = errors.Join(f.Chmod(mode), f.Sync(), os.Rename(part, path), syncDir(filepath.Dir(path)))
	return d.explained(ctx, url, err)
}

// fetch fills f. A part that belonged to something else is found out by the
// digest, and only then; so a download that was gone on with gets a second chance.
func (d *Downloader) fetch(ctx context.Context, url, name string, f *os.File, want string) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	resumed := info.Size() > 0
	for {
		if err := d.retried(ctx, func() (bool, error) { return d.transfer(ctx, url, name, f) }); err != nil {
			return err
		}
		sum, err := digestOf(f)
		switch {
		case err != nil:
			return err
		case sum == want:
			return nil
		case !resumed:
			return fault.New(fault.Invalid, url, "again; if it stays, do not trust this download: compare with the digest on the release's page",
				"the SHA-256 of what arrived is %s, but %s is expected", sum, want)
		}
		if err := restart(f); err != nil {
			return err
		}
		resumed = false
	}
}

// open opens the part of a download for this process alone.
func open(ctx context.Context, part string) (*os.File, error) {
	again := time.NewTicker(lockEvery)
	defer again.Stop()
	for {
		f, err := os.OpenFile(part, os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			return nil, err
		}
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil && isAt(f, part) {
			return f, nil
		}
		f.Close()
		if err != nil && !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			return nil, fmt.Errorf("lock of %s: %w", part, err)
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-again.C:
		}
	}
}

// isAt reports whether the open file is still the one of that name: whoever had it
// before may have given it its final one.
func isAt(f *os.File, path string) bool {
	is, err := f.Stat()
	if err != nil {
		return false
	}
	at, err := os.Stat(path)
	return err == nil && os.SameFile(is, at)
}

// Digest returns the hex SHA-256 of a file.
func Digest(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	return digestOf(f)
}

func digestOf(f *os.File) (string, error) {
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return "", err
	}
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := f.Sync(); err != nil && !errors.Is(err, unix.EINVAL) {
		return err
	}
	return nil
}
