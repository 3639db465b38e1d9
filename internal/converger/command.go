package converger

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"runtime"
)

// Protocol is the version of what is spoken on stdin and stdout.
const Protocol = 1

const usage = `usage: k3lab-converger plan|apply|facts < request.json
       k3lab-converger confirm|revert ID
       k3lab-converger watch
       k3lab-converger digest PATH...
       k3lab-converger version
       k3lab-converger ARGUMENTS.json    (as a module of Ansible; - is standard input)`

// Main is the on-machine program and returns its exit code: 0 when all is done,
// 1 when something failed, 2 when it was called wrongly.
func Main(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	err := command(ctx, New("/"), args, stdin, json.NewEncoder(stdout), stdout)
	switch {
	case err == nil:
		return 0
	case errors.Is(err, errUsage):
		fmt.Fprintln(stderr, usage)
		return 2
	case !errors.Is(err, ErrFailed): // which the changes tell
		fmt.Fprintln(stderr, "k3lab-converger:", err)
	}
	return 1
}

var errUsage = errors.New("usage")

func command(ctx context.Context, c *Converger, args []string, stdin io.Reader, out *json.Encoder, text io.Writer) error {
	if len(args) == 0 {
		return errUsage
	}
	switch verb := args[0]; {
	case isModuleCall(args):
		return module(ctx, c, args[0], stdin, out)
	case verb == "plan" && len(args) == 1:
		return converge(ctx, c.Plan, stdin, out)
	case verb == "apply" && len(args) == 1:
		return converge(ctx, c.Apply, stdin, out)
	case verb == "facts" && len(args) == 1:
		var q FactsRequest
		if err := decode(stdin, &q); err != nil {
			return err
		}
		facts, err := c.Facts(ctx, q)
		if err != nil {
			return err
		}
		return out.Encode(facts)
	case verb == "confirm" && len(args) == 2:
		return settled(out)(c.Confirm(ctx, args[1]))
	case verb == "revert" && len(args) == 2:
		return settled(out)(c.Revert(ctx, args[1]))
	case verb == "watch" && len(args) == 1:
		return c.Watch(ctx, func() { notifyReady(ctx) }, func(line string) { fmt.Fprintln(text, line) })
	case verb == "digest" && len(args) > 1:
		for _, path := range args[1:] {
			sum, err := c.Digest(path)
			if err != nil {
				return err
			}
			fmt.Fprintf(text, "%s  %s\n", sum, path)
		}
		return nil
	case verb == "version" && len(args) == 1:
		fmt.Fprintf(text, "k3lab-converger protocol %d %s/%s\n", Protocol, runtime.GOOS, runtime.GOARCH)
		return nil
	}
	return errUsage
}

// settled tells how a guard ended.
func settled(out *json.Encoder) func(GuardOutcome, error) error {
	return func(o GuardOutcome, err error) error {
		if err != nil {
			return fmt.Errorf("guard: %w", err)
		}
		return out.Encode(o)
	}
}

// converge runs plan or apply. A reader that is gone stops it: nobody would
// learn what it does.
func converge(ctx context.Context, run func(context.Context, Request, func(Change)) error, stdin io.Reader, out *json.Encoder) error {
	var q Request
	if err := decode(stdin, &q); err != nil {
		return err
	}
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	err := run(ctx, q, func(c Change) {
		if err := out.Encode(c); err != nil {
			stop(err)
		}
	})
	if cause := context.Cause(ctx); cause != nil && errors.Is(err, context.Canceled) {
		return cause
	}
	return err
}

// decode refuses what it does not know: a resource that is silently left out
// would look converged.
func decode(stdin io.Reader, request any) error {
	d := json.NewDecoder(stdin)
	d.DisallowUnknownFields()
	if err := d.Decode(request); err != nil {
		return fmt.Errorf("request: %w", err)
	}
	return nil
}
