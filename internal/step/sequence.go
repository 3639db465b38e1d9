package step

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/k3lab/k3lab/internal/report"
)

// Sequence is the steps of one operation in the order they are applied.
type Sequence []Step

// Plan is what a sequence would change: the changes of each step, by index.
type Plan [][]Change

// Changes returns all changes in the order of the steps.
func (p Plan) Changes() []Change {
	var all []Change
	for _, changes := range p {
		all = append(all, changes...)
	}
	return all
}

// Empty reports whether nothing would change.
func (p Plan) Empty() bool { return len(p.Changes()) == 0 }

// Plan plans all steps at once, because none of them changes anything. Every
// step runs to its end, so that all failures are known together.
func (s Sequence) Plan(ctx context.Context, r report.Reporter) (Plan, error) {
	plan, errs := make(Plan, len(s)), make([]error, len(s))
	var wait sync.WaitGroup
	for i, st := range s {
		wait.Go(func() {
			began := time.Now()
			changes, err := st.Plan(ctx, report.InStep(r, st.Title()))
			plan[i], errs[i] = changes, err
			r.Report(outcome(st, began, err, count(changes)))
		})
	}
	wait.Wait()
	return plan, errors.Join(errs...)
}

// Apply makes the planned changes, step after step, then verifies. It stops at
// the first step that fails; running the operation again goes on from there.
func (s Sequence) Apply(ctx context.Context, r report.Reporter, plan Plan) error {
	for i, st := range s {
		if len(plan[i]) == 0 {
			continue
		}
		if err := run(r, st, func(r report.Reporter) error {
			return st.Apply(ctx, writer{r}, plan[i])
		}); err != nil {
			return err
		}
	}
	for _, st := range s {
		v, ok := st.(Verifier)
		if !ok || v.Verified() {
			continue
		}
		if err := run(r, st, func(r report.Reporter) error { return v.Verify(ctx, r) }); err != nil {
			return err
		}
	}
	return nil
}

func run(r report.Reporter, st Step, f func(report.Reporter) error) error {
	r.Report(report.Event{Kind: report.StepStarted, Step: st.Title()})
	began := time.Now()
	err := f(report.InStep(r, st.Title()))
	r.Report(outcome(st, began, err, ""))
	return err
}

func outcome(st Step, began time.Time, err error, message string) report.Event {
	e := report.Event{Kind: report.StepDone, Step: st.Title(), Took: time.Since(began), Message: message}
	if err != nil {
		e.Kind, e.Message = report.StepFailed, err.Error()
	}
	return e
}

func count(changes []Change) string {
	switch len(changes) {
	case 0:
		return "no changes"
	case 1:
		return "1 change"
	default:
		return fmt.Sprintf("%d changes", len(changes))
	}
}

type writer struct{ report.Reporter }

func (writer) permission() {}
