package converger

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// TestGuardedKilledAnywhere kills the converger before each program it runs, and
// at random moments: the watchdog puts everything back, then a new run makes it.
func TestGuardedKilledAnywhere(t *testing.T) {
	t.Setenv(childGuarded, "1")
	before := guardMachine(t).ssh(t)
	check := func(t *testing.T, f *fakeMachine) {
		t.Helper()
		if _, err := os.Lstat(filepath.Join(f.root, guardPath)); !errors.Is(err, fs.ErrNotExist) {
			f.editGuard(t, expired)
		}
		f.watch(t)
		got := f.ssh(t)
		got.Starter = nil // one that was not needed yet does nothing
		wantSSH(t, "killed", before, got)
		confirm := asked(t, apply(t, f.converger(), guardedState()))
		if out, err := f.converger().Confirm(t.Context(), confirm.ID); err != nil || out.Outcome != Confirmed {
			t.Fatalf("%+v, %v", out, err)
		}
		if left := plan(t, f.converger(), guardedState()); len(left) > 0 || len(f.ssh(t).Starter) > 0 {
			t.Errorf("not converged: %+v, %v", left, f.ssh(t).Starter)
		}
	}
	n := 1
	for ; ; n++ {
		f := guardMachine(t)
		if !killed(t, f.root, n, 0) {
			break
		}
		check(t, f)
	}
	if n < 6 {
		t.Errorf("it ran only %d programs", n-1)
	}
	// Later each time, until it comes too late.
	hits := 0
	for hits < 20 {
		f := guardMachine(t)
		hit := killed(t, f.root, 0, time.Duration(hits*hits+1)*time.Millisecond)
		check(t, f)
		if !hit {
			break
		}
		hits++
	}
	if hits == 0 {
		t.Error("it was never killed in time")
	}
}
