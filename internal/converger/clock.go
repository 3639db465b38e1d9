package converger

import (
	"golang.org/x/sys/unix"
)

// clockUnsynchronised is what adjtimex(2) returns as long as nobody keeps the
// clock (TIME_ERROR).
const clockUnsynchronised = 5

// synchronised reports whether somebody keeps the kernel's clock in step.
func synchronised() (bool, error) {
	state, err := unix.Adjtimex(&unix.Timex{})
	return state != clockUnsynchronised, err
}

// planClock only looks: a clock is kept by a daemon, and after it was given its
// servers it takes a moment.
func (v *view) planClock() ([]action, error) {
	ok, err := v.synchronised()
	switch {
	case err != nil:
		return nil, err
	case ok:
		return nil, nil
	case v.container:
		return told("belongs to the computer, which does not keep it synchronised"), nil
	}
	return told("is not synchronised (see timedatectl timesync-status); certificates and the datastore need the right time"), nil
}
