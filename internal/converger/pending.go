package converger

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"reflect"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	restartVerb = "restart"
	reloadVerb  = "reload"
)

// pending is what a run owes: it is on disk before the first change and taken
// back as it is done, so that a run that was killed is completed by the next.
type pending struct {
	BootID       string            `json:"boot_id"` // a machine that has booted since has everything in use
	Units        map[string]string `json:"units"`   // unit → restart or reload
	DaemonReload bool              `json:"daemon_reload,omitempty"`
}

func loadPending(v *view) pending {
	boot := v.text("/proc/sys/kernel/random/boot_id")
	var p pending
	if json.Unmarshal([]byte(v.text(pendingPath)), &p) != nil || p.BootID != boot {
		p = pending{}
	}
	p.BootID = boot
	if p.Units == nil {
		p.Units = map[string]string{}
	}
	return p
}

func (p pending) clone() pending {
	p.Units = maps.Clone(p.Units)
	return p
}

// recordPending writes down which units the changes will concern.
func (w *writer) recordPending(actions []action) error {
	next := w.pending.clone()
	for _, r := range w.view.state.Resources {
		if u := r.Unit; u != nil && w.view.shouldRun(u) {
			switch {
			case w.anySelected(u.RestartOn) && !w.view.runsAsDesired(u):
				next.Units[u.Name] = restartVerb
			case w.anySelected(u.ReloadOn) && next.Units[u.Name] == "":
				next.Units[u.Name] = reloadVerb
			}
		}
	}
	for _, a := range actions {
		_, p, _ := strings.Cut(a.Resource, " ")
		if a.make != nil && isUnitFile(p) {
			next.DaemonReload = true
		}
	}
	return w.savePending(next)
}

// shouldRun reports whether the unit is to use what changes: it is wanted
// running, or runs and is left as it is.
func (v *view) shouldRun(u *Unit) bool { return u.Running || u.AsIs && v.units[u.Name].up() }

func (w *writer) anySelected(ids []string) bool {
	for _, id := range ids {
		if w.selected[id] {
			return true
		}
	}
	return false
}

// settled takes back what was owed to a unit.
func (w *writer) settled(unit string) error {
	next := w.pending.clone()
	delete(next.Units, unit)
	return w.savePending(next)
}

// finish does what can wait to the end, and takes back what is no longer owed.
func (w *writer) finish(ctx context.Context) error {
	if w.reloadFirst || w.reloadLast {
		w.reloadFirst = true
		if err := w.daemonReload(ctx); err != nil {
			return err
		}
	}
	next := w.pending.clone()
	next.DaemonReload = false
	for _, r := range w.view.state.Resources {
		if r.Unit != nil && !w.view.shouldRun(r.Unit) {
			delete(next.Units, r.Unit.Name)
		}
	}
	return w.savePending(next)
}

func (w *writer) savePending(next pending) error {
	if reflect.DeepEqual(next, w.pending) {
		return nil
	}
	w.pending = next
	if len(next.Units) == 0 && !next.DaemonReload {
		if err := os.Remove(w.view.at(pendingPath)); err != nil && !notThere(err) {
			return err
		}
		return w.syncDir(pendingPath)
	}
	return w.replace(pendingPath, bytes.NewReader(encode(next)), attributes{mode: 0o600})
}

// lockPatience is how long another converger may be at work on the machine: one
// whose k3lab is gone ends soon.
const lockPatience = time.Minute

// lock keeps other convergers from changing the machine at the same time. The
// kernel releases it when this process ends, however it does.
func lock(ctx context.Context, root string) (unlock func(), err error) {
	v := &view{root: root}
	if err := os.MkdirAll(v.at(memoryDir), 0o755); err != nil {
		return nil, (&writer{view: v}).explain(memoryDir, err)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, lockPatience, fmt.Errorf("another converger is at work on this machine, since more than %s", lockPatience))
	defer cancel()
	return flock(ctx, v, lockPath)
}

// flock locks a file of ours; what it waits for ends with its holder.
func flock(ctx context.Context, v *view, path string) (unlock func(), err error) {
	f, err := os.OpenFile(v.at(path), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, (&writer{view: v}).explain(path, err)
	}
	again := time.NewTicker(50 * time.Millisecond)
	defer again.Stop()
	for {
		if err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err == nil {
			return sync.OnceFunc(func() { f.Close() }), nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			f.Close()
			return nil, err
		}
		select {
		case <-ctx.Done():
			f.Close()
			return nil, context.Cause(ctx)
		case <-again.C:
		}
	}
}
