package fleet_test

import (
	"errors"
	"fmt"
	"syscall"
	"testing"

	"github.com/k3lab/k3lab/internal/fault"
	"github.com/k3lab/k3lab/internal/fleet"
	"github.com/k3lab/k3lab/internal/remote"
)

func TestNamedOfAFullDisk(t *testing.T) {
	const hint = " (try: k3lab ssh agent-1 -- sudo du -xh -d 3 / | sort -h, free space, and run the same command again)"
	tests := map[string]struct {
		err  error
		want string
	}{
		"a file that is copied": {
			fault.New(fault.Failed, "", "free space there", "disk full: /x (1 MiB) cannot be written: %w", syscall.ENOSPC),
			"agent-1: disk full: /x (1 MiB) cannot be written: no space left on device" + hint,
		},
		"the converger's own": {
			&remote.ExitError{Args: []string{"/c", "apply"}, Code: 1, Stderr: "k3lab-converger: disk full: /p cannot be written: 0 of 9 MiB are free\n"},
			"agent-1: disk full: /p cannot be written: 0 of 9 MiB are free" + hint,
		},
		"another error": {errors.New("broken"), "agent-1: broken"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if got := fmt.Sprint(fleet.Named("agent-1", test.err)); got != test.want {
				t.Errorf("got  %s\nwant %s", got, test.want)
			}
		})
	}
}
