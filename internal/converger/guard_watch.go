package converger

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"strings"
	"sync"
	"time"
)

const (
	guardUnit     = "k3lab-guard.service"
	guardUnitPath = "/etc/systemd/system/" + guardUnit
	// guardWantPath has systemd start the watchdog when the machine boots.
	guardWantPath = "/etc/systemd/system/sysinit.target.wants/" + guardUnit
	// guardProgram is the watchdog's own name for this program: a newer k3lab
	// removes older convergers, which must not end a watchdog.
	guardProgram = guardDir + "/k3lab-converger"
)

// guardUnitFile is the watchdog's unit. Now it is started and waits; after a boot
// it puts the old state back before the network and sshd are up: it tells systemd
// that it is ready only then.
const guardUnitFile = `[Unit]
Description=Puts back what k3lab changed, unless it is confirmed
ConditionPathExists=` + guardPath + `
DefaultDependencies=no
RequiresMountsFor=` + guardDir + `
After=local-fs.target
Before=sysinit.target network-pre.target ssh.service ssh.socket nftables.service shutdown.target
Wants=network-pre.target
Conflicts=shutdown.target
StartLimitIntervalSec=0

[Service]
Type=notify
ExecStart=` + guardProgram + ` watch
Restart=on-failure
RestartSec=1s

[Install]
WantedBy=sysinit.target
`

// startWatchdog returns when the watchdog runs, and is there after a boot.
func (w *writer) startWatchdog(ctx context.Context) error {
	if err := w.linkProgram(); err != nil {
		return err
	}
	if err := w.replace(guardUnitPath, strings.NewReader(guardUnitFile), attributes{mode: 0o644}); err != nil {
		return err
	}
	if err := w.place(guardWantPath, func(t string) error { return os.Symlink(guardUnitPath, t) }); err != nil {
		return err
	}
	if err := w.run(ctx, "systemctl", "daemon-reload"); err != nil {
		return err
	}
	// One that waited for an earlier guard may be about to end.
	return w.run(ctx, "systemctl", "restart", "--", guardUnit)
}

func (w *writer) linkProgram() error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	err = w.place(guardProgram, func(t string) error { return os.Link(self, t) })
	if err == nil {
		return nil
	}
	content, err := os.ReadFile(self) // lies on another file system
	if err != nil {
		return err
	}
	return w.replace(guardProgram, bytes.NewReader(content), attributes{mode: 0o755})
}

// removeWatchdog takes away what starts the watchdog at boot. The one that waits
// sees that its guard is gone, and ends.
func (w *writer) removeWatchdog() error {
	var errs []error
	for _, path := range []string{guardWantPath, guardUnitPath, guardProgram} {
		if err := os.Remove(w.view.at(path)); err != nil && !notThere(err) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// watchEvery is how often the watchdog looks whether its guard is still there.
const watchEvery = 500 * time.Millisecond

// Watch is the watchdog. It returns when no guard is there any more: confirmed, or
// put back by Watch itself, at its deadline or at once where the machine has
// booted since. What cannot be put back is tried until it can. Ready is called
// when it waits, or when the old state is back.
func (c *Converger) Watch(ctx context.Context, ready func(), log func(string)) error {
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	told, once := "", sync.OnceFunc(ready)
	for {
		left, err := c.watchOnce(ctx)
		switch {
		case err != nil && err.Error() != told:
			told = err.Error()
			log("not put back yet: " + told)
		case err == nil && left <= 0:
			once()
			return nil
		case err == nil:
			once()
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// watchOnce returns the time that is left until the old state is put back; zero
// when there is nothing left to do.
func (c *Converger) watchOnce(ctx context.Context) (time.Duration, error) {
	v := &view{root: c.root, queries: queries{c.programs}}
	v.pending = loadPending(v)
	due := func() (*guard, time.Duration, error) {
		g, err := loadGuard(v)
		if g == nil || err != nil {
			return nil, 0, err
		}
		if g.BootID != v.pending.BootID {
			return g, 0, nil
		}
		return g, max(0, g.Deadline-sinceBoot()), nil
	}
	if g, left, err := due(); g == nil || left > 0 || err != nil {
		return left, err
	}
	unlock, err := lockGuard(ctx, c.root)
	if err != nil {
		return 0, err
	}
	defer unlock()
	// The run that holds the lock may have asked for a confirmation meanwhile.
	g, left, err := due()
	if g == nil || left > 0 || err != nil {
		return left, err
	}
	return 0, newWriter(v, c.programs, nil).putBack(ctx, g)
}

// notifyReady tells systemd that the service is ready.
func notifyReady(ctx context.Context) {
	socket := os.Getenv("NOTIFY_SOCKET")
	if socket == "" {
		return
	}
	if conn, err := new(net.Dialer).DialContext(ctx, "unixgram", socket); err == nil {
		fmt.Fprint(conn, "READY=1")
		conn.Close()
	}
}

// lockGuard keeps who changes, confirms and puts back apart. It is waited for as
// long as ctx lasts: the kernel releases it when its holder ends.
func lockGuard(ctx context.Context, root string) (unlock func(), err error) {
	v := &view{root: root}
	if err := os.MkdirAll(v.at(guardDir), 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, (&writer{view: v}).explain(guardDir, err)
	}
	return flock(ctx, v, guardLockPath)
}
