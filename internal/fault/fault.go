// Package fault gives errors a kind, the object they concern and the command
// that leads on, and maps kinds to k3lab's exit codes.
//
// An operation wraps errors many times on their way up. The innermost fault
// decides the exit code, because it knows the cause; outer wrapping only adds
// context.
package fault

import (
	"context"
	"errors"
	"fmt"
)

// Kind classifies a failure. Its value is the exit code of the k3lab command.
type Kind int

// The kinds, each with the exit code documented in every command's help.
const (
	Failed      Kind = 1   // anything without a kind of its own
	Changes     Kind = 2   // plan found changes; not a failure
	Invalid     Kind = 3   // the settings are invalid
	Unreachable Kind = 4   // an API or a machine does not answer
	Locked      Kind = 5   // another operation holds the workspace
	Unhealthy   Kind = 6   // the lab runs, but not as it should
	Interrupted Kind = 130 // stopped by a signal
)

// Error is a failure a user can act on. It prints as
// "object: cause (try: hint)".
type Error struct {
	Kind   Kind
	Object string // what it concerns: a machine, a file with line and column, an endpoint
	Err    error  // the cause; never nil
	Hint   string // the next command to run or the setting to change; may be empty
}

func (e *Error) Error() string {
	s := e.Err.Error()
	if e.Object != "" {
		s = e.Object + ": " + s
	}
	if e.Hint != "" {
		s += " (try: " + e.Hint + ")"
	}
	return s
}

func (e *Error) Unwrap() error { return e.Err }

// New returns a fault whose cause is the formatted message; %w works.
func New(kind Kind, object, hint, format string, args ...any) error {
	return &Error{Kind: kind, Object: object, Err: fmt.Errorf(format, args...), Hint: hint}
}

// KindOf returns the kind of the innermost fault in err's tree, Interrupted for
// a cancelled context without one, and Failed for any other error. With joined
// errors the first one that carries a fault decides. It returns 0 for nil.
func KindOf(err error) Kind {
	if err == nil {
		return 0
	}
	if k, ok := innermost(err); ok {
		return k
	}
	if errors.Is(err, context.Canceled) {
		return Interrupted
	}
	return Failed
}

func innermost(err error) (Kind, bool) {
	var kind Kind
	found := false
	if f, ok := err.(*Error); ok { //nolint:errorlint // the tree is walked here, one level at a time
		kind, found = f.Kind, true
	}
	switch u := err.(type) { //nolint:errorlint // as above
	case interface{ Unwrap() error }:
		if k, ok := innermost(u.Unwrap()); ok {
			return k, true
		}
	case interface{ Unwrap() []error }:
		for _, e := range u.Unwrap() {
			if k, ok := innermost(e); ok {
				return k, true
			}
		}
	}
	return kind, found
}
