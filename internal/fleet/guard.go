package fleet

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/k3lab/k3lab/internal/converger"
	"github.com/k3lab/k3lab/internal/fault"
	"github.com/k3lab/k3lab/internal/remote"
	"github.com/k3lab/k3lab/internal/report"
	"github.com/k3lab/k3lab/internal/step"
)

// confirmPatience is how long a new connection may take. What is wrong is put
// back soon, and well before the machine does so by itself.
const confirmPatience = 20 * time.Second

// confirmations are those a machine asks for while it is converged. Each is given
// at once, beside what goes on: the machine waits for it for a limited time.
type confirmations struct {
	fleet   *Fleet
	ctx     context.Context //nolint:containedctx // of the one call they belong to
	w       step.Writer
	machine string
	running sync.WaitGroup
	mu      sync.Mutex
	errs    []error
}

func (c *confirmations) give(asked converger.Confirm) {
	c.running.Go(func() {
		err := c.fleet.confirm(c.ctx, c.machine, asked)
		if err == nil {
			c.w.Report(report.Event{Kind: report.ChangeMade, Object: c.machine, Message: "confirm guarded changes over a new connection"})
			return
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		c.errs = append(c.errs, err)
	})
}

// wait returns the errors when all confirmations have been given or have failed.
func (c *confirmations) wait() []error {
	c.running.Wait()
	return c.errs
}

// confirm proves that the machine can still be reached by a new connection, with
// a new login, and tells the machine so through it. When that fails the old state
// is put back: by the connection that is there if it still works, else by the
// machine itself.
func (f *Fleet) confirm(ctx context.Context, machine string, asked converger.Confirm) error {
	how, cause := f.newConnection(ctx, machine, "confirm", asked.ID)
	if cause == nil && how == converger.Confirmed {
		return nil
	}
	if cause == nil {
		cause = fmt.Errorf("the machine has not waited for it")
	} else {
		// Who has interrupted k3lab waits for this too: it is short.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanUp)
		defer cancel()
		how = f.revert(ctx, machine, asked.ID)
	}
	var known *fault.Error
	if errors.As(cause, &known) {
		cause = known.Err // its hint is not for this
	}
	switch how {
	case converger.Confirmed: // only the answer was lost
		return nil
	case converger.PutBack:
		return fault.New(fault.Unreachable, machine, "your address must be in admin_networks of terraform/vars/network.yaml; k3lab up",
			"after the change no new connection could be made, so the old state was put back: %w", cause)
	}
	return fault.New(fault.Unreachable, machine, "wait for that; your address must be in admin_networks of terraform/vars/network.yaml; k3lab up",
		"after the change no new connection could be made; the machine puts its old state back by itself within %d s: %w", asked.Seconds, cause)
}

func (f *Fleet) newConnection(ctx context.Context, machine, verb, id string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, confirmPatience)
	defer cancel()
	r, err := f.options.Dial(ctx, machine)
	if err != nil {
		return "", err
	}
	defer r.Close() //nolint:errcheck // what it was for is done
	return f.settle(ctx, r, machine, verb, id)
}

// revert returns how the guard ended; empty when the machine cannot be asked.
func (f *Fleet) revert(ctx context.Context, machine, id string) string {
	r, err := f.Runner(ctx, machine)
	if err != nil {
		return ""
	}
	how, err := f.settle(ctx, r, machine, "revert", id)
	if err != nil {
		return ""
	}
	return how
}

// settle ends a guard and returns how it ended.
func (f *Fleet) settle(ctx context.Context, r remote.Runner, name, verb, id string) (string, error) {
	m, err := f.machine(name)
	if err != nil {
		return "", err
	}
	binary, err := f.binary(ctx, r, m)
	if err != nil {
		return "", err
	}
	var out bytes.Buffer
	if err := r.Run(ctx, remote.Cmd{Args: []string{convergerDir + "/" + binary.SHA256, verb, id}, Root: true, Stdout: &out}); err != nil {
		return "", err
	}
	var outcome converger.GuardOutcome
	if err := json.Unmarshal(out.Bytes(), &outcome); err != nil {
		return "", fmt.Errorf("converger: %w", err)
	}
	return outcome.Outcome, nil
}
