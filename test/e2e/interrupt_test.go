package e2e

import (
	"errors"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// seeds are those of SEEDS, or a small fixed sample.
func seeds(t *testing.T) []uint64 {
	t.Helper()
	text := os.Getenv("SEEDS")
	if text == "" {
		text = "1 2"
	}
	var out []uint64
	for _, f := range strings.Fields(text) {
		n, err := strconv.ParseUint(f, 10, 64)
		if err != nil {
			t.Fatalf("SEEDS: %v", err)
		}
		out = append(out, n)
	}
	return out
}

// longest is when an interruption may come at the latest: a fresh up takes about
// as long where nothing else goes on.
const longest = 20 * time.Second

// TestInterruptedUp stops `up` at moments drawn from a seed, by Ctrl-C or by
// kill -9, until it gets through; then the lab is as after an undisturbed run.
func TestInterruptedUp(t *testing.T) {
	for _, seed := range seeds(t) {
		t.Run("seed "+strconv.FormatUint(seed, 10), func(t *testing.T) {
			l := newLab(t, "k3lab-e2e-int-"+strconv.FormatUint(seed, 10), "ha")
			random := rand.New(rand.NewPCG(seed, seed))
			for range 4 {
				after := time.Duration(random.Int64N(int64(longest)))
				signal := syscall.SIGINT
				if random.IntN(3) == 0 {
					signal = syscall.SIGKILL
				}
				out, err := l.interrupted(after, signal)
				t.Logf("%v after %.1fs: %v", signal, after.Seconds(), err)
				if err == nil {
					break // it was done before
				}
				var exit *exec.ExitError
				if !errors.As(err, &exit) || (exit.ExitCode() != 130 && exit.ExitCode() != -1) {
					t.Errorf("up failed by itself: %v\n%s", err, out)
				}
				if signal == syscall.SIGINT && !strings.Contains(out, "run the same command again") {
					t.Errorf("Ctrl-C does not say how to go on:\n%s", out)
				}
			}
			l.exit(0, "up", "--yes")
			whole(t, l)
			if changes := l.plan(0); len(changes) != 0 {
				t.Errorf("plan: %v", describe(changes))
			}
			l.exit(0, "destroy", "--name", l.name)
		})
	}
}
