package converger

import (
	"context"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// lockWait is how long another program may hold the package manager: a first
	// run of unattended upgrades takes minutes.
	lockWait = 5 * time.Minute
	// lockTold is how often it is told that it is still waited for.
	lockTold = 30 * time.Second
)

// packageLocks are held, by fcntl(2), by whoever installs packages or updates
// their lists.
var packageLocks = []string{"/var/lib/dpkg/lock-frontend", "/var/lib/dpkg/lock", "/var/lib/apt/lists/lock", "/var/cache/apt/archives/lock"}

// awaitPackageManager waits until no other program holds the package manager,
// and tells for whom it waits.
func (w *writer) awaitPackageManager(ctx context.Context) error {
	began := time.Now()
	told := time.Time{}
	again := time.NewTicker(min(time.Second, w.lockWait))
	defer again.Stop()
	for {
		by := w.view.packageHolder()
		switch {
		case by == "":
			return nil
		case time.Since(began) >= w.lockWait:
			return heldTooLong(by, w.lockWait)
		case time.Since(told) >= lockTold:
			told = time.Now()
			w.emit(Change{Resource: "packages", Notice: fmt.Sprintf("waiting for the package manager, held by %s (%s of at most %s)",
				by, time.Since(began).Round(time.Second), w.lockWait)})
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-again.C:
		}
	}
}

func heldTooLong(by string, limit time.Duration) error {
	return fmt.Errorf("the package manager is held by %s, still after %s; run this again when that has ended", by, limit)
}

// packageHolder is who holds the package manager, "" when nobody does.
func (v *view) packageHolder() string {
	for _, path := range packageLocks {
		f, err := os.Open(v.at(path))
		if err != nil {
			continue // nothing was ever installed
		}
		lock := unix.Flock_t{Type: unix.F_WRLCK, Whence: io.SeekStart}
		err = unix.FcntlFlock(f.Fd(), unix.F_GETLK, &lock)
		f.Close()
		if err != nil || lock.Type == unix.F_UNLCK {
			continue
		}
		by := fmt.Sprintf("process %d", lock.Pid)
		if name := v.text(fmt.Sprintf("/proc/%d/comm", lock.Pid)); name != "" {
			by += " (" + name + ")"
		}
		return by
	}
	return ""
}
