package converger

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// guardPatience is how long a guarded change waits for its confirmation. A new
// connection takes under a second, on a busy machine some.
const guardPatience = time.Minute

// guardID is the resource that awaits a confirmation, as changes name it.
const guardID = "guard"

const (
	guardDir      = memoryDir + "/guard"
	guardPath     = guardDir + "/pending.json"
	guardLastPath = guardDir + "/last.json"
	guardLockPath = guardDir + "/lock"
)

// guard is what is put back unless a confirmation comes. It is on disk before the
// first guarded change is made, and goes as the last thing.
type guard struct {
	ID     string `json:"id"`
	BootID string `json:"boot_id"` // after another boot nobody can confirm: it is put back
	// Deadline is on the clock that counts from boot: the other one jumps.
	Deadline  time.Duration `json:"deadline"`
	Resources []string      `json:"resources"` // for people
	Saved     []saved       `json:"saved"`
	Commands  []undo        `json:"commands"` // after the files are back
	adopted   bool          // an earlier run began it
}

// undo is a command that makes the old state active again.
type undo struct {
	Args []string `json:"args"`
	// Boot: also when the machine has booted since. What only tells a running
	// program of its old files is of no use then.
	Boot bool `json:"boot,omitempty"`
}

// Outcomes of a guard.
const (
	Confirmed = "confirmed"
	PutBack   = "put back"
)

// GuardOutcome is how a guard ended.
type GuardOutcome struct {
	ID      string    `json:"id"`
	Outcome string    `json:"outcome"` // Confirmed or PutBack
	Time    time.Time `json:"time"`
}

// sinceBoot is the time since the machine has booted, sleep included.
func sinceBoot() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &t); err != nil {
		return 0
	}
	return time.Duration(t.Nano())
}

func loadGuard(v *view) (*guard, error) {
	text, err := os.ReadFile(v.at(guardPath))
	if notThere(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var g guard
	if err := json.Unmarshal(text, &g); err != nil {
		return nil, fmt.Errorf("%s: %w", guardPath, err)
	}
	return &g, nil
}

// planGuard tells of a guarded change that an earlier run made and nobody has
// confirmed; applying it takes it over, and asks for the confirmation anew.
func (v *view) planGuard() ([]action, error) {
	g, err := loadGuard(v)
	if g == nil || err != nil {
		return nil, err
	}
	return []action{{guarded: true, Change: Change{
		Resource: guardID, Action: "update", Detail: "what an earlier run changed was not confirmed and would be put back",
	}, make: func(context.Context, *writer) error { return nil }}}, nil
}

// guarding is the guarded part of one run: from its first guarded change to the
// last. Its lock keeps watchdog and confirmations away meanwhile.
type guarding struct {
	last    int // the index of the last guarded action; -1 without any
	guard   *guard
	failed  error
	release func()
}

func newGuarding(actions []action, release func()) *guarding {
	g := &guarding{last: -1, release: release}
	for i, a := range actions {
		if a.guarded && a.make != nil {
			g.last = i
		}
	}
	if g.last < 0 {
		g.release()
	}
	return g
}

// guardedOne makes one guarded change; before the first, the guard is begun.
// After one that failed no further one is made.
func (w *writer) guardedOne(ctx context.Context, g *guarding, a action, actions []action, failed map[string]bool) Change {
	if g.guard == nil && g.failed == nil {
		if err := w.beginGuard(ctx, g, actions); err != nil {
			g.failed = fmt.Errorf("it could not be guarded: %w", err)
		}
	}
	change := a.Change
	if g.failed != nil {
		change.Error = "not made: " + g.failed.Error()
		return change
	}
	change = w.one(ctx, a, failed)
	if change.Error != "" {
		g.failed = fmt.Errorf("%s failed", a.Resource)
	}
	return change
}

// begin saves everything that the guarded changes will replace and starts the
// watchdog. When it fails, nothing guarded has been changed.
func (w *writer) beginGuard(ctx context.Context, g *guarding, actions []action) error {
	next, err := w.newGuard(actions)
	if err != nil {
		return err
	}
	if err := w.saveGuard(next); err != nil {
		return err
	}
	if err := w.startWatchdog(ctx); err != nil {
		return errors.Join(fmt.Errorf("the watchdog: %w", err), w.abandon(next))
	}
	g.guard = next
	return nil
}

// abandon takes back a guard under which nothing was changed yet. What an earlier
// run has left stays guarded.
func (w *writer) abandon(g *guard) error {
	if g.adopted {
		return nil
	}
	return w.dropGuard()
}

// newGuard is a new guard, with all that one which is there already would put
// back: the state to return to is the last that was confirmed.
func (w *writer) newGuard(actions []action) (*guard, error) {
	old, err := loadGuard(w.view)
	if err != nil {
		return nil, err
	}
	g := &guard{BootID: w.pending.BootID, Deadline: sinceBoot() + guardPatience}
	if old != nil {
		g.Resources, g.Saved, g.Commands, g.adopted = old.Resources, old.Saved, old.Commands, true
	}
	id := make([]byte, 8)
	if _, err := rand.Read(id); err != nil {
		return nil, err
	}
	g.ID = hex.EncodeToString(id)
	for _, a := range actions {
		if !a.guarded || a.make == nil || a.Resource == guardID {
			continue
		}
		if !slices.Contains(g.Resources, a.Resource) {
			g.Resources = append(g.Resources, a.Resource)
		}
		for _, path := range a.replaces {
			if g.saves(path) {
				continue
			}
			s, err := w.view.save(path)
			if s.Kind == "directory" && a.Resource == "absent "+path {
				err = errors.New("what the directory holds would not be put back")
			}
			if err != nil {
				return nil, fmt.Errorf("%s cannot be saved: %w", path, err)
			}
			g.Saved = append(g.Saved, s)
		}
		for _, c := range a.undo {
			if !slices.ContainsFunc(g.Commands, func(is undo) bool { return slices.Equal(is.Args, c.Args) }) {
				g.Commands = append(g.Commands, c)
			}
		}
	}
	return g, nil
}

func (g *guard) saves(path string) bool {
	return slices.ContainsFunc(g.Saved, func(s saved) bool { return s.Path == path })
}

func (w *writer) saveGuard(g *guard) error {
	if err := os.MkdirAll(w.view.at(guardDir), 0o700); err != nil {
		return w.explain(guardDir, err)
	}
	return w.replace(guardPath, bytes.NewReader(encode(g)), attributes{mode: 0o600})
}

// endGuard is called after the last guarded action. When all were made it asks
// for the confirmation; when one failed the old state is put back at once.
func (w *writer) endGuard(ctx context.Context, g *guarding) Change {
	defer g.release()
	change := Change{Resource: guardID}
	if g.failed != nil {
		// Also when the run was interrupted: half of a change is nobody's wish.
		if err := w.putBack(context.WithoutCancel(ctx), g.guard); err != nil {
			change.Error = "the old state could not be put back yet, and is tried again: " + err.Error()
			return change
		}
		change.Notice = "the old state was put back, because " + g.failed.Error()
		return change
	}
	g.guard.Deadline = sinceBoot() + guardPatience
	if err := w.saveGuard(g.guard); err != nil {
		change.Error = "not confirmed, so it is put back: " + err.Error()
		return change
	}
	change.Confirm = &Confirm{ID: g.guard.ID, Seconds: int(guardPatience / time.Second)}
	return change
}

// Confirm ends the guard of this ID: what it guarded stays. It is an error when
// there is no such guard any more.
func (c *Converger) Confirm(ctx context.Context, id string) (GuardOutcome, error) {
	return c.settle(ctx, id, func(w *writer, g *guard) (string, error) {
		if g.BootID != w.pending.BootID {
			return "", errors.New("the machine has booted since; its old state is put back")
		}
		return Confirmed, nil
	})
}

// Revert puts the old state back that the guard of this ID has saved.
func (c *Converger) Revert(ctx context.Context, id string) (GuardOutcome, error) {
	return c.settle(ctx, id, func(w *writer, g *guard) (string, error) { return PutBack, w.restore(ctx, g) })
}

// settle ends a guard; for one that has ended it tells how.
func (c *Converger) settle(ctx context.Context, id string, end func(*writer, *guard) (string, error)) (GuardOutcome, error) {
	unlock, err := lockGuard(ctx, c.root)
	if err != nil {
		return GuardOutcome{}, err
	}
	defer unlock()
	v := &view{root: c.root, queries: queries{c.programs}}
	v.pending = loadPending(v)
	w := newWriter(v, c.programs, nil)
	g, err := loadGuard(v)
	switch {
	case err != nil:
		return GuardOutcome{}, err
	case g == nil:
		return v.outcome(id)
	case g.ID != id:
		return GuardOutcome{}, errors.New("another run has taken the change over, and awaits its confirmation itself")
	}
	how, err := end(w, g)
	if err != nil {
		return GuardOutcome{}, err
	}
	return w.closeGuard(g, how)
}

// outcome tells how a guard has ended.
func (v *view) outcome(id string) (GuardOutcome, error) {
	var last GuardOutcome
	if json.Unmarshal([]byte(v.text(guardLastPath)), &last) != nil || last.ID != id {
		return GuardOutcome{}, errors.New("nothing awaits this confirmation")
	}
	return last, nil
}

// putBack restores and closes; the lock is held.
func (w *writer) putBack(ctx context.Context, g *guard) error {
	if err := w.restore(ctx, g); err != nil {
		return err
	}
	_, err := w.closeGuard(g, PutBack)
	return err
}

func (w *writer) closeGuard(g *guard, how string) (GuardOutcome, error) {
	out := GuardOutcome{ID: g.ID, Outcome: how, Time: time.Now().UTC()}
	// What it says helps only who asks again; a disk that is full must not keep the guard.
	_ = w.replace(guardLastPath, bytes.NewReader(encode(out)), attributes{mode: 0o600})
	return out, w.dropGuard()
}

func (w *writer) dropGuard() error {
	if err := os.Remove(w.view.at(guardPath)); err != nil && !notThere(err) {
		return err
	}
	return errors.Join(w.syncDir(guardPath), w.removeWatchdog())
}
